// Package fat writes deterministic FAT32 file systems.
package fat

import (
	"io"
	"time"

	"github.com/semper-os/semper/fault"
)

// File is one file of the file system.
type File struct {
	Path string // slash-separated, without a leading slash; with a trailing slash it is an empty folder
	Size int64
	Data io.ReaderAt // nil where Size is 0
}

// Params describe the file system.
type Params struct {
	Size          int64  // bytes, a multiple of 512
	VolumeID      uint32 // serial number
	Label         string // at most 11 characters, upper case
	Time          time.Time
	HiddenSectors uint32 // first sector of the partition on its disk
	Files         []File // in any order; folders are made as needed
}

// Write writes the file system to w, which reads as zero (a new sparse file).
func Write(w io.WriterAt, p Params) error { return fault.New(fault.Internal, "fat: not built") }
