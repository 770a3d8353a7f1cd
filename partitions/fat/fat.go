// Package fat writes FAT32 file systems: the same bytes for the same input, at any time on any machine.
//
// The format is that of Microsoft's "FAT: General Overview of On-Disk Format" 1.03, with long names:
//
//	sector 0     boot sector; its copy is sector 6
//	sector 1     free space information; its copy is sector 7
//	sector 32    file allocation table, then its copy
//	then         clusters, number 2 first: the root folder, then each folder and file in the order of a walk by name
//
// Every file and folder occupies clusters in one run. Only what is not zero is written, so the target must read as zero: a
// new sparse file, or a partition of one.
//
// Limits: sectors of 512 bytes; sizes from about 33 MiB (the least that FAT32 allows) to 2 TiB; files below 4 GiB; 65536
// entries in a folder; names of up to 255 characters, none beyond U+FFFF. Times are UTC with a resolution of 2 seconds, from 1980 to 2107; earlier ones become 1980.
package fat

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

// File is one file, or an empty folder.
type File struct {
	Path string // separated by slashes, without one in front; one at the end makes it an empty folder
	Size int64  // bytes
	Data io.ReaderAt
}

// Params describe a file system.
type Params struct {
	Size          int64     // bytes, a multiple of 512
	VolumeID      uint32    // serial number
	Label         string    // at most 11 characters of A-Z, 0-9, space and _-; empty for none
	Time          time.Time // of every file and folder
	HiddenSectors uint32    // sectors in front of the partition on its disk
	Files         []File    // in any order; the folders above them are made
}

// Write writes a file system to w, from offset 0. Illegal and doubled names, and files that do not fit, are found before
// anything is written.
func Write(w io.WriterAt, p Params) error {
	if err := checkLabel(p.Label); err != nil {
		return err
	}
	root, err := buildTree(p.Files)
	if err != nil {
		return err
	}
	g, err := geometryFor(p.Size)
	if err != nil {
		return err
	}
	v := &volume{geometry: g, w: w, p: p, stamp: newStamp(p.Time)}
	if err := v.place(root); err != nil {
		return err
	}
	if err := v.writeFolder(root, root); err != nil {
		return err
	}
	if err := v.writeTables(); err != nil {
		return err
	}
	return v.writeReserved() // last: without a boot sector what was interrupted is no file system
}

func checkLabel(label string) error {
	if len(label) > 11 || strings.Trim(label, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 _-") != "" || strings.HasPrefix(label, " ") {
		return fault.New(fault.Input, "FAT label %q: want at most 11 characters of A-Z, 0-9, space, _ and -", label)
	}
	return nil
}

// volume is a file system while it is being written.
type volume struct {
	geometry
	w     io.WriterAt
	p     Params
	stamp stamp
	runs  []run // in the order of their clusters, without gaps
	next  uint32
}

// run is the clusters of one file or folder.
type run struct{ first, count uint32 }

// place gives clusters to a folder and to all below it, in the order in which they will be written.
func (v *volume) place(n *node) error {
	if v.next == 0 {
		v.next = 2
	}
	size := n.file.Size
	if n.folder {
		records := n.records(v.p.Label)
		if records > maxRecords {
			return fault.New(fault.Input, "FAT folder %q: %d directory entries, at most %d are possible", n.path, records, maxRecords)
		}
		size = int64(records) * recordSize
	}
	count := uint32((size + int64(v.clusterSize) - 1) / int64(v.clusterSize))
	if n.folder && count == 0 {
		count = 1 // the root folder of an empty file system without a label
	}
	if free := v.clusters - (v.next - 2); count > free {
		return fault.New(fault.Input, "FAT file system: %q needs %d bytes, only %d of %d are left", n.path, size, int64(free)*int64(v.clusterSize), v.p.Size)
	}
	if count > 0 {
		n.first = v.next
		v.runs = append(v.runs, run{v.next, count})
		v.next += count
	}
	for _, child := range n.children {
		if err := v.place(child); err != nil {
			return err
		}
	}
	return nil
}

// writeFolder writes a folder's entries and all that is below it.
func (v *volume) writeFolder(n, parent *node) error {
	if err := v.writeAt(n.marshal(v, parent), v.offset(n.first)); err != nil {
		return fmt.Errorf("FAT folder %q: %w", n.path, err)
	}
	for _, child := range n.children {
		var err error
		if child.folder {
			err = v.writeFolder(child, n)
		} else {
			err = v.writeFile(child)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

const copyPiece = 1 << 20

func (v *volume) writeFile(n *node) error {
	piece := make([]byte, min(copyPiece, n.file.Size))
	for off := int64(0); off < n.file.Size; {
		b := piece[:min(copyPiece, n.file.Size-off)]
		got, err := n.file.Data.ReadAt(b, off)
		if got < len(b) {
			if err == nil || err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			return fault.New(fault.IO, "FAT file %q: read at %d of %d bytes: %w", n.path, off+int64(got), n.file.Size, err)
		}
		if err := v.writeAt(b, v.offset(n.first)+off); err != nil {
			return fmt.Errorf("FAT file %q: %w", n.path, err)
		}
		off += int64(len(b))
	}
	return nil
}

// writeAt writes those pages of b that are not zero, neighbours in one write.
func (v *volume) writeAt(b []byte, off int64) error {
	const page = 4096
	for len(b) > 0 {
		n := 0
		for n < len(b) && !isZero(b[n:min(n+page, len(b))]) {
			n = min(n+page, len(b))
		}
		if n == 0 {
			n = min(page, len(b))
		} else if _, err := v.w.WriteAt(b[:n], off); err != nil {
			return fault.New(fault.IO, "write at %d: %w", off, err)
		}
		b, off = b[n:], off+int64(n)
	}
	return nil
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}
