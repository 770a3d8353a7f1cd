package devmapper

import (
	"encoding/hex"
	"fmt"

	"github.com/semper-os/semper/fault"
)

// Verity is a dm-verity device over two whole partitions: hash type 1, SHA-256, blocks of 4096 bytes, the superblock in the first block of the hash partition
// and the tree behind it (Linux, Documentation/admin-guide/device-mapper/verity.rst).
type Verity struct {
	Data       string // device with the data
	Hash       string // device with superblock and tree
	DataBlocks uint64
	Salt       []byte
	RootHash   [32]byte
}

const verityBlock = 4096

// Target returns the table's only line. A block that does not match its hash makes the kernel print which one, and restart the machine, so that the boot
// loader counts a failed try: a program that reads wrong bytes, or gets an error where its own code should be, is worse.
func (v Verity) Target() (Target, error) {
	if v.DataBlocks == 0 || v.DataBlocks > 1<<48 {
		return Target{}, fault.New(fault.Input, "dm-verity: %d data blocks", v.DataBlocks)
	}
	if len(v.Salt) > 256 {
		return Target{}, fault.New(fault.Input, "dm-verity: a salt of %d bytes, at most 256 are allowed", len(v.Salt))
	}
	salt := "-"
	if len(v.Salt) > 0 {
		salt = hex.EncodeToString(v.Salt)
	}
	return Target{
		Sectors: v.DataBlocks * (verityBlock / 512),
		Type:    "verity",
		Params: fmt.Sprintf("1 %s %s %d %d %d 1 sha256 %x %s 1 restart_on_corruption",
			v.Data, v.Hash, verityBlock, verityBlock, v.DataBlocks, v.RootHash, salt),
	}, nil
}
