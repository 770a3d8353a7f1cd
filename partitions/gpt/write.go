package gpt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/semper-os/semper/fault"
)

// Write writes both copies and the protective MBR. Nothing is written if Check finds a fault.
//
// The order keeps one good copy on the disk at every moment, so that a power cut at any sector leaves either the old
// table or the new one, never none:
//
//  1. only where the primary copy on the disk is broken: what the good backup says, as primary; Sync
//  2. the new backup entries and header, in one write; Sync
//  3. the new primary entries and header, in one write; Sync. With its last sector the new table holds
//  4. LBA 0, only if it changes; Sync
//
// A backup at the disk's former end (see Resize) is left there: nothing refers to it any more.
//
// The kernel does not notice; who needs the new sizes or identifiers at once must make it read the table again.
func (t *Table) Write(d Device) error {
	if err := t.Check(); err != nil {
		return err
	}
	if now, found, err := Read(d, int64(t.BackupLBA+1)*SectorSize); err == nil && found.Used == Backup {
		if err := now.Check(); err != nil {
			return fmt.Errorf("partition table: the primary copy is broken, and the backup cannot be copied over it: %w", err)
		}
		if err := now.writePrimary(d); err != nil {
			return err
		}
	}
	if err := t.writeBackup(d); err != nil {
		return err
	}
	if err := t.writePrimary(d); err != nil {
		return err
	}
	return t.writeMBR(d)
}

func (t *Table) writePrimary(d Device) error {
	array := marshalEntries(t.Partitions)
	h := t.header(array)
	h.myLBA, h.alternateLBA, h.entriesLBA = 1, t.BackupLBA, 2
	return writeCopy(d, "primary", h.myLBA, append(h.marshal(), array...))
}

func (t *Table) writeBackup(d Device) error {
	array := marshalEntries(t.Partitions)
	h := t.header(array)
	h.myLBA, h.alternateLBA, h.entriesLBA = t.BackupLBA, 1, t.BackupLBA-arraySectors
	return writeCopy(d, "backup", h.entriesLBA, append(array, h.marshal()...))
}

func (t *Table) header(array []byte) header {
	return header{
		firstUsable: t.FirstUsable,
		lastUsable:  t.LastUsable(),
		disk:        t.DiskGUID,
		entryCount:  MaxEntries,
		entrySize:   entrySize,
		entriesCRC:  crc32.ChecksumIEEE(array),
	}
}

func writeCopy(d Device, name string, lba uint64, data []byte) error {
	if _, err := d.WriteAt(data, int64(lba)*SectorSize); err != nil {
		return fault.New(fault.IO, "partition table: write the %s copy: %w", name, err)
	}
	if err := d.Sync(); err != nil {
		return fault.New(fault.IO, "partition table: flush the %s copy: %w", name, err)
	}
	return nil
}

func (t *Table) writeMBR(d Device) error {
	mbr := t.mbr()
	now := make([]byte, SectorSize)
	if err := readFull(d, now, 0); err != nil {
		return fmt.Errorf("partition table: read the MBR: %w", err)
	}
	if bytes.Equal(now, mbr) {
		return nil
	}
	if _, err := d.WriteAt(mbr, 0); err != nil {
		return fault.New(fault.IO, "partition table: write the MBR: %w", err)
	}
	if err := d.Sync(); err != nil {
		return fault.New(fault.IO, "partition table: flush the MBR: %w", err)
	}
	return nil
}

// mbr returns LBA 0: the boot code, and one partition of type EE over the whole disk.
func (t *Table) mbr() []byte {
	le := binary.LittleEndian
	b := make([]byte, SectorSize)
	copy(b, t.BootCode[:])
	p := b[446:]
	copy(p[1:], []byte{0x00, 0x02, 0x00}) // first sector as cylinder, head, sector: LBA 1
	p[4] = 0xee
	copy(p[5:], []byte{0xff, 0xff, 0xff}) // last sector: beyond what this form can say
	le.PutUint32(p[8:], 1)
	le.PutUint32(p[12:], uint32(min(t.BackupLBA, 0xffffffff)))
	b[510], b[511] = 0x55, 0xaa
	return b
}

// protective reports whether LBA 0 has an entry that protects a GPT.
func protective(mbr []byte) bool {
	if mbr[510] != 0x55 || mbr[511] != 0xaa {
		return false
	}
	for i := range 4 {
		p := mbr[446+16*i:]
		if p[4] == 0xee && binary.LittleEndian.Uint32(p[8:]) == 1 {
			return true
		}
	}
	return false
}
