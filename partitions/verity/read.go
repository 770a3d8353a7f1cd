package verity

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/semper-os/semper/fault"
)

// BlockError says which block does not belong to the root hash. Find it with errors.As; its kind is fault.Verification.
type BlockError struct {
	Level int    // 0 for leaves of the tree, up to its top; -1 for data
	Block uint64 // number within the data area or, for the tree, within the hash area
}

func (e *BlockError) Error() string {
	if e.Level < 0 {
		return fmt.Sprintf("data block %d does not match its hash", e.Block)
	}
	return fmt.Sprintf("hash block %d (level %d of the tree) does not match its hash", e.Block, e.Level)
}

// areas is a data and a hash area with the root hash that should vouch for them.
type areas struct {
	data, hash io.ReaderAt
	root       RootHash
	sb         Superblock
	levels     []level
}

// open reads the superblock and holds it against the sizes, given in bytes.
func open(data io.ReaderAt, dataSize int64, hash io.ReaderAt, hashAreaSize int64, root RootHash) (*areas, error) {
	block := make([]byte, SuperblockSize)
	if n, err := hash.ReadAt(block, 0); n < len(block) {
		if err == nil || err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return nil, fault.New(fault.IO, "read dm-verity superblock: %w", err)
	}
	sb, err := ParseSuperblock(block)
	if err != nil {
		return nil, err
	}
	if have := uint64(max(dataSize, 0)) / BlockSize; sb.DataBlocks > have {
		return nil, fault.New(fault.Input, "dm-verity superblock: %d data blocks, there are only %d", sb.DataBlocks, have)
	}
	levels, area := levelsOf(sb.DataBlocks)
	if len(levels) > 0 && int64(area)*BlockSize > hashAreaSize {
		return nil, fault.New(fault.Input, "dm-verity superblock: a hash area of %d bytes, there are only %d", area*BlockSize, hashAreaSize)
	}
	return &areas{data: data, hash: hash, root: root, sb: sb, levels: levels}, nil
}

// mismatch returns the error for a block of a level, counted from that level's start.
func (a *areas) mismatch(level int, index uint64) error {
	if level >= 0 {
		index += a.levels[level].start
	}
	return fault.Wrap(fault.Verification, &BlockError{Level: level, Block: index})
}

// Reader reads a data area and checks each block before it gives out any of it. It is an io.ReaderAt for several
// goroutines; it remembers one hash block for each level of the tree, which serves reading in order.
type Reader struct {
	a *areas

	mu     sync.Mutex
	d      *digester
	digest [hashSize]byte
	cached []cachedBlock // by level
}

type cachedBlock struct {
	index uint64
	block []byte // nil: nothing yet
}

// NewReader reads the superblock and checks the top of the tree. Sizes are those of the two areas, in bytes; they may be
// larger than what the superblock speaks of.
func NewReader(data io.ReaderAt, dataSize int64, hash io.ReaderAt, hashAreaSize int64, root RootHash) (*Reader, error) {
	a, err := open(data, dataSize, hash, hashAreaSize, root)
	if err != nil {
		return nil, err
	}
	r := &Reader{a: a, d: newDigester(a.sb.Salt), cached: make([]cachedBlock, len(a.levels))}
	if top := len(a.levels) - 1; top >= 0 {
		if _, err := r.hashBlock(top, 0); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// Superblock returns what the hash area says of itself.
func (r *Reader) Superblock() Superblock { return r.a.sb }

// Size returns how many bytes the tree covers.
func (r *Reader) Size() int64 { return int64(r.a.sb.DataBlocks) * BlockSize }

// ReadAt reads checked bytes. A block that does not match gives a *BlockError; bytes of it never reach p.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fault.New(fault.Internal, "dm-verity: read at offset %d", off)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	block := make([]byte, BlockSize)
	done := 0
	for done < len(p) {
		at := off + int64(done)
		if at >= r.Size() {
			return done, io.EOF
		}
		if err := r.dataBlock(block, uint64(at)/BlockSize); err != nil {
			return done, err
		}
		done += copy(p[done:], block[at%BlockSize:])
	}
	return done, nil
}

// dataBlock fills block with a checked data block.
func (r *Reader) dataBlock(block []byte, index uint64) error {
	want, err := r.expected(-1, index)
	if err != nil {
		return err
	}
	if err := readBlocks(r.a.data, block, index, "data"); err != nil {
		return err
	}
	return r.match(block, want, -1, index)
}

// hashBlock returns a checked block of a level, counted from the level's start.
func (r *Reader) hashBlock(level int, index uint64) ([]byte, error) {
	c := &r.cached[level]
	if c.block != nil && c.index == index {
		return c.block, nil
	}
	want, err := r.expected(level, index)
	if err != nil {
		return nil, err
	}
	block := make([]byte, BlockSize)
	if err := readBlocks(r.a.hash, block, r.a.levels[level].start+index, "hash"); err != nil {
		return nil, err
	}
	if err := r.match(block, want, level, index); err != nil {
		return nil, err
	}
	*c = cachedBlock{index: index, block: block}
	return block, nil
}

// expected returns the digest that a block of a level must have.
func (r *Reader) expected(level int, index uint64) ([]byte, error) {
	if level+1 == len(r.a.levels) {
		return r.a.root[:], nil
	}
	parent, err := r.hashBlock(level+1, index/hashesInBlock)
	if err != nil {
		return nil, err
	}
	return parent[index%hashesInBlock*hashSize:][:hashSize], nil
}

func (r *Reader) match(block, want []byte, level int, index uint64) error {
	if r.d.sum(r.digest[:], block); !bytes.Equal(r.digest[:], want) {
		return r.a.mismatch(level, index)
	}
	return nil
}

// CheckTop checks the superblock, the top of the tree, and the way down to data block 0 with that block itself. It reads
// a few blocks only: enough to tell a wrong root hash, a slot that was never written and a broken first block from a
// sound one before the kernel takes over.
func CheckTop(data io.ReaderAt, dataSize int64, hash io.ReaderAt, hashAreaSize int64, root RootHash) (Superblock, error) {
	r, err := NewReader(data, dataSize, hash, hashAreaSize, root)
	if err != nil {
		return Superblock{}, err
	}
	if err := r.dataBlock(make([]byte, BlockSize), 0); err != nil {
		return Superblock{}, err
	}
	return r.Superblock(), nil
}
