package payload

import (
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"sync/atomic"

	"github.com/semper-os/semper/partitions/verity"
)

// verifyPiece is how much is read back at a time.
const verifyPiece = 1 << 20

// readBack flushes the targets, reads each partition once, and compares it with what the signed manifest says: with its dm-verity root hash where it has one, which
// vouches for every byte and is what the machine will go by, and else with its SHA-256. The tree is computed over what is on the disk now, so that a tree and its
// data cannot both be wrong.
func (a *Applier) readBack(ctx context.Context) error {
	if err := a.flush(); err != nil {
		return err
	}
	m := a.md.manifest
	var done atomic.Int64
	total := m.total()
	for i := range m.Partitions {
		part := &m.Partitions[i]
		target := a.opts.Targets[part.Name]
		r := &watched{ctx: ctx, r: target.Storage, read: func(n int) { a.report(Verifying, done.Add(int64(n)), total) }}
		check := a.readHash
		if part.Verity != nil {
			check = readTree
		}
		if err := check(part, r, target.Tree); err != nil {
			if ctx.Err() != nil {
				return refuse(Cancelled, "cancelled: %w", context.Cause(ctx))
			}
			return err
		}
	}
	return nil
}

// total is the size of all partitions together.
func (m *Manifest) total() (n int64) {
	for i := range m.Partitions {
		n += m.Partitions[i].Size
	}
	return n
}

func (a *Applier) readHash(part *PartitionInfo, r io.ReaderAt, _ io.WriterAt) error {
	h := sha256.New()
	buf := a.ops.buffer(verifyPiece)
	for off := int64(0); off < part.Size; {
		b := buf[:min(int64(len(buf)), part.Size-off)]
		if n, err := r.ReadAt(b, off); n < len(b) {
			return refuse(WriteFailed, "read partition %q back at byte %d: %w", part.Name, off+int64(n), err)
		}
		h.Write(b)
		off += int64(len(b))
	}
	if sum := sumOf(h); sum != part.SHA256 {
		return refuse(PartitionHash, "partition %q was written, but its SHA-256 is %x; the manifest says %x", part.Name, sum, part.SHA256)
	}
	return nil
}

func readTree(part *PartitionInfo, r io.ReaderAt, tree io.WriterAt) error {
	if tree == nil {
		tree = nowhere{}
	}
	sb, g := part.Verity.Superblock, &gatherer{w: tree}
	res, err := verity.Format(r, part.Size, g, verity.Params{UUID: sb.UUID, Salt: sb.Salt})
	if err == nil {
		err = g.flush()
	}
	if err != nil {
		return refuse(WriteFailed, "read partition %q back, and make its dm-verity tree: %w", part.Name, err)
	}
	if res.RootHash != part.Verity.RootHash {
		return refuse(PartitionHash, "partition %q was written, but its dm-verity root hash is %s; the manifest says %s", part.Name, res.RootHash, part.Verity.RootHash)
	}
	return nil
}

// nowhere takes a tree that nobody wants.
type nowhere struct{}

func (nowhere) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// watched ends with its context and tells how much was read. It may be read by several goroutines; read is called by one at a time.
type watched struct {
	ctx  context.Context
	r    io.ReaderAt
	busy atomic.Bool
	kept atomic.Int64 // read while another goroutine told
	read func(int)
}

func (w *watched) ReadAt(p []byte, off int64) (int, error) {
	if w.ctx.Err() != nil {
		return 0, context.Cause(w.ctx)
	}
	n, err := w.r.ReadAt(p, off)
	if err != nil && !errors.Is(err, io.EOF) {
		return n, err
	}
	w.kept.Add(int64(n))
	if w.busy.CompareAndSwap(false, true) {
		w.read(int(w.kept.Swap(0)))
		w.busy.Store(false)
	}
	return n, err
}
