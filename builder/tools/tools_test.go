package tools

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/builder/lock/archivetest"
	"github.com/semper-os/semper/fault"
)

// shelf is a store of a few packages.
type shelf struct {
	dir string
	l   *lock.Lock
}

func (s shelf) Path(p lock.Package) string { return filepath.Join(s.dir, p.SHA256) }

func newShelf(t *testing.T) *shelf {
	t.Helper()
	return &shelf{t.TempDir(), &lock.Lock{
		Architecture: "amd64",
		Releases:     []lock.Release{{Suite: "trixie", Date: time.Unix(1763200000, 0).UTC()}},
	}}
}

func (s *shelf) add(t *testing.T, name string, deb []byte) {
	t.Helper()
	p := lock.Package{Name: name, Groups: []lock.Group{lock.Tools}, SHA256: fmt.Sprintf("%x", sha256.Sum256(deb))}
	if err := os.WriteFile(s.Path(p), deb, 0o644); err != nil {
		t.Fatal(err)
	}
	s.l.Packages = append(s.l.Packages, p)
}

func deb(t *testing.T, name string, files map[string]string) []byte {
	t.Helper()
	return archivetest.Deb(t, "xz", "Package: "+name+"\nVersion: 1\nArchitecture: amd64\nMaintainer: N <n@example.org>\nDescription: x\n", files)
}

// loader stands for the dynamic loader, and says how it was called.
const loader = "#!/bin/sh\nprintf '%s\\n' \"$@\"\nenv | LC_ALL=C sort | grep -v ^_=\numask\n"

func TestUnpackAndRun(t *testing.T) {
	s := newShelf(t)
	s.add(t, "a", deb(t, "a", map[string]string{
		"lib64/ld-linux-x86-64.so.2": loader, // from the time before the merge
		"sbin/mkfs.x":                "program",
		"usr/bin/kmod":               "program",
		"usr/sbin/depmod":            "->../bin/kmod",
		"usr/share/data":             "data",
		"usr/share/outside":          "->/etc/passwd",
		"usr/share/inside":           "->data",
	}))
	cache := t.TempDir()
	old := syscall.Umask(0o077)
	defer syscall.Umask(old)
	tree, err := Unpack(t.Context(), cache, s, s.l)
	if err != nil {
		t.Fatal(err)
	}
	root := filepath.Join(cache, "tools", tree.Digest())
	for name, mode := range map[string]os.FileMode{"usr/sbin/mkfs.x": 0o755, "usr/share": os.ModeDir | 0o755, "": os.ModeDir | 0o755, "bin": os.ModeSymlink | 0o777} {
		info, err := os.Lstat(filepath.Join(root, name))
		if err != nil || info.Mode() != mode {
			t.Errorf("%s: %v, %v, want %v", name, info.Mode(), err, mode)
		}
	}
	for name, want := range map[string]string{
		"usr/share/data": "data", "usr/share/inside": "data", "/sbin/mkfs.x": "program", "usr/share/outside": "", "usr/share": "", "usr/share/none": "", "../../../etc/passwd": "",
	} {
		path, err := tree.Path(name)
		if want == "" {
			if !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "have no file "+name+": add the package that brings it to tools.packages") {
				t.Errorf("Path(%s) = %s, %v", name, path, err)
			}
			continue
		}
		if got, rerr := os.ReadFile(path); err != nil || string(got) != want {
			t.Errorf("Path(%s): %q, %v, %v", name, got, err, rerr)
		}
	}

	t.Setenv("LD_PRELOAD", "/nonexistent.so")
	t.Setenv("TZ", "Asia/Tokyo")
	cmd, err := tree.Command(t.Context(), "depmod", "-b", "a b", "$HOME")
	if err != nil {
		t.Fatal(err)
	}
	out, err := Run(cmd, "depmod")
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"--inhibit-cache", "--library-path", root + "/usr/lib/x86_64-linux-gnu:" + root + "/usr/lib", "--argv0", "depmod", root + "/usr/sbin/depmod", "-b", "a b", "$HOME",
		"HOME=/nonexistent", "LC_ALL=C.UTF-8", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PWD=" + mustGetwd(t), "SOURCE_DATE_EPOCH=1763200000", "TZ=UTC", "0022", "",
	}, "\n")
	if string(out) != want {
		t.Errorf("got\n%swant\n%s", out, want)
	}
	if _, err := tree.Command(t.Context(), "mksquashfs"); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "have no program mksquashfs") {
		t.Errorf("a program that is not there: %v", err)
	}

	again, err := Unpack(t.Context(), cache, shelf{dir: "/nonexistent"}, s.l)
	if err != nil || again.Digest() != tree.Digest() {
		t.Errorf("a second time: %v", err)
	}
}

func mustGetwd(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestRunFails(t *testing.T) {
	s := newShelf(t)
	s.add(t, "a", deb(t, "a", map[string]string{"lib64/ld-linux-x86-64.so.2": "#!/bin/sh\necho no such luck >&2\nexit 3\n", "bin/x": ""}))
	tree, err := Unpack(t.Context(), t.TempDir(), s, s.l)
	if err != nil {
		t.Fatal(err)
	}
	cmd, err := tree.Command(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Run(cmd, "x"); !fault.Is(err, fault.IO) || err.Error() != "x: exit status 3: no such luck" {
		t.Errorf("got %v", err)
	}
}

// Other packages are another tree; the order of unpacking is the lock's.
func TestDigest(t *testing.T) {
	a := lock.Package{Name: "a", SHA256: strings.Repeat("1", 64)}
	b := lock.Package{Name: "b", SHA256: strings.Repeat("2", 64)}
	seen := map[string]bool{}
	for _, list := range [][]lock.Package{nil, {a}, {b}, {a, b}} {
		seen[digest(list)] = true
	}
	if len(seen) != 4 {
		t.Errorf("%d digests for 4 lists", len(seen))
	}
}

func TestUnpackRefused(t *testing.T) {
	outside := t.TempDir()
	for _, c := range []struct {
		name string
		debs [][]byte
		kind fault.Kind
		want string
	}{
		{"through a link", [][]byte{
			deb(t, "a", map[string]string{"usr/x": "->" + outside}),
			deb(t, "b", map[string]string{"usr/x/evil": "evil"}),
		}, fault.IO, "unpack b: ./usr/x/"},
		{"through a relative link", [][]byte{
			deb(t, "a", map[string]string{"usr/x": "->../../../../../../../.." + outside}),
			deb(t, "b", map[string]string{"usr/x/evil": "evil"}),
		}, fault.IO, "unpack b: ./usr/x/"},
		{"no package", [][]byte{[]byte("junk")}, fault.Input, "dpkg-deb: error:"},
		{"cut off", [][]byte{deb(t, "a", map[string]string{"usr/x": strings.Repeat("x", 100000)})[:600]}, fault.Input, "dpkg-deb: error:"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newShelf(t)
			for i, d := range c.debs {
				s.add(t, string(rune('a'+i)), d)
			}
			cache := t.TempDir()
			_, err := Unpack(t.Context(), cache, s, s.l)
			if err == nil || !strings.HasPrefix(err.Error(), "tools tree: unpack ") || !strings.Contains(err.Error(), c.want) || !fault.Is(err, c.kind) {
				t.Errorf("got  %v (%s)\nwant %s (%s)", err, fault.KindOf(err), c.want, c.kind)
			}
			for _, dir := range []string{outside, filepath.Join(cache, "tools")} {
				if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
					t.Errorf("%v, %v in %s", left, err, dir)
				}
			}
		})
	}
	t.Run("not in the store", func(t *testing.T) {
		s := newShelf(t)
		s.l.Packages = []lock.Package{{Name: "a", Groups: []lock.Group{lock.Tools}, SHA256: strings.Repeat("0", 64)}}
		if _, err := Unpack(t.Context(), t.TempDir(), s, s.l); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "No such file or directory") {
			t.Errorf("got %v", err)
		}
	})
}

// Entries that dpkg-deb would not pack here, straight from a tar file.
func TestEntries(t *testing.T) {
	for _, c := range []struct {
		name    string
		entries []tar.Header
		want    string // the error; empty: fine
		check   func(t *testing.T, dir string)
	}{
		{name: "set-user-id is dropped", entries: []tar.Header{{Name: "./usr/bin/su", Typeflag: tar.TypeReg, Mode: 0o6755}}, check: func(t *testing.T, dir string) {
			if info, err := os.Stat(filepath.Join(dir, "usr/bin/su")); err != nil || info.Mode() != 0o755 {
				t.Errorf("%v, %v", info, err)
			}
		}},
		{name: "hard link", entries: []tar.Header{{Name: "./bin/a", Typeflag: tar.TypeReg, Mode: 0o755}, {Name: "./usr/bin/b", Typeflag: tar.TypeLink, Linkname: "./bin/a"}}, check: func(t *testing.T, dir string) {
			a, err := os.Stat(filepath.Join(dir, "usr/bin/a"))
			if err != nil {
				t.Fatal(err)
			}
			if b, err := os.Stat(filepath.Join(dir, "usr/bin/b")); err != nil || !os.SameFile(a, b) {
				t.Errorf("not the same file: %v", err)
			}
		}},
		{name: "upwards stays below", entries: []tar.Header{{Name: "../../x", Typeflag: tar.TypeReg, Mode: 0o644}}, check: func(t *testing.T, dir string) {
			if _, err := os.Stat(filepath.Join(dir, "x")); err != nil {
				t.Error(err)
			}
		}},
		{name: "a link in the way", entries: []tar.Header{
			{Name: "usr/l", Typeflag: tar.TypeSymlink, Linkname: "a"},
			{Name: "usr/l", Typeflag: tar.TypeSymlink, Linkname: "b"},
		}, check: func(t *testing.T, dir string) {
			if to, err := os.Readlink(filepath.Join(dir, "usr/l")); err != nil || to != "b" {
				t.Errorf("%s, %v", to, err)
			}
		}},
		{name: "hard link out", entries: []tar.Header{{Name: "usr/l", Typeflag: tar.TypeSymlink, Linkname: "/etc"}, {Name: "x", Typeflag: tar.TypeLink, Linkname: "usr/l/passwd"}}, want: "x: linkat"},
		{name: "device", entries: []tar.Header{{Name: "dev/sda", Typeflag: tar.TypeBlock}}, want: "dev/sda: it is a device or a pipe, which no tool needs"},
		{name: "pipe", entries: []tar.Header{{Name: "run/p", Typeflag: tar.TypeFifo}}, want: "run/p: it is a device or a pipe, which no tool needs"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var b bytes.Buffer
			w := tar.NewWriter(&b)
			for _, h := range c.entries {
				if err := w.WriteHeader(&h); err != nil {
					t.Fatal(err)
				}
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			root, err := os.OpenRoot(dir)
			if err != nil {
				t.Fatal(err)
			}
			defer root.Close()
			u := unpacker{root: root}
			if err := u.merge(); err != nil {
				t.Fatal(err)
			}
			err = u.tar(&b)
			switch {
			case c.want == "" && err != nil:
				t.Error(err)
			case c.want != "" && (err == nil || !strings.HasPrefix(err.Error(), c.want)):
				t.Errorf("got %v, want %s", err, c.want)
			case c.check != nil:
				c.check(t, dir)
			}
		})
	}
}

// What an interrupted build left is taken away, and builds at the same time share one tree.
func TestInterruptedAndConcurrent(t *testing.T) {
	s := newShelf(t)
	s.add(t, "a", deb(t, "a", map[string]string{"usr/share/data": "data"}))
	cache := t.TempDir()
	stale := filepath.Join(cache, "tools", ".partial", "usr", "share", "stale")
	if err := os.MkdirAll(stale, 0o755); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Unpack(ctx, cache, s, s.l); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			tree, err := Unpack(t.Context(), cache, s, s.l)
			if err == nil {
				_, err = tree.Path("usr/share/data")
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	left, err := os.ReadDir(filepath.Join(cache, "tools"))
	if err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
}

func TestCheckHost(t *testing.T) {
	list := []HostTool{{"mmdebstrap", "mmdebstrap"}, {"dpkg", "dpkg"}, {"dpkg-deb", "dpkg"}, {lock.Keyring, "debian-archive-keyring"}}
	for _, c := range []struct {
		have string
		list []HostTool
		want string
	}{
		{"mmdebstrap dpkg dpkg-deb " + lock.Keyring, list, ""},
		{"dpkg dpkg-deb " + lock.Keyring, list, "this machine lacks mmdebstrap: apt-get install mmdebstrap"},
		{"mmdebstrap", list, "this machine lacks dpkg, dpkg-deb, " + lock.Keyring + ": apt-get install dpkg debian-archive-keyring"},
		{"mmdebstrap dpkg dpkg-deb", WithoutKeyring(list), ""},
	} {
		has := func(name string) error {
			for _, h := range strings.Fields(c.have) {
				if h == name {
					return nil
				}
			}
			return os.ErrNotExist
		}
		err := checkHost(c.list, func(name string) (string, error) { return name, has(name) }, func(name string) (os.FileInfo, error) { return nil, has(name) })
		if got := fmt.Sprint(err); c.want == "" && err != nil || c.want != "" && (got != c.want || !fault.Is(err, fault.Input)) {
			t.Errorf("with %q: got %v, want %s", c.have, err, c.want)
		}
	}
	if err := CheckHost([]HostTool{{"sh", "dash"}, {"/bin/sh", "dash"}}); err != nil {
		t.Errorf("this machine has a shell: %v", err)
	}
}
