package verity

import (
	"bytes"
	"io"
)

// VerifyAll checks every block of both areas, on all cores, and returns the superblock. Of several broken blocks the error
// names the first: highest level of the tree first, then by position. Memory: as for Format.
func VerifyAll(data io.ReaderAt, dataSize int64, hash io.ReaderAt, hashAreaSize int64, root RootHash) (Superblock, error) {
	a, err := open(data, dataSize, hash, hashAreaSize, root)
	if err != nil {
		return Superblock{}, err
	}
	if len(a.levels) == 0 {
		return CheckTop(data, dataSize, hash, hashAreaSize, root)
	}
	digests, err := a.verifyInner()
	if err != nil {
		return Superblock{}, err
	}
	err = parallel(a.levels[0].blocks, func() func(uint64) error {
		d := newDigester(a.sb.Salt)
		piece := make([]byte, hashesInBlock*BlockSize)
		leaf := make([]byte, BlockSize)
		digest := make([]byte, hashSize)
		return func(i uint64) error {
			if err := readBlocks(a.hash, leaf, a.levels[0].start+i, "hash"); err != nil {
				return err
			}
			if d.sum(digest, leaf); !bytes.Equal(digest, digests[i*hashSize:][:hashSize]) {
				return a.mismatch(0, i)
			}
			from := i * hashesInBlock
			n := min(hashesInBlock, a.sb.DataBlocks-from)
			if err := readBlocks(a.data, piece[:n*BlockSize], from, "data"); err != nil {
				return err
			}
			for k := range n {
				if d.sum(digest, piece[k*BlockSize:(k+1)*BlockSize]); !bytes.Equal(digest, leaf[k*hashSize:][:hashSize]) {
					return a.mismatch(-1, from+k)
				}
			}
			return nil
		}
	})
	if err != nil {
		return Superblock{}, err
	}
	return a.sb, nil
}

// verifyInner checks the levels above the leaves from the top down and returns the digests of the leaf blocks.
func (a *areas) verifyInner() ([]byte, error) {
	d := newDigester(a.sb.Salt)
	digest := make([]byte, hashSize)
	digests := a.root[:]
	for l := len(a.levels) - 1; l > 0; l-- {
		below := make([]byte, a.levels[l].blocks*BlockSize)
		for i := range a.levels[l].blocks {
			block := below[i*BlockSize:][:BlockSize]
			if err := readBlocks(a.hash, block, a.levels[l].start+i, "hash"); err != nil {
				return nil, err
			}
			if d.sum(digest, block); !bytes.Equal(digest, digests[i*hashSize:][:hashSize]) {
				return nil, a.mismatch(l, i)
			}
		}
		digests = below
	}
	return digests, nil
}
