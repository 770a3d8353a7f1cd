package install

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/semper-os/semper/updater/powercut"
)

// countingDisk counts what is read.
type countingDisk struct {
	Disk
	read, writes int64
}

func (d *countingDisk) ReadAt(p []byte, off int64) (int, error) {
	d.read += int64(len(p))
	return d.Disk.ReadAt(p, off)
}

func (d *countingDisk) WriteAt(p []byte, off int64) (int, error) {
	d.writes++
	return d.Disk.WriteAt(p, off)
}

func TestSkipper(t *testing.T) {
	const mib = 1 << 20
	random := func(n int, seed byte) []byte {
		b := make([]byte, n)
		_, _ = rand.NewChaCha8([32]byte{seed}).Read(b)
		return b
	}
	for _, c := range []struct {
		name     string
		have     []byte
		want     []byte
		chunk    int
		read     int64 // bytes that may be read at most
		skipped  int64
		atLeast  bool // of skipped
		maxWrite int64
	}{
		{"nothing is equal", random(100*mib, 1), random(100*mib, 2), 4 * mib, 10 * mib, 0, false, 100},
		{"all is equal", random(40*mib, 1), random(40*mib, 1), 4 * mib, 40 * mib, 40 * mib, false, 0},
		{"less than a block", random(1000, 1), random(1000, 1), 1000, 1000, 1000, false, 0},
		{"one byte in a piece", random(4*mib, 1), func() []byte { b := random(4*mib, 1); b[mib+5] ^= 1; return b }(), 4 * mib, 4 * mib, 4*mib - skipBlock, false, 1},
		{"odd sizes", random(3*mib+123, 1), func() []byte { b := random(3*mib+123, 1); b[3*mib+100] ^= 1; return b }(), 777_777, 3*mib + 123, 2 * mib, true, 1},
		// Equal bytes far behind the start are found again.
		{"only the end is equal", append(random(100*mib, 1), random(100*mib, 3)...), append(random(100*mib, 2), random(100*mib, 3)...), 4 * mib, 120 * mib, 30 * mib, true, 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			disk := &countingDisk{Disk: powercut.NewWorld().NewDisk(int64(len(c.have)) + mib)}
			if _, err := disk.WriteAt(c.have, mib/2); err != nil {
				t.Fatal(err)
			}
			disk.writes = 0
			s := &skipper{Region: &Region{disk: disk, start: mib / 2, size: int64(len(c.have))}}
			for at := 0; at < len(c.want); at += c.chunk {
				p := c.want[at:min(at+c.chunk, len(c.want))]
				if n, err := s.WriteAt(p, int64(at)); err != nil || n != len(p) {
					t.Fatalf("write of %d: %d, %v", len(p), n, err)
				}
			}
			got := make([]byte, len(c.want))
			read := disk.read
			if _, err := disk.ReadAt(got, mib/2); err != nil || !bytes.Equal(got, c.want) {
				t.Fatalf("the disk holds something else (%v)", err)
			}
			if s.skipped < c.skipped || !c.atLeast && s.skipped != c.skipped || s.written+s.skipped != int64(len(c.want)) {
				t.Errorf("written %d, skipped %d of %d; want %d", s.written, s.skipped, len(c.want), c.skipped)
			}
			if read > c.read || disk.writes > c.maxWrite {
				t.Errorf("%d bytes read, %d writes; allowed are %d and %d", read, disk.writes, c.read, c.maxWrite)
			}
		})
	}
	// Outside of the region it is a Region: nothing.
	disk := &countingDisk{Disk: powercut.NewWorld().NewDisk(4 * mib)}
	s := &skipper{Region: &Region{disk: disk, start: mib, size: mib}}
	for _, off := range []int64{-1, mib - 10, mib, 1 << 62} {
		if _, err := s.WriteAt(make([]byte, 100), off); err == nil || disk.writes != 0 || s.skipped != 0 {
			t.Errorf("write at %d: %v, %d writes, %d skipped", off, err, disk.writes, s.skipped)
		}
	}
}
