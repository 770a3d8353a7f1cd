// Package gpt reads, checks, edits and writes GUID partition tables (UEFI specification 2.10, chapter 5) of disks with
// sectors of 512 bytes.
//
//	LBA 0            boot code (440 bytes), protective MBR
//	LBA 1            primary header, CRC-32 of itself and of the entries
//	LBA 2..33        primary entries: 128 of 128 bytes
//	LBA 34..n-34     partitions
//	LBA n-33..n-2    backup entries
//	LBA n-1          backup header
//
// Limits: sectors of 512 bytes only; foreign tables are read with up to 1 MiB of entries, and are written with 128 of 128.
package gpt

import (
	"io"

	"github.com/semper-os/semper/fault"
)

// Sizes on disk, in bytes and in sectors.
const (
	SectorSize   = 512
	MaxEntries   = 128 // partitions that a table we write can hold
	NameUnits    = 36  // UTF-16 code units in a partition's name
	BootCodeSize = 440 // bytes of LBA 0 in front of the disk signature
)

// Partition is one entry. Its number is its index in Table.Partitions plus one.
type Partition struct {
	Type       GUID // zero: the entry is not used
	GUID       GUID // PARTUUID
	First      uint64
	Last       uint64 // last sector, inclusive
	Attributes uint64
	Name       string // at most NameUnits UTF-16 code units
}

// Used reports whether the entry holds a partition.
func (p Partition) Used() bool { return !p.Type.IsZero() }

// Sectors returns the length in sectors.
func (p Partition) Sectors() uint64 { return p.Last - p.First + 1 }

// Offset returns the start in bytes.
func (p Partition) Offset() int64 { return int64(p.First) * SectorSize }

// Size returns the length in bytes.
func (p Partition) Size() int64 { return int64(p.Sectors()) * SectorSize }

// Table is a partition table in memory.
type Table struct {
	DiskGUID    GUID
	Partitions  []Partition // by number; unused entries have a zero Type
	FirstUsable uint64      // first sector that a partition may use
	BackupLBA   uint64      // sector of the backup header: the disk's last one, unless the disk has grown since
	BootCode    [BootCodeSize]byte
}

// Copy says which of the two copies on disk Read used.
type Copy uint8

// What Read found.
const (
	Both    Copy = iota // both copies are good and equal
	Primary             // only the primary one is good, or the backup differs from it
	Backup              // only the backup is good
)

// Found is what Read has to say about the disk beside the table itself.
type Found struct {
	Used   Copy
	Damage error // what is wrong with the other copy; nil for Both
	Grown  bool  // the disk goes on behind the backup header: Table.Resize moves it
}

// Device is what a table is written to. *os.File is one.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// New returns an empty table for a disk of size bytes, a multiple of SectorSize.
func New(disk GUID, size int64) (*Table, error) { return nil, fault.New(fault.Internal, "gpt: not built") }

// LastUsable returns the last sector that a partition may use.
func (t *Table) LastUsable() uint64 { return t.BackupLBA - 33 }

// Read reads and checks the table of a disk of size bytes.
func Read(r io.ReaderAt, size int64) (*Table, Found, error) {
	return nil, Found{}, fault.New(fault.Internal, "gpt: not built")
}

// Check reports what is wrong with the table.
func (t *Table) Check() error { return fault.New(fault.Internal, "gpt: not built") }

// Resize moves the backup to the end of a disk of size bytes.
func (t *Table) Resize(size int64) error { return fault.New(fault.Internal, "gpt: not built") }

// Append adds a partition behind the last one and returns its number.
func (t *Table) Append(p Partition, alignSectors uint64) (int, error) {
	return 0, fault.New(fault.Internal, "gpt: not built")
}

// Write writes both copies and the protective MBR.
func (t *Table) Write(d Device) error { return fault.New(fault.Internal, "gpt: not built") }
