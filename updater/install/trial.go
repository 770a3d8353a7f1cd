package install

import (
	"encoding/hex"
	"fmt"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/wire"
)

// Bless takes the running version's boot counter away: it is healthy, and the boot loader need not count any more. Blessing twice is fine.
func (c *Core) Bless() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.open()
	if err != nil {
		return err
	}
	all, err := entries(s.ESP, c.o.Machine.Image.ID)
	if err != nil {
		return err
	}
	running := runningEntries(all, c.o.Machine.RootHash)
	if len(running) == 0 {
		return errNoRunningEntry
	}
	waits, err := c.reconcile(s, all)
	if err != nil {
		return err
	}
	if waits != nil && waits.Back {
		c.o.Log.Warn("healthy, but left on purpose: the boot counter stays", "version", c.o.Machine.Image.Version, "next", waits.Version)
		return nil
	}
	if err := c.blessEntries(s, running); err != nil {
		return err
	}
	return c.recordBlessing(s)
}

// blessEntries leaves one entry, without a counter. Were there two, with and without, systemd's own blessing would take the work for done and the boot
// loader would go on counting.
func (c *Core) blessEntries(s *Storage, running []file) error {
	var plain, counting []file
	for _, f := range running {
		if f.entry.Counting {
			counting = append(counting, f)
		} else {
			plain = append(plain, f)
		}
	}
	var extra []string
	if len(plain) == 0 {
		from, to := counting[0].name, counting[0].entry.Blessed().Name()
		if err := s.ESP.Rename(from, to); err != nil {
			return fault.New(fault.IO, "bless %s: %w", from, err)
		}
		if err := s.ESP.Sync(); err != nil {
			return fault.New(fault.IO, "bless %s: %w", from, err)
		}
		c.o.Log.Info("blessed", "version", c.o.Machine.Image.Version, "entry", to)
		counting = counting[1:]
	}
	for _, f := range counting {
		extra = append(extra, f.name)
	}
	return removeFiles(s.ESP, extra...)
}

// recordBlessing turns the record of the pending update into one of a good update.
func (c *Core) recordBlessing(s *Storage) error {
	p, err := readRecord[pending](s.State, pendingFile)
	if err != nil || p == nil || p.RootHash != hex.EncodeToString(c.o.Machine.RootHash[:]) {
		return err
	}
	if err := durable.WriteJSON(s.State, blessedFile, wire.Blessed{Version: p.Version, From: p.From, At: c.now()}); err != nil {
		return err
	}
	c.mark(nil)
	if p.Back { // what was left for it stays known
		return removeFiles(s.State, pendingFile)
	}
	return removeFiles(s.State, pendingFile, failedFile)
}

// Rollback gives the running version up, if it is on trial and there is something to go back to: the boot loader will not try it again, and the machine
// reboots. Otherwise the machine stays as it is, since a reboot would only bring the same version back, for ever; then went is false and err says why
// the machine is in a bad state nevertheless. Result is nil where the health checks did not get as far as having one.
func (c *Core) Rollback(result *health.Result) (went bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.open()
	if err != nil {
		return false, err
	}
	reason, check, output := describe(result)
	_, _, idle, err := c.slots(s)
	if err != nil {
		return false, err
	}
	all, err := entries(s.ESP, c.o.Machine.Image.ID)
	if err != nil {
		return false, err
	}
	running := runningEntries(all, c.o.Machine.RootHash)
	version := c.o.Machine.Image.Version
	switch {
	case len(running) == 0:
		return false, errNoRunningEntry
	case !onTrial(running):
		return false, fault.New(fault.Verification, "%s: not going back, version %s has been healthy before", reason, version)
	case !wayBack(idle, all):
		return false, fault.New(fault.Verification, "%s: not going back, slot %s holds nothing that can be booted", reason, idle.Name)
	}
	if err := c.recordFailure(s, version, reason, check, output); err != nil {
		// Better back without a record than a sick version with one.
		c.o.Log.Error("the reason of the way back is lost", "error", err)
	}
	if err := c.restore(s, idle, all); err != nil {
		return false, err
	}
	if err := c.giveUp(s, running, true); err != nil {
		return false, fmt.Errorf("mark version %s as bad: %w", version, err)
	}
	if p, err := readRecord[pending](s.State, pendingFile); err != nil || p != nil && p.RootHash == hex.EncodeToString(c.o.Machine.RootHash[:]) {
		if err := removeFiles(s.State, pendingFile); err != nil {
			c.o.Log.Warn("record of the update", "error", err)
		}
	}
	return true, c.o.Reboot()
}

// describe turns a health result into the words of the record.
func describe(r *health.Result) (reason, check, output string) {
	if r == nil {
		return "the health checks did not come to an end in time", "", ""
	}
	err := r.Err()
	if err == nil {
		return "asked to go back although the health checks passed", "", ""
	}
	if c := r.Failed(); c != nil {
		return err.Error(), c.Name, c.Output
	}
	return fmt.Sprint(err), "", ""
}
