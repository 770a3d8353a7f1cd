package install

import (
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/initramfs"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/updater/wire"
)

// A soft-reboot keeps the kernel and skips firmware, boot loader and semper-init. It will do where a boot of the new version would lead to the same
// kernel, set up in the same way, under another root: the two UKIs are equal but for the root hash and the release's name (uki.Differences). That
// the initramfs counts too, although a soft-reboot does not use it, is what makes the blessing true afterwards: all that a later boot of the new entry
// needs beside the root, which runs already, is what booted this machine before.
//
// Nothing on the disk knows of it. The new entry keeps its tries, so a crash at any time boots the new version as after an update without it, counted;
// the blessing takes the counter from the entry whose root runs; going back marks that entry and is a full reboot, which boots the old one.

// Reboot implements wire.Handler. It does it only where it makes sense: semperd must not be able to switch a machine off and on at its whim.
func (h *handler) Reboot(soft bool) (wire.Going, error) {
	c := h.c
	p, err := c.awaits()
	if err != nil {
		return wire.Going{}, err
	}
	if c.o.Drain != nil && !c.drain.ready(c.o.Now()) {
		return wire.Going{}, errNotDrained
	}
	if c.o.Reboot == nil {
		return wire.Going{}, fault.Wrap(fault.Internal, errors.New("there is no way to reboot"))
	}
	var going wire.Going
	if soft {
		going.Why, err = c.softReboot(p)
		if errors.Is(err, ErrUnsure) {
			return wire.Going{}, err // a second order would be in the way of the first
		}
		if err != nil {
			going.Why = err.Error() // the full reboot leads to the same version
		}
		if going.Why == "" {
			return wire.Going{Soft: true}, nil
		}
	}
	c.o.Log.Info("reboot into the update", "version", p.Version, "why full", going.Why)
	return going, c.o.Reboot()
}

// softReboot leads into the pending version without a new kernel, or says why that will not do.
func (c *Core) softReboot(p *wire.Pending) (why string, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.open()
	if err != nil {
		return "", err
	}
	record, err := readRecord[pending](s.State, pendingFile)
	if err != nil {
		return "", err
	}
	if record == nil || !record.At.Equal(p.At) || c.active != nil {
		return "the update changed this very moment", nil
	}
	table, _, idle, err := c.slots(s)
	if err != nil {
		return "", err
	}
	all, err := entries(s.ESP, c.o.Machine.Image.ID)
	if err != nil {
		return "", err
	}
	if hex.EncodeToString(idle.RootHash[:]) != record.RootHash || !bootable(idle, all) {
		return fmt.Sprintf("slot %s does not hold version %s any more", idle.Name, p.Version), nil
	}
	if why := c.whyFull(s, *record, func() (*uki.File, func(), error) { return openEntry(s, all, idle.RootHash) }); why != "" {
		return why, nil
	}
	if err := c.sound(s, table, idle, all); err != nil {
		return "", err
	}
	c.o.Log.Info("soft-reboot into the update", "version", p.Version, "slot", idle.Name)
	return "", c.o.SoftReboot(idle.RootHash)
}

// whyFull says why the way into a version is a full reboot; "" where a soft-reboot will do. The mutex is held, or a session open.
func (c *Core) whyFull(s *Storage, to pending, open func() (f *uki.File, done func(), err error)) string {
	switch {
	case c.o.SoftReboot == nil:
		return "this system knows no soft-reboot"
	case to.Back:
		return "the way back to an older version is always a full reboot"
	}
	next, done, err := open()
	if err != nil {
		return fmt.Sprintf("the new kernel cannot be read: %v", err)
	}
	defer done()
	release, err := next.OSRelease()
	if err != nil {
		return fmt.Sprintf("the new version's os-release cannot be read: %v", err)
	}
	if !initramfs.KnowsSoftReboot(release) {
		return "version " + to.Version + " does not know soft-reboots"
	}
	all, err := entries(s.ESP, c.o.Machine.Image.ID)
	if err != nil {
		return err.Error()
	}
	running, done, err := openEntry(s, all, c.o.Machine.RootHash)
	if err != nil {
		return err.Error()
	}
	defer done()
	differ, err := uki.Differences(running, next)
	if err != nil {
		return fmt.Sprintf("the kernels cannot be compared: %v", err)
	}
	return inWords(differ)
}

// openEntry opens the UKI that boots a root.
func openEntry(s *Storage, all []file, rootHash [32]byte) (f *uki.File, done func(), err error) {
	for _, entry := range all {
		if !entry.boots(rootHash) {
			continue
		}
		file, err := s.ESP.Open(entry.name)
		if err != nil {
			return nil, nil, fault.New(fault.IO, "boot entry %s: %w", entry.name, err)
		}
		f, err := uki.Open(file, entry.size)
		if err != nil {
			_ = file.Close() // it was only read
			return nil, nil, fmt.Errorf("boot entry %s: %w", entry.name, err)
		}
		return f, func() { _ = file.Close() }, nil
	}
	return nil, nil, fault.New(fault.IO, "the ESP has no boot entry of the root hash %x", rootHash)
}

// inWords says in what two UKIs differ.
func inWords(sections []string) string {
	if len(sections) == 0 {
		return ""
	}
	var names []string
	for _, s := range sections {
		name, ok := map[string]string{
			uki.Linux: "the kernel", uki.Initrd: "the initramfs", uki.Cmdline: "the kernel's command line", uki.Ucode: "the microcode", uki.Uname: "the kernel's version",
		}[s]
		if !ok {
			name = "the boot stub (" + s + ")"
		}
		names = append(names, name)
	}
	last := len(names) - 1
	if last == 0 {
		return names[0] + " is another one"
	}
	return strings.Join(names[:last], ", ") + " and " + names[last] + " are others"
}

// unheld refuses a slot that the kernel still uses: after a soft-reboot the one that was left, until nothing of it runs any more.
func (c *Core) unheld(idle layout.Slot) error {
	if c.o.Holders == nil {
		return nil
	}
	holders, err := c.o.Holders()
	if err != nil {
		return fmt.Errorf("who uses slot %s: %w", idle.Name, err)
	}
	if len(holders) > 0 {
		return fault.New(fault.IO, "slot %s is still in use (%s), by what was left running at the soft-reboot: it is written after the next reboot", idle.Name, strings.Join(holders, ", "))
	}
	return nil
}
