// Package verity builds, checks and reads dm-verity hash areas.
package verity

import (
	"encoding/hex"
	"io"

	"github.com/semper-os/semper/fault"
)

// BlockSize is the size of data and hash blocks in bytes, the only one supported.
const BlockSize = 4096

// RootHash is the hash that everything else follows from.
type RootHash [32]byte

// String returns 64 lower-case hexadecimal digits.
func (h RootHash) String() string { return hex.EncodeToString(h[:]) }

// ParseRootHash reads 64 hexadecimal digits.
func ParseRootHash(s string) (RootHash, error) {
	var h RootHash
	if len(s) != 64 {
		return h, fault.New(fault.Input, "root hash %q: want 64 hexadecimal digits", s)
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return RootHash{}, fault.New(fault.Input, "root hash %q: want 64 hexadecimal digits", s)
	}
	return h, nil
}

// Superblock is the first 512 bytes of a hash area.
type Superblock struct {
	UUID       [16]byte
	DataBlocks uint64
	Salt       []byte // at most 256 bytes
}

// Params are the inputs of Format beside the data.
type Params struct {
	UUID [16]byte
	Salt []byte
}

// Result is what Format made.
type Result struct {
	RootHash     RootHash
	Superblock   Superblock
	HashAreaSize int64
}

// HashAreaSize returns the size in bytes of the superblock and tree over dataBlocks blocks.
func HashAreaSize(dataBlocks uint64) int64 { return 0 }

// Format writes superblock and hash tree over data to w.
func Format(data io.ReaderAt, dataSize int64, w io.WriterAt, p Params) (Result, error) {
	return Result{}, fault.New(fault.Internal, "verity: not built")
}

// Reader reads data and checks each block against the root hash. It is an io.ReaderAt.
type Reader struct{}

// NewReader reads and checks the superblock and the top of the tree.
func NewReader(data io.ReaderAt, dataSize int64, hash io.ReaderAt, hashSize int64, root RootHash) (*Reader, error) {
	return nil, fault.New(fault.Internal, "verity: not built")
}

// Superblock returns what the hash area says about itself.
func (r *Reader) Superblock() Superblock { return Superblock{} }

// Size returns the number of bytes that the tree covers.
func (r *Reader) Size() int64 { return 0 }

// ReadAt reads checked bytes.
func (r *Reader) ReadAt(p []byte, off int64) (int, error) {
	return 0, fault.New(fault.Internal, "verity: not built")
}

// VerifyAll checks the first to the last block on all cores and returns the superblock.
func VerifyAll(data io.ReaderAt, dataSize int64, hash io.ReaderAt, hashSize int64, root RootHash) (Superblock, error) {
	return Superblock{}, fault.New(fault.Internal, "verity: not built")
}

// CheckTop checks the superblock, the top of the tree and the path to data block 0, and returns the superblock.
func CheckTop(data io.ReaderAt, dataSize int64, hash io.ReaderAt, hashSize int64, root RootHash) (Superblock, error) {
	return Superblock{}, fault.New(fault.Internal, "verity: not built")
}
