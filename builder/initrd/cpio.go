package initrd

import (
	"cmp"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"

	"github.com/semper-os/semper/fault"
)

// File types of an entry's mode (inode(7)).
const (
	modeDir  = 0o040000
	modeFile = 0o100000
	modeChar = 0o020000
	modeType = 0o170000
)

// entry is a file, folder or character device of an archive, owned by root.
type entry struct {
	name         string // slash-separated, without a leading slash
	mode         uint32 // type and permissions
	data         []byte // of a file
	major, minor uint32 // of a device
}

// The newc format (Linux, Documentation/driver-api/early-userspace/buffer-format.rst): a header of 6 + 13·8 hexadecimal digits, the name with a NUL, the data;
// name and data are each padded to 4 bytes from the start of the archive.
const (
	cpioMagic   = "070701"
	cpioTrailer = "TRAILER!!!"
	cpioHeader  = 110
)

// writeArchive writes the entries, sorted, parents before children, with inode numbers that count from 1, one link each and no time: the same entries give
// the same bytes in whatever order they come. Folders that are missing are an error: the kernel would drop what is below them.
func writeArchive(w io.Writer, entries []entry) error {
	entries = slices.Clone(entries)
	slices.SortFunc(entries, func(a, b entry) int { return cmp.Compare(a.name, b.name) })
	folders := map[string]bool{".": true}
	seen := map[string]bool{}
	c := &cpioWriter{w: w}
	for i, e := range entries {
		switch {
		case !fs.ValidPath(e.name) || e.name == "." || e.name == cpioTrailer:
			return fault.New(fault.Internal, "initrd: %q cannot be a name", e.name)
		case seen[e.name]:
			return fault.New(fault.Internal, "initrd: %s twice", e.name)
		case !folders[path.Dir(e.name)]:
			return fault.New(fault.Internal, "initrd: %s has no folder", e.name)
		case int64(len(e.data)) > 1<<31:
			return fault.New(fault.Input, "initrd: %s has %d bytes", e.name, len(e.data))
		}
		seen[e.name] = true
		if e.mode&modeType == modeDir {
			folders[e.name] = true
		}
		c.entry(uint32(i+1), e)
	}
	c.entry(0, entry{name: cpioTrailer})
	c.pad(512) // as cpio(1) does; the kernel skips NULs between archives
	return c.err
}

type cpioWriter struct {
	w   io.Writer
	n   int64
	err error
}

func (c *cpioWriter) write(b []byte) {
	if c.err == nil {
		var n int
		n, c.err = c.w.Write(b)
		c.n += int64(n)
	}
}

func (c *cpioWriter) pad(to int64) {
	c.write(make([]byte, (to-c.n%to)%to))
}

func (c *cpioWriter) entry(ino uint32, e entry) {
	const uid, gid, nlink, mtime, devmajor, devminor, check = 0, 0, 1, 0, 0, 0, 0
	fields := []uint32{
		ino, e.mode, uid, gid, nlink, mtime, uint32(len(e.data)), devmajor, devminor, e.major, e.minor, uint32(len(e.name) + 1), check,
	}
	header := make([]byte, 0, cpioHeader)
	header = append(header, cpioMagic...)
	for _, f := range fields {
		header = fmt.Appendf(header, "%08X", f)
	}
	c.write(append(append(header, e.name...), 0))
	c.pad(4)
	c.write(e.data)
	c.pad(4)
}
