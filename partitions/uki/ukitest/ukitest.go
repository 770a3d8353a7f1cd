// Package ukitest makes small EFI programs for tests: a boot stub as Assemble wants it, and a kernel as it expects one.
//
// They are valid PE32+ files for x86-64 whose code returns EFI_SUCCESS at once (xor eax,eax; ret), so objdump, sbsign, sbverify and firmware take
// them for what they are. Nothing is taken from systemd or Linux.
package ukitest

import (
	"encoding/binary"
	"fmt"

	"github.com/semper-os/semper/partitions/uki"
)

// SBAT is what Stub says of itself.
const SBAT = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n" +
	"test-stub,1,Semper,test-stub,1,https://example.org/\n"

// Section is one section of Build. Memory is its size in memory; 0 stands for len(Data).
type Section struct {
	Name   string
	Data   []byte
	Memory uint32
	Flags  uint32
}

// Options of Build. The zero value gives what the newer stubs of systemd look like.
type Options struct {
	Align    uint32 // of sections in memory, in bytes; 0: 4096
	Headers  uint32 // bytes of headers; 0: 1536, room for 29 sections
	DLLFlags uint16 // 0x100: NX_COMPAT
	Symbols  int    // so many symbols follow the sections, as in stubs that were not stripped
	Sections []Section
}

const (
	lfanew = 0x40
	text   = 0x60000020 // code, execute, read
	data   = 0x40000040 // initialised data, read
)

// Build makes a PE32+ file. Sections lie 4096 bytes (or Align) apart, unless a section is packed in behind the one before by a Memory of its own.
func Build(o Options) []byte {
	if o.Align == 0 {
		o.Align = 4096
	}
	if o.Headers == 0 {
		o.Headers = 1536
	}
	le := binary.LittleEndian
	b := make([]byte, o.Headers)
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], lfanew)
	pe := b[lfanew:]
	copy(pe, "PE\x00\x00")
	le.PutUint16(pe[4:], 0x8664)
	le.PutUint16(pe[6:], uint16(len(o.Sections)))
	le.PutUint16(pe[20:], 240)
	le.PutUint16(pe[22:], 0x0206)
	opt := pe[24:]
	le.PutUint16(opt, 0x20b)
	le.PutUint32(opt[16:], 4096) // entry point: the first section
	le.PutUint32(opt[20:], 4096)
	le.PutUint32(opt[32:], o.Align)
	le.PutUint32(opt[36:], 512)
	le.PutUint32(opt[60:], o.Headers)
	le.PutUint16(opt[68:], 10)
	le.PutUint16(opt[70:], o.DLLFlags)
	le.PutUint32(opt[108:], 16)

	address := uint32(4096)
	for i, s := range o.Sections {
		if s.Memory == 0 {
			s.Memory = uint32(len(s.Data))
		}
		raw := (uint32(len(s.Data)) + 511) &^ 511
		table := b[lfanew+24+240+40*i:]
		copy(table[:8], s.Name)
		le.PutUint32(table[8:], s.Memory)
		le.PutUint32(table[12:], address)
		le.PutUint32(table[16:], raw)
		le.PutUint32(table[20:], uint32(len(b)))
		le.PutUint32(table[36:], s.Flags)
		b = append(b, s.Data...)
		b = append(b, make([]byte, int(raw)-len(s.Data))...)
		address += (s.Memory + o.Align - 1) &^ (o.Align - 1)
	}
	pe = b[lfanew:] // b has moved
	le.PutUint32(pe[24+56:], address)
	if o.Symbols > 0 {
		le.PutUint32(pe[12:], uint32(len(b)))
		le.PutUint32(pe[16:], uint32(o.Symbols))
		b = append(b, make([]byte, 18*o.Symbols)...)
		b = append(b, "\x05\x00\x00\x00x"...) // a string table of 5 bytes, its length included
	}
	return b
}

// Stub returns a boot stub.
func Stub() []byte {
	return Build(Options{DLLFlags: 0x0160, Sections: []Section{
		{Name: ".text", Data: []byte{0x31, 0xc0, 0xc3}, Flags: text},
		{Name: ".sbat", Data: []byte(SBAT), Flags: data},
		{Name: ".sdmagic", Data: []byte("#### LoaderInfo: test-stub 1 ####\x00"), Flags: data},
	}})
}

// Kernel returns a kernel with n bytes of content, with or without the promise to need no executable data pages.
func Kernel(n int, nx bool) []byte {
	body := make([]byte, n)
	for i := range body {
		body[i] = byte(i * 7)
	}
	o := Options{Sections: []Section{{Name: ".text", Data: []byte{0x31, 0xc0, 0xc3}, Flags: text}, {Name: ".data", Data: body, Flags: data}}}
	if nx {
		o.DLLFlags = 0x0100
	}
	return Build(o)
}

// Parts returns what a small bootable-looking UKI of an image's version is made of.
func Parts(name, version, rootHash string) uki.Parts {
	return uki.Parts{
		Stub:      Stub(),
		Linux:     Kernel(10000, true),
		OSRelease: fmt.Appendf(nil, "ID=%s\nIMAGE_ID=%[1]s\nIMAGE_VERSION=%[2]s\nVERSION_ID=%[2]s\nPRETTY_NAME=\"Semper OS %[2]s\"\n", name, version),
		Cmdline:   "roothash=" + rootHash + " ro console=tty0 console=ttyS0,115200n8 panic=10 systemd.gpt_auto=no",
		Initrd:    []byte("070701 not really an archive"),
		Uname:     "6.12.0-test-amd64",
		Timestamp: 1_700_000_000,
	}
}
