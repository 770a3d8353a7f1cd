package gpt

import (
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"

	"github.com/semper-os/semper/fault"
)

// readCopy reads and checks the copy whose header is at lba, on a disk of that many sectors. The header is returned as
// soon as it is good by itself, for the place of the other copy.
func readCopy(r io.ReaderAt, lba, sectors uint64) (header, []Partition, error) {
	sector := make([]byte, SectorSize)
	if err := readFull(r, sector, int64(lba)*SectorSize); err != nil {
		return header{}, nil, fmt.Errorf("read GPT header at sector %d: %w", lba, err)
	}
	h, err := parseHeader(sector, lba, sectors)
	if err != nil {
		return header{}, nil, err
	}
	array := make([]byte, int(h.entryCount)*int(h.entrySize))
	if err := readFull(r, array, int64(h.entriesLBA)*SectorSize); err != nil {
		return h, nil, fmt.Errorf("read GPT entries at sector %d: %w", h.entriesLBA, err)
	}
	if crc32.ChecksumIEEE(array) != h.entriesCRC {
		return h, nil, fault.New(fault.Input, "GPT entries at sector %d have a wrong checksum", h.entriesLBA)
	}
	partitions := parseEntries(array, int(h.entryCount), int(h.entrySize))
	if err := checkPlaces(partitions, h.firstUsable, h.lastUsable); err != nil {
		return h, nil, fmt.Errorf("GPT entries at sector %d: %w", h.entriesLBA, err)
	}
	return h, partitions, nil
}

// Read reads and checks the table of a disk of size bytes.
//
// Both copies are read. Where one is broken the other is used, and Found says so. Where both are good but differ, an edit
// was interrupted; the primary one holds then, as it does for firmware and kernel. An error means that neither is usable.
func Read(r io.ReaderAt, size int64) (*Table, Found, error) {
	if size < (minFirstUsable+arraySectors+2)*SectorSize {
		return nil, Found{}, fault.New(fault.Input, "partition table: a disk of %d bytes is too small for one", size)
	}
	sectors := uint64(size) / SectorSize
	mbr := make([]byte, SectorSize)
	if err := readFull(r, mbr, 0); err != nil {
		return nil, Found{}, fmt.Errorf("partition table: read the MBR: %w", err)
	}

	ph, pp, perr := readCopy(r, 1, sectors)
	if perr == nil {
		perr = fitsDisk(pp, sectors)
	}
	bh, bp, berr := readBackup(r, ph, sectors)
	if berr == nil {
		berr = fitsDisk(bp, sectors)
	}

	t := &Table{BootCode: [BootCodeSize]byte(mbr)}
	var found Found
	switch {
	case perr != nil && berr != nil:
		if hint := foreign(r, mbr); hint != nil {
			return nil, Found{}, hint
		}
		return nil, Found{}, fault.New(fault.Input, "partition table: both copies are unusable: primary: %w; backup: %w", perr, berr)
	case perr != nil:
		found.Used, found.Damage = Backup, fmt.Errorf("primary partition table: %w", perr)
		t.fill(bh, bp, bh.myLBA)
	case berr != nil:
		found.Used, found.Damage = Primary, fmt.Errorf("backup partition table: %w", berr)
		t.fill(ph, pp, ph.alternateLBA)
	default:
		t.fill(ph, pp, ph.alternateLBA)
		if ph.disk != bh.disk || ph.firstUsable != bh.firstUsable || ph.lastUsable != bh.lastUsable || ph.alternateLBA != bh.myLBA || !slices.Equal(pp, bp) {
			found.Used, found.Damage = Primary, fault.New(fault.Input, "backup partition table: differs from the primary one, an edit was interrupted")
		}
	}
	found.Grown = t.BackupLBA < sectors-1
	if !protective(mbr) {
		found.Damage = errors.Join(found.Damage, fault.New(fault.Input, "sector 0 holds no protective MBR: firmware and kernel may ignore the partition table"))
	}
	return t, found, nil
}

func (t *Table) fill(h header, partitions []Partition, backup uint64) {
	t.DiskGUID, t.Partitions, t.FirstUsable, t.BackupLBA = h.disk, partitions, h.firstUsable, backup
}

// readBackup looks where the primary header says the backup is, and then at the disk's end.
func readBackup(r io.ReaderAt, primary header, sectors uint64) (header, []Partition, error) {
	last := sectors - 1
	if at := primary.alternateLBA; at > 1 && at < last {
		if h, p, err := readCopy(r, at, sectors); err == nil && h.alternateLBA == 1 {
			return h, p, nil
		}
	}
	h, p, err := readCopy(r, last, sectors)
	if err == nil && h.alternateLBA != 1 {
		err = fault.New(fault.Input, "GPT header at sector %d is no backup: it says that the other copy is at %d", last, h.alternateLBA)
	}
	return h, p, err
}

// fitsDisk catches a disk image that was cut short, or copied to a smaller disk.
func fitsDisk(partitions []Partition, sectors uint64) error {
	for i, p := range partitions {
		if p.Used() && p.Last >= sectors {
			return fault.New(fault.Input, "partition %d (%q) ends at sector %d, the disk has only %d: it was cut short, or copied to a smaller disk", i+1, p.Name, p.Last, sectors)
		}
	}
	return nil
}

// foreign says what a disk without a usable GPT is, where that is easy to tell.
func foreign(r io.ReaderAt, mbr []byte) error {
	probe := make([]byte, len(signature))
	if err := readFull(r, probe, 4096); err == nil && string(probe) == signature {
		return fault.New(fault.Input, "partition table: the disk has sectors of 4096 bytes; only 512 are supported")
	}
	if mbr[510] == 0x55 && mbr[511] == 0xaa && !protective(mbr) && mbr[446+4] != 0 {
		return fault.New(fault.Input, "partition table: the disk has an MBR partition table, not a GPT")
	}
	return nil
}

// readFull is ReadAt of all of b; a disk that ends early is an error.
func readFull(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fault.Wrap(fault.IO, err)
}
