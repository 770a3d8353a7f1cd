package bootentry

import (
	"cmp"
	"slices"
	"strings"
)

// Sort puts entries into systemd-boot's order; the first is the one that boots, unless an EFI variable or loader.conf names
// another. Entries without tries left go last; then come sort key, machine, version with the newest first, name; of two that
// are equal in all that, the one with more tries left.
func Sort(entries []Entry) { slices.SortStableFunc(entries, compareEntries) }

// Next returns the entry that boots next, and whether there is one.
func Next(entries []Entry) (Entry, bool) {
	if len(entries) == 0 {
		return Entry{}, false
	}
	return slices.MinFunc(entries, compareEntries), true
}

func compareEntries(a, b Entry) int {
	if r := compareBools(a.exhausted(), b.exhausted()); r != 0 {
		return r
	}
	if r := compareBools(a.SortKey == "", b.SortKey == ""); r != 0 {
		return r
	}
	if a.SortKey != "" {
		if r := cmp.Or(strings.Compare(a.SortKey, b.SortKey), strings.Compare(a.MachineID, b.MachineID), -Compare(a.Version, b.Version)); r != 0 {
			return r
		}
	}
	if r := -Compare(a.id(), b.id()); r != 0 {
		return r
	}
	if !a.Counting || !b.Counting {
		return 0
	}
	return cmp.Or(-cmp.Compare(a.Left, b.Left), cmp.Compare(a.Done, b.Done))
}

func (e Entry) exhausted() bool { return e.Counting && e.Left == 0 }

// id is the file's name as the loader compares it.
func (e Entry) id() string {
	if e.File != "" {
		return strings.ToLower(e.File)
	}
	return strings.ToLower(e.Name())
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}
