package etcdiff_test

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/updater/etcdiff"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A real overlay of the kernel's: what a machine does in /etc, and what is then in its layer.
func TestCompare(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("an overlay is mounted: run this test as root")
	}
	// overlayfs does not take a folder that is itself an overlay as its upper layer; a tmpfs always is one.
	base := t.TempDir()
	must(t, unix.Mount("tmpfs", base, "tmpfs", 0, ""))
	t.Cleanup(func() { _ = unix.Unmount(base, unix.MNT_DETACH) })
	lower, upper, work, etc := filepath.Join(base, "lower"), filepath.Join(base, "upper"), filepath.Join(base, "work"), filepath.Join(base, "etc")
	for _, d := range []string{"ssh/conf.d", "net", "gone", "mixed", "touched"} {
		must(t, os.MkdirAll(filepath.Join(lower, d), 0o755))
	}
	for name, text := range map[string]string{
		"hosts": "a", "passwd": "root", "same": "same", "ssh/sshd_config": "PermitRootLogin no", "gone/x": "x", "mixed/a": "a", "mixed/b": "b", "kind": "file", "touched/f": "f",
	} {
		must(t, os.WriteFile(filepath.Join(lower, name), []byte(text), 0o644))
	}
	must(t, os.Symlink("/usr/share/zoneinfo/UTC", filepath.Join(lower, "localtime")))
	for _, d := range []string{upper, work, etc} {
		must(t, os.Mkdir(d, 0o755))
	}
	must(t, unix.Mount("overlay", etc, "overlay", 0, "lowerdir="+lower+",upperdir="+upper+",workdir="+work))
	t.Cleanup(func() { _ = unix.Unmount(etc, unix.MNT_DETACH) })
	in := func(name string) string { return filepath.Join(etc, name) }

	changes, err := etcdiff.Compare(upper, lower)
	must(t, err)
	if len(changes) != 0 {
		t.Errorf("an untouched overlay: %+v", changes)
	}

	must(t, os.WriteFile(in("hosts"), []byte("b"), 0o644))
	must(t, os.Chmod(in("passwd"), 0o600))
	must(t, os.WriteFile(in("same"), []byte("same"), 0o644))
	must(t, os.WriteFile(in("ssh/sshd_config"), []byte("PermitRootLogin yes"), 0o644))
	must(t, os.Chown(in("ssh/sshd_config"), 7, 8))
	must(t, os.WriteFile(in("ssh/conf.d/10-mine"), nil, 0o644))
	must(t, os.RemoveAll(in("gone")))
	must(t, os.RemoveAll(in("mixed")))
	must(t, os.Mkdir(in("mixed"), 0o755))
	must(t, os.WriteFile(in("mixed/a"), []byte("new"), 0o644))
	must(t, os.Remove(in("kind")))
	must(t, os.Symlink("elsewhere", in("kind")))
	must(t, os.Remove(in("localtime")))
	must(t, os.Symlink("/usr/share/zoneinfo/Europe/Berlin", in("localtime")))
	must(t, os.MkdirAll(in("new/deep"), 0o755))
	must(t, os.WriteFile(in("new/deep/f"), nil, 0o644))
	must(t, os.Chmod(in("net"), 0o700))
	f, err := os.OpenFile(in("touched/f"), os.O_RDWR, 0) // copied up, not changed
	must(t, err)
	must(t, f.Close())
	must(t, os.WriteFile(in("made"), nil, 0o644))
	must(t, os.Remove(in("made")))

	changes, err = etcdiff.Compare(upper, lower)
	must(t, err)
	want := []etcdiff.Change{
		{Path: "gone", Kind: etcdiff.Removed},
		{Path: "hosts", Kind: etcdiff.Changed, How: []string{"content"}},
		{Path: "kind", Kind: etcdiff.Changed, How: []string{"file to link"}},
		{Path: "localtime", Kind: etcdiff.Changed, How: []string{"content"}},
		{Path: "mixed/a", Kind: etcdiff.Changed, How: []string{"content"}},
		{Path: "mixed/b", Kind: etcdiff.Removed},
		{Path: "net", Kind: etcdiff.Changed, How: []string{"mode 0755 to 0700"}},
		{Path: "new", Kind: etcdiff.Added},
		{Path: "new/deep", Kind: etcdiff.Added},
		{Path: "new/deep/f", Kind: etcdiff.Added},
		{Path: "passwd", Kind: etcdiff.Changed, How: []string{"mode 0644 to 0600"}},
		{Path: "ssh/conf.d/10-mine", Kind: etcdiff.Added},
		{Path: "ssh/sshd_config", Kind: etcdiff.Changed, How: []string{"content", "owner 0:0 to 7:8"}},
	}
	if !reflect.DeepEqual(changes, want) {
		t.Errorf("got\n%+v\nwant\n%+v", changes, want)
	}
}

func TestMissingLayer(t *testing.T) {
	_, err := etcdiff.Compare(filepath.Join(t.TempDir(), "nowhere"), t.TempDir())
	if err == nil || !strings.Contains(err.Error(), "the machine's layer of /etc") {
		t.Errorf("error %v", err)
	}
}
