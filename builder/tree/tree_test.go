package tree

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
)

var epoch = time.Unix(1700000000, 0)

// sample is a tar as mmdebstrap makes them: "./" names, links of both kinds, a device, an extended attribute.
func sample(t testing.TB) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	for _, h := range []struct {
		tar.Header
		data string
	}{
		{tar.Header{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeDir, Name: "./usr/", Mode: 0o755}, ""},
		{tar.Header{Typeflag: tar.TypeReg, Name: "./usr/b", Mode: 0o4755, Uid: 3, Gid: 4}, "bytes of b"},
		{tar.Header{Typeflag: tar.TypeLink, Name: "./usr/a", Linkname: "./usr/b"}, ""},
		{tar.Header{Typeflag: tar.TypeSymlink, Name: "./bin", Linkname: "usr/bin", Mode: 0o777}, ""},
		{tar.Header{Typeflag: tar.TypeChar, Name: "./dev/null", Mode: 0o666, Devmajor: 1, Devminor: 3}, ""},
		{tar.Header{
			Typeflag: tar.TypeReg, Name: "./usr/ping", Mode: 0o755, Format: tar.FormatPAX,
			PAXRecords: map[string]string{"SCHILY.xattr.security.capability": "\x01\x00\x00\x02"},
		}, "ping"},
	} {
		h.Size, h.ModTime = int64(len(h.data)), time.Unix(1, 0)
		if err := w.WriteHeader(&h.Header); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, h.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

func read(t testing.TB, b []byte) *Tree {
	t.Helper()
	tr, err := ReadTar(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestTarRoundTrip(t *testing.T) {
	tr := read(t, sample(t))
	want := []string{".", "bin", "dev", "dev/null", "usr", "usr/a", "usr/b", "usr/ping"}
	if got := tr.Paths(); !reflect.DeepEqual(got, want) {
		t.Fatalf("paths %v, want %v", got, want)
	}
	if tr.Lookup("usr/a") != tr.Lookup("usr/b") {
		t.Error("a hard link is the same inode")
	}
	if b, err := tr.ReadFile("usr/a"); err != nil || string(b) != "bytes of b" {
		t.Errorf("content %q, %v", b, err)
	}
	var first, second bytes.Buffer
	if err := tr.WriteTar(&first, epoch); err != nil {
		t.Fatal(err)
	}
	again := read(t, first.Bytes())
	if err := again.WriteTar(&second, epoch); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) {
		t.Error("reading and writing again changes bytes")
	}
	if n := again.Lookup("usr/b"); n.Mode != 0o4755 || n.UID != 3 || n.GID != 4 {
		t.Errorf("usr/b lost its owner or mode: %+v", n)
	}
	if n := again.Lookup("dev/null"); n.Type != CharDevice || n.Major != 1 || n.Minor != 3 {
		t.Errorf("dev/null: %+v", n)
	}
	if got := again.Lookup("usr/ping").Xattrs["security.capability"]; got != "\x01\x00\x00\x02" {
		t.Errorf("capability %q", got)
	}
}

// TestTarIsWhatGNUTarReads lets GNU tar list what we wrote.
func TestTarIsWhatGNUTarReads(t *testing.T) {
	var buf bytes.Buffer
	if err := read(t, sample(t)).WriteTar(&buf, epoch); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "--utc", "--numeric-owner", "-tvf", "-")
	cmd.Stdin = &buf
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	for _, want := range []string{"-rwsr-xr-x 3/4", "usr/b link to usr/a", "bin -> usr/bin", "crw-rw-rw- 0/0"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("tar does not list %q:\n%s", want, out)
		}
	}
	if strings.Count(string(out), "2023-11-14 22:13") != 8 {
		t.Errorf("not every time stamp is the epoch:\n%s", out)
	}
}

func TestPut(t *testing.T) {
	tr := New()
	for _, c := range []struct{ path, why string }{
		{"/abs", "absolute"},
		{"a/../b", "not clean"},
		{"", "empty"},
		{"..", "outside"},
		{"../x", "outside"},
		{"a//b", "not clean"},
		{"x\x00y", "NUL"},
		{strings.Repeat("a", 5000), "too long"},
	} {
		if err := tr.PutFile(c.path, 0o644, nil); !fault.Is(err, fault.Input) {
			t.Errorf("%s path accepted: %v", c.why, err)
		}
	}
	if err := tr.PutFile("a/b/c", 0o644, []byte("x")); err != nil {
		t.Fatal(err)
	}
	if n := tr.Lookup("a/b"); n == nil || n.Type != Directory || n.Mode != 0o755 {
		t.Error("parents were not made")
	}
	if err := tr.PutFile("a/b/c/d", 0o644, nil); !fault.Is(err, fault.Input) {
		t.Errorf("a file became a directory: %v", err)
	}
	if err := tr.PutSymlink("a/b", "/elsewhere"); err != nil {
		t.Fatal(err)
	}
	if tr.Lookup("a/b/c") != nil {
		t.Error("a link replaced a directory and kept its children")
	}
	if n := tr.Remove("a"); n != 2 {
		t.Errorf("removed %d paths, want 2", n)
	}
	if _, err := tr.ReadFile("a/b"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("reading what is not there: %v", err)
	}
}

func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"etc/plain": 0o600, "usr/bin/run": 0o700} {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte("new"), mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("run", filepath.Join(dir, "usr/bin/alias")); err != nil {
		t.Fatal(err)
	}
	tr := New()
	if err := tr.Put("etc", &Inode{Type: Directory, Mode: 0o750, GID: 7}); err != nil {
		t.Fatal(err)
	}
	if err := tr.PutFile("etc/plain", 0o600, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := tr.Overlay(dir); err != nil {
		t.Fatal(err)
	}
	for p, mode := range map[string]uint32{"etc": 0o750, "etc/plain": 0o644, "usr/bin": 0o755, "usr/bin/run": 0o755, "usr/bin/alias": 0o777} {
		if n := tr.Lookup(p); n == nil || n.Mode != mode {
			t.Errorf("%s: %+v, want mode %o", p, n, mode)
		}
	}
	if b, _ := tr.ReadFile("etc/plain"); string(b) != "new" {
		t.Errorf("etc/plain holds %q", b)
	}
	if err := tr.Overlay(filepath.Join(dir, "missing")); !fault.Is(err, fault.Input) {
		t.Errorf("a missing overlay: %v", err)
	}
}

func FuzzReadTar(f *testing.F) {
	f.Add(sample(f))
	f.Fuzz(func(t *testing.T, b []byte) {
		tr, err := ReadTar(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, p := range tr.Paths() {
			if p != "." && checkPath(p) != nil {
				t.Errorf("path %q came through", p)
			}
		}
	})
}
