package uki_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/uki/ukitest"
)

const otherHash = "00e7b7a1f2c65aa0b8e8e8f0c7d5a3be91d2f4c6a8b0e1d3f5a7c9ebd0f2a4ff"

func TestDifferences(t *testing.T) {
	base := ukitest.Parts("semper", "1.0.0", rootHash)
	base.Ucode = []byte("microcode")
	for name, c := range map[string]struct {
		change func(*uki.Parts)
		want   []string
	}{
		"nothing":       {func(*uki.Parts) {}, nil},
		"root hash":     {func(p *uki.Parts) { p.Cmdline = strings.Replace(p.Cmdline, rootHash, otherHash, 1) }, nil},
		"version":       {func(p *uki.Parts) { p.OSRelease = ukitest.Parts("semper", "1.0.10", rootHash).OSRelease }, nil},
		"build time":    {func(p *uki.Parts) { p.Timestamp++ }, nil},
		"last byte":     {func(p *uki.Parts) { p.Linux = ukitest.Kernel(10000, true); p.Linux[len(p.Linux)-513]++ }, []string{".linux"}},
		"longer kernel": {func(p *uki.Parts) { p.Linux = ukitest.Kernel(10001, true) }, []string{".linux"}},
		"parameter":     {func(p *uki.Parts) { p.Cmdline += " mitigations=off" }, []string{".cmdline"}},
		"hash elsewhere too": {
			func(p *uki.Parts) {
				p.Cmdline = strings.Replace(p.Cmdline, rootHash, otherHash, 1) + " note=" + rootHash
			}, []string{".cmdline"},
		},
		"initrd":          {func(p *uki.Parts) { p.Initrd = []byte("070701 not really an archivE") }, []string{".initrd"}},
		"microcode":       {func(p *uki.Parts) { p.Ucode = []byte("microcodE") }, []string{".ucode"}},
		"no microcode":    {func(p *uki.Parts) { p.Ucode = nil }, []string{".ucode"}},
		"name of kernel":  {func(p *uki.Parts) { p.Uname = "6.12.1-test-amd64" }, []string{".uname"}},
		"two":             {func(p *uki.Parts) { p.Uname = "x"; p.Ucode = nil }, []string{".ucode", ".uname"}},
		"stub of a newer": {func(p *uki.Parts) { p.Stub = bytes.Replace(p.Stub, []byte("test-stub 1"), []byte("test-stub 2"), 1) }, []string{".sdmagic"}},
		"code of the stub": {func(p *uki.Parts) {
			p.Stub = bytes.Replace(p.Stub, []byte{0x31, 0xc0, 0xc3}, []byte{0x33, 0xc0, 0xc3}, 1)
		}, []string{".text"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := base
			c.change(&p)
			a, b := open(t, assemble(t, base)), open(t, assemble(t, p))
			got, err := uki.Differences(a, b)
			if err != nil || !slices.Equal(got, c.want) {
				t.Errorf("got %v, %v, want %v", got, err, c.want)
			}
			back, err := uki.Differences(b, a)
			slices.Sort(back)
			if err != nil || !slices.Equal(back, c.want) {
				t.Errorf("the other way round: got %v, %v, want %v", back, err, c.want)
			}
		})
	}
}

// brittle fails to read behind an offset.
type brittle struct {
	*bytes.Reader
	from int64
}

func (r brittle) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > r.from {
		return 0, errors.New("input/output error")
	}
	return r.Reader.ReadAt(p, off)
}

// What cannot be compared is not equal.
func TestDifferencesRefuses(t *testing.T) {
	p := ukitest.Parts("semper", "1.0.0", rootHash)
	p.Linux = ukitest.Kernel(200_000, true) // more than Open reads
	whole := assemble(t, p)
	if got, err := uki.Differences(open(t, whole), mustOpen(t, brittle{bytes.NewReader(whole), int64(len(whole)) - 1024}, len(whole))); !fault.Is(err, fault.IO) {
		t.Errorf("unreadable: %v, %v", got, err)
	}
	p.Cmdline += " roothash=" + otherHash
	two := assemble(t, p)
	if got, err := uki.Differences(open(t, two), open(t, two)); !fault.Is(err, fault.Input) {
		t.Errorf("two root hashes: %v, %v", got, err)
	}
}

func mustOpen(t *testing.T, r brittle, size int) *uki.File {
	t.Helper()
	f, err := uki.Open(r, int64(size))
	if err != nil {
		t.Fatal(err)
	}
	return f
}
