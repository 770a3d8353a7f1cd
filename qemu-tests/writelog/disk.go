package writelog

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"iter"

	"github.com/semper-os/semper/fault"
)

const (
	sectorSize = 512
	// chunkSectors is how many sectors are copied together when a state differs from the one it is made of.
	chunkSectors = 2048
	chunkSize    = chunkSectors * sectorSize

	// zero is the place in the log of a sector that was discarded. No data is there: logs are shorter. Place 0, the superblock, stands for the base.
	zero = ^uint32(0)
)

// chunk says for each of its sectors where the content is: the number of a sector of the log, or one of the two above.
type chunk struct {
	place  [chunkSectors]uint32
	digest [sha256.Size]byte
	hashed bool
}

func (c *chunk) sum() *[sha256.Size]byte {
	if !c.hashed {
		c.digest, c.hashed = hashPlaces(c.place[:]), true
	}
	return &c.digest
}

func hashPlaces(places []uint32) [sha256.Size]byte {
	var buf [chunkSectors * 4]byte
	for i, p := range places {
		binary.LittleEndian.PutUint32(buf[4*i:], p)
	}
	return sha256.Sum256(buf[:4*len(places)])
}

// State is the disk after a power cut. It is read like a file, and is good until the next one is made.
type State struct {
	Name  string
	Epoch int
	// Entry is the last one that may have reached the disk; all of the epochs before did.
	Entry int

	base   io.ReaderAt
	size   int64
	log    io.ReaderAt
	before []*chunk       // what is durable
	diff   map[int]*chunk // the chunks in which this state differs; nil where there is none
	spare  []*chunk
}

// Size returns the disk's size in bytes.
func (s *State) Size() int64 { return s.size }

func (s *State) chunk(n int) *chunk {
	if c := s.diff[n]; c != nil {
		return c
	}
	return s.before[n]
}

// ReadAt implements io.ReaderAt.
func (s *State) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fault.New(fault.Internal, "read at %d", off)
	}
	if off >= s.size {
		return 0, io.EOF
	}
	want := min(int64(len(p)), s.size-off)
	for done := int64(0); done < want; {
		n, err := s.readRun(p[done:want], off+done)
		if err != nil {
			return int(done), err
		}
		done += n
	}
	if want < int64(len(p)) {
		return int(want), io.EOF
	}
	return int(want), nil
}

// readRun reads as far as the content is in one piece in one place.
func (s *State) readRun(p []byte, off int64) (int64, error) {
	sector, skip := off/sectorSize, off%sectorSize
	c, in := s.chunk(int(sector/chunkSectors)), sector%chunkSectors
	from, source, run := off, s.base, chunkSectors-in
	if c != nil {
		first := c.place[in]
		for run = 1; in+run < chunkSectors && run*sectorSize-skip < int64(len(p)); run++ {
			if next := c.place[in+run]; first == 0 || first == zero {
				if next != first {
					break
				}
			} else if next != first+uint32(run) {
				break
			}
		}
		switch first {
		case 0:
		case zero:
			n := min(int64(len(p)), run*sectorSize-skip)
			clear(p[:n])
			return n, nil
		default:
			from, source = int64(first)*sectorSize+skip, s.log
		}
	}
	n := min(int64(len(p)), run*sectorSize-skip)
	if m, err := source.ReadAt(p[:n], from); int64(m) < n {
		return 0, fault.New(fault.IO, "read %d bytes at %d: %w", n, off, err)
	}
	return n, nil
}

// Fingerprint identifies the content of a range that lies at whole sectors: states of one replay with the same fingerprint hold the same bytes there. It says
// where the bytes come from and does not read them, so two states may hold the same bytes and have different ones.
func (s *State) Fingerprint(off, length int64) [sha256.Size]byte {
	h := sha256.New()
	for at := off / sectorSize; at < (off+length)/sectorSize; {
		n := int(at / chunkSectors)
		end := min((off+length)/sectorSize, int64(n+1)*chunkSectors)
		if c := s.chunk(n); c != nil {
			s.hashPart(h, c, n, int(at%chunkSectors), int(end-int64(n)*chunkSectors))
		}
		at = end
	}
	return [sha256.Size]byte(h.Sum(nil))
}

func (s *State) hashPart(h hash.Hash, c *chunk, n, from, to int) {
	var head [12]byte
	binary.LittleEndian.PutUint32(head[:], uint32(n))
	binary.LittleEndian.PutUint32(head[4:], uint32(from))
	binary.LittleEndian.PutUint32(head[8:], uint32(to))
	h.Write(head[:])
	if from == 0 && to == chunkSectors {
		h.Write(c.sum()[:])
		return
	}
	sum := hashPlaces(c.place[from:to])
	h.Write(sum[:])
}

// reset takes the difference away.
func (s *State) reset() {
	for n, c := range s.diff {
		s.spare = append(s.spare, c)
		delete(s.diff, n)
	}
}

// set changes sectors of an entry: those for which keep is true, or all where keep is nil. With durable they become part of what was there before.
func (s *State) set(e *Entry, keep func(sector int) bool, durable bool) {
	for i := range int(e.Length / sectorSize) {
		if keep != nil && !keep(i) {
			continue
		}
		sector := e.Offset/sectorSize + int64(i)
		c := s.writable(int(sector/chunkSectors), durable)
		c.hashed = false
		place := e.data
		if place != zero {
			place += uint32(i)
		}
		c.place[sector%chunkSectors] = place
	}
}

func (s *State) writable(n int, durable bool) *chunk {
	if durable {
		if s.before[n] == nil {
			s.before[n] = &chunk{}
		}
		return s.before[n]
	}
	if c := s.diff[n]; c != nil {
		return c
	}
	var c *chunk
	if k := len(s.spare); k > 0 {
		c, s.spare = s.spare[k-1], s.spare[:k-1]
	} else {
		c = &chunk{}
	}
	if old := s.before[n]; old != nil {
		*c = *old
	} else {
		*c = chunk{}
	}
	s.diff[n] = c
	return c
}

// Changed yields the ranges, whole sectors, that differ from the base or may.
func (s *State) Changed() iter.Seq2[int64, int64] {
	return func(yield func(offset, length int64) bool) {
		for n := range s.before {
			c := s.chunk(n)
			if c == nil {
				continue
			}
			for i := 0; i < chunkSectors; {
				from := i
				for i < chunkSectors && c.place[i] != 0 {
					i++
				}
				if i > from && !yield(int64(n)*chunkSize+int64(from)*sectorSize, int64(i-from)*sectorSize) {
					return
				}
				for i < chunkSectors && c.place[i] == 0 {
					i++
				}
			}
		}
	}
}
