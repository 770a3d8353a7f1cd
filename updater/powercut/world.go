// Package powercut is a machine's storage for tests: a disk and folders that share one supply of power, which fails after the nth change.
//
// A change is a write, a sync, a create, a rename or a remove. When the power fails, the change under way and every later one return ErrOff, reads
// too. Restore brings the storage back as a reboot would find it: what was synced is there; the fate of the rest is up to the caller:
//
//	Kept    everything that was written survived
//	Lost    nothing did
//	Mixed   each 512-byte sector of a disk or of a file's content by a coin's toss, the write under way included (a torn write);
//	        of a folder's creates, renames and removes the first few, since both a journal and FAT write those in order
//
// Limits: single-sector writes are atomic, synced data never changes, and a rename is a single step; FAT's two steps of a rename are not modelled.
package powercut

import (
	"errors"
	"math/rand/v2"
	"sync"
)

// ErrOff is the error of everything after the power failed.
var ErrOff = errors.New("power cut")

const sectorSize = 512

// Fate says what becomes of changes that were not synced when the power failed.
type Fate struct {
	coin func() bool // nil: keep decides
	keep bool
}

// The two simple fates.
var (
	Kept = Fate{keep: true}
	Lost = Fate{}
)

// Mixed tosses a coin for each change. Equal seeds give equal outcomes.
func Mixed(seed uint64) Fate {
	r := rand.New(rand.NewPCG(seed, 0x73656d706572))
	return Fate{coin: func() bool { return r.Uint64()&1 == 1 }}
}

func (f Fate) survives() bool {
	if f.coin == nil {
		return f.keep
	}
	return f.coin()
}

// World is the supply of power. Its methods, and those of its disks and folders, may be called from several goroutines.
type World struct {
	mu      sync.Mutex
	changes int
	last    int // the change that still works; negative: all do
	off     bool
	disks   []*Disk
	folders []*Folder
}

// NewWorld returns a world with unlimited power.
func NewWorld() *World { return &World{last: -1} }

// CutAfter lets n more changes happen and cuts the power in the next one.
func (w *World) CutAfter(n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.last = w.changes + n
}

// Changes counts the changes so far.
func (w *World) Changes() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.changes
}

// Off reports whether the power has failed.
func (w *World) Off() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.off
}

// Restore brings power back, unlimited, after f decided over everything that was not synced. Open files stay dead.
func (w *World) Restore(f Fate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.off, w.last = false, -1
	for _, d := range w.disks {
		d.restore(f)
	}
	for _, d := range w.folders {
		d.restore(f)
	}
}

// change counts one change; the mutex is held.
func (w *World) change() error {
	if w.off {
		return ErrOff
	}
	if w.last >= 0 && w.changes >= w.last {
		w.off = true
		return ErrOff
	}
	w.changes++
	return nil
}

// Clone copies the whole world, with unlimited power and everything unsynced as it is. It returns the copies of disks and folders in the order in
// which they were made.
func (w *World) Clone() (*World, []*Disk, []*Folder) {
	w.mu.Lock()
	defer w.mu.Unlock()
	c := NewWorld()
	for _, d := range w.disks {
		c.disks = append(c.disks, d.clone(c))
	}
	for _, f := range w.folders {
		c.folders = append(c.folders, f.clone(c))
	}
	return c, c.disks, c.folders
}
