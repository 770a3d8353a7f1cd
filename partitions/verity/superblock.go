// Package verity builds, checks and reads dm-verity hash areas, as veritysetup of cryptsetup writes them.
//
// A hash area belongs to a data area of whole blocks; both have blocks of 4096 bytes:
//
//	hash area block 0    superblock, 512 bytes, little-endian, the rest zero
//	hash area block 1…   the tree's levels, the top one (a single block) first, the leaves last
//
//	superblock  0   "verity" and 2 NUL        64  data block size, 4 bytes
//	            8   version 1, 4 bytes        68  hash block size, 4 bytes
//	            12  hash type 1, 4 bytes      72  number of data blocks, 8 bytes
//	            16  UUID in text order        80  salt length, 2 bytes, then 6 zero
//	            32  "sha256" in 32 bytes      88  salt in 256 bytes, then zero up to 512
//
// A digest is SHA-256 of the salt and a block; a hash block holds 128 of them, the last one filled up with zeros. The root
// hash is the digest of the top block, or of the data block itself where there is only one.
//
// Limits: SHA-256, blocks of 4096 bytes and hash type 1 only. The root hash does not cover the superblock, as in the kernel:
// the salt is proved by the digests, the number of data blocks is only held against the sizes of both areas.
package verity

import (
	"encoding/binary"
	"encoding/hex"
	"slices"

	"github.com/semper-os/semper/fault"
)

// Sizes in bytes.
const (
	BlockSize      = 4096 // of data and hash blocks
	SuperblockSize = 512
	MaxSaltSize    = 256

	hashSize      = 32
	hashesInBlock = BlockSize / hashSize
	maxDataBlocks = 1 << 40 // 4 PiB, so that no sum of sizes overflows

	magic     = "verity\x00\x00"
	algorithm = "sha256"
)

// RootHash is the hash that vouches for all of a data area.
type RootHash [32]byte

// String returns 64 lower-case hexadecimal digits, as on the kernel command line.
func (h RootHash) String() string { return hex.EncodeToString(h[:]) }

// ParseRootHash reads 64 hexadecimal digits.
func ParseRootHash(s string) (RootHash, error) {
	var h RootHash
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(h) {
		return RootHash{}, fault.New(fault.Input, "root hash %q: want %d hexadecimal digits", s, 2*len(h))
	}
	copy(h[:], b)
	return h, nil
}

// Superblock is what a hash area says of itself.
type Superblock struct {
	UUID       [16]byte // in text order
	DataBlocks uint64   // at least 1
	Salt       []byte   // at most MaxSaltSize bytes
}

// check reports values that a superblock cannot have.
func (s Superblock) check() error {
	if s.DataBlocks == 0 || s.DataBlocks > maxDataBlocks {
		return fault.New(fault.Input, "dm-verity superblock: %d data blocks", s.DataBlocks)
	}
	if len(s.Salt) > MaxSaltSize {
		return fault.New(fault.Input, "dm-verity superblock: a salt of %d bytes, at most %d are possible", len(s.Salt), MaxSaltSize)
	}
	return nil
}

// Marshal returns the SuperblockSize bytes on disk.
func (s Superblock) Marshal() ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	b := make([]byte, SuperblockSize)
	copy(b, magic)
	le.PutUint32(b[8:], 1)
	le.PutUint32(b[12:], 1)
	copy(b[16:], s.UUID[:])
	copy(b[32:], algorithm)
	le.PutUint32(b[64:], BlockSize)
	le.PutUint32(b[68:], BlockSize)
	le.PutUint64(b[72:], s.DataBlocks)
	le.PutUint16(b[80:], uint16(len(s.Salt)))
	copy(b[88:], s.Salt)
	return b, nil
}

// ParseSuperblock reads the first SuperblockSize bytes of b.
func ParseSuperblock(b []byte) (Superblock, error) {
	if len(b) < SuperblockSize {
		return Superblock{}, fault.New(fault.Input, "dm-verity superblock: only %d bytes", len(b))
	}
	b = b[:SuperblockSize]
	le := binary.LittleEndian
	if string(b[:8]) != magic {
		return Superblock{}, fault.New(fault.Input, "dm-verity superblock: there is none")
	}
	if version, kind := le.Uint32(b[8:]), le.Uint32(b[12:]); version != 1 || kind != 1 {
		return Superblock{}, fault.New(fault.Input, "dm-verity superblock: version %d, hash type %d; only version 1, type 1 are supported", version, kind)
	}
	name := make([]byte, 32)
	copy(name, algorithm)
	if !slices.Equal(b[32:64], name) {
		return Superblock{}, fault.New(fault.Input, "dm-verity superblock: hash algorithm %q, only %s is supported", b[32:64], algorithm)
	}
	if data, hash := le.Uint32(b[64:]), le.Uint32(b[68:]); data != BlockSize || hash != BlockSize {
		return Superblock{}, fault.New(fault.Input, "dm-verity superblock: data blocks of %d, hash blocks of %d bytes; only %d are supported", data, hash, BlockSize)
	}
	s := Superblock{UUID: [16]byte(b[16:32]), DataBlocks: le.Uint64(b[72:])}
	saltSize := int(le.Uint16(b[80:]))
	if saltSize > MaxSaltSize {
		return Superblock{}, fault.New(fault.Input, "dm-verity superblock: a salt of %d bytes, at most %d are possible", saltSize, MaxSaltSize)
	}
	s.Salt = slices.Clone(b[88 : 88+saltSize])
	for _, unused := range [][]byte{b[82:88], b[88+saltSize:]} {
		if slices.ContainsFunc(unused, func(c byte) bool { return c != 0 }) {
			return Superblock{}, fault.New(fault.Input, "dm-verity superblock: bytes that must be zero are not")
		}
	}
	if err := s.check(); err != nil {
		return Superblock{}, err
	}
	return s, nil
}
