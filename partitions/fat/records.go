package fat

import (
	"encoding/binary"
	"time"
)

const (
	recordSize = 32
	maxRecords = 65536
	unitsEach  = 13 // UTF-16 units of a long name in a record

	attrVolume  = 0x08
	attrFolder  = 0x10
	attrArchive = 0x20
	attrLong    = 0x0f
)

// stamp is a time as directory entries have it.
type stamp struct{ date, time uint16 }

func newStamp(t time.Time) stamp {
	t = t.UTC()
	if t.Year() < 1980 {
		t = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	} else if t.Year() > 2107 {
		t = time.Date(2107, 12, 31, 23, 59, 58, 0, time.UTC)
	}
	return stamp{
		date: uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day()),
		time: uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2),
	}
}

// records returns how many a folder has.
func (n *node) records(label string) int {
	count := 0
	if n.path != "/" {
		count = 2 // . and ..
	} else if label != "" {
		count = 1
	}
	for _, c := range n.children {
		count += 1 + (len(c.long)+unitsEach-1)/unitsEach
	}
	return count
}

// marshal returns a folder's records.
func (n *node) marshal(v *volume, parent *node) []byte {
	var b []byte
	switch {
	case n != parent:
		up := parent.first
		if up == rootCluster {
			up = 0 // the root is not called by its number here
		}
		b = appendRecord(b, [11]byte([]byte(pad(".", 11))), attrFolder, n.first, 0, v.stamp)
		b = appendRecord(b, [11]byte([]byte(pad("..", 11))), attrFolder, up, 0, v.stamp)
	case v.p.Label != "":
		b = appendRecord(b, [11]byte([]byte(pad(v.p.Label, 11))), attrVolume, 0, 0, v.stamp)
	}
	for _, c := range n.children {
		b = appendLong(b, c.long, checksum(c.short))
		attributes := byte(attrArchive)
		if c.folder {
			attributes = attrFolder
		}
		b = appendRecord(b, c.short, attributes, c.first, uint32(c.file.Size), v.stamp)
	}
	return b
}

func appendRecord(b []byte, name [11]byte, attributes byte, cluster, size uint32, s stamp) []byte {
	le := binary.LittleEndian
	r := make([]byte, recordSize)
	copy(r, name[:])
	r[11] = attributes
	le.PutUint16(r[14:], s.time) // made
	le.PutUint16(r[16:], s.date)
	le.PutUint16(r[18:], s.date) // read
	le.PutUint16(r[20:], uint16(cluster>>16))
	le.PutUint16(r[22:], s.time) // written
	le.PutUint16(r[24:], s.date)
	le.PutUint16(r[26:], uint16(cluster))
	le.PutUint32(r[28:], size)
	return append(b, r...)
}

// appendLong puts a long name in front of its short record: last part first, ended by 0 and filled up with FFFF.
func appendLong(b []byte, name []uint16, sum byte) []byte {
	le := binary.LittleEndian
	parts := (len(name) + unitsEach - 1) / unitsEach
	for part := parts; part > 0; part-- {
		r := make([]byte, recordSize)
		r[0] = byte(part)
		if part == parts {
			r[0] |= 0x40
		}
		r[11] = attrLong
		r[13] = sum
		for i := range unitsEach {
			unit := uint16(0xffff)
			if at := (part-1)*unitsEach + i; at < len(name) {
				unit = name[at]
			} else if at == len(name) {
				unit = 0
			}
			le.PutUint16(r[unitOffsets[i]:], unit)
		}
		b = append(b, r...)
	}
	return b
}

var unitOffsets = [unitsEach]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}

// checksum ties a long name to its short one.
func checksum(short [11]byte) byte {
	var sum byte
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}
