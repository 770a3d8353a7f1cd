package initramfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/semper-os/semper/partitions/gpt"
)

// partitionName is the name that the kernel gives a partition of a disk: vda3, nvme0n1p3.
func partitionName(disk string, number int) string {
	if last := disk[len(disk)-1]; last >= '0' && last <= '9' {
		return disk + "p" + strconv.Itoa(number)
	}
	return disk + strconv.Itoa(number)
}

// kernelPartition is what the kernel believes of a partition, in sectors of 512 bytes.
type kernelPartition struct {
	start, sectors uint64
}

// lookupPartition reads what the kernel believes of a partition of a disk below sys (which is /sys). It is false where the kernel does not know it.
func lookupPartition(sys, disk string, number int) (kernelPartition, bool) {
	dir := filepath.Join(sys, "block", disk, partitionName(disk, number))
	start, err := readNumber(filepath.Join(dir, "start"))
	if err != nil {
		return kernelPartition{}, false
	}
	sectors, err := readNumber(filepath.Join(dir, "size"))
	if err != nil || start < 0 || sectors < 0 {
		return kernelPartition{}, false
	}
	return kernelPartition{uint64(start), uint64(sectors)}, true
}

// kernelTable changes what the kernel knows of a disk's partitions.
type kernelTable interface {
	Lookup(disk string, number int) (kernelPartition, bool)
	Add(disk *os.File, number int, p kernelPartition) error
	Resize(disk *os.File, number int, p kernelPartition) error
}

// tellKernel makes the kernel see a partition as the table has it, and returns its node. The kernel reads a table when the disk appears; it gives up where
// only the backup is good, and does not read again while a partition is in use. A partition that it sees elsewhere is an error: something else is going on.
func tellKernel(k kernelTable, f *os.File, disk string, number int, p gpt.Partition) (string, error) {
	want := kernelPartition{p.First, p.Sectors()}
	node := "/dev/" + partitionName(disk, number)
	have, ok := k.Lookup(disk, number)
	switch {
	case ok && have == want:
		return node, nil
	case !ok:
		if err := k.Add(f, number, want); err != nil {
			return "", fmt.Errorf("%s: tell the kernel: %w", node, err)
		}
	case have.start == want.start:
		if err := k.Resize(f, number, want); err != nil {
			return "", fmt.Errorf("%s: tell the kernel of its new size: %w", node, err)
		}
	default:
		return "", fmt.Errorf("%s: the kernel has it at sector %d, the partition table at %d", node, have.start, want.start)
	}
	return node, nil
}
