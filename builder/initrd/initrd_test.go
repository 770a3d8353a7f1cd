package initrd

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/initramfs"
	"github.com/semper-os/semper/initramfs/modules"
)

// static is a small program as semper-init is built.
var static = sync.OnceValues(func() ([]byte, error) {
	dir, err := os.MkdirTemp("", "semper-initrd-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte("package main\n\nfunc main() {}\n"), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command("go", "build", "-o", "init", "main.go")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return out, err
	}
	return os.ReadFile(filepath.Join(dir, "init"))
})

func testCert(t *testing.T) []byte {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "x"}, NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// moduleTree is what depmod leaves for the modules of the table, where everything that is not said here needs nothing. virtio_mmio is built in.
func moduleTree(t *testing.T, without ...string) string {
	t.Helper()
	dir := t.TempDir()
	needs := map[string]string{"dm_verity": "kernel/x/dm-bufio.ko.xz kernel/x/dm-mod.ko.xz", "ext4": "kernel/x/jbd2.ko.xz", "erofs": "kernel/x/libcrc32c.ko.xz"}
	files := map[string]string{"dm_verity": "dm-verity", "usb_storage": "usb-storage", "xhci_pci": "xhci-pci"}
	var dep, alias strings.Builder
	all := append(wanted("amd64"), "jbd2", "libcrc32c", "dm_bufio", "dm_mod", "tun")
	files["dm_bufio"], files["dm_mod"] = "dm-bufio", "dm-mod"
	for i, m := range all {
		if m == "virtio_mmio" || slices.Contains(without, m) {
			continue
		}
		name := m
		if files[m] != "" {
			name = files[m]
		}
		dep.WriteString("kernel/x/" + name + ".ko.xz: " + needs[m] + "\n")
		var b bytes.Buffer
		w, err := xz.NewWriter(&b)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(w, "\x7fELF"+strings.Repeat(m, i)+"~Module signature appended~\n")
		w.Close()
		write(t, filepath.Join(dir, "kernel/x", name+".ko.xz"), b.Bytes())
	}
	alias.WriteString("# Aliases\nalias virtio:d00000002v* virtio_blk\nalias fs-ext4 ext4\nalias pci:tun* tun\nalias crypto-crc32c crc32c_generic\nalias crypto-crc32c crc32c_intel\n")
	write(t, filepath.Join(dir, "modules.dep"), []byte(dep.String()))
	write(t, filepath.Join(dir, "modules.alias"), []byte(alias.String()))
	write(t, filepath.Join(dir, "modules.softdep"), []byte("# Soft\nsoftdep libcrc32c pre: crypto-crc32c\nsoftdep ext4 gone pre: crc32c-generic ext4 post: tun virtio-blk\n"))
	write(t, filepath.Join(dir, "modules.builtin"), []byte("kernel/drivers/virtio/virtio_mmio.ko\n"))
	return dir
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o644); err != nil {
		t.Fatal(err)
	}
}

func options(t *testing.T) Options {
	t.Helper()
	init, err := static()
	if err != nil {
		t.Fatalf("go build: %v: %s", err, init)
	}
	return Options{Arch: "amd64", Init: init, ModulesDir: moduleTree(t), Certs: testCert(t)}
}

// TestBuild unpacks the archive with the tools of the world.
func TestBuild(t *testing.T) {
	o := options(t)
	r, err := Build(o)
	if err != nil {
		t.Fatal(err)
	}
	again, err := Build(o)
	if err != nil || !bytes.Equal(again.Bytes, r.Bytes) {
		t.Errorf("a second run gives other bytes (%v)", err)
	}
	dir := t.TempDir()
	packed := filepath.Join(dir, "initrd")
	write(t, packed, r.Bytes)
	plain, err := exec.Command("zstd", "-dc", packed).Output()
	if err != nil {
		t.Fatalf("zstd (Debian package zstd): %v", err)
	}
	if int64(len(plain)) != r.Size {
		t.Errorf("%d bytes, Build says %d", len(plain), r.Size)
	}
	var header zstd.Header
	if err := header.Decode(r.Bytes); err != nil || header.WindowSize > window {
		t.Errorf("window of %d bytes, %v", header.WindowSize, err)
	}
	cmd := exec.Command("cpio", "-itvn", "--quiet")
	cmd.Stdin = bytes.NewReader(plain)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "TZ=UTC")
	list, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cpio (Debian package cpio): %v: %s", err, list)
	}
	for _, want := range []string{
		"drwxr-xr-x   1 0        0               0 Jan  1  1970 dev\n",
		"crw-------   1 0        0          5,   1 Jan  1  1970 dev/console\n",
		"-rwxr-xr-x   1 0        0  ", " init\n", " modules/dm-verity.ko\n", " verity.crt\n", " proc\n", " sys\n", " run\n", " sysroot\n",
	} {
		if !strings.Contains(string(list), want) {
			t.Errorf("%q is not in\n%s", want, list)
		}
	}
	if strings.Contains(string(list), "tun") || strings.Contains(string(list), "virtio_mmio") {
		t.Errorf("too much in\n%s", list)
	}
	out := filepath.Join(dir, "out")
	if err := os.Mkdir(out, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd = exec.Command("cpio", "-i", "--quiet", "--no-absolute-filenames", "--no-preserve-owner", "init", "modules*", "verity.crt")
	cmd.Dir, cmd.Stdin = out, bytes.NewReader(plain)
	if b, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("cpio: %v: %s", err, b)
	}
	for name, want := range map[string][]byte{
		"init": o.Init, "verity.crt": o.Certs, "modules/virtio_blk.ko": []byte("\x7fELF~Module signature appended~\n"),
	} {
		if got, err := os.ReadFile(filepath.Join(out, name)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s differs (%v)", name, err)
		}
	}
	text, err := os.ReadFile(filepath.Join(out, initramfs.IndexName))
	if err != nil {
		t.Fatal(err)
	}
	x, err := modules.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range x.Modules {
		if _, err := os.Stat(filepath.Join(out, "modules", m.File)); err != nil {
			t.Error(err)
		}
	}
	verity, _ := x.Lookup("dm_verity")
	crc, _ := x.Lookup("libcrc32c")
	ext4, _ := x.Lookup("ext4")
	if !slices.Equal(verity.Needs, []string{"dm_mod", "dm_bufio"}) || !slices.Equal(verity.Before, []string{"sha256_ssse3"}) ||
		!slices.Equal(crc.Before, []string{"crc32c_generic", "crc32c_intel"}) ||
		!slices.Equal(ext4.Before, []string{"crc32c_generic"}) || !slices.Equal(ext4.After, []string{"virtio_blk"}) {
		t.Errorf("dm_verity %+v\nlibcrc32c %+v\next4 %+v", verity, crc, ext4)
	}
	if want := []modules.Alias{{Pattern: "virtio:d00000002v*", Module: "virtio_blk"}}; !slices.Equal(x.Aliases, want) {
		t.Errorf("aliases %+v", x.Aliases)
	}
}

func TestBuildRefuses(t *testing.T) {
	good := options(t)
	for name, tc := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"not a program":  {func(o *Options) { o.Init = []byte("#!/bin/sh") }, "not an ELF program"},
		"not static":     {func(o *Options) { o.Init = dynamic(t) }, "not static"},
		"no certificate": {func(o *Options) { o.Certs = []byte("x") }, "no PEM certificate"},
		"a key":          {func(o *Options) { o.Certs = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}}) }, `"PRIVATE KEY" has no business here`},
		"no tree":        {func(o *Options) { o.ModulesDir = t.TempDir() }, "module tree"},
		"left out":       {func(o *Options) { o.ModulesDir = moduleTree(t, "nvme", "uas") }, "not there: nvme, uas (does the recipe's exclude-modules name them"},
		"need left out":  {func(o *Options) { o.ModulesDir = moduleTree(t, "jbd2") }, "jbd2"},
	} {
		t.Run(name, func(t *testing.T) {
			o := good
			tc.change(&o)
			_, err := Build(o)
			if err == nil || !strings.Contains(err.Error(), tc.want) || !fault.Is(err, fault.Input) && !fault.Is(err, fault.IO) {
				t.Errorf("error %v, want one with %q", err, tc.want)
			}
		})
	}
}

// dynamic is a program that needs a loader.
func dynamic(t *testing.T) []byte {
	t.Helper()
	b, err := os.ReadFile("/bin/sh")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDriversAreExplained(t *testing.T) {
	seen := map[string]bool{}
	for _, d := range drivers {
		if d.why == "" || seen[d.name] || d.name != modules.Name(d.name) {
			t.Errorf("row %+v", d)
		}
		seen[d.name] = true
	}
	for m, wishes := range first {
		for _, w := range wishes {
			if !seen[w] {
				t.Errorf("%s wants %s, which is not in the table", m, w)
			}
		}
	}
	if slices.Contains(wanted("arm64"), "sha256_ssse3") || !slices.Contains(wanted("arm64"), "nvme") {
		t.Error("architectures are mixed up")
	}
}

func TestWriteArchiveRefuses(t *testing.T) {
	for name, entries := range map[string][]entry{
		"twice":     {{name: "a", mode: modeFile}, {name: "a", mode: modeFile}},
		"no folder": {{name: "a/b", mode: modeFile}},
		"in a file": {{name: "a", mode: modeFile}, {name: "a/b", mode: modeFile}},
		"absolute":  {{name: "/a", mode: modeFile}},
		"dots":      {{name: "../a", mode: modeFile}},
		"trailer":   {{name: cpioTrailer, mode: modeFile}},
	} {
		if err := writeArchive(io.Discard, entries); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// TestWriteArchiveBytes pins the format.
func TestWriteArchiveBytes(t *testing.T) {
	var b bytes.Buffer
	if err := writeArchive(&b, []entry{{name: "d/f", mode: modeFile | 0o644, data: []byte("hello")}, {name: "d", mode: modeDir | 0o755}}); err != nil {
		t.Fatal(err)
	}
	want := "070701" + "00000001" + "000041ED" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000002" + "00000000" + "d\x00" +
		"070701" + "00000002" + "000081A4" + "00000000" + "00000000" + "00000001" + "00000000" + "00000005" + "00000000" + "00000000" + "00000000" + "00000000" + "00000004" + "00000000" + "d/f\x00\x00\x00" +
		"hello\x00\x00\x00" +
		"070701" + "00000000" + "00000000" + "00000000" + "00000000" + "00000001" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "00000000" + "0000000B" + "00000000" + "TRAILER!!!\x00"
	got := b.String()
	if !strings.HasPrefix(got, want) || len(got) != 512 || strings.Trim(got[len(want):], "\x00") != "" {
		t.Errorf("archive %q\nwant    %q", got, want)
	}
}
