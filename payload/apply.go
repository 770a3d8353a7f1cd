package payload

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding"
	"errors"
	"hash"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/semper-os/semper/fault"
)

// Storage is where a partition is written: a block device, a file.
type Storage interface {
	io.ReaderAt
	io.WriterAt
	Sync() error // returns when everything written before survives a power cut
}

// Target is the storage of one partition.
type Target struct {
	Storage Storage
	Limit   int64 // the largest partition that fits, in bytes
	// Tree is where the dm-verity superblock and hash tree go, of a partition that has a root hash: they are not shipped. Nil: they are computed, and thrown away.
	Tree io.WriterAt
}

// Phase is what an Applier is busy with.
type Phase string

// The phases, in their order.
const (
	Installing Phase = "install" // reading the payload and writing the targets; counts bytes of the payload
	Verifying  Phase = "verify"  // reading the targets back; counts bytes of the partitions
)

// Progress tells how far a phase has come, in bytes.
type Progress struct {
	Phase       Phase
	Done, Total int64
}

const (
	defaultCheckpointEvery = 64 << 20
	defaultCheckpointAfter = 30 * time.Second
)

// Options say what an Applier may believe and where it writes. Trust, Targets and Accept are required.
type Options struct {
	Trust Trust
	// Targets holds the partitions by name. A payload must have exactly these.
	Targets map[string]Target
	// Accept sees the verified manifest before anything is written and may refuse it. Policy.Check is meant for it.
	Accept func(*Manifest) error

	// Size and SHA256 are what the update server announced for the whole file. Zero and nil: not announced, not checked.
	Size   int64
	SHA256 []byte

	// Progress, if not nil, is called now and then.
	Progress func(Progress)
	// Checkpoint, if not nil, is called with a state to resume from, after the targets were flushed, while the next operations are done: at least after each CheckpointEvery
	// bytes written (0: 64 MiB), after the first operation that ends CheckpointAfter or later after the one before (0: 30 s; only with a clock), after
	// the last operation, and when the stream breaks off. It should make the state durable before it returns.
	Checkpoint      func(*Checkpoint) error
	CheckpointEvery int64
	CheckpointAfter time.Duration
	Now             func() time.Time // nil: checkpoints go by bytes alone
}

// Result is a payload that was applied and read back. The trees are not flushed.
type Result struct {
	Manifest *Manifest
	SHA256   [sha256.Size]byte  // of the whole payload file
	Signers  []crypto.PublicKey // the trusted keys that signed the payload
}

// Applier applies one payload. It is not for use by several goroutines at once.
type Applier struct {
	opts Options
	md   *metadata // nil until it is read and verified
	next int       // index of the first operation that is not done
	size int64     // bytes of the payload that are done: always the end of the metadata or of a blob
	// fileHash runs over the whole file, signedHash leaves out the metadata signature.
	fileHash, signedHash hash.Hash

	ops    executor
	saving chan error // of the checkpoint that is being made durable; nil: none is
	unsafe int64      // bytes written since the last checkpoint
	saved  time.Time  // of the last checkpoint, where there is a clock
	dirty  map[string]bool
	failed error
}

// NewApplier returns an Applier for a payload from its first byte.
func NewApplier(opts Options) (*Applier, error) {
	if _, err := opts.Trust.distinct(); err != nil {
		return nil, err
	}
	if opts.Accept == nil {
		return nil, fault.New(fault.Internal, "apply payload: Options.Accept is nil")
	}
	for name, t := range opts.Targets {
		if t.Storage == nil {
			return nil, fault.New(fault.Internal, "apply payload: target %q has no storage", name)
		}
	}
	if len(opts.SHA256) != 0 && len(opts.SHA256) != sha256.Size {
		return nil, fault.New(fault.Input, "apply payload: the announced SHA-256 has %d bytes", len(opts.SHA256))
	}
	if opts.CheckpointEvery <= 0 {
		opts.CheckpointEvery = defaultCheckpointEvery
	}
	if opts.CheckpointAfter <= 0 {
		opts.CheckpointAfter = defaultCheckpointAfter
	}
	a := &Applier{opts: opts, fileHash: sha256.New(), signedHash: sha256.New(), dirty: map[string]bool{}}
	if opts.Now != nil {
		a.saved = opts.Now()
	}
	return a, nil
}

// Manifest returns the payload's manifest once it has been read and verified, and nil before.
func (a *Applier) Manifest() *Manifest {
	if a.md == nil {
		return nil
	}
	return a.md.manifest
}

// Offset returns the byte of the payload that the reader given to the next Apply must begin with.
func (a *Applier) Offset() int64 { return a.size }

// Apply reads the payload from r, which begins at Offset, writes the targets and reads them back. It reads not one byte more than the payload has.
//
// Where the stream breaks off or ctx ends (Reason.Resumable), Apply may be called again with a reader that begins at the new Offset. After
// any other error the targets hold rubbish, and this Applier and its checkpoints are of no more use. A read from r that hangs is not
// interrupted by ctx; close the stream for that.
func (a *Applier) Apply(ctx context.Context, r io.Reader) (*Result, error) {
	if a.failed != nil {
		return nil, a.failed
	}
	res, err := a.apply(ctx, r)
	if err != nil && !ReasonOf(err).Resumable() {
		a.failed = err
	}
	return res, err
}

func (a *Applier) apply(ctx context.Context, r io.Reader) (*Result, error) {
	if a.md == nil {
		md, err := readMetadata(ctx, r, &a.opts.Trust)
		if err != nil {
			return nil, err
		}
		if err := a.begin(md); err != nil {
			return nil, err
		}
	}
	m := a.md.manifest
	defer func() { _ = a.saveEnds() }() // on the way out with another error, or none is left
	for a.next < len(m.operations) {
		if err := a.step(ctx, r); err != nil {
			// Joined in this order, the reason to stop for good comes first.
			if drainErr := a.ops.drain(); drainErr != nil {
				return nil, errors.Join(drainErr, err)
			}
			if ReasonOf(err).Resumable() {
				if saveErr := errors.Join(a.save(), a.saveEnds()); saveErr != nil {
					return nil, errors.Join(saveErr, err)
				}
			}
			return nil, err
		}
		if a.due() {
			if err := a.save(); err != nil {
				return nil, err
			}
		}
	}
	if err := a.ops.drain(); err != nil {
		return nil, err
	}
	if err := a.save(); err != nil {
		return nil, err
	}
	res, err := a.believe(ctx, r)
	if err != nil {
		return nil, err
	}
	return res, a.readBack(ctx)
}

// begin takes over verified metadata, unless the caller or the targets do not agree with it.
func (a *Applier) begin(md *metadata) error {
	m := md.manifest
	if err := a.opts.Accept(m); err != nil {
		return err
	}
	if a.opts.Size != 0 && a.opts.Size != m.Size {
		return refuse(SizeMismatch, "the payload has %d bytes, but %d were announced", m.Size, a.opts.Size)
	}
	for _, part := range m.Partitions {
		t, ok := a.opts.Targets[part.Name]
		if !ok {
			return refuse(WrongPartition, "the payload has a partition %q, which has no place here", part.Name)
		}
		if part.Size > t.Limit {
			return refuse(TooLarge, "partition %q has %d bytes, but only %d fit", part.Name, part.Size, t.Limit)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(a.opts.Targets)) {
		if m.Partition(name) == nil {
			return refuse(WrongPartition, "the payload has no partition %q", name)
		}
	}
	a.md = md
	a.size = int64(len(md.raw))
	a.fileHash.Write(md.raw)
	a.signedHash.Write(md.signed())
	a.ops.reserve(m)
	return nil
}

// step does the next operation, or leaves everything as it was if it can be tried again.
func (a *Applier) step(ctx context.Context, r io.Reader) error {
	m := a.md.manifest
	op := &m.operations[a.next]
	part := &m.Partitions[op.partition]
	done := a.size
	blob, err := a.ops.read(ctx, r, part, a.next, op, func(n int) {
		done += int64(n)
		a.report(Installing, done, m.Size)
	})
	if err != nil {
		return err
	}
	a.dirty[part.Name] = true
	// Beside the decoder. Where the operation fails there is no next one that these hashes would be of use to.
	var hashed sync.WaitGroup
	hashed.Go(func() {
		a.fileHash.Write(blob)
		a.signedHash.Write(blob)
	})
	err = a.ops.execute(ctx, a.opts.Targets[part.Name].Storage, part, a.next, op, blob)
	hashed.Wait()
	if err != nil {
		return err
	}
	a.size += int64(len(blob))
	a.unsafe += op.size
	a.next++
	return nil
}

// due reports whether a checkpoint is due after the operation that was just done.
func (a *Applier) due() bool {
	if a.unsafe == 0 {
		return false
	}
	return a.unsafe >= a.opts.CheckpointEvery || a.opts.Now != nil && a.opts.Now().Sub(a.saved) >= a.opts.CheckpointAfter
}

// save flushes the targets and hands out a checkpoint, unless the last one still says it all. The work goes on meanwhile: saveEnds waits for the end, and so does
// the next save.
func (a *Applier) save() error {
	if a.opts.Checkpoint == nil || a.unsafe == 0 {
		return nil
	}
	if err := errors.Join(a.saveEnds(), a.ops.drain()); err != nil {
		return err
	}
	cp, err := a.checkpoint()
	if err != nil {
		return err
	}
	dirty := a.dirty
	a.dirty, a.unsafe = map[string]bool{}, 0
	if a.opts.Now != nil {
		a.saved = a.opts.Now()
	}
	done := make(chan error, 1)
	a.saving = done
	go func() {
		if err := a.sync(dirty); err != nil {
			done <- err
			return
		}
		if err := a.opts.Checkpoint(cp); err != nil {
			done <- refuse(WriteFailed, "save the state of the update: %w", err)
			return
		}
		done <- nil
	}()
	return nil
}

// saveEnds waits until the last checkpoint is durable, and tells why it is not.
func (a *Applier) saveEnds() error {
	if a.saving == nil {
		return nil
	}
	err := <-a.saving
	a.saving = nil
	return err
}

// flush makes durable what was written since the last checkpoint.
func (a *Applier) flush() error {
	if err := errors.Join(a.saveEnds(), a.ops.drain()); err != nil {
		return err
	}
	dirty := a.dirty
	a.dirty = map[string]bool{}
	return a.sync(dirty)
}

func (a *Applier) sync(dirty map[string]bool) error {
	for _, name := range slices.Sorted(maps.Keys(dirty)) {
		if err := a.opts.Targets[name].Storage.Sync(); err != nil {
			return refuse(WriteFailed, "flush partition %q: %w", name, err)
		}
	}
	return nil
}

// believe reads the payload signature and checks what is known of the whole file.
func (a *Applier) believe(ctx context.Context, r io.Reader) (*Result, error) {
	m := a.md.manifest
	message := make([]byte, m.Size-a.size)
	if err := readFull(ctx, r, message, nil); err != nil {
		return nil, refuse(ReasonOf(err), "payload signature: %w", err)
	}
	res := &Result{Manifest: m}
	var err error
	if res.Signers, err = a.opts.Trust.verify("contents", sumOf(a.signedHash), message); err != nil {
		return nil, err
	}
	whole, err := cloneHash(a.fileHash) // Apply may be called again, should reading back be cancelled
	if err != nil {
		return nil, err
	}
	whole.Write(message)
	res.SHA256 = sumOf(whole)
	if len(a.opts.SHA256) != 0 && res.SHA256 != [sha256.Size]byte(a.opts.SHA256) {
		return nil, refuse(HashMismatch, "the payload's SHA-256 is %x, but %x was announced", res.SHA256, a.opts.SHA256)
	}
	a.report(Installing, m.Size, m.Size)
	return res, nil
}

func (a *Applier) report(p Phase, done, total int64) {
	if a.opts.Progress != nil {
		a.opts.Progress(Progress{p, done, total})
	}
}

func sumOf(h hash.Hash) (sum [sha256.Size]byte) {
	h.Sum(sum[:0])
	return sum
}

// cloneHash copies a SHA-256 that is under way.
func cloneHash(h hash.Hash) (hash.Hash, error) {
	state, err := h.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return nil, fault.New(fault.Internal, "copy SHA-256 state: %w", err)
	}
	return restoreHash(state)
}

func restoreHash(state []byte) (hash.Hash, error) {
	h := sha256.New()
	return h, h.(encoding.BinaryUnmarshaler).UnmarshalBinary(state)
}
