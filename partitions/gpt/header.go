package gpt

import (
	"encoding/binary"
	"hash/crc32"
	"unicode/utf16"

	"github.com/semper-os/semper/fault"
)

const (
	signature     = "EFI PART"
	revision      = 0x00010000
	headerSize    = 92
	maxEntrySize  = 4096
	maxArrayBytes = 1 << 20
)

// header is the fixed part of LBA 1 and of its backup.
type header struct {
	myLBA, alternateLBA     uint64
	firstUsable, lastUsable uint64
	disk                    GUID
	entriesLBA              uint64
	entryCount, entrySize   uint32
	entriesCRC              uint32
}

// marshal returns one sector.
func (h header) marshal() []byte {
	le := binary.LittleEndian
	b := make([]byte, SectorSize)
	copy(b, signature)
	le.PutUint32(b[8:], revision)
	le.PutUint32(b[12:], headerSize)
	le.PutUint64(b[24:], h.myLBA)
	le.PutUint64(b[32:], h.alternateLBA)
	le.PutUint64(b[40:], h.firstUsable)
	le.PutUint64(b[48:], h.lastUsable)
	disk := h.disk.swapped()
	copy(b[56:], disk[:])
	le.PutUint64(b[72:], h.entriesLBA)
	le.PutUint32(b[80:], h.entryCount)
	le.PutUint32(b[84:], h.entrySize)
	le.PutUint32(b[88:], h.entriesCRC)
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:headerSize]))
	return b
}

// parseHeader reads a sector that should be the header at lba of a disk of that many sectors.
func parseHeader(b []byte, lba, sectors uint64) (header, error) {
	le := binary.LittleEndian
	if string(b[:8]) != signature {
		return header{}, fault.New(fault.Input, "no GPT header at sector %d", lba)
	}
	if v := le.Uint32(b[8:]); v != revision {
		return header{}, fault.New(fault.Input, "GPT header at sector %d has the unknown revision %#x", lba, v)
	}
	size := le.Uint32(b[12:])
	if size < headerSize || size > SectorSize {
		return header{}, fault.New(fault.Input, "GPT header at sector %d claims %d bytes", lba, size)
	}
	summed := append([]byte(nil), b[:size]...)
	clear(summed[16:20])
	if crc32.ChecksumIEEE(summed) != le.Uint32(b[16:]) {
		return header{}, fault.New(fault.Input, "GPT header at sector %d has a wrong checksum", lba)
	}
	h := header{
		myLBA:        le.Uint64(b[24:]),
		alternateLBA: le.Uint64(b[32:]),
		firstUsable:  le.Uint64(b[40:]),
		lastUsable:   le.Uint64(b[48:]),
		disk:         GUID(b[56:72]).swapped(),
		entriesLBA:   le.Uint64(b[72:]),
		entryCount:   le.Uint32(b[80:]),
		entrySize:    le.Uint32(b[84:]),
		entriesCRC:   le.Uint32(b[88:]),
	}
	if h.myLBA != lba {
		return header{}, fault.New(fault.Input, "GPT header at sector %d says that it is at sector %d", lba, h.myLBA)
	}
	if h.entrySize < entrySize || h.entrySize > maxEntrySize || h.entrySize&(h.entrySize-1) != 0 {
		return header{}, fault.New(fault.Input, "GPT header at sector %d: entries of %d bytes", lba, h.entrySize)
	}
	bytes := uint64(h.entryCount) * uint64(h.entrySize)
	if h.entryCount == 0 || bytes > maxArrayBytes {
		return header{}, fault.New(fault.Input, "GPT header at sector %d: %d entries of %d bytes", lba, h.entryCount, h.entrySize)
	}
	room := (bytes + SectorSize - 1) / SectorSize
	if h.entriesLBA < 2 || h.entriesLBA >= sectors || room > sectors-h.entriesLBA {
		return header{}, fault.New(fault.Input, "GPT header at sector %d: entries at sector %d, outside the disk", lba, h.entriesLBA)
	}
	if h.alternateLBA >= maxSectors || h.lastUsable >= maxSectors || h.firstUsable > h.lastUsable {
		return header{}, fault.New(fault.Input, "GPT header at sector %d: usable sectors %d to %d, other copy at %d", lba, h.firstUsable, h.lastUsable, h.alternateLBA)
	}
	return h, nil
}

// marshalEntries returns the array of 128 entries.
func marshalEntries(partitions []Partition) []byte {
	le := binary.LittleEndian
	array := make([]byte, MaxEntries*entrySize)
	for i, p := range partitions {
		if !p.Used() {
			continue
		}
		b := array[i*entrySize:]
		kind, id := p.Type.swapped(), p.GUID.swapped()
		copy(b[0:], kind[:])
		copy(b[16:], id[:])
		le.PutUint64(b[32:], p.First)
		le.PutUint64(b[40:], p.Last)
		le.PutUint64(b[48:], p.Attributes)
		for k, unit := range utf16.Encode([]rune(p.Name)) {
			le.PutUint16(b[56+2*k:], unit)
		}
	}
	return array
}

// parseEntries returns the partitions up to the last one in use.
func parseEntries(array []byte, count, size int) []Partition {
	le := binary.LittleEndian
	var partitions []Partition
	for i := range count {
		b := array[i*size:]
		kind := GUID(b[0:16]).swapped()
		if kind.IsZero() {
			continue
		}
		var units []uint16
		for k := range NameUnits {
			unit := le.Uint16(b[56+2*k:])
			if unit == 0 {
				break
			}
			units = append(units, unit)
		}
		for len(partitions) < i {
			partitions = append(partitions, Partition{})
		}
		partitions = append(partitions, Partition{
			Type:       kind,
			GUID:       GUID(b[16:32]).swapped(),
			First:      le.Uint64(b[32:]),
			Last:       le.Uint64(b[40:]),
			Attributes: le.Uint64(b[48:]),
			Name:       string(utf16.Decode(units)),
		})
	}
	return partitions
}
