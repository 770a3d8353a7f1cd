package layout

import (
	"fmt"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
)

// The order in which an updater calls these, each followed by (*gpt.Table).Write:
//
//	MarkWriting    from here on nothing finds the slot by a root hash; then the bytes are written and flushed
//	MarkComplete   the slot can be booted; then the boot entry is put into place
//
// All of them refuse the slot of the running system, and refuse to guess where its root hash is not on the disk.

// MarkWriting labels a slot PRT#semper_VERSION and takes away the PARTUUIDs of what it held.
func MarkWriting(t *gpt.Table, slot Name, running [32]byte, version string) error {
	if err := CheckVersion(version); err != nil {
		return err
	}
	s, err := editable(t, slot, running)
	if err != nil {
		return err
	}
	s.release(t, prefixPartial+version)
	return nil
}

// MarkComplete labels a slot semper_VERSION and gives its partitions the PARTUUIDs of the root hash. The slot must have been
// marked as being written with that version.
func MarkComplete(t *gpt.Table, slot Name, running [32]byte, version string, rootHash [32]byte) error {
	if err := CheckVersion(version); err != nil {
		return err
	}
	s, err := editable(t, slot, running)
	if err != nil {
		return err
	}
	if s.State != Writing || s.Version != version {
		return fault.New(fault.Input, "slot %s: cannot become version %s, it was not being written with that: it is %s", slot, version, s.describe())
	}
	if rootHash == running {
		return fault.New(fault.Input, "slot %s: version %s has the root hash of the running system, which is in the other slot", slot, version)
	}
	s.complete(t, version, rootHash)
	return nil
}

// MarkEmpty labels a slot _empty and takes away the PARTUUIDs of what it held.
func MarkEmpty(t *gpt.Table, slot Name, running [32]byte) error {
	s, err := editable(t, slot, running)
	if err != nil {
		return err
	}
	s.release(t, LabelEmpty)
	return nil
}

func editable(t *gpt.Table, slot Name, running [32]byte) (Slot, error) {
	idle, err := Idle(t, running)
	if err != nil {
		return Slot{}, fmt.Errorf("slot %s: %w", slot, err)
	}
	if idle.Name != slot {
		return Slot{}, fault.New(fault.Input, "slot %s: the running system is in it, only slot %s may be changed", slot, idle.Name)
	}
	return idle, nil
}

func (s Slot) complete(t *gpt.Table, version string, rootHash [32]byte) {
	root, verity := PartUUIDs(rootHash)
	s.set(t, prefixSlot+version, root, verity, SigUUID(rootHash))
}

func (s Slot) release(t *gpt.Table, label string) {
	s.set(t, label, emptyUUID(t.DiskGUID, s.Root), emptyUUID(t.DiskGUID, s.Verity), emptyUUID(t.DiskGUID, s.Sig))
}

func (s Slot) set(t *gpt.Table, label string, root, verity, sig gpt.GUID) {
	for _, p := range []struct {
		number int
		guid   gpt.GUID
	}{{s.Root, root}, {s.Verity, verity}, {s.Sig, sig}} {
		t.Partitions[p.number-1].Name = label
		t.Partitions[p.number-1].GUID = p.guid
	}
}

func (s Slot) describe() string {
	if s.Version == "" {
		return s.State.String()
	}
	return s.State.String() + " (version " + s.Version + ")"
}
