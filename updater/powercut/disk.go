package powercut

import (
	"fmt"
	"io"
	"maps"
)

const pageSize = 4096

type page [pageSize]byte

// Disk is a sparse block device in memory.
type Disk struct {
	w      *World
	size   int64
	now    map[int64]*page // pages are never changed in place, so that clones can share them
	stable map[int64]*page
	queue  []write // since the last sync
}

type write struct {
	offset int64
	data   []byte
}

// NewDisk makes a disk of size bytes, all zero.
func (w *World) NewDisk(size int64) *Disk {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := &Disk{w: w, size: size, now: map[int64]*page{}, stable: map[int64]*page{}}
	w.disks = append(w.disks, d)
	return d
}

// Size returns the disk's size in bytes.
func (d *Disk) Size() int64 { return d.size }

func put(pages map[int64]*page, offset int64, data []byte) {
	for len(data) > 0 {
		i, at := offset/pageSize, offset%pageSize
		p := new(page)
		if old := pages[i]; old != nil {
			*p = *old
		}
		n := copy(p[at:], data)
		pages[i] = p
		data, offset = data[n:], offset+int64(n)
	}
}

// ReadAt implements io.ReaderAt.
func (d *Disk) ReadAt(b []byte, offset int64) (int, error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if d.w.off {
		return 0, ErrOff
	}
	if offset < 0 {
		return 0, fmt.Errorf("read at %d", offset)
	}
	n := 0
	for n < len(b) && offset < d.size {
		i, at := offset/pageSize, offset%pageSize
		end := min(pageSize, at+d.size-offset)
		var m int
		if p := d.now[i]; p != nil {
			m = copy(b[n:], p[at:end])
		} else {
			m = min(len(b)-n, int(end-at))
			clear(b[n : n+m])
		}
		n, offset = n+m, offset+int64(m)
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt implements io.WriterAt.
func (d *Disk) WriteAt(b []byte, offset int64) (int, error) {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if offset < 0 || offset > d.size || int64(len(b)) > d.size-offset {
		return 0, fmt.Errorf("write of %d bytes at %d of a disk of %d bytes", len(b), offset, d.size)
	}
	wasOn := !d.w.off
	err := d.w.change()
	if err == nil || wasOn { // the write during which the power fails may reach the disk in part
		d.queue = append(d.queue, write{offset, append([]byte(nil), b...)})
	}
	if err != nil {
		return 0, err
	}
	put(d.now, offset, b)
	return len(b), nil
}

// Sync makes all writes before durable.
func (d *Disk) Sync() error {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if err := d.w.change(); err != nil {
		return err
	}
	d.stable, d.queue = maps.Clone(d.now), nil
	return nil
}

func (d *Disk) restore(f Fate) {
	for _, w := range d.queue {
		for at := 0; at < len(w.data); {
			end := min(len(w.data), at+sectorSize-int((w.offset+int64(at))%sectorSize))
			if f.survives() {
				put(d.stable, w.offset+int64(at), w.data[at:end])
			}
			at = end
		}
	}
	d.queue, d.now = nil, maps.Clone(d.stable)
}

func (d *Disk) clone(w *World) *Disk {
	return &Disk{w: w, size: d.size, now: maps.Clone(d.now), stable: maps.Clone(d.stable), queue: append([]write(nil), d.queue...)}
}
