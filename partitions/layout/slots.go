package layout

import (
	"errors"
	"fmt"
	"strings"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
)

// ErrNotFound is what FindByRootHash returns for a disk that has nothing of a root hash.
var ErrNotFound = errors.New("no partition of this disk belongs to the root hash")

// Name is that of a slot.
type Name string

// The slots. A is the one whose partitions have the lower numbers.
const (
	A Name = "A"
	B Name = "B"
)

// State is what a slot's labels say of it.
type State uint8

// The states of a slot.
const (
	Empty    State = iota
	Writing        // being written, or that was interrupted: what it holds is not to be used
	Complete       // written to the end; whether it is healthy, its boot entry says
)

// String returns "empty", "writing" or "complete".
func (s State) String() string {
	switch s {
	case Empty:
		return "empty"
	case Complete:
		return "complete"
	default:
		return "writing"
	}
}

// Slot is the three partitions of one system, by number.
type Slot struct {
	Name     Name
	State    State
	Version  string   // of Complete, and of Writing where the label says it
	RootHash [32]byte // of Complete
	Root     int
	Verity   int
	Sig      int
}

// Slots finds both slots, A first. It is an error if the disk does not have exactly two roots, verity and signature
// partitions of one architecture: then it is not one of ours.
func Slots(t *gpt.Table) ([2]Slot, error) {
	var found [2]Slot
	seen := false
	for _, arch := range gpt.Archs {
		roots, verities, sigs := numbersOf(t, arch.Root), numbersOf(t, arch.RootVerity), numbersOf(t, arch.RootVeritySig)
		if len(roots)+len(verities)+len(sigs) == 0 {
			continue
		}
		if seen || len(roots) != 2 || len(verities) != 2 || len(sigs) != 2 {
			return [2]Slot{}, fault.New(fault.Input, "slots: want two root, verity and verity-sig partitions of one architecture; for %s there are %d, %d and %d",
				arch.Arch, len(roots), len(verities), len(sigs))
		}
		seen = true
		for i, name := range []Name{A, B} {
			found[i] = Slot{Name: name, Root: roots[i], Verity: verities[i], Sig: sigs[i]}
			found[i].judge(t)
		}
	}
	if !seen {
		return [2]Slot{}, fault.New(fault.Input, "slots: the disk has no root partition of a known architecture")
	}
	return found, nil
}

// judge fills in state, version and root hash from labels and PARTUUIDs. What does not fit together counts as Writing.
func (s *Slot) judge(t *gpt.Table) {
	root, verity, sig := t.Partitions[s.Root-1], t.Partitions[s.Verity-1], t.Partitions[s.Sig-1]
	s.State = Writing
	label := root.Name
	if verity.Name != label || sig.Name != label {
		return
	}
	if label == LabelEmpty {
		s.State = Empty
		return
	}
	if version, ok := strings.CutPrefix(label, prefixPartial); ok {
		if CheckVersion(version) == nil {
			s.Version = version
		}
		return
	}
	version, ok := strings.CutPrefix(label, prefixSlot)
	if !ok || CheckVersion(version) != nil {
		return
	}
	s.Version = version
	if hash := rootHashOf(root, verity); sig.GUID == SigUUID(hash) {
		s.State, s.RootHash = Complete, hash
	}
}

func rootHashOf(root, verity gpt.Partition) [32]byte {
	return [32]byte(append(root.GUID[:], verity.GUID[:]...))
}

// FindByRootHash finds the partitions of a root hash by type and PARTUUID, on any disk, whatever their labels say. The
// slot's Name is empty if the disk's other partitions are not ours. A disk that has none of the three gives ErrNotFound;
// if only some are there, or one twice, the error says so.
func FindByRootHash(t *gpt.Table, rootHash [32]byte) (Slot, error) {
	root, verity := PartUUIDs(rootHash)
	var s Slot
	wanted := []struct {
		name   string
		guid   gpt.GUID
		kind   func(gpt.ArchTypes) gpt.GUID
		number *int
	}{
		{"root", root, func(a gpt.ArchTypes) gpt.GUID { return a.Root }, &s.Root},
		{"verity", verity, func(a gpt.ArchTypes) gpt.GUID { return a.RootVerity }, &s.Verity},
		{"verity-sig", SigUUID(rootHash), func(a gpt.ArchTypes) gpt.GUID { return a.RootVeritySig }, &s.Sig},
	}
	found := 0
	for _, w := range wanted {
		for _, arch := range gpt.Archs {
			for _, number := range numbersOf(t, w.kind(arch)) {
				if t.Partitions[number-1].GUID != w.guid {
					continue
				}
				if *w.number != 0 {
					return Slot{}, fault.New(fault.Input, "partitions %d and %d are both %s partitions with the PARTUUID %s", *w.number, number, w.name, w.guid)
				}
				*w.number = number
				found++
			}
		}
	}
	if found == 0 {
		return Slot{}, fault.Wrap(fault.Input, ErrNotFound)
	}
	for _, w := range wanted {
		if *w.number == 0 {
			return Slot{}, fault.New(fault.Input, "the %s partition with the PARTUUID %s is missing", w.name, w.guid)
		}
	}
	s.judge(t)
	if slots, err := Slots(t); err == nil {
		for _, known := range slots {
			if known.Root == s.Root && known.Verity == s.Verity && known.Sig == s.Sig {
				s.Name = known.Name
			}
		}
	}
	return s, nil
}

// Running returns the slot that the running system's root hash names.
func Running(t *gpt.Table, running [32]byte) (Slot, error) {
	if _, err := Slots(t); err != nil {
		return Slot{}, err
	}
	s, err := FindByRootHash(t, running)
	if err != nil {
		return Slot{}, fmt.Errorf("the running system's slot: %w", err)
	}
	if s.Name == "" {
		return Slot{}, fault.New(fault.Input, "the running system's slot: partitions %d, %d and %d do not belong together", s.Root, s.Verity, s.Sig)
	}
	return s, nil
}

// Idle returns the slot that the running system does not use.
func Idle(t *gpt.Table, running [32]byte) (Slot, error) {
	used, err := Running(t, running)
	if err != nil {
		return Slot{}, err
	}
	slots, err := Slots(t)
	if err != nil {
		return Slot{}, err
	}
	if slots[0].Name == used.Name {
		return slots[1], nil
	}
	return slots[0], nil
}

// numbersOf returns the numbers of the partitions of a type, ascending.
func numbersOf(t *gpt.Table, kind gpt.GUID) []int {
	var numbers []int
	for i, p := range t.Partitions {
		if p.Type == kind {
			numbers = append(numbers, i+1)
		}
	}
	return numbers
}
