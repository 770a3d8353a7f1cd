package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
)

func open(t *testing.T) (*Dir, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a", "b")
	d, err := MakeDir(path, 0o700)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d, path
}

func TestWriteAndRead(t *testing.T) {
	d, path := open(t)
	type state struct{ A, B int }
	var got state
	if ok, err := ReadJSON(d, "s.json", &got); ok || err != nil {
		t.Fatalf("missing file: %v, %v", ok, err)
	}
	for _, want := range []state{{1, 2}, {3, 4}} {
		if err := WriteJSON(d, "s.json", want); err != nil {
			t.Fatal(err)
		}
		if ok, err := ReadJSON(d, "s.json", &got); !ok || err != nil || got != want {
			t.Fatalf("got %+v, %v, %v; want %+v", got, ok, err, want)
		}
	}
	names, err := d.Names()
	if err != nil || !reflect.DeepEqual(names, []string{"s.json"}) {
		t.Errorf("names %q, %v", names, err)
	}
	info, err := os.Stat(filepath.Join(path, "s.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if free, err := d.Free(); err != nil || free <= 0 {
		t.Errorf("free %d, %v", free, err)
	}
}

func TestAt(t *testing.T) {
	_, path := open(t)
	f := At(path)
	if err := Write(f, "x", []byte("1")); err != nil {
		t.Fatal(err)
	}
	e, err := f.Edit("x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.WriteAt([]byte("2"), 0); err != nil {
		t.Fatal(err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(f, "x", 10); err != nil || string(got) != "2" {
		t.Errorf("content %q, %v", got, err)
	}
	if free, err := f.Free(); err != nil || free <= 0 {
		t.Errorf("free %d, %v", free, err)
	}
	if err := f.Remove("x"); err != nil {
		t.Error(err)
	}
	if names, err := f.Names(); err != nil || len(names) != 0 {
		t.Errorf("names %q, %v", names, err)
	}
	if _, err := At(path + "/missing").Names(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
}

func TestReadLimits(t *testing.T) {
	d, path := open(t)
	if err := os.WriteFile(filepath.Join(path, "x"), []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := Read(d, "x", 5); err != nil || string(got) != "12345" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Read(d, "x", 4); !fault.Is(err, fault.Input) {
		t.Errorf("too long: %v", err)
	}
	if _, err := Read(d, "y", 4); !errors.Is(err, fs.ErrNotExist) || !fault.Is(err, fault.IO) {
		t.Errorf("missing: %v", err)
	}
	if ok, err := ReadJSON(d, "x", &struct{}{}); ok || !fault.Is(err, fault.Input) {
		t.Errorf("not an object: %v, %v", ok, err)
	}
}

func TestNamesStayInside(t *testing.T) {
	d, path := open(t)
	outside := filepath.Join(path, "..", "outside")
	if err := os.WriteFile(outside, []byte("keep"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("../outside", filepath.Join(path, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", ".", "..", "../outside", "/etc/passwd", "a/b", "link"} {
		if f, err := d.Edit(name); err == nil {
			f.Close()
			t.Errorf("Edit(%q) worked", name)
		}
		if f, err := d.Create(name); err == nil {
			f.Close()
			t.Errorf("Create(%q) worked", name)
		}
	}
	if err := d.Rename("link", "../x"); err == nil {
		t.Error("rename out of the folder worked")
	}
	if err := d.Remove("../outside"); err == nil {
		t.Error("remove outside the folder worked")
	}
	if data, err := os.ReadFile(outside); err != nil || string(data) != "keep" {
		t.Errorf("file outside: %q, %v", data, err)
	}
	if names, err := d.Names(); err != nil || len(names) != 0 {
		t.Errorf("names %q, %v (a symbolic link is not a regular file)", names, err)
	}
}

// failing is a Folder whose files cannot be synced or whose renames fail, to see that the old content stays.
type failing struct {
	*Dir
	noSync, noRename bool
}

type failingFile struct{ File }

func (failingFile) Sync() error { return errors.New("no space left on device") }

func (f failing) Create(name string) (File, error) {
	file, err := f.Dir.Create(name)
	if f.noSync && err == nil {
		return failingFile{file}, nil
	}
	return file, err
}

func (f failing) Rename(o, n string) error {
	if f.noRename {
		return errors.New("read-only file system")
	}
	return f.Dir.Rename(o, n)
}

func TestFailedWriteKeepsOldContent(t *testing.T) {
	d, _ := open(t)
	if err := Write(d, "x", []byte("old")); err != nil {
		t.Fatal(err)
	}
	for _, f := range []failing{{d, true, false}, {d, false, true}} {
		err := Write(f, "x", []byte("new"))
		if !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "write x: ") {
			t.Errorf("error %v", err)
		}
		if got, err := Read(d, "x", 10); err != nil || string(got) != "old" {
			t.Errorf("content %q, %v", got, err)
		}
		if names, _ := d.Names(); !reflect.DeepEqual(names, []string{"x"}) {
			t.Errorf("left behind: %q", names)
		}
	}
}
