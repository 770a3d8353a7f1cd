// Package gpt reads, checks, edits and writes GUID partition tables on disks with sectors of 512 bytes.
//
// The format is that of the UEFI specification 2.10, chapter 5:
//
//	LBA 0            boot code (440 bytes), protective MBR
//	LBA 1            primary header, with CRC-32s of itself and of the entries
//	LBA 2..33        primary entries: 128 of 128 bytes
//	LBA 34..n-34     partitions
//	LBA n-33..n-2    backup entries
//	LBA n-1          backup header
//
// Read checks both copies and says which one it used. Write can edit a live disk: it keeps one good copy on the disk at
// every moment, see there.
//
// Limits: tables of foreign tools are read with up to 1 MiB of entries, and written back with 128 entries of 128 bytes.
// The disk signature of the MBR (bytes 440 to 445) is written as zero, as the specification wants it.
package gpt

import (
	"io"
	"slices"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/semper-os/semper/fault"
)

// Sizes on disk, in bytes unless the name says otherwise.
const (
	SectorSize   = 512
	MaxEntries   = 128 // partitions in a table that we write
	NameUnits    = 36  // UTF-16 code units in a partition's name
	BootCodeSize = 440 // what of LBA 0 belongs to a BIOS boot loader

	entrySize      = 128
	arraySectors   = MaxEntries * entrySize / SectorSize
	minFirstUsable = 2 + arraySectors
	maxSectors     = 1 << 54 // so that bytes always fit an int64
)

// Partition is one entry. Its number is its index in Table.Partitions plus one.
type Partition struct {
	Type       GUID   // zero: the entry is not used
	GUID       GUID   // the PARTUUID
	First      uint64 // first sector
	Last       uint64 // last sector, inclusive
	Attributes uint64
	Name       string // the label, at most NameUnits UTF-16 code units
}

// Used reports whether the entry holds a partition.
func (p Partition) Used() bool { return !p.Type.IsZero() }

// Sectors returns the length in sectors.
func (p Partition) Sectors() uint64 { return p.Last - p.First + 1 }

// Offset returns the start in bytes.
func (p Partition) Offset() int64 { return int64(p.First) * SectorSize }

// Size returns the length in bytes.
func (p Partition) Size() int64 { return int64(p.Sectors()) * SectorSize }

// Table is a partition table in memory. Edit its fields freely; Write checks them.
type Table struct {
	DiskGUID    GUID
	Partitions  []Partition        // by number; entries that are not used have a zero Type
	FirstUsable uint64             // first sector that a partition may use
	BackupLBA   uint64             // sector of the backup header: the disk's last one, unless the disk has grown since
	BootCode    [BootCodeSize]byte // a BIOS boot loader's first stage; Read and Write carry it along
}

// Copy says which of the two copies on the disk Read used.
type Copy uint8

// What Read can have used.
const (
	Both    Copy = iota // both copies are good and say the same
	Primary             // the backup is broken or differs
	Backup              // the primary is broken
)

// String returns "both", "primary" or "backup".
func (c Copy) String() string {
	switch c {
	case Both:
		return "both"
	case Primary:
		return "primary"
	default:
		return "backup"
	}
}

// Found is what Read has to say about a disk beside its table.
type Found struct {
	Used   Copy
	Damage error // what is wrong with the copy that was not used, or with the protective MBR; nil where all is well. Write mends it
	Grown  bool  // the disk goes on behind the backup header; Table.Resize moves it to the end
}

// Device is what a table is written to. *os.File is one; Sync must not return before earlier writes are durable.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// New returns an empty table for a disk of size bytes.
func New(disk GUID, size int64) (*Table, error) {
	t := &Table{DiskGUID: disk, FirstUsable: minFirstUsable}
	if err := t.Resize(size); err != nil {
		return nil, err
	}
	return t, nil
}

// LastUsable returns the last sector that a partition may use.
func (t *Table) LastUsable() uint64 { return t.BackupLBA - arraySectors - 1 }

// Resize makes the table fit a disk of size bytes (a part of a sector at its end is not used): the next Write puts the
// backup at the end. It is an error if a partition would not fit; the table is then unchanged.
func (t *Table) Resize(size int64) error {
	const least = minFirstUsable + arraySectors + 2
	if size < least*SectorSize {
		return fault.New(fault.Input, "partition table: a disk of %d bytes is too small: want at least %d", size, least*SectorSize)
	}
	moved := *t
	moved.BackupLBA = uint64(size)/SectorSize - 1
	if err := moved.Check(); err != nil {
		return err
	}
	t.BackupLBA = moved.BackupLBA
	return nil
}

// Append adds p behind the partition that ends last, with the number behind the highest one in use, and returns that
// number. The start is rounded up to align sectors. Sectors is the length; 0 takes all the room up to the end of the disk
// as the table knows it (see Resize), in whole multiples of align. First and Last of p are ignored.
func (t *Table) Append(p Partition, sectors, align uint64) (int, error) {
	if align == 0 {
		align = 1
	}
	next, number := t.FirstUsable, 0
	for i, q := range t.Partitions {
		if q.Used() {
			next, number = max(next, q.Last+1), i+1
		}
	}
	number++
	p.First = (next + align - 1) / align * align
	end := t.LastUsable() + 1
	if p.First >= end {
		return 0, fault.New(fault.Input, "partition table: no room left for partition %d (%q): the disk ends at sector %d", number, p.Name, end)
	}
	if sectors == 0 {
		if sectors = (end - p.First) / align * align; sectors == 0 {
			sectors = end - p.First
		}
	}
	if sectors > end-p.First {
		return 0, fault.New(fault.Input, "partition table: partition %d (%q) wants %d sectors, %d are left", number, p.Name, sectors, end-p.First)
	}
	p.Last = p.First + sectors - 1
	edited := *t
	edited.Partitions = slices.Concat(t.Partitions[:number-1], []Partition{p})
	if err := edited.Check(); err != nil {
		return 0, err
	}
	t.Partitions = edited.Partitions
	return number, nil
}

// Check reports the first reason why Write would refuse the table: a partition outside the usable sectors, overlapping
// or nameless ones, a PARTUUID used twice, a name that does not fit.
func (t *Table) Check() error {
	if len(t.Partitions) > MaxEntries {
		return fault.New(fault.Input, "partition table: %d entries, at most %d are written", len(t.Partitions), MaxEntries)
	}
	if t.FirstUsable < minFirstUsable {
		return fault.New(fault.Input, "partition table: first usable sector is %d, the entries need the sectors before %d", t.FirstUsable, minFirstUsable)
	}
	if t.BackupLBA >= maxSectors || t.BackupLBA < t.FirstUsable+arraySectors+1 {
		return fault.New(fault.Input, "partition table: no room for partitions between sector %d and the backup header at %d", t.FirstUsable, t.BackupLBA)
	}
	seen := make(map[GUID]int)
	for i, p := range t.Partitions {
		if !p.Used() {
			continue
		}
		if p.GUID.IsZero() {
			return fault.New(fault.Input, "partition %d (%q) has no PARTUUID", i+1, p.Name)
		}
		if other, twice := seen[p.GUID]; twice {
			return fault.New(fault.Input, "partitions %d and %d have the same PARTUUID %s", other, i+1, p.GUID)
		}
		seen[p.GUID] = i + 1
		if err := CheckName(p.Name); err != nil {
			return fault.Wrap(fault.Input, err)
		}
	}
	return checkPlaces(t.Partitions, t.FirstUsable, t.LastUsable())
}

// checkPlaces reports partitions outside first to last, turned round, or overlapping.
func checkPlaces(partitions []Partition, first, last uint64) error {
	var order []int
	for i, p := range partitions {
		if !p.Used() {
			continue
		}
		if p.First > p.Last {
			return fault.New(fault.Input, "partition %d (%q) ends at sector %d, before its start at %d", i+1, p.Name, p.Last, p.First)
		}
		if p.First < first || p.Last > last {
			return fault.New(fault.Input, "partition %d (%q) covers sectors %d to %d, the usable ones are %d to %d", i+1, p.Name, p.First, p.Last, first, last)
		}
		order = append(order, i)
	}
	slices.SortFunc(order, func(a, b int) int {
		if partitions[a].First < partitions[b].First {
			return -1
		}
		return 1
	})
	for k := 1; k < len(order); k++ {
		a, b := order[k-1], order[k]
		if partitions[a].Last >= partitions[b].First {
			return fault.New(fault.Input, "partitions %d (%q) and %d (%q) overlap at sector %d", a+1, partitions[a].Name, b+1, partitions[b].Name, partitions[b].First)
		}
	}
	return nil
}

// CheckName reports why a name cannot be a partition's.
func CheckName(name string) error {
	if !utf8.ValidString(name) {
		return fault.New(fault.Input, "partition name %q is not UTF-8", name)
	}
	units := utf16.Encode([]rune(name))
	if len(units) > NameUnits {
		return fault.New(fault.Input, "partition name %q is longer than %d UTF-16 units", name, NameUnits)
	}
	if slices.Contains(units, 0) {
		return fault.New(fault.Input, "partition name %q holds a NUL", name)
	}
	return nil
}
