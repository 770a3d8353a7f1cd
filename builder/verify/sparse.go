package verify

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

// firstNonZero returns the offset of the first byte of a file between from and to that is not zero, or to. Holes are not read.
func firstNonZero(ctx context.Context, f *os.File, from, to int64) (int64, error) {
	buf := make([]byte, 1<<20)
	for off := from; off < to; {
		if data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA); err == nil && data > off {
			off = data
			continue
		} else if err == unix.ENXIO { // nothing but a hole is left
			return to, nil
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		part := buf[:min(int64(len(buf)), to-off)]
		if _, err := io.ReadFull(io.NewSectionReader(f, off, int64(len(part))), part); err != nil {
			return 0, fault.New(fault.IO, "read at byte %d: %w", off, err)
		}
		for i, b := range part {
			if b != 0 {
				return off + int64(i), nil
			}
		}
		off += int64(len(part))
	}
	return to, nil
}
