package release

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"runtime"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/progress"
)

const hashChunk = 1 << 20

// hashFiles hashes files of a directory on all cores, the largest first. The result is in the order of names.
func hashFiles(ctx context.Context, dir *os.Root, names []string, bar *progress.Bar) ([]File, []error) {
	files, errs := make([]File, len(names)), make([]error, len(names))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	for _, i := range bySize(dir, names) {
		group.Go(func() error {
			files[i], errs[i] = hashFile(ctx, dir, names[i], bar)
			return nil // the others are worth looking at in any case
		})
	}
	_ = group.Wait()
	return files, errs
}

// bySize returns the indexes of names, those of the largest files first, so that no core is left with a large one at the end.
func bySize(dir *os.Root, names []string) []int {
	order, sizes := make([]int, len(names)), make([]int64, len(names))
	for i, name := range names {
		order[i] = i
		if info, err := dir.Lstat(name); err == nil {
			sizes[i] = info.Size()
		}
	}
	for i := range order { // a handful of files
		for j := i + 1; j < len(order); j++ {
			if sizes[order[j]] > sizes[order[i]] {
				order[i], order[j] = order[j], order[i]
			}
		}
	}
	return order
}

var chunks = sync.Pool{New: func() any { b := make([]byte, hashChunk); return &b }}

func hashFile(ctx context.Context, dir *os.Root, name string, bar *progress.Bar) (File, error) {
	f, err := openRegular(dir, name)
	if err != nil {
		return File{}, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return File{}, fault.New(fault.IO, "%s: %w", name, err)
	}
	h := sha256.New()
	if err := hashSparse(ctx, h, f, info.Size(), bar); err != nil {
		return File{}, fault.New(fault.IO, "read %s: %w", name, err)
	}
	return File{Name: name, Size: info.Size(), SHA256: hex.EncodeToString(h.Sum(nil))}, nil
}

// openRegular opens a regular file of the directory itself: no symbolic link, nothing that blocks.
func openRegular(dir *os.Root, name string) (*os.File, error) {
	info, err := dir.Lstat(name)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fault.New(fault.Input, "%s is missing", name)
	}
	if err != nil {
		return nil, fault.New(fault.IO, "%w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.Input, "%s is not a regular file", name)
	}
	f, err := dir.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fault.New(fault.IO, "%w", err)
	}
	if opened, err := f.Stat(); err != nil || !os.SameFile(info, opened) {
		f.Close()
		return nil, fault.New(fault.IO, "%s was exchanged while it was opened", name)
	}
	return f, nil
}

// hashSparse hashes size bytes without reading the holes: most of a disk image is one.
func hashSparse(ctx context.Context, h hash.Hash, f *os.File, size int64, bar *progress.Bar) error {
	buf := chunks.Get().(*[]byte)
	defer chunks.Put(buf)
	zeros := make([]byte, hashChunk)
	for off := int64(0); off < size; {
		data, end := nextData(f, off, size)
		for off < data {
			n := min(data-off, hashChunk)
			if err := hashPart(ctx, h, zeros[:n], bar); err != nil {
				return err
			}
			off += n
		}
		for off < end {
			part := (*buf)[:min(end-off, hashChunk)]
			if _, err := io.ReadFull(io.NewSectionReader(f, off, int64(len(part))), part); err != nil {
				return err
			}
			if err := hashPart(ctx, h, part, bar); err != nil {
				return err
			}
			off += int64(len(part))
		}
	}
	return nil
}

func hashPart(ctx context.Context, h hash.Hash, p []byte, bar *progress.Bar) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	h.Write(p)
	bar.Add(int64(len(p)))
	return nil
}

// nextData returns where the first data at or behind off begins and ends. A file system that cannot say has data everywhere.
func nextData(f *os.File, off, size int64) (data, end int64) {
	data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size // only a hole is left
	}
	if err != nil || data < off || data >= size {
		return off, size
	}
	end, err = unix.Seek(int(f.Fd()), data, unix.SEEK_HOLE)
	if err != nil || end <= data || end > size {
		return data, size
	}
	return data, end
}
