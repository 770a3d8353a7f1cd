package install

import (
	"errors"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

// The kernel's page cache belongs to the machine's work. A whole slot that goes through it throws out what the work had there, and a slow disk lets
// hundreds of megabytes of it wait for being written, in front of which everybody else's fsync waits too. So large pieces go past the cache (O_DIRECT),
// one at a time; where that is refused, they go through it and are pushed out at once.
const (
	directAlign = 4096     // of offset, length and memory; every disk's block size divides it
	directMin   = 64 << 10 // smaller pieces are collected by the cache: the hash tree is written block by block, the partition table must be
	bounceSize  = 1 << 20  // memory that is not aligned is copied through a piece of this size
	dirtyLimit  = 8 << 20  // bytes in the cache that are not on the disk yet, where the cache is used
)

// device is a Disk of the kernel's, or a file that stands for one.
type device struct {
	cached *os.File
	direct *os.File // nil: O_DIRECT is refused
	size   int64

	refused atomic.Bool // O_DIRECT was refused by a read or write
	bounce  sync.Pool   // of *[]byte, aligned

	mu     sync.Mutex
	behind []span // written through the cache, oldest first
	dirty  int64  // bytes of behind
}

type span struct{ off, size int64 }

// OpenDisk opens a block device, or a file that stands for one.
func OpenDisk(path string) (Disk, error) { return openDisk(path) }

func openDisk(path string) (*device, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fault.New(fault.IO, "open the disk: %w", err)
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil || size <= 0 {
		f.Close()
		return nil, fault.New(fault.IO, "size of %s: %d bytes, %v", path, size, err)
	}
	d := &device{cached: f, size: size, bounce: sync.Pool{New: func() any { b := aligned(bounceSize); return &b }}}
	// A file system that knows no O_DIRECT says so here, or at the first read or write.
	d.direct, err = os.OpenFile(path, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil && !errors.Is(err, unix.EINVAL) {
		f.Close()
		return nil, fault.New(fault.IO, "open the disk: %w", err)
	}
	return d, nil
}

// Close closes the device; tests need it.
func (d *device) Close() error {
	err := d.cached.Close()
	if d.direct != nil {
		err = errors.Join(err, d.direct.Close())
	}
	return err
}

// Size implements Disk.
func (d *device) Size() int64 { return d.size }

// Sync implements Disk. Both files are one device, so what went past the cache is flushed too.
func (d *device) Sync() error {
	if err := d.cached.Sync(); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.behind {
		d.forget(s)
	}
	d.behind, d.dirty = d.behind[:0], 0
	return nil
}

// ReadAt implements Disk.
func (d *device) ReadAt(p []byte, off int64) (int, error) {
	return d.split(p, off, d.readDirect, func(p []byte, off int64) (int, error) {
		n, err := d.cached.ReadAt(p, off)
		if len(p) >= directMin {
			d.forget(span{off, int64(n)})
		}
		return n, err
	})
}

// WriteAt implements Disk.
func (d *device) WriteAt(p []byte, off int64) (int, error) {
	return d.split(p, off, d.writeDirect, d.writeCached)
}

// split hands the whole blocks of p to direct, if they are many, and the rest to cached.
func (d *device) split(p []byte, off int64, direct, cached func([]byte, int64) (int, error)) (int, error) {
	head := int(-off & (directAlign - 1))
	middle := (len(p) - head) &^ (directAlign - 1)
	if d.direct == nil || d.refused.Load() || off < 0 || head > len(p) || middle < directMin || off+int64(len(p)) > d.size {
		return cached(p, off)
	}
	done := 0
	for _, part := range []struct {
		do   func([]byte, int64) (int, error)
		size int
	}{{cached, head}, {direct, middle}, {cached, len(p) - head - middle}} {
		if part.size == 0 {
			continue
		}
		n, err := part.do(p[done:done+part.size], off+int64(done))
		if errors.Is(err, unix.EINVAL) && n == 0 { // not for this device after all
			d.refused.Store(true)
			n, err = cached(p[done:done+part.size], off+int64(done))
		}
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// aligned returns n bytes whose address is a multiple of directAlign.
func aligned(n int) []byte {
	b := make([]byte, n+directAlign)
	skip := int(-uintptr(unsafe.Pointer(unsafe.SliceData(b))) & (directAlign - 1))
	return b[skip : skip+n : skip+n]
}

func isAligned(p []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(p)))&(directAlign-1) == 0
}

func (d *device) readDirect(p []byte, off int64) (int, error) {
	if isAligned(p) {
		return d.direct.ReadAt(p, off)
	}
	return d.bounced(p, off, func(b, p []byte, off int64) (int, error) {
		n, err := d.direct.ReadAt(b, off)
		copy(p, b[:n])
		return n, err
	})
}

func (d *device) writeDirect(p []byte, off int64) (int, error) {
	if isAligned(p) {
		return d.direct.WriteAt(p, off)
	}
	return d.bounced(p, off, func(b, p []byte, off int64) (int, error) {
		copy(b, p)
		return d.direct.WriteAt(b, off)
	})
}

// bounced calls do for pieces of p, each with aligned memory of the same length.
func (d *device) bounced(p []byte, off int64, do func(b, p []byte, off int64) (int, error)) (int, error) {
	b := d.bounce.Get().(*[]byte)
	defer d.bounce.Put(b)
	done := 0
	for done < len(p) {
		piece := p[done:min(len(p), done+bounceSize)]
		n, err := do((*b)[:len(piece)], piece, off+int64(done))
		done += n
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// writeCached writes through the page cache, and does not let much of it wait there.
func (d *device) writeCached(p []byte, off int64) (int, error) {
	n, err := d.cached.WriteAt(p, off)
	if err != nil || n == 0 {
		return n, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.behind = append(d.behind, span{off, int64(n)})
	d.dirty += int64(n)
	if n >= directMin { // start now, wait later
		_ = unix.SyncFileRange(int(d.cached.Fd()), off, int64(n), unix.SYNC_FILE_RANGE_WRITE)
	}
	for len(d.behind) > 1 && d.dirty > dirtyLimit {
		s := d.behind[0]
		// An error is told by the next Sync too.
		if err := unix.SyncFileRange(int(d.cached.Fd()), s.off, s.size, unix.SYNC_FILE_RANGE_WAIT_BEFORE|unix.SYNC_FILE_RANGE_WRITE|unix.SYNC_FILE_RANGE_WAIT_AFTER); err != nil {
			return n, err
		}
		d.forget(s)
		d.behind, d.dirty = d.behind[1:], d.dirty-s.size
	}
	return n, nil
}

// forget gives the pages of a clean range back. It is a hint, and cannot fail in a way that matters.
func (d *device) forget(s span) {
	if s.size > 0 {
		_ = unix.Fadvise(int(d.cached.Fd()), s.off, s.size, unix.FADV_DONTNEED)
	}
}
