package install

import (
	"io"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
)

// Region is one partition of a disk. No offset reaches outside of it.
type Region struct {
	disk  Disk
	start int64
	size  int64
}

// ReadAt implements io.ReaderAt; bytes behind the end are io.EOF.
func (r *Region) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fault.New(fault.Internal, "read at %d", off)
	}
	if off >= r.size {
		return 0, io.EOF
	}
	if left := r.size - off; int64(len(p)) > left {
		n, err := r.disk.ReadAt(p[:left], r.start+off)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	return r.disk.ReadAt(p, r.start+off)
}

// WriteAt implements io.WriterAt; a write that does not fit as a whole is refused as a whole.
func (r *Region) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > r.size || int64(len(p)) > r.size-off {
		return 0, fault.New(fault.Internal, "write of %d bytes at %d of a partition of %d bytes", len(p), off, r.size)
	}
	return r.disk.WriteAt(p, r.start+off)
}

// Sync flushes the disk.
func (r *Region) Sync() error { return r.disk.Sync() }

// Size is in bytes.
func (r *Region) Size() int64 { return r.size }

// idleRegions are the three partitions of the idle slot.
type idleRegions struct{ root, verity, sig *Region }

// regions returns the idle slot's partitions. It does not rely on the table alone: a partition that shares a sector with another one, or has the number
// of one of the running slot's, is refused.
func regions(d Disk, t *gpt.Table, running, idle layout.Slot) (idleRegions, error) {
	var out idleRegions
	for _, p := range []struct {
		number int
		to     **Region
	}{{idle.Root, &out.root}, {idle.Verity, &out.verity}, {idle.Sig, &out.sig}} {
		if p.number == running.Root || p.number == running.Verity || p.number == running.Sig {
			return out, fault.New(fault.Internal, "partition %d belongs to both slots", p.number)
		}
		if p.number < 1 || p.number > len(t.Partitions) || !t.Partitions[p.number-1].Used() {
			return out, fault.New(fault.Internal, "slot %s: there is no partition %d", idle.Name, p.number)
		}
		part := t.Partitions[p.number-1]
		for i, other := range t.Partitions {
			if i != p.number-1 && other.Used() && part.First <= other.Last && other.First <= part.Last {
				return out, fault.New(fault.Input, "partitions %d and %d overlap", p.number, i+1)
			}
		}
		if part.Offset() <= 0 || part.Size() <= 0 || part.Offset()+part.Size() > d.Size() {
			return out, fault.New(fault.Input, "partition %d lies outside of the disk", p.number)
		}
		*p.to = &Region{disk: d, start: part.Offset(), size: part.Size()}
	}
	return out, nil
}
