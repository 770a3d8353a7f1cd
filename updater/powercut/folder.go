package powercut

import (
	"fmt"
	"io"
	"io/fs"
	"maps"
	"slices"
	"syscall"

	"github.com/semper-os/semper/updater/durable"
)

// Folder is a durable.Folder in memory.
type Folder struct {
	w        *World
	capacity int64
	now      map[string]*node
	stable   map[string]*node
	queue    []func(map[string]*node) // changes of names since the last sync
}

// node is a file's content, whatever its name.
type node struct {
	now    []byte
	stable []byte
}

var _ durable.Folder = (*Folder)(nil)

// NewFolder makes an empty folder with room for capacity bytes.
func (w *World) NewFolder(capacity int64) *Folder {
	w.mu.Lock()
	defer w.mu.Unlock()
	f := &Folder{w: w, capacity: capacity, now: map[string]*node{}, stable: map[string]*node{}}
	w.folders = append(w.folders, f)
	return f
}

// Put places a file as if it had always been there. It is not a change.
func (f *Folder) Put(name string, data []byte) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	n := &node{now: slices.Clone(data), stable: slices.Clone(data)}
	f.now[name], f.stable[name] = n, n
}

// Files returns all names with their contents, as a reader sees them now.
func (f *Folder) Files() map[string][]byte {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	all := map[string][]byte{}
	for name, n := range f.now {
		all[name] = slices.Clone(n.now)
	}
	return all
}

// Names implements durable.Folder.
func (f *Folder) Names() ([]string, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.w.off {
		return nil, ErrOff
	}
	return slices.Sorted(maps.Keys(f.now)), nil
}

func notFound(op, name string) error { return &fs.PathError{Op: op, Path: name, Err: fs.ErrNotExist} }

// Open implements durable.Folder.
func (f *Folder) Open(name string) (durable.File, error) { return f.open(name) }

// Edit implements durable.Folder.
func (f *Folder) Edit(name string) (durable.File, error) { return f.open(name) }

func (f *Folder) open(name string) (durable.File, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.w.off {
		return nil, ErrOff
	}
	n, ok := f.now[name]
	if !ok {
		return nil, notFound("open", name)
	}
	return &file{f, n}, nil
}

// rename records a change of names that is already allowed.
func (f *Folder) rename(change func(map[string]*node)) {
	change(f.now)
	f.queue = append(f.queue, change)
}

// Create implements durable.Folder.
func (f *Folder) Create(name string) (durable.File, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if err := f.w.change(); err != nil {
		return nil, err
	}
	n, ok := f.now[name]
	if !ok {
		n = &node{}
		f.rename(func(m map[string]*node) { m[name] = n })
	}
	n.now = nil
	return &file{f, n}, nil
}

// Rename implements durable.Folder.
func (f *Folder) Rename(oldName, newName string) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if err := f.w.change(); err != nil {
		return err
	}
	n, ok := f.now[oldName]
	if !ok {
		return notFound("rename", oldName)
	}
	f.rename(func(m map[string]*node) {
		delete(m, oldName)
		m[newName] = n
	})
	return nil
}

// Remove implements durable.Folder.
func (f *Folder) Remove(name string) error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if f.w.off {
		return ErrOff
	}
	if _, ok := f.now[name]; !ok {
		return notFound("remove", name)
	}
	if err := f.w.change(); err != nil {
		return err
	}
	f.rename(func(m map[string]*node) { delete(m, name) })
	return nil
}

// Sync implements durable.Folder: it makes names durable, not contents.
func (f *Folder) Sync() error {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	if err := f.w.change(); err != nil {
		return err
	}
	f.stable, f.queue = maps.Clone(f.now), nil
	return nil
}

func (f *Folder) free() int64 {
	left := f.capacity
	for _, n := range f.now {
		left -= int64(len(n.now))
	}
	return left
}

// Free implements durable.Folder.
func (f *Folder) Free() (int64, error) {
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	return max(0, f.free()), nil
}

func (f *Folder) restore(fate Fate) {
	for _, change := range f.queue {
		if !fate.survives() {
			break
		}
		change(f.stable)
	}
	f.queue, f.now = nil, maps.Clone(f.stable)
	done := map[*node]bool{}
	for _, name := range slices.Sorted(maps.Keys(f.now)) {
		n := f.now[name]
		if done[n] {
			continue
		}
		done[n] = true
		length := len(n.stable)
		if fate.survives() {
			length = len(n.now)
		}
		b := make([]byte, length)
		for at := 0; at < length; at += sectorSize {
			from := n.stable
			if fate.survives() {
				from = n.now
			}
			if at < len(from) {
				copy(b[at:min(length, at+sectorSize)], from[at:])
			}
		}
		n.now, n.stable = b, slices.Clone(b)
	}
}

func (f *Folder) clone(w *World) *Folder {
	c := &Folder{w: w, capacity: f.capacity, now: map[string]*node{}, stable: map[string]*node{}}
	copies := map[*node]*node{}
	of := func(n *node) *node {
		if copies[n] == nil {
			copies[n] = &node{slices.Clone(n.now), slices.Clone(n.stable)}
		}
		return copies[n]
	}
	for name, n := range f.now {
		c.now[name] = of(n)
	}
	for name, n := range f.stable {
		c.stable[name] = of(n)
	}
	if len(f.queue) > 0 {
		panic("powercut: clone of a folder with names that are not synced")
	}
	return c
}

// file is an open file.
type file struct {
	f *Folder
	n *node
}

func (o *file) ReadAt(b []byte, offset int64) (int, error) {
	o.f.w.mu.Lock()
	defer o.f.w.mu.Unlock()
	if o.f.w.off {
		return 0, ErrOff
	}
	if offset < 0 {
		return 0, fmt.Errorf("read at %d", offset)
	}
	if offset >= int64(len(o.n.now)) {
		return 0, io.EOF
	}
	n := copy(b, o.n.now[offset:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (o *file) WriteAt(b []byte, offset int64) (int, error) {
	o.f.w.mu.Lock()
	defer o.f.w.mu.Unlock()
	if err := o.f.w.change(); err != nil {
		return 0, err
	}
	if offset < 0 {
		return 0, fmt.Errorf("write at %d", offset)
	}
	if more := offset + int64(len(b)) - int64(len(o.n.now)); more > 0 {
		if more > o.f.free() {
			return 0, syscall.ENOSPC
		}
		o.n.now = append(o.n.now, make([]byte, more)...)
	}
	copy(o.n.now[offset:], b)
	return len(b), nil
}

func (o *file) Sync() error {
	o.f.w.mu.Lock()
	defer o.f.w.mu.Unlock()
	if err := o.f.w.change(); err != nil {
		return err
	}
	o.n.stable = slices.Clone(o.n.now)
	return nil
}

func (o *file) Size() (int64, error) {
	o.f.w.mu.Lock()
	defer o.f.w.mu.Unlock()
	return int64(len(o.n.now)), nil
}

func (o *file) Close() error { return nil }
