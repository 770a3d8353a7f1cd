package uki

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"io"
	"slices"

	"github.com/semper-os/semper/fault"
)

// Offsets and sizes of the PE32+ format, in bytes.
const (
	dosHeaderSize     = 64
	lfanewField       = 0x3c
	maxLfanew         = 4096
	coffHeaderSize    = 4 + 20 // with the signature before it
	optionalSize      = 240    // PE32+ with all 16 data directories
	directories       = 16
	sectionHeaderSize = 40
	maxSections       = 96
	maxHeaders        = 64 << 10
	maxCertTable      = 1 << 20
)

// Fields, as offsets from the PE signature.
const (
	fieldMachine          = 4
	fieldSectionCount     = 6
	fieldTimestamp        = 8
	fieldSymbolTable      = 12
	fieldSymbolCount      = 16
	fieldOptionalSize     = 20
	fieldCharacteristics  = 22
	fieldMagic            = coffHeaderSize
	fieldInitialisedData  = coffHeaderSize + 8
	fieldSectionAlignment = coffHeaderSize + 32
	fieldFileAlignment    = coffHeaderSize + 36
	fieldSizeOfImage      = coffHeaderSize + 56
	fieldSizeOfHeaders    = coffHeaderSize + 60
	fieldCheckSum         = coffHeaderSize + 64
	fieldSubsystem        = coffHeaderSize + 68
	fieldDLLFlags         = coffHeaderSize + 70
	fieldDirectoryCount   = coffHeaderSize + 108
	fieldCertTable        = coffHeaderSize + 112 + 4*8 // the fifth data directory: file offset and size
	fieldSections         = coffHeaderSize + optionalSize
)

const (
	machineAMD64       = 0x8664
	machineARM64       = 0xaa64
	magicPE32Plus      = 0x20b
	subsystemEFI       = 10
	flagSymsStripped   = 0x0008 // IMAGE_FILE_LOCAL_SYMS_STRIPPED
	dllFlagNX          = 0x0100 // IMAGE_DLLCHARACTERISTICS_NX_COMPAT
	sectionCode        = 0x00000020
	sectionInitialised = 0x00000040
	sectionRead        = 0x40000000
)

// section is one entry of the section table.
type section struct {
	name            string
	virtualSize     uint32 // bytes that count
	virtualAddress  uint32
	rawSize         uint32 // bytes in the file, padding included
	rawOffset       uint32
	characteristics uint32
}

func (s section) rawEnd() int64     { return int64(s.rawOffset) + int64(s.rawSize) }
func (s section) virtualEnd() int64 { return int64(s.virtualAddress) + int64(s.virtualSize) }

// image is what the headers of a checked PE file say.
type image struct {
	size                            int64 // of the whole file
	pe                              int64 // offset of the PE signature
	machine                         uint16
	timestamp                       uint32
	symbolTable, symbolCount        uint32
	sectionAlignment, fileAlignment uint32
	sizeOfHeaders, sizeOfImage      uint32
	dllFlags                        uint16
	certOffset, certSize            uint32
	sections                        []section // in the order of the section table
	dataEnd                         int64     // where the last section's bytes end in the file
}

func bad(format string, args ...any) error {
	return fault.New(fault.Input, "not a usable EFI program: "+format, args...)
}

func powerOfTwo(n uint32) bool { return n != 0 && n&(n-1) == 0 }

// parse reads the headers and checks that what they describe lies in the file, without gaps and overlaps: every byte belongs to
// the headers, one section, the data after the sections, or the certificate table at the very end.
func parse(r io.ReaderAt, size int64) (*image, error) {
	if size < dosHeaderSize {
		return nil, bad("it has only %d bytes", size)
	}
	if size > MaxSize {
		return nil, bad("it has %d bytes, the limit is %d", size, int64(MaxSize))
	}
	head := make([]byte, min(size, maxHeaders))
	if _, err := io.ReadFull(io.NewSectionReader(r, 0, size), head); err != nil {
		return nil, fault.New(fault.IO, "read PE headers: %w", err)
	}
	p, err := parseHeaders(head)
	if err != nil {
		return nil, err
	}
	p.size = size
	if err := p.checkSections(); err != nil {
		return nil, err
	}
	if err := p.checkCertTable(); err != nil {
		return nil, err
	}
	return p, nil
}

// peOffset finds the PE signature, and checks that room for a whole PE32+ header follows it.
func peOffset(head []byte) (int64, error) {
	if len(head) < dosHeaderSize || head[0] != 'M' || head[1] != 'Z' {
		return 0, bad("no MZ at the start")
	}
	pe := int64(binary.LittleEndian.Uint32(head[lfanewField:]))
	if pe < dosHeaderSize || pe > maxLfanew || pe+fieldSections > int64(len(head)) {
		return 0, bad("the PE header is said to be at offset %d", pe)
	}
	h := head[pe:]
	if !bytes.Equal(h[:4], []byte("PE\x00\x00")) {
		return 0, bad("no PE signature at offset %d", pe)
	}
	if magic := binary.LittleEndian.Uint16(h[fieldMagic:]); magic != magicPE32Plus {
		return 0, bad("magic %#x is not PE32+", magic)
	}
	return pe, nil
}

func parseHeaders(head []byte) (*image, error) {
	pe, err := peOffset(head)
	if err != nil {
		return nil, err
	}
	h, le := head[pe:], binary.LittleEndian
	p := &image{
		pe:               pe,
		machine:          le.Uint16(h[fieldMachine:]),
		timestamp:        le.Uint32(h[fieldTimestamp:]),
		symbolTable:      le.Uint32(h[fieldSymbolTable:]),
		symbolCount:      le.Uint32(h[fieldSymbolCount:]),
		sectionAlignment: le.Uint32(h[fieldSectionAlignment:]),
		fileAlignment:    le.Uint32(h[fieldFileAlignment:]),
		sizeOfHeaders:    le.Uint32(h[fieldSizeOfHeaders:]),
		sizeOfImage:      le.Uint32(h[fieldSizeOfImage:]),
		dllFlags:         le.Uint16(h[fieldDLLFlags:]),
		certOffset:       le.Uint32(h[fieldCertTable:]),
		certSize:         le.Uint32(h[fieldCertTable+4:]),
	}
	if s, n := le.Uint16(h[fieldOptionalSize:]), le.Uint32(h[fieldDirectoryCount:]); s != optionalSize || n != directories {
		return nil, bad("the optional header has %d bytes and %d data directories, not %d and %d", s, n, optionalSize, directories)
	}
	if p.machine != machineAMD64 && p.machine != machineARM64 {
		return nil, bad("machine type %#x is neither x86-64 nor arm64", p.machine)
	}
	if s := le.Uint16(h[fieldSubsystem:]); s != subsystemEFI {
		return nil, bad("subsystem %d is not an EFI application", s)
	}
	if !powerOfTwo(p.fileAlignment) || p.fileAlignment < 512 || p.fileAlignment > 64<<10 ||
		!powerOfTwo(p.sectionAlignment) || p.sectionAlignment < p.fileAlignment || p.sectionAlignment > 2<<20 {
		return nil, bad("alignments of %d bytes in the file and %d in memory", p.fileAlignment, p.sectionAlignment)
	}
	count := int64(le.Uint16(h[fieldSectionCount:]))
	tableEnd := pe + fieldSections + count*sectionHeaderSize
	if count == 0 || count > maxSections || tableEnd > int64(p.sizeOfHeaders) || int64(p.sizeOfHeaders) > int64(len(head)) {
		return nil, bad("%d sections in %d bytes of headers", count, p.sizeOfHeaders)
	}
	for table := head[pe+fieldSections : tableEnd]; len(table) > 0; table = table[sectionHeaderSize:] {
		name, err := sectionName(table[:8])
		if err != nil {
			return nil, err
		}
		p.sections = append(p.sections, section{
			name:            name,
			virtualSize:     le.Uint32(table[8:]),
			virtualAddress:  le.Uint32(table[12:]),
			rawSize:         le.Uint32(table[16:]),
			rawOffset:       le.Uint32(table[20:]),
			characteristics: le.Uint32(table[36:]),
		})
	}
	return p, nil
}

func sectionName(b []byte) (string, error) {
	name := bytes.TrimRight(b, "\x00")
	for _, c := range name {
		if c <= ' ' || c > '~' {
			return "", bad("section name %q", b)
		}
	}
	if len(name) == 0 || name[0] == '/' { // "/4" would point into a string table, which images do not have
		return "", bad("section name %q", b)
	}
	return string(name), nil
}

func (p *image) checkSections() error {
	seen := map[string]bool{}
	inMemory := int64(p.sizeOfHeaders)
	for _, s := range p.sections {
		// A second section of the same name would be one that this program reads and the stub does not, or the other way round.
		if seen[s.name] {
			return bad("two sections named %s", s.name)
		}
		seen[s.name] = true
		if s.virtualSize == 0 || int64(s.virtualAddress) < inMemory {
			return bad("section %s has %d bytes at address %#x, after %#x", s.name, s.virtualSize, s.virtualAddress, inMemory)
		}
		inMemory = s.virtualEnd()
	}
	if inMemory > int64(p.sizeOfImage) {
		return bad("the last section ends at address %#x, the image at %#x", inMemory, p.sizeOfImage)
	}
	byOffset := slices.Clone(p.sections)
	slices.SortStableFunc(byOffset, func(a, b section) int { return cmp.Compare(a.rawOffset, b.rawOffset) })
	end := int64(p.sizeOfHeaders)
	for _, s := range byOffset {
		if s.rawSize == 0 { // only memory
			continue
		}
		if int64(s.rawOffset) != end || s.rawSize%p.fileAlignment != 0 {
			return bad("section %s has %d bytes at offset %d of the file, where %d was expected", s.name, s.rawSize, s.rawOffset, end)
		}
		end = s.rawEnd()
	}
	if end > p.size {
		return bad("the sections end at byte %d, the file at %d", end, p.size)
	}
	p.dataEnd = end
	return nil
}

func (p *image) checkCertTable() error {
	if p.certOffset == 0 && p.certSize == 0 {
		return nil
	}
	off, n := int64(p.certOffset), int64(p.certSize)
	if off%8 != 0 || off < p.dataEnd || n < 8 || n > maxCertTable || off+n != p.size {
		return bad("the certificate table has %d bytes at offset %d, the sections end at %d and the file at %d", n, off, p.dataEnd, p.size)
	}
	return nil
}

// signed reports whether there is a certificate table.
func (p *image) signed() bool { return p.certSize != 0 }

// hashedEnd is where the bytes end that a signature covers (before they are padded to a multiple of 8).
func (p *image) hashedEnd() int64 {
	if p.signed() {
		return int64(p.certOffset)
	}
	return p.size
}

// kernelFacts reads what Assemble must know of a kernel: whether it allows non-executable data pages, and its .sbat section, if any. A kernel's
// PE header follows its own rules for alignment, so only what is needed is looked at.
func kernelFacts(kernel []byte) (nx bool, sbat []byte, err error) {
	pe, err := peOffset(kernel[:min(len(kernel), maxHeaders)])
	if err != nil {
		return false, nil, err
	}
	h, le := kernel[pe:], binary.LittleEndian
	nx = le.Uint16(h[fieldDLLFlags:])&dllFlagNX != 0
	table := h[min(coffHeaderSize+int(le.Uint16(h[fieldOptionalSize:])), len(h)):]
	for range min(int(le.Uint16(h[fieldSectionCount:])), maxSections) {
		if len(table) < sectionHeaderSize {
			return false, nil, errors.New("the section table is cut off")
		}
		if string(bytes.TrimRight(table[:8], "\x00")) == SBAT {
			n, off := int64(min(le.Uint32(table[8:]), le.Uint32(table[16:]))), int64(le.Uint32(table[20:]))
			if n > maxText || off+n > int64(len(kernel)) {
				return false, nil, errors.New("its .sbat section lies outside of it")
			}
			sbat = kernel[off : off+n]
		}
		table = table[sectionHeaderSize:]
	}
	return nx, sbat, nil
}
