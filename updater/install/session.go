package install

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"sync/atomic"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/rootsig"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/wire"
)

// The partitions that a payload must have, and no others.
const (
	partRoot = "root"
	partUKI  = "uki"
	partSig  = "rootsig"
)

// session is one installation, from begin to its end.
type session struct {
	c       *Core
	s       *Storage
	begin   wire.Begin
	trust   Trust
	table   *gpt.Table
	running layout.Slot
	idle    layout.Slot
	parts   idleRegions
	root    *skipper // writes to parts.root
	uki     *ukiTarget

	applier *payload.Applier
	resumed bool
	// Of Core.claim: the session writes to the idle slot; somebody wants to go back to the idle slot.
	claimed, revoked bool
	received         atomic.Int64 // bytes of the payload that arrived

	pipe   *io.PipeWriter
	cancel context.CancelFunc
	done   chan struct{} // closed when result and err are set
	ended  chan struct{} // closed when another session may begin
	result *payload.Result
	err    error
}

// Handler returns the wire protocol's handler for one connection of the user uid.
func (c *Core) Handler(uid uint32) wire.Handler { return &handler{c: c, uid: uid} }

type handler struct {
	c   *Core
	uid uint32
	s   *session
}

func (h *handler) Status() (wire.Status, error) { return h.c.Status() }

// Begin implements wire.Handler.
func (h *handler) Begin(b wire.Begin) (int64, error) {
	s, err := h.c.begin(b)
	if err != nil {
		// Whatever is in the way before the payload was looked at says nothing against its version.
		return 0, withCode(err, omaha.CodeDeferredByPolicy)
	}
	h.s = s
	return s.received.Load(), nil
}

// Data implements wire.Handler.
func (h *handler) Data(p []byte) (int64, error) {
	n, err := h.s.pipe.Write(p)
	offset := h.s.received.Add(int64(n))
	if err != nil {
		return offset, withCode(err, omaha.CodeError)
	}
	return offset, nil
}

// Finish implements wire.Handler.
func (h *handler) Finish() error {
	s := h.s
	err := s.finish()
	if err != nil {
		return withCode(err, omaha.CodeError) // the wire aborts the session
	}
	h.s = nil
	s.c.end(s)
	return nil
}

// Abort implements wire.Handler.
func (h *handler) Abort() error { return h.stop(false) }

// Discard implements wire.Handler.
func (h *handler) Discard() error { return h.stop(true) }

func (h *handler) stop(forget bool) error {
	s := h.s
	if s == nil {
		return nil
	}
	h.s = nil
	s.cancel()
	s.pipe.CloseWithError(io.ErrUnexpectedEOF)
	<-s.done
	var err error
	if forget || s.err != nil && !payload.ReasonOf(s.err).Resumable() {
		err = s.forget()
	}
	s.c.end(s)
	return err
}

func (c *Core) end(s *session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.active == s {
		c.active = nil
		close(s.ended)
	}
}

// handover is how long a session waits for the one before it. A peer that hung up in the middle, as a cancelled download does, comes back at once, while
// its old session still writes what it received.
const handover = 5 * time.Second

// awaitTurn returns with c.mu held and no session open, or with wire.ErrBusy and c.mu free.
func (c *Core) awaitTurn() error {
	late := time.After(handover)
	for {
		c.mu.Lock()
		if c.active == nil {
			return nil
		}
		ended := c.active.ended
		c.mu.Unlock()
		select {
		case <-ended:
		case <-late:
			return wire.ErrBusy
		}
	}
}

// begin opens a session: everything that can be refused without the payload's first byte is refused here.
func (c *Core) begin(b wire.Begin) (*session, error) {
	if err := c.awaitTurn(); err != nil {
		return nil, err
	}
	defer c.mu.Unlock()
	st, err := c.open()
	if err != nil {
		return nil, err
	}
	s := &session{c: c, s: st, begin: b, uki: &ukiTarget{folder: st.State}, done: make(chan struct{}), ended: make(chan struct{})}
	if s.trust, err = c.o.Trust(); err != nil {
		return nil, &coded{err, omaha.ErrorCode(payload.NoTrust.Code())}
	}
	if err := c.tidy(st); err != nil {
		return nil, err
	}
	if s.table, s.running, s.idle, err = c.slots(st); err != nil {
		return nil, err
	}
	if s.parts, err = regions(st.Disk, s.table, s.running, s.idle); err != nil {
		return nil, err
	}
	if err := c.unheld(s.idle); err != nil {
		return nil, err
	}
	s.root = &skipper{Region: s.parts.root}
	all, err := entries(st.ESP, c.o.Machine.Image.ID)
	if err != nil {
		return nil, err
	}
	running := runningEntries(all, c.o.Machine.RootHash)
	if len(running) == 0 {
		return nil, errNoRunningEntry
	}
	waits, err := c.reconcile(st, all)
	if err != nil {
		return nil, err
	}
	if waits != nil && waits.Back {
		return nil, fault.New(fault.Verification, "the next boot goes back to version %s in the other slot", waits.Version)
	}
	if onTrial(running) && wayBack(s.idle, all) { // without a way back there is none to lose: the update may be what heals the machine
		return nil, fault.New(fault.Verification, "version %s is itself on trial until its health checks are through; the other slot is its way back", c.o.Machine.Image.Version)
	}
	if s.applier, err = s.newApplier(); err != nil {
		return nil, err
	}
	s.received.Store(s.applier.Offset())
	c.o.Log.Info("installation begins", "version", b.Version, "size", b.Size, "offset", s.applier.Offset(), "slot", s.idle.Name)

	r, w := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	s.pipe, s.cancel = w, cancel
	c.active = s
	go func() {
		defer close(s.done)
		s.result, s.err = s.applier.Apply(ctx, r)
		if s.err != nil {
			r.CloseWithError(s.err)
		} else { // Apply does not read behind the payload's end
			r.CloseWithError(&coded{fault.New(fault.Verification, "there is more data than the payload's %d bytes", s.result.Manifest.Size), omaha.CodePayloadSize})
		}
	}()
	return s, nil
}

// newApplier resumes the interrupted installation of the same payload, or starts a new one.
func (s *session) newApplier() (*payload.Applier, error) {
	sum, err := hex.DecodeString(s.begin.SHA256)
	if err != nil {
		return nil, fault.New(fault.Input, "sha256: %w", err)
	}
	o := payload.Options{
		Trust: s.trust.Payload,
		Targets: map[string]payload.Target{
			partRoot: {Storage: s.root, Limit: s.parts.root.Size(), Tree: s.parts.verity},
			partSig:  {Storage: s.parts.sig, Limit: min(s.parts.sig.Size(), rootsig.MaxSize)},
			partUKI:  {Storage: s.uki, Limit: uki.MaxSize},
		},
		Accept:     s.accept,
		Size:       s.begin.Size,
		SHA256:     sum,
		Checkpoint: s.checkpoint,
		Now:        s.c.o.Now,
	}
	if cp := loadCheckpoint(s.s.State); cp != nil && s.resumable(cp, sum) {
		s.resumed = true
		a, err := payload.Resume(o, cp)
		if err == nil {
			return a, nil
		}
		// Other keys, another policy, a damaged checkpoint: the payload from its first byte decides, not its remains.
		s.c.o.Log.Warn("the interrupted installation cannot be resumed", "error", err)
		s.resumed = false
		if s.uki.file != nil {
			s.uki.file.Close()
			s.uki.file = nil
		}
	}
	return payload.NewApplier(o)
}

// resumable reports whether the checkpoint is of this payload and what it speaks of is still there.
func (s *session) resumable(cp *payload.Checkpoint, sum []byte) bool {
	size, have := cp.Announced()
	if size != s.begin.Size || string(have) != string(sum) || s.idle.State == layout.Empty {
		return false
	}
	return s.uki.edit() == nil
}

func loadCheckpoint(state durable.Folder) *payload.Checkpoint {
	data, err := durable.Read(state, checkpointFile, payload.MaxCheckpointSize)
	if err != nil {
		return nil
	}
	cp, err := payload.ParseCheckpoint(data)
	if err != nil {
		return nil
	}
	return cp
}

func (s *session) checkpoint(cp *payload.Checkpoint) error {
	data, err := cp.MarshalBinary()
	if err != nil {
		return err
	}
	return durable.Write(s.s.State, checkpointFile, data)
}

// accept judges a manifest whose signature is good, and then prepares the slot for it.
func (s *session) accept(m *payload.Manifest) error {
	if m.Image.Version != s.begin.Version {
		// A good payload, but another one: what lies between server and machine keeps an old file. That says nothing against the version that was announced.
		return refuse(omaha.CodeTransfer, "the payload is of version %s, but %s was announced: an old file, or another release's", m.Image.Version, s.begin.Version)
	}
	if err := s.judge(m); err != nil {
		return withCode(err, omaha.CodeIgnoredByPolicy)
	}
	if !s.take() {
		return refuse(omaha.CodeDeferredByPolicy, "somebody wants to go back to what is in slot %s", s.idle.Name)
	}
	return withCode(s.prepare(m), omaha.CodeOpenTarget)
}

// take claims the idle slot for the session, unless it was revoked.
func (s *session) take() bool {
	s.c.claim.Lock()
	defer s.c.claim.Unlock()
	s.claimed = !s.revoked
	return s.claimed
}

// revoke makes an open session fail before it writes anything, and reports whether it still could.
func (c *Core) revoke() bool {
	c.claim.Lock()
	defer c.claim.Unlock()
	if c.active == nil {
		return true
	}
	c.active.revoked = !c.active.claimed
	return c.active.revoked
}

// judge writes nothing.
func (s *session) judge(m *payload.Manifest) error {
	machine := s.c.o.Machine
	older, err := s.c.allowedVersion(s.s)
	if err != nil {
		return err
	}
	policy := payload.Policy{Running: machine.Image}
	if older != nil {
		policy.Downgrade = older.Version
	}
	if err := policy.Check(m); err != nil {
		return err
	}
	if err := errors.Join(layout.CheckVersion(m.Image.Version), bootentry.CheckVersion(m.Image.Version)); err != nil {
		return refuse(omaha.CodePartitionInfo, "version %q cannot be installed: %w", m.Image.Version, err)
	}
	if strings.EqualFold(m.Image.Version, machine.Image.Version) {
		// FAT would take the two entries for one file.
		return refuse(omaha.CodePartitionInfo, "version %s differs from %s, which runs here, by the case of its letters only", m.Image.Version, machine.Image.Version)
	}
	root, kernel, sig := m.Partition(partRoot), m.Partition(partUKI), m.Partition(partSig)
	if root == nil || kernel == nil || sig == nil || len(m.Partitions) != 3 {
		return refuse(omaha.CodePartitionInfo, "the payload must have exactly the partitions %s, %s and %s", partRoot, partUKI, partSig)
	}
	for _, p := range []struct {
		name        string
		size, limit int64
	}{
		{partRoot, root.Size, s.parts.root.Size()},
		{partSig, sig.Size, min(s.parts.sig.Size(), rootsig.MaxSize)},
		{partUKI, kernel.Size, uki.MaxSize},
	} {
		if p.size <= 0 || p.size > p.limit {
			return refuse(omaha.CodePartitionInfo, "%s has %d bytes, 1 to %d fit into slot %s", p.name, p.size, p.limit, s.idle.Name)
		}
	}
	switch v := root.Verity; {
	case v == nil:
		return refuse(omaha.CodePartitionInfo, "the payload does not say the root's dm-verity hash")
	case v.RootHash == verity.RootHash(machine.RootHash):
		return refuse(omaha.CodeIgnoredByPolicy, "the payload's root is the one that runs")
	case verity.HashAreaSize(v.Superblock.DataBlocks) > s.parts.verity.Size():
		return refuse(omaha.CodePartitionInfo, "the hash tree needs %d bytes, slot %s has %d", verity.HashAreaSize(v.Superblock.DataBlocks), s.idle.Name, s.parts.verity.Size())
	}
	return s.room(kernel.Size)
}

// room checks that the UKI will fit on the ESP once stale entries are gone, and into the state folder before that.
func (s *session) room(size int64) error {
	all, err := entries(s.s.ESP, s.c.o.Machine.Image.ID)
	if err != nil {
		return err
	}
	free, err := s.s.ESP.Free()
	if err != nil {
		return fault.New(fault.IO, "free space of the ESP: %w", err)
	}
	for _, f := range all {
		if !f.boots(s.c.o.Machine.RootHash) {
			free += f.size
		}
	}
	if free < size+espSlack {
		return &coded{fault.New(fault.IO, "the ESP is full: the new kernel needs %d bytes, %d are free", size+espSlack, free), omaha.CodeDeferredByPolicy}
	}
	if s.resumed {
		return nil // its bytes are there already
	}
	if free, err = s.s.State.Free(); err != nil {
		return fault.New(fault.IO, "free space of /var: %w", err)
	}
	if free < size+espSlack {
		return &coded{fault.New(fault.IO, "/var is full: the new kernel needs %d bytes, %d are free", size+espSlack, free), omaha.CodeDeferredByPolicy}
	}
	return nil
}

// prepare makes the idle slot one that is being written. From here on no entry boots what was in it, and no record speaks of it.
func (s *session) prepare(m *payload.Manifest) error {
	c := s.c
	records := []string{pendingFile}
	if failed, err := readRecord[wire.RolledBack](s.s.State, failedFile); err != nil || failed != nil && failed.Version == m.Image.Version {
		records = append(records, failedFile) // a record that cannot be read tells nobody anything
	}
	if err := removeFiles(s.s.State, records...); err != nil {
		return err
	}
	c.mark(nil)
	all, err := entries(s.s.ESP, c.o.Machine.Image.ID)
	if err != nil {
		return err
	}
	if len(runningEntries(all, c.o.Machine.RootHash)) == 0 {
		return errNoRunningEntry // it was there at begin: rather stop than take it for a stale one
	}
	stale := []string{tempUKI}
	for _, f := range all {
		if !f.boots(c.o.Machine.RootHash) {
			stale = append(stale, f.name)
		}
	}
	if err := removeFiles(s.s.ESP, stale...); err != nil {
		return err
	}
	if !s.resumed {
		if err := removeFiles(s.s.State, checkpointFile); err != nil {
			return err
		}
		if err := s.uki.create(); err != nil {
			return err
		}
	}
	if s.idle.State == layout.Writing && s.idle.Version == m.Image.Version {
		return nil
	}
	if err := layout.MarkWriting(s.table, s.idle.Name, c.o.Machine.RootHash, m.Image.Version); err != nil {
		return fmt.Errorf("label slot %s: %w", s.idle.Name, err)
	}
	return s.writeTable()
}

func (s *session) writeTable() error { return writeTable(s.s, s.table) }

func writeTable(s *Storage, t *gpt.Table) error {
	if err := t.Write(s.Disk); err != nil {
		return fmt.Errorf("write the partition table: %w", err)
	}
	if err := s.Disk.Sync(); err != nil {
		return fault.New(fault.IO, "write the partition table: %w", err)
	}
	return nil
}

// forget gives up what was written: the slot becomes an empty one.
func (s *session) forget() error {
	if s.uki.file != nil {
		s.uki.file.Close()
	}
	err := removeFiles(s.s.State, checkpointFile, ukiFile)
	if s.applier.Manifest() == nil {
		return err // refused before anything was written
	}
	// The table is read again: complete may have changed the one in memory and failed to write it.
	table, _, idle, tableErr := s.c.slots(s.s)
	if tableErr == nil {
		s.table = table
		if tableErr = layout.MarkEmpty(table, idle.Name, s.c.o.Machine.RootHash); tableErr == nil {
			tableErr = s.writeTable()
		}
	}
	return errors.Join(err, tableErr)
}

// ukiTarget is the UKI in the state folder while it is put together. It exists only once the payload's metadata was accepted.
type ukiTarget struct {
	folder durable.Folder
	file   durable.File
}

func (t *ukiTarget) create() (err error) {
	if t.file, err = t.folder.Create(ukiFile); err != nil {
		return fault.New(fault.IO, "keep the new kernel: %w", err)
	}
	return nil
}

func (t *ukiTarget) edit() (err error) {
	t.file, err = t.folder.Edit(ukiFile)
	return err
}

func (t *ukiTarget) ReadAt(p []byte, off int64) (int, error) {
	if t.file == nil {
		return 0, fs.ErrNotExist
	}
	return t.file.ReadAt(p, off)
}

func (t *ukiTarget) WriteAt(p []byte, off int64) (int, error) {
	if t.file == nil {
		return 0, fs.ErrNotExist
	}
	if off < 0 || off > uki.MaxSize || int64(len(p)) > uki.MaxSize-off {
		return 0, fault.New(fault.Internal, "write of %d bytes at %d of a UKI", len(p), off)
	}
	return t.file.WriteAt(p, off)
}

func (t *ukiTarget) Sync() error {
	if t.file == nil {
		return nil
	}
	return t.file.Sync()
}
