// Package uki makes and reads unified kernel images: one EFI program that holds the boot stub, the kernel, the initrd and
// the kernel's command line, so that one signature covers all of them.
//
// A UKI is a PE32+ file: systemd's stub with sections appended to it.
//
//	offset            what
//	0                 DOS header, "MZ"; the u32 at 0x3c says where the PE header is
//	e_lfanew          "PE\0\0", COFF header, optional header (PE32+), section table
//	SizeOfHeaders     the stub's own sections: .text, .rodata, .data, .sbat, .sdmagic, .reloc
//	…                 .linux .osrel .cmdline .initrd .ucode .uname (those that are given, in this order)
//	end of sections   attribute certificate table: WIN_CERTIFICATE entries with a PKCS #7 signature each (subpackage authenticode)
//
// Specifications: "Unified Kernel Image" of the UAPI group and Microsoft's "PE Format". Assemble is a pure function of its
// input: the same parts and time give the same bytes.
//
// Limits: PE32+ for x86-64 and arm64; 256 MiB a file; 96 sections. Files with gaps or overlaps between their sections are
// refused, because an Authenticode hash would not cover the bytes in a gap.
package uki

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/semper-os/semper/fault"
)

// Sizes that nothing exceeds.
const (
	MaxSize    = 256 << 20 // bytes, a whole UKI
	MaxCmdline = 2047      // bytes, the kernel's command line on x86 without its NUL; the kernel cuts off what is longer
	maxText    = 64 << 10  // bytes, .osrel, .sbat and .uname
)

// The sections that this package knows, in the order in which Assemble writes them.
const (
	Linux     = ".linux"   // the kernel, a PE file itself
	OSRelease = ".osrel"   // os-release(5); systemd-boot takes the entry's title and version from it
	Cmdline   = ".cmdline" // the kernel's command line
	Initrd    = ".initrd"  // cpio archive
	Ucode     = ".ucode"   // microcode as an uncompressed cpio archive, put before the initrd
	Uname     = ".uname"   // the kernel's version, as of uname -r
	SBAT      = ".sbat"    // revocation generations, read by shim
)

// ErrNoSection is what Section returns for a name that the file does not have.
var ErrNoSection = errors.New("no such section")

// File is an opened UKI, or any other EFI program. Nothing in it has been verified: package authenticode does that.
type File struct {
	pe *image
	r  io.ReaderAt
}

// Open reads and checks the headers of a PE file of the given size in bytes. The sections are read when asked for.
func Open(r io.ReaderAt, size int64) (*File, error) {
	p, err := parse(r, size)
	if err != nil {
		return nil, err
	}
	return &File{pe: p, r: r}, nil
}

// Names returns the names of all sections in the order of the section table.
func (f *File) Names() []string {
	names := make([]string, len(f.pe.sections))
	for i, s := range f.pe.sections {
		names[i] = s.name
	}
	return names
}

// Timestamp returns the file's TimeDateStamp in seconds since 1970.
func (f *File) Timestamp() uint32 { return f.pe.timestamp }

// Section returns a section's bytes, without the padding of the file. It returns ErrNoSection (wrapped) when there is none, and
// an error when it is longer than limit bytes or than what the file stores of it.
func (f *File) Section(name string, limit int64) ([]byte, error) {
	r, err := f.SectionReader(name)
	if err != nil {
		return nil, err
	}
	if r.Size() > limit {
		return nil, fault.New(fault.Input, "section %s has %d bytes, the limit is %d", name, r.Size(), limit)
	}
	b := make([]byte, r.Size())
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fault.New(fault.IO, "read section %s: %w", name, err)
	}
	return b, nil
}

// SectionReader is Section for what is too large to hold in memory: the kernel and the initrd.
func (f *File) SectionReader(name string) (*io.SectionReader, error) {
	for _, s := range f.pe.sections {
		if s.name != name {
			continue
		}
		if s.virtualSize > s.rawSize {
			return nil, fault.New(fault.Input, "section %s has %d bytes but the file stores %d", name, s.virtualSize, s.rawSize)
		}
		return io.NewSectionReader(f.r, int64(s.rawOffset), int64(s.virtualSize)), nil
	}
	return nil, fault.New(fault.Input, "section %s: %w", name, ErrNoSection)
}

// Cmdline returns the kernel's command line without the white space and NULs around it.
func (f *File) Cmdline() (string, error) {
	b, err := f.Section(Cmdline, maxText)
	if err != nil {
		return "", err
	}
	b = bytes.Trim(b, " \t\r\n\x00")
	if err := checkCmdline(string(b)); err != nil {
		return "", fmt.Errorf("section %s: %w", Cmdline, err)
	}
	return string(b), nil
}

// RootHash returns the dm-verity root hash (SHA-256) that the command line's only roothash= names.
func (f *File) RootHash() ([32]byte, error) {
	line, err := f.Cmdline()
	if err != nil {
		return [32]byte{}, err
	}
	values := cmdlineValues(line, "roothash")
	if len(values) != 1 {
		return [32]byte{}, fault.New(fault.Input, "the command line holds roothash= %d times, not once", len(values))
	}
	hash, err := hex.DecodeString(values[0])
	if err != nil || len(hash) != 32 || hex.EncodeToString(hash) != values[0] {
		return [32]byte{}, fault.New(fault.Input, "roothash=%.80q on the command line is not 64 lower-case hexadecimal digits", values[0])
	}
	return [32]byte(hash), nil
}

// OSRelease returns the fields of the .osrel section.
func (f *File) OSRelease() (map[string]string, error) {
	b, err := f.Section(OSRelease, maxText)
	if err != nil {
		return nil, err
	}
	fields, err := parseOSRelease(b)
	if err != nil {
		return nil, fmt.Errorf("section %s: %w", OSRelease, err)
	}
	return fields, nil
}
