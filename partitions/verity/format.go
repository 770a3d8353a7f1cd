package verity

import (
	"io"
	"slices"

	"github.com/semper-os/semper/fault"
)

// Params are what Format takes beside the data. Veritysetup draws both at random; derive them for the same bytes each time.
type Params struct {
	UUID [16]byte // in text order
	Salt []byte   // at most MaxSaltSize bytes
}

// Result is what Format made.
type Result struct {
	RootHash     RootHash
	Superblock   Superblock
	HashAreaSize int64 // bytes that were written
}

// Format writes the hash area over dataSize bytes of data, a multiple of BlockSize, to w from offset 0. All of its bytes
// are written, the superblock last, whatever w held before.
//
// The data is read once, in pieces of 512 KiB on all cores. Memory: 512 KiB a core, and 64 KiB for each GiB of data.
func Format(data io.ReaderAt, dataSize int64, w io.WriterAt, p Params) (Result, error) {
	if dataSize <= 0 || dataSize%BlockSize != 0 {
		return Result{}, fault.New(fault.Input, "dm-verity: %d bytes of data: want a multiple of %d", dataSize, BlockSize)
	}
	sb := Superblock{UUID: p.UUID, DataBlocks: uint64(dataSize) / BlockSize, Salt: slices.Clone(p.Salt)}
	first, err := sb.Marshal()
	if err != nil {
		return Result{}, err
	}
	levels, area := levelsOf(sb.DataBlocks)
	root, err := writeTree(data, w, sb, levels)
	if err != nil {
		return Result{}, err
	}
	if err := writeBlock(w, append(first, make([]byte, BlockSize-len(first))...), 0); err != nil {
		return Result{}, err
	}
	return Result{RootHash: root, Superblock: sb, HashAreaSize: int64(area) * BlockSize}, nil
}

func writeTree(data io.ReaderAt, w io.WriterAt, sb Superblock, levels []level) (RootHash, error) {
	var root RootHash
	if len(levels) == 0 {
		block := make([]byte, BlockSize)
		if err := readBlocks(data, block, 0, "data"); err != nil {
			return root, err
		}
		newDigester(sb.Salt).sum(root[:], block)
		return root, nil
	}

	// The leaves, with the digest of each leaf block, which the level above consists of.
	digests := make([]byte, levels[0].blocks*hashSize)
	err := parallel(levels[0].blocks, func() func(uint64) error {
		d := newDigester(sb.Salt)
		piece := make([]byte, hashesInBlock*BlockSize)
		leaf := make([]byte, BlockSize)
		return func(i uint64) error {
			from := i * hashesInBlock
			n := min(hashesInBlock, sb.DataBlocks-from)
			if err := readBlocks(data, piece[:n*BlockSize], from, "data"); err != nil {
				return err
			}
			for k := range n {
				d.sum(leaf[k*hashSize:], piece[k*BlockSize:(k+1)*BlockSize])
			}
			clear(leaf[n*hashSize:])
			d.sum(digests[i*hashSize:], leaf)
			return writeBlock(w, leaf, levels[0].start+i)
		}
	})
	if err != nil {
		return root, err
	}

	d := newDigester(sb.Salt)
	block := make([]byte, BlockSize)
	for _, l := range levels[1:] {
		above := make([]byte, l.blocks*hashSize)
		for i := range l.blocks {
			clear(block[copy(block, digests[i*BlockSize:]):])
			d.sum(above[i*hashSize:], block)
			if err := writeBlock(w, block, l.start+i); err != nil {
				return root, err
			}
		}
		digests = above
	}
	return RootHash(digests), nil
}

func writeBlock(w io.WriterAt, block []byte, at uint64) error {
	if _, err := w.WriteAt(block, int64(at)*BlockSize); err != nil {
		return fault.New(fault.IO, "write hash block %d: %w", at, err)
	}
	return nil
}
