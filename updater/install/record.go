package install

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/wire"
)

// Names in the state folder.
const (
	checkpointFile = "checkpoint"
	ukiFile        = "uki.part"
	pendingFile    = "pending.json"
	failedFile     = "failed.json"
	blessedFile    = "blessed.json"
	allowedFile    = "allow.json"
	leftFile       = "left.json"
	writtenFile    = "written.json"
)

// pending is an update that is installed and has not been booted, or is on trial.
type pending struct {
	wire.Pending
	RootHash string `json:"root_hash"` // hexadecimal
	BootID   string `json:"boot_id"`   // the boot in which it was installed
}

func readRecord[T any](state durable.Folder, name string) (*T, error) {
	var v T
	ok, err := durable.ReadJSON(state, name, &v)
	if err != nil || !ok {
		return nil, err
	}
	return &v, nil
}

// Status tells what runs, what waits and what failed. It also notices that an update did not come up.
func (c *Core) Status() (wire.Status, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.open()
	if err != nil {
		return wire.Status{}, err
	}
	if c.active == nil {
		if err := c.tidy(s); err != nil {
			c.o.Log.Warn("remains of an installation", "error", err) // the next begin says so too
		}
	}
	_, running, idle, err := c.slots(s)
	if err != nil {
		return wire.Status{}, err
	}
	all, err := entries(s.ESP, c.o.Machine.Image.ID)
	if err != nil {
		return wire.Status{}, err
	}
	st := wire.Status{
		Version:  c.o.Machine.Image.Version,
		Slot:     string(running.Name),
		RootHash: hex.EncodeToString(c.o.Machine.RootHash[:]),
		Trial:    onTrial(runningEntries(all, c.o.Machine.RootHash)),
		WayBack:  wayBack(idle, all),
	}
	if idle.State == layout.Complete {
		st.Other = &wire.Other{Version: idle.Version, Bootable: st.WayBack}
	}
	if c.active != nil {
		st.Partial = &wire.Partial{SHA256: c.active.begin.SHA256, Offset: c.active.received.Load(), Size: c.active.begin.Size}
	} else {
		if st.Pending, err = c.reconcile(s, all); err != nil {
			return wire.Status{}, err
		}
		c.mark(st.Pending)
		if st.Pending != nil && st.Pending.Back {
			st.Trial = false // it has no tries left because it is left on purpose
		}
		if cp := loadCheckpoint(s.State); cp != nil {
			if size, sum := cp.Announced(); len(sum) != 0 {
				st.Partial = &wire.Partial{SHA256: hex.EncodeToString(sum), Offset: cp.Offset(), Size: size}
			}
		}
	}
	if st.RolledBack, err = readRecord[wire.RolledBack](s.State, failedFile); err != nil {
		return wire.Status{}, err
	}
	if st.RolledBack != nil && st.Pending != nil && st.Pending.Back && st.RolledBack.Version == st.Version {
		st.RolledBack = nil // not yet
	}
	if st.Allowed, err = c.allowedVersion(s); err != nil {
		return wire.Status{}, err
	}
	if st.Written, err = readRecord[wire.Written](s.State, writtenFile); err != nil {
		return wire.Status{}, err
	}
	st.Drained, st.Soft = c.drain.since(), c.o.Machine.Soft
	if st.Blessed, err = readRecord[wire.Blessed](s.State, blessedFile); err != nil {
		return wire.Status{}, err
	}
	return st, nil
}

// reconcile compares the record of a pending update with what really happened since, and returns what still waits for a reboot.
// The mutex is held and no session is open.
func (c *Core) reconcile(s *Storage, all []file) (*wire.Pending, error) {
	p, err := readRecord[pending](s.State, pendingFile)
	if err != nil || p == nil {
		return nil, err
	}
	if p.RootHash == hex.EncodeToString(c.o.Machine.RootHash[:]) {
		return nil, nil // it runs: on trial, until bless turns the record into another one
	}
	var entry *file
	for i := range all {
		if hex.EncodeToString(all[i].rootHash[:]) == p.RootHash {
			entry = &all[i]
		}
	}
	switch {
	case entry == nil:
		// The power failed between the record and the entry, or somebody removed the entry: the update does not exist.
		c.o.Log.Warn("an installed update has no boot entry; it will be installed again", "version", p.Version)
		return nil, removeFiles(s.State, pendingFile)
	case !entry.entry.Counting || entry.entry.Left > 0 || p.Back && demoted(entry.entry):
		// It will be tried at the next boot, again perhaps.
		if !p.Back {
			return &p.Pending, nil
		}
		return &p.Pending, c.lead(s, all, *p) // the power may have failed before all was done
	}
	if err := c.recordFailure(s, p.Version, fmt.Sprintf(
		"%s was tried %d times and never got as far as its health checks: it crashed, hung, or lost power while it started", p.Version, entry.entry.Done), "", ""); err != nil {
		return nil, err
	}
	return nil, removeFiles(s.State, pendingFile)
}

// recordFailure remembers why version did not come up, unless that is known already: what the failing system itself wrote down says more than what can be
// told from its boot entry afterwards. An installation removes the record of an earlier failure of the same version, so there is no mistaking it.
func (c *Core) recordFailure(s *Storage, version, reason, check, output string) error {
	have, err := readRecord[wire.RolledBack](s.State, failedFile)
	if err != nil {
		return err
	}
	if have != nil && have.Version == version {
		return nil
	}
	c.o.Log.Error("rolled back", "version", version, "reason", reason)
	return durable.WriteJSON(s.State, failedFile, wire.RolledBack{Version: version, Reason: reason, Check: check, Output: output, At: c.now()})
}

// now is the time as it survives a trip through JSON.
func (c *Core) now() time.Time { return c.o.Now().UTC().Truncate(time.Second) }

// bootable reports whether a slot can be booted: it is complete, and an entry with tries left, or blessed, boots its root.
func bootable(slot layout.Slot, all []file) bool {
	if slot.State != layout.Complete {
		return false
	}
	for _, f := range all {
		if f.boots(slot.RootHash) && (!f.entry.Counting || f.entry.Left > 0) {
			return true
		}
	}
	return false
}
