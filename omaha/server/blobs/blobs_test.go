package blobs

import (
	"bytes"
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/semper-os/semper/fault"
)

var content = bytes.Repeat([]byte("payload "), 100_000)

func open(t *testing.T, dir string) *Folder {
	t.Helper()
	f, err := Open(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func state(t *testing.T, f *Folder, s Sum) (int64, bool) {
	t.Helper()
	size, complete, err := f.Size(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return size, complete
}

func TestAppend(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	sum, size := Sum(sha256.Sum256(content)), int64(len(content))
	got, err := f.Append(t.Context(), sum, size, 0, bytes.NewReader(content))
	if err != nil || got != sha1.Sum(content) {
		t.Fatalf("SHA-1 %x (%v), want %x", got, err, sha1.Sum(content))
	}
	if n, complete := state(t, f, sum); n != size || !complete {
		t.Errorf("%d bytes, complete %v", n, complete)
	}
	data, err := os.ReadFile(filepath.Join(dir, sum.String()[:2], sum.String()))
	if err != nil || !bytes.Equal(data, content) {
		t.Errorf("the file differs (%v)", err)
	}
	if parts, _ := os.ReadDir(filepath.Join(dir, "incoming")); len(parts) != 0 {
		t.Errorf("left behind: %v", parts)
	}
	again, err := f.Append(t.Context(), sum, size, 0, iotest.ErrReader(errors.New("must not be read")))
	if err != nil || again != got {
		t.Errorf("the same file again: %x (%v)", again, err)
	}
	if _, err := f.Append(t.Context(), sum, size+1, 0, nil); !fault.Is(err, fault.Input) {
		t.Errorf("the same file with another size: %v", err)
	}
}

func TestInterruptedUploadGoesOn(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	sum, size := Sum(sha256.Sum256(content)), int64(len(content))
	half := size / 2
	broken := io.MultiReader(bytes.NewReader(content[:half]), iotest.ErrReader(errors.New("connection reset")))
	if _, err := f.Append(t.Context(), sum, size, 0, broken); !fault.Is(err, fault.Network) || !strings.Contains(err.Error(), "connection reset") {
		t.Fatalf("error %v", err)
	}
	if _, err := f.File(t.Context(), sum, size); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("half a file is visible: %v", err)
	}
	f = open(t, dir) // the server was started anew
	if n, complete := state(t, f, sum); n != half || complete {
		t.Fatalf("%d bytes, complete %v; want %d, false", n, complete, half)
	}
	if _, err := f.Append(t.Context(), sum, size, 0, bytes.NewReader(content)); !errors.Is(err, ErrOffset) {
		t.Errorf("from the start again: %v", err)
	}
	got, err := f.Append(t.Context(), sum, size, half, bytes.NewReader(content[half:]))
	if err != nil || got != sha1.Sum(content) {
		t.Errorf("SHA-1 %x (%v)", got, err)
	}
}

func TestRefusedUploads(t *testing.T) {
	f := open(t, t.TempDir())
	sum, size := Sum(sha256.Sum256(content)), int64(len(content))
	wrong := bytes.Clone(content)
	wrong[size-1] ^= 1
	if _, err := f.Append(t.Context(), sum, size, 0, bytes.NewReader(wrong)); !errors.Is(err, ErrHash) || !fault.Is(err, fault.Verification) {
		t.Errorf("wrong content: %v", err)
	}
	if n, complete := state(t, f, sum); n != 0 || complete {
		t.Errorf("after a wrong hash %d bytes are left", n)
	}
	if _, err := f.Append(t.Context(), sum, size, 0, bytes.NewReader(content[:5])); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("too short: %v", err)
	}
	for _, n := range []int64{0, -1, MaxSize + 1} {
		if _, err := f.Append(t.Context(), sum, n, 0, bytes.NewReader(content)); !fault.Is(err, fault.Input) {
			t.Errorf("size %d: %v", n, err)
		}
	}
	if err := f.room(1 << 60); !errors.Is(err, ErrFull) {
		t.Errorf("an upload larger than the disk: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Append(ctx, sum, size, 5, bytes.NewReader(content[5:])); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOneUploadOfAFileAtATime(t *testing.T) {
	f := open(t, t.TempDir())
	sum, size := Sum(sha256.Sum256(content)), int64(len(content))
	r, w := io.Pipe()
	first := make(chan error)
	go func() {
		_, err := f.Append(context.Background(), sum, size, 0, r)
		first <- err
	}()
	if _, err := w.Write(content[:10]); err != nil { // returns once the upload has begun
		t.Fatal(err)
	}
	if _, err := f.Append(t.Context(), sum, size, 0, bytes.NewReader(content)); !errors.Is(err, ErrBusy) {
		t.Errorf("error %v", err)
	}
	if _, err := w.Write(content[10:]); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Error(err)
	}
}

func TestOldPartsAreRemoved(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	sum := Sum(sha256.Sum256(content))
	_, _ = f.Append(t.Context(), sum, int64(len(content)), 0, bytes.NewReader(content[:10]))
	if _, err := Open(dir, time.Now().Add(KeepParts-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n, _ := state(t, f, sum); n != 10 {
		t.Errorf("a young part was removed")
	}
	if _, err := Open(dir, time.Now().Add(KeepParts+time.Hour)); err != nil {
		t.Fatal(err)
	}
	if n, _ := state(t, f, sum); n != 0 {
		t.Errorf("an old part was kept")
	}
}

func TestParseSum(t *testing.T) {
	good := strings.Repeat("0a", 32)
	if s, err := ParseSum(good); err != nil || s.String() != good {
		t.Errorf("%s (%v)", s, err)
	}
	for _, bad := range []string{"", good[:62], good + "00", strings.ToUpper(good), "../" + good[3:], strings.Repeat("zz", 32)} {
		if _, err := ParseSum(bad); !fault.Is(err, fault.Input) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
