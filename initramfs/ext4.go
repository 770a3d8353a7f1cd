package initramfs

import (
	"encoding/binary"
	"io"

	"github.com/semper-os/semper/fault"
)

// ext4Size returns the size in bytes of the ext4 file system at the start of r, from its superblock (Linux, Documentation/filesystems/ext4/super.rst): little
// endian, at byte 1024: blocks at 4 (low half) and 0x150 (high half, with the feature 64bit), the block size's logarithm at 24, the magic number at 56, the
// incompatible features at 96. Whether the file system is any good is e2fsck's business.
func ext4Size(r io.ReaderAt) (int64, error) {
	b := make([]byte, 1024)
	if _, err := r.ReadAt(b, 1024); err != nil {
		return 0, fault.New(fault.IO, "ext4 superblock: %w", err)
	}
	e := binary.LittleEndian
	if e.Uint16(b[56:]) != 0xef53 {
		return 0, fault.New(fault.Input, "no ext4 file system")
	}
	blocks := uint64(e.Uint32(b[4:]))
	const incompat64bit = 0x80
	if e.Uint32(b[96:])&incompat64bit != 0 {
		blocks |= uint64(e.Uint32(b[0x150:])) << 32
	}
	shift := uint64(e.Uint32(b[24:])) + 10
	if shift > 16 || blocks > 1<<62>>shift {
		return 0, fault.New(fault.Input, "ext4 superblock: %d blocks of 2^%d bytes", blocks, shift)
	}
	return int64(blocks << shift), nil
}
