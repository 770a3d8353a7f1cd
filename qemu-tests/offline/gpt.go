package offline

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"unicode/utf16"
)

const sectorSize = 512

// Partition is one entry of the table.
type Partition struct {
	Number         int // from 1
	Type, UUID     string
	Label          string
	Attributes     uint64
	Offset, Length int64 // bytes
}

// table is a partition table: the primary where it is whole, as firmware and Linux take it, otherwise the backup.
type table struct {
	partitions []Partition
	backup     bool // the primary is not whole
	oneCopy    bool // the other copy is not whole or says something else
}

func readTable(d Disk) (*table, error) {
	last := d.Size()/sectorSize - 1
	primary, alternate, err := readCopy(d, 1)
	if err != nil {
		backup, _, backupErr := readCopy(d, last)
		if backupErr != nil {
			return nil, fmt.Errorf("partition table: primary: %w; backup: %w", err, backupErr)
		}
		return &table{partitions: backup, backup: true, oneCopy: true}, nil
	}
	other, _, err := readCopy(d, alternate)
	same := err == nil && equalPartitions(primary, other) // one that cannot be read is told, too
	return &table{partitions: primary, oneCopy: !same}, nil
}

func equalPartitions(a, b []Partition) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// readCopy reads one copy of the table, whose header is in the sector lba.
func readCopy(d Disk, lba int64) (partitions []Partition, alternate int64, err error) {
	last := d.Size()/sectorSize - 1
	if lba < 1 || lba > last {
		return nil, 0, fmt.Errorf("sector %d is not on the disk", lba)
	}
	h := make([]byte, sectorSize)
	if _, err := d.ReadAt(h, lba*sectorSize); err != nil {
		return nil, 0, err
	}
	le := binary.LittleEndian
	size, count, length := le.Uint32(h[12:]), le.Uint32(h[80:]), le.Uint32(h[84:])
	if string(h[:8]) != "EFI PART" || size < 92 || size > sectorSize {
		return nil, 0, fmt.Errorf("no header in sector %d", lba)
	}
	sum := le.Uint32(h[16:])
	clear(h[16:20])
	if crc32.ChecksumIEEE(h[:size]) != sum {
		return nil, 0, fmt.Errorf("header in sector %d: wrong checksum", lba)
	}
	if int64(le.Uint64(h[24:])) != lba {
		return nil, 0, fmt.Errorf("header in sector %d says that it is in sector %d", lba, le.Uint64(h[24:]))
	}
	first, lastUsable, at := le.Uint64(h[40:]), le.Uint64(h[48:]), le.Uint64(h[72:])
	if length != 128 || count == 0 || count > 1024 || at < 2 || at > uint64(last) || first > lastUsable || lastUsable > uint64(last) {
		return nil, 0, fmt.Errorf("header in sector %d makes no sense", lba)
	}
	entries := make([]byte, count*length)
	if _, err := d.ReadAt(entries, int64(at)*sectorSize); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	if crc32.ChecksumIEEE(entries) != le.Uint32(h[88:]) {
		return nil, 0, fmt.Errorf("entries of the header in sector %d: wrong checksum", lba)
	}
	for i := range int(count) {
		e := entries[i*128 : (i+1)*128]
		if [16]byte(e) == [16]byte{} {
			continue
		}
		from, to := le.Uint64(e[32:]), le.Uint64(e[40:])
		if from < first || to < from || to > lastUsable {
			return nil, 0, fmt.Errorf("partition %d has the sectors %d to %d, allowed are %d to %d", i+1, from, to, first, lastUsable)
		}
		p := Partition{
			Number: i + 1, Type: guid(e), UUID: guid(e[16:]), Label: label(e[56:128]), Attributes: le.Uint64(e[48:]),
			Offset: int64(from) * sectorSize, Length: int64(to-from+1) * sectorSize,
		}
		for _, q := range partitions {
			if p.Offset < q.Offset+q.Length && q.Offset < p.Offset+p.Length {
				return nil, 0, fmt.Errorf("partitions %d and %d overlap", q.Number, p.Number)
			}
		}
		partitions = append(partitions, p)
	}
	return partitions, int64(le.Uint64(h[32:])), nil
}

func guid(b []byte) string {
	le := binary.LittleEndian
	return fmt.Sprintf("%08x-%04x-%04x-%x-%x", le.Uint32(b), le.Uint16(b[4:]), le.Uint16(b[6:]), b[8:10], b[10:16])
}

func label(b []byte) string {
	var units []uint16
	for i := 0; i+1 < len(b); i += 2 {
		u := binary.LittleEndian.Uint16(b[i:])
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units))
}
