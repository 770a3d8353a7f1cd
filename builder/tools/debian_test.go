package tools_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/builder/debs"
	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/builder/recipe"
	"github.com/semper-os/semper/builder/tools"
)

// TestDebian goes the whole way with the real Debian and the host's own mirror: resolve a recipe, fetch the tools, unpack and run them. It needs the network.
func TestDebian(t *testing.T) {
	ctx := t.Context()
	if err := tools.CheckHost(tools.ForLock); err != nil {
		t.Fatal(err)
	}
	r, err := recipe.Parse("recipe.toml", []byte(`name = "test"
suite = "trixie"
architecture = "amd64"
packages = ["podman"]
[root]
slot-size = "2GiB"
[tools]
packages = ["erofs-utils", "kmod", "systemd-boot-efi"]
`))
	if err != nil {
		t.Fatal(err)
	}
	m, err := lock.FindMirrors(ctx, lock.Sources{Mirror: os.Getenv("SEMPER_MIRROR"), SecurityMirror: os.Getenv("SEMPER_SECURITY_MIRROR")})
	if err != nil {
		t.Fatal(err)
	}
	l, err := lock.Resolve(ctx, r, m, lock.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"podman", "base-files", "dpkg", "libc6"} {
		if p, ok := l.Package(name); !ok || !p.In(lock.Image) {
			t.Errorf("%s is not in the image", name)
		}
	}
	for _, name := range []string{"apt", "initramfs-tools", "linux-image-amd64", "buildah"} {
		if _, ok := l.Package(name); ok {
			t.Errorf("%s is locked", name)
		}
	}
	if k := l.Group(lock.Kernel); len(k) != 1 || !strings.HasPrefix(k[0].Name, "linux-image-6.12.") || k[0].Size < 50<<20 {
		t.Errorf("kernel: %+v", k)
	}

	store, err := debs.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Fill(ctx, l.Group(lock.Tools), debs.NewFetcher(m), nil); err != nil {
		t.Fatal(err)
	}
	tree, err := tools.Unpack(ctx, t.TempDir(), store, l)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{r.Arch.SDBoot, r.Arch.Stub} {
		path, err := tree.Path("usr/lib/systemd/boot/efi/" + name)
		if err != nil {
			t.Error(err)
			continue
		}
		if data, err := os.ReadFile(path); err != nil || !bytes.HasPrefix(data, []byte("MZ")) {
			t.Errorf("%s is no PE file: %v", name, err)
		}
	}
	mkfs(t, tree)
	depmod(t, tree)
}

// mkfs makes the same file system twice out of a tar file, for which neither root nor mounts are needed.
func mkfs(t *testing.T, tree *tools.Tree) {
	t.Helper()
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	content := strings.Repeat("always the same bits\n", 10000)
	for _, h := range []tar.Header{
		{Name: "etc/", Typeflag: tar.TypeDir, Mode: 0o755}, {Name: "etc/motd", Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content)), ModTime: time.Unix(1, 0)},
	} {
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	var sums [2][32]byte
	for i := range sums {
		image := filepath.Join(t.TempDir(), "root.erofs")
		cmd, err := tree.Command(t.Context(), "mkfs.erofs", "--quiet", "--tar=f", "--all-time", "-T1", "-U00000000-0000-0000-0000-000000000001", "-zlz4hc,12", image)
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdin = bytes.NewReader(archive.Bytes())
		if _, err := tools.Run(cmd, "mkfs.erofs"); err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(image)
		if err != nil || len(data) < 4096 || !bytes.Equal(data[1024:1028], []byte{0xe2, 0xe1, 0xf5, 0xe0}) {
			t.Fatalf("no erofs file system of %d bytes: %v", len(data), err)
		}
		sums[i] = sha256.Sum256(data)
	}
	if sums[0] != sums[1] {
		t.Error("mkfs.erofs made different bytes of the same tar file")
	}
}

func depmod(t *testing.T, tree *tools.Tree) {
	t.Helper()
	base := t.TempDir()
	modules := filepath.Join(base, "lib/modules/6.12.0")
	if err := os.MkdirAll(modules, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"modules.order", "modules.builtin"} {
		if err := os.WriteFile(filepath.Join(modules, name), []byte("kernel/x.ko\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd, err := tree.Command(t.Context(), "depmod", "-b", base, "6.12.0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tools.Run(cmd, "depmod"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(modules, "modules.dep.bin")); err != nil {
		t.Error(err)
	}
}
