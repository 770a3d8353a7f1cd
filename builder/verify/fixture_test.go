package verify_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/semper-os/semper/builder/keys"
	"github.com/semper-os/semper/builder/keys/keystest"
	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/builder/verify"
	"github.com/semper-os/semper/partitions/fat"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/rootsig"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/uki/authenticode"
	"github.com/semper-os/semper/partitions/uki/ukitest"
	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/payload"
)

const (
	mib      = 1 << 20
	slotSize = 4 * mib
	espSize  = 40 * mib
)

// small is everything that goes into a disk with slots of 4 MiB; a test changes what it is about, then calls disk or release.
type small struct {
	keys    *keys.Keys
	version string
	root    []byte
	cmdline string // "": roothash= and the rest
	uki     string // its name on the ESP
	initrd  []byte
	sdBoot  []byte
	second  []byte // systemd-boot in its second place; nil: the same
	signUKI keys.Pair
	signSD  keys.Pair
	signDM  keys.Pair
	conf    string
	more    []fat.File

	table func(*gpt.Table)
	after func(f *os.File, plan layout.Plan) error

	// made by disk
	signedUKI, tree, signature []byte
	hashed                     verity.Result
}

func newSmall(t *testing.T) *small {
	t.Helper()
	k := keystest.Load(t, "verify")
	root := make([]byte, 300*verity.BlockSize)
	for i := range root {
		root[i] = byte(i / 37)
	}
	return &small{
		keys: k, version: "1.2.0", root: root, uki: "EFI/Linux/semper_1.2.0+3-0.efi", initrd: cpio("verity.crt", k.Public.VerityPEM()),
		sdBoot: ukitest.Stub(), signUKI: k.SecureBoot, signSD: k.SecureBoot, signDM: k.Verity, conf: "timeout 0\nconsole-mode keep\neditor no\n",
	}
}

// cpio makes a newc archive with some other entries around the file.
func cpio(name string, content []byte) []byte {
	var b bytes.Buffer
	entry := func(name string, mode int, content []byte) {
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 1, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0)
		b.WriteString(name + "\x00")
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
		b.Write(content)
		for b.Len()%4 != 0 {
			b.WriteByte(0)
		}
	}
	entry("dev", 0o040755, nil)
	entry("init", 0o100755, []byte("#!"))
	entry(name, 0o100644, content)
	entry("TRAILER!!!", 0, nil)
	return b.Bytes()
}

func packed(t *testing.T, b []byte) []byte {
	t.Helper()
	e, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return e.EncodeAll(b, nil)
}

func memory(path string, b []byte) fat.File {
	return fat.File{Path: path, Size: int64(len(b)), Data: bytes.NewReader(b)}
}

// area is memory of a fixed size that is written from several goroutines.
type area []byte

func (a area) WriteAt(p []byte, off int64) (int, error) { return copy(a[off:], p), nil }

// disk writes the disk and returns its path.
func (s *small) disk(t *testing.T, path string) string {
	t.Helper()
	s.tree = make([]byte, verity.HashAreaSize(uint64(len(s.root)/verity.BlockSize)))
	if path == "" {
		path = filepath.Join(t.TempDir(), "disk.raw")
	}
	var err error
	if s.hashed, err = verity.Format(bytes.NewReader(s.root), int64(len(s.root)), area(s.tree), verity.Params{Salt: []byte("salt")}); err != nil {
		t.Fatal(err)
	}
	if s.signature, err = rootsig.Sign(s.hashed.RootHash, s.signDM.Signer, s.signDM.Certificate); err != nil {
		t.Fatal(err)
	}
	parts := ukitest.Parts("semper", s.version, s.hashed.RootHash.String())
	parts.Initrd = s.initrd
	if s.cmdline != "" {
		parts.Cmdline = s.cmdline
	}
	plain, err := uki.Assemble(parts)
	if err != nil {
		t.Fatal(err)
	}
	s.signedUKI = sign(t, plain, s.signUKI)
	sd := sign(t, s.sdBoot, s.signSD)

	plan, err := layout.NewPlan(slotSize, espSize, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	table, err := layout.NewTable(plan, s.version, s.hashed.RootHash, func(label string) [16]byte {
		var id [16]byte
		copy(id[:], "id of "+label)
		return id
	})
	if err != nil {
		t.Fatal(err)
	}
	if s.table != nil {
		s.table(table)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(plan.DiskSize); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(f); err != nil {
		t.Fatal(err)
	}
	second := sd
	if s.second != nil {
		second = sign(t, s.second, s.signSD)
	}
	files := append([]fat.File{
		memory("EFI/BOOT/BOOTX64.EFI", sd), memory("EFI/systemd/systemd-bootx64.efi", second), memory(s.uki, s.signedUKI),
		memory("loader/loader.conf", []byte(s.conf)),
	}, s.more...)
	esp := plan.Part("esp")
	if err := fat.Write(offset{f, esp.Offset()}, fat.Params{
		Size: esp.Size(), VolumeID: 1, Label: "ESP", Time: time.Unix(1_700_000_000, 0), HiddenSectors: uint32(esp.First), Files: files,
	}); err != nil {
		t.Fatal(err)
	}
	for label, b := range map[string][]byte{"root-a": s.root, "verity-a": s.tree, "verity-sig-a": s.signature} {
		if _, err := f.WriteAt(b, plan.Part(label).Offset()); err != nil {
			t.Fatal(err)
		}
	}
	if s.after != nil {
		if err := s.after(f, plan); err != nil {
			t.Fatal(err)
		}
	}
	return path
}

type offset struct {
	f  *os.File
	at int64
}

func (o offset) WriteAt(p []byte, off int64) (int, error) { return o.f.WriteAt(p, o.at+off) }

func sign(t *testing.T, b []byte, p keys.Pair) []byte {
	t.Helper()
	if p.Signer == nil {
		return b
	}
	signed, err := authenticode.Sign(b, p.Signer, p.Certificate)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

// release writes a release with the disk and returns its directory. Change, which may be nil, may spoil files before they are listed and signed.
func (s *small) release(t *testing.T, out string, change func(w *release.Writer, m *release.Manifest) error) string {
	t.Helper()
	w, err := release.NewWriter(out, "semper", "1.2.0")
	if err != nil {
		t.Fatal(err)
	}
	s.disk(t, w.Path(release.Disk))
	for name, b := range map[string][]byte{
		release.Root: s.root, release.Verity: s.tree, release.RootSig: s.signature, release.UKI: s.signedUKI, release.Packages: []byte("lock"), release.SBOM: []byte("{}"),
	} {
		if err := os.WriteFile(w.Path(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bytesOf := func(name string, b []byte) payload.Partition {
		return payload.Partition{Name: name, Data: bytes.NewReader(b), Size: int64(len(b))}
	}
	root := bytesOf("root", s.root)
	root.Verity = &payload.Verity{RootHash: s.hashed.RootHash, Superblock: s.hashed.Superblock}
	if _, err := payload.WriteFile(context.Background(), w.Path(release.Payload), payload.WriteOptions{
		Image:      payload.Image{ID: "semper", Version: "1.2.0", Architecture: "amd64"},
		Timestamp:  time.Unix(1_700_000_000, 0),
		Partitions: []payload.Partition{root, bytesOf("uki", s.signedUKI), bytesOf("rootsig", s.signature)},
		Signers:    s.keys.PayloadSigners(),
		Level:      1,
	}); err != nil {
		t.Fatal(err)
	}
	m := release.Manifest{
		Name: "semper", Version: "1.2.0", Architecture: "amd64", RootHash: s.hashed.RootHash.String(),
		PackagesSHA256: fmt.Sprintf("%064d", 0), SourceDateEpoch: 1_700_000_000,
	}
	if change != nil {
		if err := change(w, &m); err != nil {
			t.Fatal(err)
		}
	}
	dir, err := w.Commit(context.Background(), m, release.CommitOptions{Signers: s.keys.PayloadSigners()})
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func (s *small) options() verify.Options {
	return verify.Options{
		Certificates: []*x509.Certificate{s.keys.SecureBoot.Certificate},
		Trust:        payload.Trust{Keys: s.keys.Public.PayloadKeys(), Threshold: 2},
	}
}

func run(t *testing.T, path string, o verify.Options) *verify.Report {
	t.Helper()
	r, err := verify.Run(context.Background(), path, o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func tempDisk(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "disk.raw")
}
