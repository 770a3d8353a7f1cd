// Package writelog reads what a machine wrote to its disk, write by write, and makes the disks that a power cut could have left behind.
//
// The log is that of the kernel's dm-log-writes, which QEMU's block driver "blklogwrites" writes too. All numbers are little-endian, everything
// starts at a whole sector of the log (512 to 4096 bytes, as the superblock says):
//
//	sector 0   superblock   magic 0x6a736677736872, version 1, number of entries (8 bytes each), sector size (4 bytes)
//	sector 1   entry        sector, sectors, flags, length of the data (8 bytes each)
//	           data         of a write: its sectors; none after a flush or a discard
//	…          entry …
//
// Flags: 1 flush (everything that was written before is durable), 2 FUA (this write is), 4 discard, 8 mark (a text for the reader), 16 metadata. The length
// of the data is that of a mark; of writes it is 0, their sectors tell. A flush with data is first the flush and then the write, as in the kernel's
// documentation.
//
// # States
//
// An epoch is what was written between two flushes. A power cut leaves all of the epochs before, and of the one it falls into any part, since a disk writes
// back in any order and sector by sector: each sector has one of the contents that were written to it in that epoch, or the one from before. Writes with FUA
// are there once they have ended. [Replay] makes such states, each with a name that makes it again alone:
//
//	write-1234             everything up to entry 1234 in order
//	epoch-12-subset-1f     of epoch 12 the writes whose bits are set, whole and in order
//	epoch-12-without-3     all but write 3             epoch-12-only-3   nothing but write 3
//	epoch-12-seed-9c…      drawn: a cut in the epoch, a subset before it, some torn, in any order
//
// Limits: QEMU logs a write when it has ended, so one that ended while a flush was under way is taken for durable. Logs have up to 4 Mi entries and 2 TiB,
// disks up to 16 TiB. A discarded sector reads as zero. A log of QEMU before 9.0 is garbled by "write zeroes", which the machine must not pass on.
package writelog

import (
	"encoding/binary"
	"io"

	"github.com/semper-os/semper/fault"
)

const (
	magic     = 0x6a736677736872
	entrySize = 32

	maxEntries = 4 << 20
	maxLog     = 1 << 41
	maxDisk    = 1 << 44
	maxMark    = 4096
)

// Flags of an entry.
type Flags uint64

// The flags of the format.
const (
	Flush    Flags = 1 << iota // everything that was written before is durable
	FUA                        // this write is durable
	Discard                    // the sectors' content is of no use any more
	Mark                       // not a write: a text
	Metadata                   // the file system said that it is
)

// Entry is one request.
type Entry struct {
	Offset, Length int64 // on the disk, bytes
	Flags          Flags
	Mark           string

	data uint32 // where the data begins in the log, in sectors of 512 bytes
}

// Writes reports whether the entry changes the disk.
func (e *Entry) Writes() bool { return e.Length > 0 && e.Flags&Mark == 0 }

// Log is a log that was read. The data stays in the file.
type Log struct {
	Entries []Entry
	from    io.ReaderAt
}

// Read reads the entries of a log of size bytes.
func Read(r io.ReaderAt, size int64) (*Log, error) {
	if size > maxLog {
		return nil, fault.New(fault.Input, "write log: %d bytes are too many", size)
	}
	var super [28]byte
	if _, err := r.ReadAt(super[:], 0); err != nil {
		return nil, fault.New(fault.Input, "write log: superblock: %w", err)
	}
	count, sector := binary.LittleEndian.Uint64(super[16:]), int64(binary.LittleEndian.Uint32(super[24:]))
	switch {
	case binary.LittleEndian.Uint64(super[:]) != magic:
		return nil, fault.New(fault.Input, "write log: it does not begin with the magic number")
	case binary.LittleEndian.Uint64(super[8:]) != 1:
		return nil, fault.New(fault.Input, "write log: version %d, only 1 is known", binary.LittleEndian.Uint64(super[8:]))
	case sector < 512 || sector > 4096 || sector&(sector-1) != 0:
		return nil, fault.New(fault.Input, "write log: sectors of %d bytes", sector)
	case count > maxEntries || int64(count) > size/sector:
		return nil, fault.New(fault.Input, "write log: %d entries in %d bytes", count, size)
	}
	l := &Log{from: r, Entries: make([]Entry, 0, count)}
	at := sector
	for i := range int(count) {
		e, next, err := readEntry(r, at, size, sector)
		if err != nil {
			return nil, fault.New(fault.Input, "write log: entry %d of %d: %w", i, count, err)
		}
		l.Entries, at = append(l.Entries, e), next
	}
	return l, nil
}

func readEntry(r io.ReaderAt, at, size, sector int64) (e Entry, next int64, err error) {
	var head [entrySize]byte
	if at > size-entrySize {
		return e, 0, fault.New(fault.Input, "it is behind the log's end")
	}
	if _, err := r.ReadAt(head[:], at); err != nil {
		return e, 0, err
	}
	start, sectors := binary.LittleEndian.Uint64(head[:]), binary.LittleEndian.Uint64(head[8:])
	flags, length := Flags(binary.LittleEndian.Uint64(head[16:])), binary.LittleEndian.Uint64(head[24:])
	at += sector
	if flags&^(Flush|FUA|Discard|Mark|Metadata) != 0 {
		return e, 0, fault.New(fault.Input, "unknown flags %#x", uint64(flags))
	}
	limit := uint64(maxDisk / sector)
	if start > limit || sectors > limit-start {
		return e, 0, fault.New(fault.Input, "sectors %d to %d are behind any disk's end", start, start+sectors)
	}
	e = Entry{Offset: int64(start) * sector, Length: int64(sectors) * sector, Flags: flags, data: uint32(at / 512)}
	data := e.Length
	switch {
	case flags&Mark != 0:
		if length > maxMark {
			return e, 0, fault.New(fault.Input, "a mark of %d bytes", length)
		}
		data = int64(length)
	case flags&Discard != 0:
		data, e.data = 0, zero
	case length != 0 && length != uint64(e.Length):
		return e, 0, fault.New(fault.Input, "a write of %d bytes with %d bytes of data", e.Length, length)
	}
	if data > size-min(at, size) {
		return e, 0, fault.New(fault.Input, "%d bytes of data at %d, the log ends at %d", data, at, size)
	}
	if flags&Mark != 0 {
		text := make([]byte, data)
		if _, err := r.ReadAt(text, at); err != nil {
			return e, 0, err
		}
		e.Mark = string(text)
	}
	next = at + (data+sector-1)/sector*sector
	return e, next, nil
}

// Epoch is a run of entries that no flush divides.
type Epoch struct {
	First, Last int   // entries, Last excluded
	Writes      []int // those that change the disk
}

// Epochs divides the log. Their numbers are those in the names of states.
func (l *Log) Epochs() []Epoch {
	all := []Epoch{{}}
	for i := range l.Entries {
		e := &l.Entries[i]
		last := &all[len(all)-1]
		if e.Flags&Flush != 0 && len(last.Writes) > 0 {
			all = append(all, Epoch{First: i})
			last = &all[len(all)-1]
		}
		last.Last = i + 1
		if e.Writes() {
			last.Writes = append(last.Writes, i)
		}
	}
	return all
}
