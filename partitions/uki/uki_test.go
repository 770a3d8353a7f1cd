package uki_test

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/uki/ukitest"
)

const (
	rootHash = "4be7b7a1f2c65aa0b8e8e8f0c7d5a3be91d2f4c6a8b0e1d3f5a7c9ebd0f2a4c6"
	realStub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"
)

func assemble(t *testing.T, p uki.Parts) []byte {
	t.Helper()
	b, err := uki.Assemble(p)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func open(t *testing.T, b []byte) *uki.File {
	t.Helper()
	f, err := uki.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestAssembleAndRead(t *testing.T) {
	p := ukitest.Parts("semper", "1.2.0", rootHash)
	p.Ucode = []byte("microcode")
	before := bytes.Clone(p.Stub)
	b := assemble(t, p)
	if !bytes.Equal(before, p.Stub) {
		t.Error("Assemble changed the stub it was given")
	}
	if !bytes.Equal(b, assemble(t, p)) {
		t.Error("two runs differ")
	}
	f := open(t, b)
	want := []string{".text", ".sbat", ".sdmagic", ".linux", ".osrel", ".cmdline", ".initrd", ".ucode", ".uname"}
	if got := f.Names(); !slices.Equal(got, want) {
		t.Errorf("sections %v, want %v", got, want)
	}
	for name, want := range map[string][]byte{
		uki.Linux: p.Linux, uki.OSRelease: p.OSRelease, uki.Cmdline: []byte(p.Cmdline), uki.Initrd: p.Initrd,
		uki.Ucode: p.Ucode, uki.Uname: []byte(p.Uname),
	} {
		got, err := f.Section(name, 1<<20)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("section %s: %d bytes (%v), want %d", name, len(got), err, len(want))
		}
		if _, err := f.Section(name, int64(len(want))-1); !fault.Is(err, fault.Input) {
			t.Errorf("section %s with a limit of one byte less: %v", name, err)
		}
	}
	if f.Timestamp() != 1_700_000_000 {
		t.Errorf("timestamp %d", f.Timestamp())
	}
	if line, err := f.Cmdline(); err != nil || line != p.Cmdline {
		t.Errorf("command line %q, %v", line, err)
	}
	if hash, err := f.RootHash(); err != nil || hex.EncodeToString(hash[:]) != rootHash {
		t.Errorf("root hash %x, %v", hash, err)
	}
	fields, err := f.OSRelease()
	if err != nil || fields["IMAGE_VERSION"] != "1.2.0" || fields["PRETTY_NAME"] != "Semper OS 1.2.0" {
		t.Errorf("os-release %v, %v", fields, err)
	}
	if _, err := f.Section(".splash", 100); !errors.Is(err, uki.ErrNoSection) {
		t.Errorf("missing section: %v", err)
	}
	if f.Signed() {
		t.Error("a new UKI calls itself signed")
	}
}

// The standard library's reader is a second opinion on the headers.
func TestHeadersAsDebugPESeesThem(t *testing.T) {
	p := ukitest.Parts("semper", "1.2.0", rootHash)
	f, err := pe.NewFile(bytes.NewReader(assemble(t, p)))
	if err != nil {
		t.Fatal(err)
	}
	opt := f.OptionalHeader.(*pe.OptionalHeader64)
	last := f.Sections[len(f.Sections)-1]
	if want := (last.VirtualAddress + last.VirtualSize + 4095) &^ 4095; opt.SizeOfImage != want {
		t.Errorf("SizeOfImage %#x, want %#x", opt.SizeOfImage, want)
	}
	if opt.CheckSum != 0 || opt.Subsystem != 10 || opt.DllCharacteristics != 0x0160 || f.TimeDateStamp != 1_700_000_000 {
		t.Errorf("checksum %#x subsystem %d flags %#x time %d", opt.CheckSum, opt.Subsystem, opt.DllCharacteristics, f.TimeDateStamp)
	}
	for _, s := range f.Sections[3:] {
		want := uint32(0x40000040)
		if s.Name == ".linux" {
			want = 0x40000020
		}
		if s.VirtualAddress%4096 != 0 || s.Offset%512 != 0 || s.Size%512 != 0 || s.Characteristics != want {
			t.Errorf("section %+v", s.SectionHeader)
		}
	}
	p.Linux = ukitest.Kernel(100, false)
	f, err = pe.NewFile(bytes.NewReader(assemble(t, p)))
	if err != nil {
		t.Fatal(err)
	}
	if flags := f.OptionalHeader.(*pe.OptionalHeader64).DllCharacteristics; flags != 0x0060 {
		t.Errorf("a kernel without NX_COMPAT gives flags %#x, want 0x60", flags)
	}
}

const uniLine = "uki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/\n\x00"

func TestSBAT(t *testing.T) {
	sbat := func(name string, p uki.Parts, want string, wantOrder []string) {
		t.Helper()
		f := open(t, assemble(t, p))
		if got, err := f.Section(uki.SBAT, 4096); err != nil || string(got) != want {
			t.Errorf("%s: .sbat is %q (%v), want %q", name, got, err, want)
		}
		if got := f.Names(); !slices.Equal(got, wantOrder) {
			t.Errorf("%s: sections %v, want %v", name, got, wantOrder)
		}
	}
	p := ukitest.Parts("semper", "1", rootHash)
	added := []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname"}
	inPlace := append([]string{".text", ".sbat", ".sdmagic"}, added...)
	sbat("in the stub's place", p, ukitest.SBAT+uniLine, inPlace)

	header, _, _ := strings.Cut(ukitest.SBAT, "\n")
	p.Linux = ukitest.Build(ukitest.Options{Sections: []ukitest.Section{
		{Name: ".text", Data: []byte{0xc3}},
		{Name: ".sbat", Data: []byte(header + "\nlinux,2,Kernel,linux,6.12,https://example.org/\n\x00\x00")},
	}})
	sbat("with the kernel's", p, ukitest.SBAT+"linux,2,Kernel,linux,6.12,https://example.org/\n"+uniLine, inPlace)

	// The stub of systemd 252 packs .sdmagic in right behind .sbat, which then has no room to grow.
	p = ukitest.Parts("semper", "1", rootHash)
	p.Stub = ukitest.Build(ukitest.Options{Align: 512, Sections: []ukitest.Section{
		{Name: ".text", Data: []byte{0xc3}},
		{Name: ".sbat", Data: []byte(ukitest.SBAT + strings.Repeat("\x00", 512-len(ukitest.SBAT))), Memory: 512},
		{Name: ".sdmagic", Data: []byte("magic")},
	}})
	p.Linux = ukitest.Build(ukitest.Options{Sections: []ukitest.Section{
		{Name: ".text", Data: []byte{0xc3}},
		{Name: ".sbat", Data: []byte(header + "\n" + strings.Repeat("linux,2,Kernel,linux,6.12,https://example.org/\n", 10))},
	}})
	sbat("no room in the stub", p, ukitest.SBAT+strings.Repeat("linux,2,Kernel,linux,6.12,https://example.org/\n", 10)+uniLine,
		append(append([]string{".text", ".sdmagic"}, added...), ".sbat"))
	if magic, err := open(t, assemble(t, p)).Section(".sdmagic", 100); err != nil || string(magic) != "magic" {
		t.Errorf("moving .sbat away damaged .sdmagic: %q, %v", magic, err)
	}

	p = ukitest.Parts("semper", "1", rootHash)
	p.Stub = ukitest.Build(ukitest.Options{Sections: []ukitest.Section{{Name: ".text", Data: []byte{0xc3}}}})
	sbat("stub without .sbat", p, header+"\n"+uniLine, append(append([]string{".text"}, added...), ".sbat"))
}

func TestSymbolsOfTheStubAreLeftOut(t *testing.T) {
	o := ukitest.Options{Sections: []ukitest.Section{{Name: ".text", Data: []byte{0xc3}}}}
	p := ukitest.Parts("semper", "1", rootHash)
	p.Stub = ukitest.Build(o)
	without := assemble(t, p)
	o.Symbols = 7
	p.Stub = ukitest.Build(o)
	with := assemble(t, p)
	if len(with) != len(without) {
		t.Errorf("%d bytes with a stub that has symbols, %d without", len(with), len(without))
	}
	f, err := pe.NewFile(bytes.NewReader(with))
	if err != nil || f.PointerToSymbolTable != 0 || f.NumberOfSymbols != 0 || f.Characteristics&8 == 0 {
		t.Errorf("%+v %v", f, err)
	}
}

func TestAssembleRefuses(t *testing.T) {
	cases := map[string]struct {
		change func(p *uki.Parts)
		want   string
	}{
		"no stub":         {func(p *uki.Parts) { p.Stub = nil }, "boot stub: not a usable EFI program: it has only 0 bytes"},
		"text as a stub":  {func(p *uki.Parts) { p.Stub = bytes.Repeat([]byte("x"), 4096) }, "no MZ"},
		"trailing bytes":  {func(p *uki.Parts) { p.Stub = append(p.Stub, 1) }, "1 bytes follow the last section"},
		"no kernel":       {func(p *uki.Parts) { p.Linux = nil }, "kernel: not a usable EFI program: no MZ"},
		"gzip kernel":     {func(p *uki.Parts) { p.Linux = []byte("\x1f\x8b" + strings.Repeat("x", 5000)) }, "kernel: not a usable EFI program"},
		"empty initrd":    {func(p *uki.Parts) { p.Initrd = nil }, "section .initrd is empty"},
		"no uname":        {func(p *uki.Parts) { p.Uname = "" }, "kernel's version is missing"},
		"no command line": {func(p *uki.Parts) { p.Cmdline = "" }, "command line is empty"},
		"long cmdline":    {func(p *uki.Parts) { p.Cmdline = strings.Repeat("a", 2048) }, "has 2048 bytes, the kernel takes 2047"},
		"newline":         {func(p *uki.Parts) { p.Cmdline = "a\nb" }, "byte 0x0a at position 1"},
		"no version":      {func(p *uki.Parts) { p.OSRelease = []byte("ID=a\nIMAGE_ID=a\nPRETTY_NAME=a\n") }, "lacks IMAGE_VERSION"},
		"empty version":   {func(p *uki.Parts) { p.OSRelease = []byte("ID=a\nIMAGE_ID=a\nIMAGE_VERSION=\nPRETTY_NAME=a\n") }, "lacks IMAGE_VERSION"},
		"bad os-release":  {func(p *uki.Parts) { p.OSRelease = []byte("ID=a\nnonsense\n") }, "line 2"},
		"foreign sbat":    {func(p *uki.Parts) { p.Stub = bytes.Replace(p.Stub, []byte("sbat,1,"), []byte("tabs,1,"), 1) }, "begins with"},
		"too many sections": {func(p *uki.Parts) {
			p.Stub = ukitest.Build(ukitest.Options{Headers: 512, Sections: []ukitest.Section{
				{Name: ".text", Data: []byte{1}}, {Name: ".b", Data: []byte{1}}, {Name: ".c", Data: []byte{1}},
			}})
		}, "headers have room for 4 sections, 9 are needed"},
		"too large": {func(p *uki.Parts) { p.Initrd = make([]byte, uki.MaxSize) }, "the limit is 268435456"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			p := ukitest.Parts("semper", "1", rootHash)
			c.change(&p)
			_, err := uki.Assemble(p)
			if !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an input error with %q", err, c.want)
			}
		})
	}
}

func TestRootHash(t *testing.T) {
	for line, want := range map[string]string{
		"roothash=" + rootHash:                     "",
		"ro roothash=\"" + rootHash + "\" quiet":   "",
		"x=\"a roothash=00\" roothash=" + rootHash: "",
		"ro":                                           "holds roothash= 0 times",
		"roothash=" + rootHash + " roothash=00":        "holds roothash= 2 times",
		"xroothash=" + rootHash:                        "holds roothash= 0 times",
		"roothash=" + strings.ToUpper(rootHash):        "not 64 lower-case",
		"roothash=" + rootHash[2:]:                     "not 64 lower-case",
		"roothash=" + rootHash[1:] + "g":               "not 64 lower-case",
		"roothash=":                                    "not 64 lower-case",
		"roothash=" + rootHash + "00":                  "not 64 lower-case",
		"a=\"unterminated roothash=" + rootHash + " x": "holds roothash= 0 times",
	} {
		p := ukitest.Parts("semper", "1", rootHash)
		p.Cmdline = line
		hash, err := open(t, assemble(t, p)).RootHash()
		if want == "" && (err != nil || hex.EncodeToString(hash[:]) != rootHash) {
			t.Errorf("%q: %x, %v", line, hash, err)
		}
		if want != "" && (!fault.Is(err, fault.Input) || !strings.Contains(err.Error(), want)) {
			t.Errorf("%q: got %v, want %q", line, err, want)
		}
	}
}

func TestOSRelease(t *testing.T) {
	text := "# comment\n\nID=semper\nA='single $x'\nB=\"double \\\"q\\\" \\$ \\x\"\nC=plain\\ text\nD=\nE='a'b\"c\"\n  F=trimmed  \n"
	p := ukitest.Parts("semper", "1", rootHash)
	p.OSRelease = append(p.OSRelease[len("ID=semper\n"):], text...)
	got, err := open(t, assemble(t, p)).OSRelease()
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"ID": "semper", "A": "single $x", "B": `double "q" $ \x`, "C": "plain text", "D": "", "E": "abc", "F": "trimmed", "IMAGE_ID": "semper",
	} {
		if v, ok := got[name]; !ok || v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	for _, line := range []string{"lower=1", "=1", "1A=1", "A", "A='x", "A=\"x", "A=$(reboot)", "A=`x`", "A=a b", "A=\"$x\"", "A=\\", "ID=again", "A=\x01"} {
		p := ukitest.Parts("semper", "1", rootHash)
		p.OSRelease = append(p.OSRelease, line...)
		if _, err := uki.Assemble(p); !fault.Is(err, fault.Input) {
			t.Errorf("%q was taken: %v", line, err)
		}
	}
}

// Every field of the headers that lies must be noticed, not believed.
func TestOpenRefuses(t *testing.T) {
	good := assemble(t, ukitest.Parts("semper", "1", rootHash))
	const header = 0x40
	table := header + 24 + 240
	put16 := func(off int, v uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint16(b[off:], v); return b }
	}
	put32 := func(off int, v uint32) func([]byte) []byte {
		return func(b []byte) []byte { binary.LittleEndian.PutUint32(b[off:], v); return b }
	}
	sec := func(n, field int, v uint32) func([]byte) []byte { return put32(table+40*n+field, v) }
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   string
	}{
		"cut in the headers":    {func(b []byte) []byte { return b[:200] }, "the PE header is said to be at offset 64"},
		"cut in a section":      {func(b []byte) []byte { return b[:len(b)-1] }, "the sections end at byte"},
		"PE header far away":    {put32(0x3c, 1<<31), "the PE header is said"},
		"PE header in DOS":      {put32(0x3c, 8), "the PE header is said"},
		"no PE":                 {put32(header, 0), "no PE signature"},
		"32 bit":                {put16(header+24, 0x10b), "not PE32+"},
		"machine":               {put16(header+4, 0x14c), "machine type 0x14c"},
		"few directories":       {put32(header+24+108, 4), "4 data directories"},
		"optional header":       {put16(header+20, 224), "224 bytes"},
		"no sections":           {put16(header+6, 0), "0 sections"},
		"many sections":         {put16(header+6, 65535), "65535 sections"},
		"sections past headers": {put16(header+6, 60), "60 sections"},
		"file alignment":        {put32(header+24+36, 0), "alignments"},
		"file alignment odd":    {put32(header+24+36, 513), "alignments"},
		"section alignment":     {put32(header+24+32, 256), "alignments"},
		"driver":                {put16(header+24+68, 11), "subsystem 11"},
		"headers too large":     {put32(header+24+60, 1<<31), "sections in 2147483648 bytes"},
		"image too small":       {put32(header+24+56, 4096), "the last section ends"},
		"same name":             {func(b []byte) []byte { copy(b[table+40*4:], ".linux\x00\x00"); return b }, "two sections named .linux"},
		"name of a symbol":      {func(b []byte) []byte { copy(b[table:], "/4\x00\x00\x00"); return b }, "section name"},
		"name not text":         {func(b []byte) []byte { b[table] = 0x80; return b }, "section name"},
		"no name":               {func(b []byte) []byte { clear(b[table : table+8]); return b }, "section name"},
		"empty in memory":       {sec(0, 8, 0), "has 0 bytes at address"},
		"huge in memory":        {sec(8-1, 8, 0xffffffff), "the last section ends"},
		"over the headers":      {sec(0, 12, 0), "section .text"},
		"overlap in memory":     {sec(1, 12, 4096), "section .sbat"},
		"gap in the file":       {sec(2, 20, 1<<20), "where"},
		"overlap in the file":   {sec(1, 20, 1536), "where"},
		"odd size in the file":  {sec(0, 16, 511), "where"},
		"past the end":          {sec(7, 16, 1<<30), "the sections end at byte"},
		"certificates outside":  {func(b []byte) []byte { return put32(header+24+112+36, 64)(put32(header+24+112+32, 1<<30)(b)) }, "certificate table"},
		"certificates inside":   {func(b []byte) []byte { return put32(header+24+112+36, 64)(put32(header+24+112+32, 1024)(b)) }, "certificate table"},
	} {
		t.Run(name, func(t *testing.T) {
			b := c.change(bytes.Clone(good))
			_, err := uki.Open(bytes.NewReader(b), int64(len(b)))
			if !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an input error with %q", err, c.want)
			}
		})
	}
	if _, err := uki.Open(bytes.NewReader(good), uki.MaxSize+1); !fault.Is(err, fault.Input) {
		t.Errorf("a file over the limit: %v", err)
	}
	if _, err := uki.Open(bytes.NewReader(good[:2000]), int64(len(good))); !fault.Is(err, fault.IO) {
		t.Errorf("a reader that ends early: %v", err)
	}
}

// A section that claims more memory than the file holds must not be filled up with whatever follows.
func TestSectionLongerThanStored(t *testing.T) {
	b := ukitest.Build(ukitest.Options{Sections: []ukitest.Section{{Name: ".text", Data: []byte{1}}, {Name: ".cmdline", Data: []byte("x"), Memory: 4096}}})
	if _, err := open(t, b).Section(uki.Cmdline, 1<<20); !fault.Is(err, fault.Input) {
		t.Errorf("got %v", err)
	}
}

// The stub that Debian ships, read by binutils.
func TestRealStubWithObjdump(t *testing.T) {
	stub, err := os.ReadFile(realStub)
	if err != nil {
		t.Fatalf("%v (Debian package systemd-boot-efi)", err)
	}
	p := ukitest.Parts("semper", "1.2.0", rootHash)
	p.Stub = stub
	b := assemble(t, p)
	f := open(t, b)
	sbat, err := f.Section(uki.SBAT, 4096)
	if err != nil || bytes.Count(sbat, []byte("SBAT Version")) != 1 || !bytes.Contains(sbat, []byte("\nsystemd")) || !bytes.HasSuffix(sbat, []byte(uniLine)) {
		t.Errorf(".sbat is %q, %v", sbat, err)
	}
	path := filepath.Join(t.TempDir(), "uki.efi")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("objdump", "-h", path).CombinedOutput()
	if err != nil {
		t.Fatalf("objdump: %v\n%s (Debian package binutils)", err, out)
	}
	var names []string
	sizes := map[string]string{}
	for line := range strings.Lines(string(out)) {
		if w := strings.Fields(line); len(w) >= 7 && strings.HasPrefix(w[1], ".") {
			names = append(names, w[1])
			sizes[w[1]] = w[2]
		}
	}
	if !slices.Equal(names, f.Names()) {
		t.Errorf("objdump sees %v, we see %v", names, f.Names())
	}
	if got := sizes[".linux"]; got != hex.EncodeToString(binary.BigEndian.AppendUint32(nil, uint32(len(p.Linux)))) {
		t.Errorf("objdump says .linux has 0x%s bytes, it has %d", got, len(p.Linux))
	}
}

func FuzzOpen(f *testing.F) {
	for _, p := range []uki.Parts{ukitest.Parts("semper", "1", rootHash), ukitest.Parts("a", "2.0", rootHash)} {
		b, err := uki.Assemble(p)
		if err != nil {
			f.Fatal(err)
		}
		signed, err := uki.AddSignature(b, bytes.Repeat([]byte{0x30}, 77))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		f.Add(signed)
	}
	f.Add(ukitest.Stub())
	f.Add(ukitest.Build(ukitest.Options{Symbols: 3, Sections: []ukitest.Section{{Name: ".text", Data: []byte{1}}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		// As a kernel and as a stub.
		p := ukitest.Parts("semper", "1", rootHash)
		p.Linux = b
		_, _ = uki.Assemble(p)
		p = ukitest.Parts("semper", "1", rootHash)
		p.Stub = b
		if out, err := uki.Assemble(p); err == nil {
			if hash, err := open(t, out).RootHash(); err != nil || hex.EncodeToString(hash[:]) != rootHash {
				t.Fatalf("a stub that was taken gives a UKI with root hash %x, %v", hash, err)
			}
		}

		file, err := uki.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, name := range file.Names() {
			_, _ = file.Section(name, 1<<20)
		}
		_, _ = file.RootHash()
		_, _ = file.OSRelease()
		if _, err := file.Digest(); err != nil {
			t.Fatalf("the digest of a file that was taken: %v", err)
		}
		if signatures, err := file.Signatures(); err == nil && file.Signed() != (len(signatures) > 0) {
			t.Fatalf("signed is %v with %d signatures", file.Signed(), len(signatures))
		}
	})
}
