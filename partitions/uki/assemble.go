package uki

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

// Parts is what a UKI is made of.
type Parts struct {
	Stub      []byte // systemd's linuxx64.efi.stub, unsigned
	Linux     []byte // the kernel, with its EFI stub (a PE file)
	OSRelease []byte // os-release(5) with ID, IMAGE_ID, IMAGE_VERSION and PRETTY_NAME
	Cmdline   string // the kernel's command line, at most MaxCmdline bytes
	Initrd    []byte
	Ucode     []byte // optional
	Uname     string // the kernel's version, for instance "6.12.48+deb13-amd64"
	Timestamp uint32 // TimeDateStamp, seconds since 1970: SOURCE_DATE_EPOCH
}

// The header and the UKI's own line of .sbat. The numbers are generations: they are raised when a flaw is found in what the line
// names, so that firmware can refuse everything older.
const (
	sbatHeader = "sbat,1,SBAT Version,sbat,1,https://github.com/rhboot/shim/blob/main/SBAT.md\n"
	sbatUKI    = "uki,1,UKI,uki,1,https://uapi-group.org/specifications/specs/unified_kernel_image/\n"
)

// Assemble makes an unsigned UKI. It refuses parts from which no bootable UKI can be made (kind Input).
func Assemble(p Parts) ([]byte, error) {
	stub, err := parse(bytes.NewReader(p.Stub), int64(len(p.Stub)))
	if err != nil {
		return nil, fmt.Errorf("boot stub: %w", err)
	}
	if stub.signed() {
		return nil, fault.New(fault.Input, "boot stub: it is signed already; the unsigned one is needed, the signature would not cover the sections")
	}
	if err := checkOSRelease(p.OSRelease); err != nil {
		return nil, err
	}
	if err := checkCmdline(p.Cmdline); err != nil {
		return nil, err
	}
	if p.Uname == "" || len(p.Uname) > maxText {
		return nil, fault.New(fault.Input, "the kernel's version is missing or too long (%d bytes)", len(p.Uname))
	}
	nx, kernelSBAT, err := kernelFacts(p.Linux)
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	sbat, err := mergeSBAT(stub.content(p.Stub, SBAT), kernelSBAT)
	if err != nil {
		return nil, err
	}

	b, err := newAppender(p.Stub, stub)
	if err != nil {
		return nil, fmt.Errorf("boot stub: %w", err)
	}
	if !nx {
		// The firmware may enforce what this flag promises for the kernel too, which the stub starts inside of the same image.
		b.img.dllFlags &^= dllFlagNX
	}
	b.img.timestamp = p.Timestamp
	for _, s := range []struct {
		name string
		data []byte
	}{
		{Linux, p.Linux},
		{OSRelease, p.OSRelease},
		{Cmdline, []byte(p.Cmdline)},
		{Initrd, p.Initrd},
		{Ucode, p.Ucode},
		{Uname, []byte(p.Uname)},
		{SBAT, sbat},
	} {
		switch {
		case len(s.data) == 0 && s.name == Ucode:
			continue
		case len(s.data) == 0:
			return nil, fault.New(fault.Input, "unified kernel image: section %s is empty", s.name)
		}
		if s.name == SBAT && b.replace(SBAT, sbat) {
			continue
		}
		if err := b.add(s.name, s.data); err != nil {
			return nil, err
		}
	}
	return b.finish()
}

// checkOSRelease makes sure that systemd-boot lists the UKI, names it and can tell its version from that of the other slot.
func checkOSRelease(b []byte) error {
	if len(b) > maxText {
		return fault.New(fault.Input, "os-release has %d bytes, the limit is %d", len(b), maxText)
	}
	fields, err := parseOSRelease(b)
	if err != nil {
		return err
	}
	for _, name := range []string{"ID", "IMAGE_ID", "IMAGE_VERSION", "PRETTY_NAME"} {
		if fields[name] == "" {
			return fault.New(fault.Input, "os-release lacks %s, which the boot menu needs", name)
		}
	}
	return nil
}

// mergeSBAT joins the lines of the stub and of the kernel with the UKI's own, under one header line, so that a revocation of either takes the UKI along.
func mergeSBAT(parts ...[]byte) ([]byte, error) {
	out := sbatHeader
	for _, part := range append(parts, []byte(sbatHeader+sbatUKI)) {
		text := strings.TrimRight(string(part), "\x00")
		if text == "" {
			continue
		}
		header, rest, _ := strings.Cut(text, "\n")
		if !strings.HasPrefix(header, "sbat,1,") {
			return nil, fault.New(fault.Input, "a .sbat section begins with %.40q, not with sbat,1", header)
		}
		if rest = strings.TrimRight(rest, "\n"); rest != "" {
			out += rest + "\n"
		}
	}
	if len(out) >= maxText {
		return nil, fault.New(fault.Input, "the .sbat sections have %d bytes together, the limit is %d", len(out), maxText)
	}
	return []byte(out + "\x00"), nil
}

// content returns the bytes of a section of an image in memory, nil when it has none.
func (p *image) content(file []byte, name string) []byte {
	for _, s := range p.sections {
		if s.name == name {
			return file[s.rawOffset : s.rawOffset+min(s.rawSize, s.virtualSize)]
		}
	}
	return nil
}

// appender adds sections to a stub.
type appender struct {
	img          image
	out          []byte // the file so far; the headers in it are the stub's until finish
	inMemory     int64  // where the next section may begin in memory
	stubSections int    // so many of the sections are the stub's
	added        uint32 // bytes added, for SizeOfInitializedData
}

func newAppender(stub []byte, img *image) (*appender, error) {
	// Some stubs end with the linker's symbols, which an image has no use for. They must go, or the headers would point to them in the wrong place.
	end := img.dataEnd
	if img.symbolTable != 0 {
		table := int64(img.symbolTable)
		size := int64(img.symbolCount) * 18
		if table != end || table+size+4 > img.size {
			return nil, bad("the symbol table is not where the sections end")
		}
		end = table + size + int64(binary.LittleEndian.Uint32(stub[table+size:]))
	}
	if end != img.size {
		return nil, bad("%d bytes follow the last section", img.size-end)
	}
	a := &appender{img: *img, out: bytes.Clone(stub[:img.dataEnd]), stubSections: len(img.sections)}
	a.img.sections = slices.Clone(img.sections)
	a.inMemory = img.sections[len(img.sections)-1].virtualEnd()
	return a, nil
}

// replace puts data in the place of the stub's section of that name and reports whether that was possible. Where the section has no room for
// it, in the file or in memory, it takes the section away instead, so that the caller can add it anew.
func (a *appender) replace(name string, data []byte) bool {
	i := slices.IndexFunc(a.img.sections[:a.stubSections], func(s section) bool { return s.name == name })
	if i < 0 {
		return false
	}
	s := a.img.sections[i]
	room := int64(s.rawSize)
	if i+1 < len(a.img.sections) {
		room = min(room, int64(a.img.sections[i+1].virtualAddress)-int64(s.virtualAddress))
	}
	if int64(len(data)) <= room {
		place := a.out[s.rawOffset:s.rawEnd()]
		clear(place[copy(place, data):])
		a.img.sections[i].virtualSize = uint32(len(data))
		return true
	}
	a.out = slices.Delete(a.out, int(s.rawOffset), int(s.rawEnd()))
	a.img.sections = slices.Delete(a.img.sections, i, i+1)
	a.stubSections--
	for j := range a.img.sections {
		if t := &a.img.sections[j]; t.rawOffset > s.rawOffset {
			t.rawOffset -= s.rawSize
		}
	}
	return false
}

// add appends one section to the file, to the memory image and to the section table.
func (a *appender) add(name string, data []byte) error {
	address := roundUp(a.inMemory, a.img.sectionAlignment)
	raw := roundUp(int64(len(data)), a.img.fileAlignment)
	if int64(len(a.out))+raw > MaxSize {
		return fault.New(fault.Input, "unified kernel image: with section %s of %d bytes it has %d bytes, the limit is %d",
			name, len(data), int64(len(a.out))+raw, int64(MaxSize))
	}
	s := section{
		name:            name,
		virtualSize:     uint32(len(data)),
		virtualAddress:  uint32(address),
		rawSize:         uint32(raw),
		rawOffset:       uint32(len(a.out)),
		characteristics: sectionRead | sectionInitialised,
	}
	if name == Linux {
		s.characteristics = sectionRead | sectionCode // kernels without the LoadFile2 protocol run right where they lie
	}
	a.img.sections = append(a.img.sections, s)
	a.out = append(a.out, data...)
	a.out = append(a.out, make([]byte, raw-int64(len(data)))...)
	a.inMemory = s.virtualEnd()
	a.added += uint32(len(data))
	return nil
}

// finish writes the headers and returns the file.
func (a *appender) finish() ([]byte, error) {
	end := a.img.pe + fieldSections + int64(len(a.img.sections))*sectionHeaderSize
	if end > int64(a.img.sizeOfHeaders) || len(a.img.sections) > maxSections {
		return nil, fault.New(fault.Input, "boot stub: its headers have room for %d sections, %d are needed",
			(int64(a.img.sizeOfHeaders)-a.img.pe-fieldSections)/sectionHeaderSize, len(a.img.sections))
	}
	h, le := a.out[a.img.pe:], binary.LittleEndian
	le.PutUint16(h[fieldSectionCount:], uint16(len(a.img.sections)))
	le.PutUint32(h[fieldTimestamp:], a.img.timestamp)
	if a.img.symbolTable != 0 {
		le.PutUint32(h[fieldSymbolTable:], 0)
		le.PutUint32(h[fieldSymbolCount:], 0)
		le.PutUint16(h[fieldCharacteristics:], le.Uint16(h[fieldCharacteristics:])|flagSymsStripped)
	}
	le.PutUint32(h[fieldInitialisedData:], le.Uint32(h[fieldInitialisedData:])+a.added)
	le.PutUint32(h[fieldSizeOfImage:], uint32(roundUp(a.inMemory, a.img.sectionAlignment)))
	le.PutUint32(h[fieldCheckSum:], 0)
	le.PutUint16(h[fieldDLLFlags:], a.img.dllFlags)
	table := a.out[a.img.pe+fieldSections : a.img.sizeOfHeaders]
	clear(table)
	for i, s := range a.img.sections {
		e := table[i*sectionHeaderSize:]
		copy(e[:8], s.name)
		le.PutUint32(e[8:], s.virtualSize)
		le.PutUint32(e[12:], s.virtualAddress)
		le.PutUint32(e[16:], s.rawSize)
		le.PutUint32(e[20:], s.rawOffset)
		le.PutUint32(e[36:], s.characteristics)
	}
	if _, err := parse(bytes.NewReader(a.out), int64(len(a.out))); err != nil {
		return nil, fault.New(fault.Internal, "unified kernel image: %w", err)
	}
	return a.out, nil
}

func roundUp(n int64, alignment uint32) int64 {
	a := int64(alignment)
	return (n + a - 1) / a * a
}
