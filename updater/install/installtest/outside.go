package installtest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
)

// Outside is everything outside of the idle slot, byte for byte: the whole disk but for the idle slot's three partitions, in pieces of 64 KiB, and every file
// of the ESP but for what an installation makes there itself. Of the partition table's copies only what must change is left out: the PARTUUIDs and
// labels of the idle slot's entries, and the headers' two checksums. Files that are the idle slot's own (entries that boot its root) are left out too.
func (m *Machine) Outside(t testing.TB) map[string]string {
	t.Helper()
	return m.OutsideOf(t, m)
}

// OutsideOf is Outside with the partition table of another machine, for a disk whose own was damaged on purpose.
func (m *Machine) OutsideOf(t testing.TB, layoutOf *Machine) map[string]string {
	t.Helper()
	table, _, err := gpt.Read(layoutOf.Disk, layoutOf.Disk.Size())
	if err != nil {
		t.Fatal(err)
	}
	idle, err := layout.Idle(table, m.Hash)
	if err != nil {
		t.Fatal(err)
	}
	disk := make([]byte, m.Disk.Size())
	if _, err := m.Disk.ReadAt(disk, 0); err != nil {
		t.Fatal(err)
	}
	blank := func(from, size int64) { clear(disk[from : from+size]) }
	const sector, entry = 512, 128
	backup := m.Disk.Size() - sector
	for _, number := range []int{idle.Root, idle.Verity, idle.Sig} {
		p := table.Partitions[number-1]
		blank(p.Offset(), p.Size())
		for _, entries := range []int64{2 * sector, backup - 32*sector} {
			at := entries + int64(number-1)*entry
			blank(at+16, 16) // PARTUUID
			blank(at+56, 72) // label
		}
	}
	for _, header := range []int64{sector, backup} {
		blank(header+16, 4) // of the header
		blank(header+88, 4) // of the entries
	}
	out := map[string]string{}
	const piece = 64 << 10
	for off := 0; off < len(disk); off += piece {
		out[fmt.Sprintf("disk %d", off)] = string(disk[off:min(off+piece, len(disk))])
	}
	running, _, err := m.entryOf(m.Hash)
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range m.ESP.Files() {
		if name == running || !strings.HasPrefix(name, "semper_") && name != "semper-update.part" {
			out["ESP "+name] = sum(data)
		}
	}
	return out
}

// entryOf finds the file that boots a root.
func (m *Machine) entryOf(hash [32]byte) (name string, data []byte, err error) {
	for name, data := range m.ESP.Files() {
		if h, err := rootHashOf(data); err == nil && h == hash {
			return name, data, nil
		}
	}
	return "", nil, fmt.Errorf("the ESP has no entry of the root %x", hash)
}
