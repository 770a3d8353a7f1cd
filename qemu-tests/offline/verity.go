package offline

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
)

const (
	blockSize = 4096
	// groupBlocks data blocks are hashed, and remembered, together.
	groupBlocks = 256
)

// verify reads all data and the whole hash tree of a slot, and compares them with the root hash.
func (c *Checker) verify(d Disk, root, tree Partition, rootHash [32]byte) error {
	super := make([]byte, 512)
	if _, err := d.ReadAt(super, tree.Offset); err != nil {
		return err
	}
	le := binary.LittleEndian
	blocks, saltSize := int64(le.Uint64(super[72:])), int(le.Uint16(super[80:]))
	switch {
	case string(super[:8]) != "verity\x00\x00" || le.Uint32(super[8:]) != 1 || le.Uint32(super[12:]) != 1:
		return errors.New("no dm-verity superblock of version 1 and type 1")
	case string(bytes.TrimRight(super[32:64], "\x00")) != "sha256" || le.Uint32(super[64:]) != blockSize || le.Uint32(super[68:]) != blockSize:
		return errors.New("the superblock asks for another hash or block size")
	case blocks <= 0 || blocks > root.Length/blockSize || saltSize > 256:
		return fmt.Errorf("the superblock speaks of %d blocks and a salt of %d bytes", blocks, saltSize)
	}
	key := fmt.Sprintf("%x %x %x", c.print(d, root.Offset, blocks*blockSize), c.print(d, tree.Offset, tree.Length), rootHash)
	if err, ok := c.verified[key]; ok && c.prints(d) {
		return err
	}
	err := c.verifyTree(d, root, tree, super[88:88+saltSize], blocks, rootHash)
	c.verified[key] = err
	c.Verifications++
	return err
}

func (c *Checker) verifyTree(d Disk, root, tree Partition, salt []byte, blocks int64, rootHash [32]byte) error {
	var level []byte // the digests of the level below
	for first := int64(0); first < blocks; first += groupBlocks {
		digests, err := c.leaves(d, root.Offset+first*blockSize, min(groupBlocks, blocks-first), salt)
		if err != nil {
			return err
		}
		level = append(level, digests...)
	}
	var levels [][]byte // from the lowest
	for len(level) > sha256.Size {
		level = slices.Grow(level, blockSize)
		for len(level)%blockSize != 0 {
			level = append(level, 0)
		}
		levels = append(levels, level)
		level = hashBlocks(level, salt)
	}
	if [32]byte(level) != rootHash {
		return fmt.Errorf("the data has the root hash %x, not %x", level, rootHash)
	}
	at := int64(blockSize) // behind the superblock; the highest level comes first
	for _, want := range slices.Backward(levels) {
		if at+int64(len(want)) > tree.Length {
			return errors.New("the hash tree does not fit into its partition")
		}
		have := make([]byte, len(want))
		if _, err := d.ReadAt(have, tree.Offset+at); err != nil {
			return err
		}
		if !bytes.Equal(have, want) {
			return fmt.Errorf("the hash tree is wrong between byte %d and %d", at, at+int64(len(want)))
		}
		at += int64(len(want))
	}
	return nil
}

// leaves hashes a group of data blocks, unless it did before.
func (c *Checker) leaves(d Disk, offset, blocks int64, salt []byte) ([]byte, error) {
	key := fmt.Sprintf("%x %d %x", c.print(d, offset, blocks*blockSize), offset, salt)
	if digests, ok := c.hashed[key]; ok && c.prints(d) {
		return digests, nil
	}
	data := make([]byte, blocks*blockSize)
	if _, err := d.ReadAt(data, offset); err != nil {
		return nil, err
	}
	digests := hashBlocks(data, salt)
	c.hashed[key] = digests
	return digests, nil
}

func hashBlocks(data, salt []byte) []byte {
	var out []byte
	h := sha256.New()
	for ; len(data) > 0; data = data[blockSize:] {
		h.Reset()
		h.Write(salt)
		h.Write(data[:blockSize])
		out = h.Sum(out)
	}
	return out
}
