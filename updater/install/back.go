package install

import (
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/rootsig"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/wire"
)

// The boot loader takes the newest version that has tries left or no counter. To boot an older one, the newer one's entry must have no tries left, and the
// number of tries done tells why:
//
//	+0-N   N > 0: it was tried and given up; nothing leads there again
//	+0-0   it was healthy and is left on purpose; it sorts last too, but is the way back of what is tried instead. Where nothing else has tries
//	       left the boot loader takes it, being the newest
//
// What is gone to gets fresh tries and is blessed again when its health checks pass. So the steps, each durable before the next, are: the record of what
// is wanted (pending.json, "back"); fresh tries for the older version; no tries for the newer. A power cut between them boots the newer version, whose
// next status finishes the steps.

// wish is somebody's reason to leave the running version, which may be healthy.
type wish struct {
	reason, check, output string
	// policy: no person asked. Then it is done once for a version, and only to an older one that nobody left on purpose.
	policy bool
}

// Rollback implements wire.Handler.
func (h *handler) Rollback(reason string) error {
	if h.uid != 0 {
		return wire.ErrNotRoot
	}
	return h.c.goBack(wish{reason: reason})
}

// RollbackLater leaves a version that was blessed and is sick now: it makes the other slot the one that boots next, and leaves the reboot to the caller.
// A version that is still on trial is given up as by Rollback, which reboots.
func (c *Core) RollbackLater(result *health.Result) error {
	reason, check, output := describe(result)
	st, err := c.Status()
	if err != nil {
		return err
	}
	if st.Trial {
		_, err := c.Rollback(result)
		return err
	}
	return c.goBack(wish{reason: reason, check: check, output: output, policy: true})
}

func (c *Core) goBack(w wish) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	s, err := c.open()
	if err != nil {
		return err
	}
	table, _, idle, err := c.slots(s)
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
	if !c.revoke() {
		return fault.New(fault.IO, "go back: slot %s is being overwritten by an installation", idle.Name)
	}
	waits, err := c.reconcile(s, all)
	if err != nil {
		return err
	}
	version := c.o.Machine.Image.Version
	switch {
	case waits != nil && waits.Back:
		return nil // it is wanted already
	case waits != nil:
		return fault.New(fault.Verification, "go back: slot %s holds version %s, which waits for its first boot", idle.Name, waits.Version)
	case idle.State != layout.Complete:
		return fault.New(fault.Verification, "go back: slot %s holds no version", idle.Name)
	}
	older := bootentry.Compare(idle.Version, version)
	switch {
	case older == 0:
		return fault.New(fault.Verification, "go back: slot %s holds version %s too", idle.Name, idle.Version)
	case !wayBack(idle, all):
		return fault.New(fault.Verification, "go back: version %s in slot %s was given up, or has no boot entry", idle.Version, idle.Name)
	case w.policy && (older > 0 || !bootable(idle, all)):
		return fault.New(fault.Verification, "%s: not going back, version %s in slot %s was left on purpose", w.reason, idle.Version, idle.Name)
	}
	if err := c.sound(s, table, idle, all); err != nil {
		return fmt.Errorf("go back to version %s in slot %s: %w", idle.Version, idle.Name, err)
	}
	if w.policy {
		if err := c.once(s, version); err != nil {
			return fmt.Errorf("%s: %w", w.reason, err)
		}
	}
	if older < 0 {
		if err := c.recordFailure(s, version, w.reason, w.check, w.output); err != nil {
			return err
		}
	} else if failed, err := readRecord[wire.RolledBack](s.State, failedFile); err != nil || failed != nil && failed.Version == idle.Version {
		if err := removeFiles(s.State, failedFile); err != nil { // it gets another chance
			return err
		}
	}
	record := pending{
		Pending:  wire.Pending{Version: idle.Version, From: version, At: c.now(), Back: true},
		RootHash: hex.EncodeToString(idle.RootHash[:]),
		BootID:   c.o.Machine.BootID,
	}
	if err := durable.WriteJSON(s.State, pendingFile, record); err != nil {
		return err
	}
	if err := c.lead(s, all, record); err != nil {
		return err
	}
	c.o.Log.Warn("the next boot goes back", "version", idle.Version, "from", version, "reason", w.reason)
	c.mark(&record.Pending)
	return nil
}

// sound checks that the idle slot's version can be started: its kernel is of this product, that version, and an epoch that this machine accepts; its root
// has a signature, and the top of its hash tree is whole.
func (c *Core) sound(s *Storage, table *gpt.Table, idle layout.Slot, all []file) error {
	trust, err := c.o.Trust()
	if err != nil {
		return err
	}
	at := slices.IndexFunc(all, func(f file) bool { return f.boots(idle.RootHash) })
	release, err := osRelease(s.ESP, all[at].name)
	if err != nil {
		return err
	}
	image := c.o.Machine.Image
	for key, want := range map[string]string{"IMAGE_ID": image.ID, "IMAGE_VERSION": idle.Version} {
		if release[key] != want {
			return fault.New(fault.Verification, "%s: its %s is %.80q, not %q", all[at].name, key, release[key], want)
		}
	}
	epoch, err := strconv.ParseUint(release["SEMPER_EPOCH"], 10, 64)
	if err != nil {
		return fault.New(fault.Verification, "%s: its SEMPER_EPOCH %.80q is not a number", all[at].name, release["SEMPER_EPOCH"])
	}
	if epoch < image.Epoch {
		return fault.New(fault.Verification, "it is of epoch %d, this machine is at epoch %d", epoch, image.Epoch)
	}
	part := func(number int) *io.SectionReader {
		p := table.Partitions[number-1]
		return io.NewSectionReader(s.Disk, p.Offset(), p.Size())
	}
	sig := make([]byte, min(part(idle.Sig).Size(), rootsig.MaxSize))
	if _, err := io.ReadFull(part(idle.Sig), sig); err != nil {
		return fault.New(fault.IO, "read the signature partition: %w", err)
	}
	if err := checkRootSignature(sig, idle.RootHash, trust.Verity); err != nil {
		return err
	}
	root, tree := part(idle.Root), part(idle.Verity)
	_, err = verity.CheckTop(root, root.Size(), tree, tree.Size(), idle.RootHash)
	return err
}

func osRelease(esp durable.Folder, name string) (map[string]string, error) {
	f, err := esp.Open(name)
	if err != nil {
		return nil, fault.New(fault.IO, "boot entry %s: %w", name, err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, fault.New(fault.IO, "boot entry %s: %w", name, err)
	}
	image, err := uki.Open(f, size)
	if err != nil {
		return nil, fmt.Errorf("boot entry %s: %w", name, err)
	}
	return image.OSRelease()
}

// lead makes the boot loader choose the version of a record. It does what is left to do: after an interruption it is called again.
func (c *Core) lead(s *Storage, all []file, to pending) error {
	var there []file
	for _, f := range all {
		if hex.EncodeToString(f.rootHash[:]) == to.RootHash {
			there = append(there, f)
		}
	}
	// What has tries left keeps them; of what has not, or is not counted, one entry gets fresh ones.
	counting := slices.IndexFunc(there, func(f file) bool { return f.entry.Counting && f.entry.Left > 0 })
	if counting < 0 {
		counting = 0
		if err := renameEntry(s.ESP, there[0].name, there[0].entry.Fresh(Tries).Name()); err != nil {
			return err
		}
	}
	var extra []string
	for i, f := range there {
		if i != counting {
			extra = append(extra, f.name)
		}
	}
	if err := removeFiles(s.ESP, extra...); err != nil {
		return err
	}
	if bootentry.Compare(to.Version, c.o.Machine.Image.Version) > 0 {
		return nil // the newer one is chosen as it is
	}
	return c.giveUp(s, runningEntries(all, c.o.Machine.RootHash), false)
}

// giveUp leaves one entry of the running version, without tries. A version that failed says that it was tried, whatever the boot loader counted.
func (c *Core) giveUp(s *Storage, running []file, failed bool) error {
	var extra []string
	for i, f := range running {
		if i > 0 { // one entry is enough
			extra = append(extra, f.name)
			continue
		}
		bad := f.entry.Bad()
		if failed || onTrial(running) && f.entry.Left > 0 {
			bad.Done = max(bad.Done, 1)
		}
		if err := renameEntry(s.ESP, f.name, bad.Name()); err != nil {
			return err
		}
	}
	return removeFiles(s.ESP, extra...)
}

func renameEntry(esp durable.Folder, from, to string) error {
	if from == to {
		return nil
	}
	if err := esp.Rename(from, to); err != nil {
		return fault.New(fault.IO, "rename boot entry %s to %s: %w", from, to, err)
	}
	if err := esp.Sync(); err != nil {
		return fault.New(fault.IO, "rename boot entry %s to %s: %w", from, to, err)
	}
	return nil
}

// left is what RollbackLater has left already.
type left struct {
	Versions []string `json:"versions"`
}

const maxLeft = 256

// once records that the policy leaves version, and refuses to do so twice: two versions that get sick in turn must not send a machine to and fro.
func (c *Core) once(s *Storage, version string) error {
	have, err := readRecord[left](s.State, leftFile)
	if err != nil {
		return err
	}
	if have == nil {
		have = &left{}
	}
	if slices.Contains(have.Versions, version) {
		return fault.New(fault.Verification, "not going back, version %s was left for its health before", version)
	}
	if len(have.Versions) >= maxLeft {
		return fault.New(fault.Verification, "not going back, %d versions were left already; see %s", maxLeft, leftFile)
	}
	have.Versions = append(have.Versions, version)
	return durable.WriteJSON(s.State, leftFile, have)
}

// demoted reports whether an entry was healthy and is left on purpose.
func demoted(e bootentry.Entry) bool { return e.Counting && e.Left == 0 && e.Done == 0 }

// wayBack reports whether a slot can be gone back to: it is bootable, or was left on purpose.
func wayBack(slot layout.Slot, all []file) bool {
	return bootable(slot, all) || slot.State == layout.Complete && slices.ContainsFunc(all, func(f file) bool { return f.boots(slot.RootHash) && demoted(f.entry) })
}

// restore makes the idle slot's version, which was left on purpose, one that the boot loader chooses again.
func (c *Core) restore(s *Storage, idle layout.Slot, all []file) error {
	if bootable(idle, all) {
		return nil
	}
	for _, f := range all {
		if f.boots(idle.RootHash) && demoted(f.entry) {
			return renameEntry(s.ESP, f.name, f.entry.Blessed().Name())
		}
	}
	return fault.New(fault.Internal, "no entry of slot %s to restore (%s)", idle.Name, strings.ToLower(idle.State.String()))
}
