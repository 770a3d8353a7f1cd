package blobs

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/blobs/s3test"
)

var s3 *s3test.Server

func TestMain(m *testing.M) {
	code, err := runTests(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func runTests(m *testing.M) (code int, err error) {
	ctx := context.Background()
	if s3, err = s3test.New(ctx); err != nil {
		return 1, err
	}
	defer func() { err = errors.Join(err, s3.Stop()) }()
	if err := errors.Join(s3.MakeBucket("payloads-test"), s3.Start(ctx)); err != nil {
		return 1, err
	}
	for name, value := range map[string]string{"AWS_ACCESS_KEY_ID": s3test.AccessKey, "AWS_SECRET_ACCESS_KEY": s3test.SecretKey} {
		if err := os.Setenv(name, value); err != nil {
			return 1, err
		}
	}
	return m.Run(), nil
}

func at(t *testing.T) Location {
	return Location{Bucket: "s3://payloads-test/" + strings.ReplaceAll(t.Name(), "/", "-"), Endpoint: s3.Endpoint}
}

func openBucket(t *testing.T) *Bucket {
	t.Helper()
	b, err := OpenBucket(t.Context(), at(t), t.TempDir(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// onDisk is where the S3 server has a file.
func onDisk(t *testing.T, s Sum) string {
	bucket, prefix, err := at(t).parse()
	if err != nil {
		t.Fatal(err)
	}
	return s3.Path(filepath.Join(bucket, prefix, "payloads", s.String(), "full.crau"))
}

// TestStores has the same done with a folder and with a bucket.
func TestStores(t *testing.T) {
	for name, open := range map[string]func(*testing.T) Store{
		"folder": func(t *testing.T) Store { return open(t, t.TempDir()) },
		"bucket": func(t *testing.T) Store { return openBucket(t) },
	} {
		t.Run(name, func(t *testing.T) {
			ctx, f := t.Context(), open(t)
			sum, size := Sum(sha256.Sum256(content)), int64(len(content))
			check := func(step string, n int64, complete bool) {
				t.Helper()
				if got, whole, err := f.Size(ctx, sum); err != nil || got != n || whole != complete {
					t.Errorf("%s: %d bytes, complete %v (%v)", step, got, whole, err)
				}
			}
			check("before", 0, false)
			if _, err := f.File(ctx, sum, size); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a file that is not there: %v", err)
			}
			half := size / 2
			broken := io.MultiReader(bytes.NewReader(content[:half]), iotest.ErrReader(errors.New("connection reset")))
			if _, err := f.Append(ctx, sum, size, 0, broken); !fault.Is(err, fault.Network) {
				t.Errorf("a broken upload: %v", err)
			}
			check("half", half, false)
			if _, err := f.File(ctx, sum, size); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("half a file is visible: %v", err)
			}
			got, err := f.Append(ctx, sum, size, half, bytes.NewReader(content[half:]))
			if err != nil || got != sha1.Sum(content) {
				t.Fatalf("SHA-1 %x (%v)", got, err)
			}
			check("whole", size, true)
			if again, err := f.Append(ctx, sum, size, 0, iotest.ErrReader(errors.New("must not be read"))); err != nil || again != got {
				t.Errorf("once more: %x (%v)", again, err)
			}
			if _, err := f.Append(ctx, sum, size+1, 0, nil); !fault.Is(err, fault.Input) {
				t.Errorf("with another size: %v", err)
			}
			file, err := f.File(ctx, sum, size)
			if err != nil {
				t.Fatal(err)
			}
			defer file.Close()
			if data, err := io.ReadAll(file); err != nil || !bytes.Equal(data, content) {
				t.Errorf("%d bytes (%v)", len(data), err)
			}
			for _, from := range []int64{size - 3, 5, half, size, 0} {
				if n, err := file.Seek(from, io.SeekStart); err != nil || n != from {
					t.Errorf("seek to %d: %d (%v)", from, n, err)
				}
				data, err := io.ReadAll(io.LimitReader(file, 1000))
				if err != nil || !bytes.Equal(data, content[from:min(from+1000, size)]) {
					t.Errorf("from %d: %d bytes (%v)", from, len(data), err)
				}
			}
			if n, err := file.Seek(0, io.SeekEnd); err != nil || n != size {
				t.Errorf("the end is at %d (%v)", n, err)
			}
			if _, err := f.File(ctx, sum, size+1); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), fmt.Sprintf("has %d bytes instead of %d", size, size+1)) {
				t.Errorf("a file of another size: %v", err)
			}
			wrong := sum
			wrong[0] ^= 1
			if _, err := f.Append(ctx, wrong, size, 0, bytes.NewReader(content)); !errors.Is(err, ErrHash) {
				t.Errorf("a file with another hash: %v", err)
			}
			if n, _, err := f.Size(ctx, wrong); err != nil || n != 0 {
				t.Errorf("it left %d bytes (%v)", n, err)
			}
		})
	}
}

// TestLargeObject is one that goes in several parts.
func TestLargeObject(t *testing.T) {
	b := openBucket(t)
	data := make([]byte, partSize*2+12345)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	sum := Sum(sha256.Sum256(data))
	if _, err := b.Append(t.Context(), sum, int64(len(data)), 0, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	if kept, err := os.ReadFile(onDisk(t, sum)); err != nil || !bytes.Equal(kept, data) {
		t.Errorf("the object has %d bytes (%v)", len(kept), err)
	}
	if n, _, err := b.incoming.Size(t.Context(), sum); err != nil || n != 0 {
		t.Errorf("%d bytes are left here (%v)", n, err)
	}
}

// TestKilledWhileSending ends the store while a file goes there: nothing is to be seen of it, and the next upload sends nothing anew.
func TestKilledWhileSending(t *testing.T) {
	b := openBucket(t)
	data := make([]byte, 8*partSize)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	sum, size := Sum(sha256.Sum256(data)), int64(len(data))
	var group sync.WaitGroup
	group.Go(func() {
		// Once the file is here, it is on its way there.
		for range 2000 {
			if n, whole, _ := b.incoming.Size(t.Context(), sum); whole && n == size {
				break
			}
			time.Sleep(5 * time.Millisecond)
		}
		if err := s3.Kill(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, err := b.Append(ctx, sum, size, 0, bytes.NewReader(data))
	group.Wait()
	if !fault.Is(err, fault.IO) {
		t.Errorf("the upload ends with %v", err)
	}
	if _, err := os.Stat(onDisk(t, sum)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an object is there: %v", err)
	}
	if err := s3.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n, whole, err := b.Size(t.Context(), sum); err != nil || !whole || n != size {
		t.Errorf("%d bytes, complete %v (%v): they have arrived here", n, whole, err)
	}
	if _, err := b.File(t.Context(), sum, size); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it can be read: %v", err)
	}
	if _, err := b.Append(t.Context(), sum, size, 0, iotest.ErrReader(errors.New("must not be read"))); err != nil {
		t.Errorf("the next upload: %v", err)
	}
	if kept, err := os.ReadFile(onDisk(t, sum)); err != nil || !bytes.Equal(kept, data) {
		t.Errorf("the object has %d bytes (%v)", len(kept), err)
	}
}

// TestKilledWhileReading ends the store while a file is read, once for good and once for a moment.
func TestKilledWhileReading(t *testing.T) {
	b := openBucket(t)
	data := make([]byte, 2*partSize)
	if _, err := rand.Read(data); err != nil {
		t.Fatal(err)
	}
	sum, size := Sum(sha256.Sum256(data)), int64(len(data))
	if _, err := b.Append(t.Context(), sum, size, 0, bytes.NewReader(data)); err != nil {
		t.Fatal(err)
	}
	for _, back := range []bool{true, false} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		file, err := b.File(ctx, sum, size)
		if err != nil {
			t.Fatal(err)
		}
		begin := make([]byte, 1000)
		if _, err := io.ReadFull(file, begin); err != nil {
			t.Fatal(err)
		}
		if err := s3.Kill(); err != nil {
			t.Fatal(err)
		}
		if back {
			if err := s3.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		rest, err := io.ReadAll(file)
		if whole := err == nil && bytes.Equal(append(begin, rest...), data); whole != back || !back && !fault.Is(err, fault.IO) {
			t.Errorf("back %v: %d bytes (%v)", back, len(rest), err)
		}
		cancel()
	}
	if err := s3.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

func TestDamagedObject(t *testing.T) {
	b := openBucket(t)
	sum, size := Sum(sha256.Sum256(content)), int64(len(content))
	if _, err := b.Append(t.Context(), sum, size, 0, bytes.NewReader(content)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(onDisk(t, sum), bytes.ToUpper(content), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Append(t.Context(), sum, size, 0, nil); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "is damaged in the bucket") {
		t.Errorf("error %v", err)
	}
	if err := os.Truncate(onDisk(t, sum), size-1); err != nil {
		t.Fatal(err)
	}
	if _, err := b.File(t.Context(), sum, size); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "bytes instead of") {
		t.Errorf("a shorter object: %v", err)
	}
}

func TestBucketRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credentials")
	if err := os.WriteFile(file, []byte("[default]\naws_access_key_id = a\naws_secret_access_key = b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	good := at(t)
	for _, c := range []struct {
		name string
		at   Location
		env  map[string]string
		kind fault.Kind
		want string
	}{
		{"no bucket", Location{Bucket: "s3://not-there", Endpoint: s3.Endpoint}, nil, fault.Input, "there is no such bucket: make it first"},
		{"no such scheme", Location{Bucket: "gs://x"}, nil, fault.Usage, "want s3://BUCKET"},
		{"no name", Location{Bucket: "s3:///x"}, nil, fault.Usage, "want s3://BUCKET"},
		{"bad endpoint", Location{Bucket: good.Bucket, Endpoint: "127.0.0.1:1"}, nil, fault.Usage, "want a URL such as"},
		{"wrong secret", good, map[string]string{"AWS_SECRET_ACCESS_KEY": "wrong-secret"}, fault.Input, "the credentials are refused"},
		{"wrong key", good, map[string]string{"AWS_ACCESS_KEY_ID": "nobody"}, fault.IO, "No user exists with the provided access key ID"},
		{"a file of secrets for all", good, map[string]string{"AWS_SHARED_CREDENTIALS_FILE": file}, fault.Input, "can be read by others (mode 0644): chmod 600 it"},
		{"nobody answers", Location{Bucket: good.Bucket, Endpoint: "http://127.0.0.1:1"}, nil, fault.IO, "connection refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for name, value := range c.env {
				t.Setenv(name, value)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := OpenBucket(ctx, c.at, t.TempDir(), time.Now())
			if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v (kind %v), want one with %q", err, fault.KindOf(err), c.want)
			}
		})
	}
}

func TestTooManyParts(t *testing.T) {
	dir := t.TempDir()
	f := open(t, dir)
	begin := func(i int) error {
		data := fmt.Appendf(nil, "file %d", i)
		_, err := f.Append(t.Context(), sha256.Sum256(data), int64(len(data)), 0, iotest.ErrReader(errors.New("connection reset")))
		return err
	}
	for i := range MaxParts {
		if err := begin(i); !fault.Is(err, fault.Network) {
			t.Fatal(err)
		}
	}
	if err := begin(MaxParts); !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "64 uploads have not come to their end") {
		t.Errorf("one more: %v", err)
	}
	if err := begin(3); !fault.Is(err, fault.Network) {
		t.Errorf("one that goes on: %v", err)
	}
	old := f.part(sha256.Sum256([]byte("file 7")))
	then := time.Now().Add(-25 * time.Hour)
	if err := os.Chtimes(old, then, then); err != nil {
		t.Fatal(err)
	}
	if err := begin(MaxParts); !fault.Is(err, fault.Network) {
		t.Errorf("in place of an old one: %v", err)
	}
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the old one is still there (%v)", err)
	}
}
