package verity

import (
	"crypto/sha256"
	"errors"
	"hash"
	"io"
	"runtime"
	"sync"

	"github.com/semper-os/semper/fault"
)

// level is one level of the tree; in a []level the leaves come first.
type level struct {
	start  uint64 // block of the hash area
	blocks uint64
}

// levelsOf returns the levels over a number of data blocks, and the hash area's size in blocks. A single data block has none.
func levelsOf(dataBlocks uint64) (levels []level, area uint64) {
	for n := dataBlocks; n > 1; {
		n = (n + hashesInBlock - 1) / hashesInBlock
		levels = append(levels, level{blocks: n})
	}
	area = 1
	for i := len(levels) - 1; i >= 0; i-- {
		levels[i].start = area
		area += levels[i].blocks
	}
	return levels, area
}

// HashAreaSize returns the size in bytes of superblock and tree over dataBlocks blocks: about 0.79 % of the data. To leave
// room for all that a partition can hold, ask for the blocks of the whole partition.
func HashAreaSize(dataBlocks uint64) int64 {
	_, area := levelsOf(min(dataBlocks, maxDataBlocks))
	return int64(area) * BlockSize
}

// digester computes salted digests. It belongs to one goroutine.
type digester struct {
	h    hash.Hash
	salt []byte
}

func newDigester(salt []byte) *digester { return &digester{h: sha256.New(), salt: salt} }

// sum puts the digest of a block into the first 32 bytes of out.
func (d *digester) sum(out, block []byte) {
	d.h.Reset()
	d.h.Write(d.salt)
	d.h.Write(block)
	d.h.Sum(out[:0])
}

// parallel calls work for 0 to n-1 on all cores. Each goroutine has a worker of its own from newWorker. It stops at the
// first error; of several it returns the one with the lowest number, so that the same fault always gives the same message.
func parallel(n uint64, newWorker func() func(i uint64) error) error {
	var (
		mu     sync.Mutex
		next   uint64
		failed = n
		result error
		wg     sync.WaitGroup
	)
	claim := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if result != nil || next == n {
			return 0, false
		}
		next++
		return next - 1, true
	}
	for range min(uint64(runtime.GOMAXPROCS(0)), n) {
		wg.Go(func() {
			work := newWorker()
			for i, ok := claim(); ok; i, ok = claim() {
				if err := work(i); err != nil {
					mu.Lock()
					if i < failed {
						failed, result = i, err
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return result
}

// readBlocks fills b from a block of an area.
func readBlocks(r io.ReaderAt, b []byte, block uint64, area string) error {
	n, err := r.ReadAt(b, int64(block)*BlockSize)
	if n == len(b) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return fault.New(fault.IO, "read %s block %d: %w", area, block+uint64(n/BlockSize), err)
}
