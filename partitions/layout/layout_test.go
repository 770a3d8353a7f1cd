package layout

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/verity"
)

const (
	testSlot = 100 * mib
	testESP  = 64 * mib
)

func guid(label string) [16]byte { return [16]byte([]byte(label + "----------------")[:16]) }

func hash(n byte) (h [32]byte) {
	for i := range h {
		h[i] = n + byte(i)
	}
	return h
}

// released returns the table of a released disk with version 1.0.0 and hash(1).
func released(t *testing.T) (*gpt.Table, Plan) {
	t.Helper()
	plan, err := NewPlan(testSlot, testESP, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	table, err := NewTable(plan, "1.0.0", hash(1), guid)
	if err != nil {
		t.Fatal(err)
	}
	return table, plan
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantError(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v (%s), want an input error with %q", err, fault.KindOf(err), says)
	}
}

func TestPlan(t *testing.T) {
	plan, err := NewPlan(testSlot, testESP, "arm64")
	must(t, err)
	// 100 MiB are 25600 blocks: 200 leaves, 2 above, 1 top, 1 superblock: 204 blocks of 4 KiB, rounded up to 1 MiB.
	want := []struct {
		label      string
		start, len int64 // MiB
	}{
		{"esp", 1, 64},
		{"root-a", 65, 100},
		{"verity-a", 165, 1},
		{"verity-sig-a", 166, 1},
		{"root-b", 167, 100},
		{"verity-b", 267, 1},
		{"verity-sig-b", 268, 1},
	}
	if p := plan.Parts[0]; p.Label != "bios" || p.Number != 1 || p.First != 34 || p.Last != 2047 {
		t.Errorf("bios is %+v", p)
	}
	for i, w := range want {
		p := plan.Part(w.label)
		if p.Number != i+2 || p.Offset() != w.start*mib || p.Size() != w.len*mib {
			t.Errorf("%s: number %d, at %d, %d bytes", w.label, p.Number, p.Offset(), p.Size())
		}
	}
	if plan.DiskSize != 270*mib {
		t.Errorf("the disk has %d bytes", plan.DiskSize)
	}
	if k := plan.Part("root-b").Type.String(); k != "b921b045-1df0-41c3-af44-4c6f280d3fae" {
		t.Errorf("the root's type is %s", k)
	}
	for _, bad := range []struct {
		slot, esp int64
		arch      string
		says      string
	}{
		{testSlot, testESP, "riscv64", "riscv64"},
		{testSlot + 1, testESP, "amd64", "slot size"},
		{0, testESP, "amd64", "slot size"},
		{testSlot, -mib, "amd64", "ESP size"},
		{1 << 62, testESP, "amd64", "slot size"},
	} {
		_, err := NewPlan(bad.slot, bad.esp, bad.arch)
		wantError(t, err, bad.says)
	}
	for _, size := range []int64{mib, 2 << 30, 32 << 30, maxPartSize} {
		plan, err := NewPlan(size, testESP, "amd64")
		must(t, err)
		if need := verity.HashAreaSize(uint64(size / verity.BlockSize)); plan.Part("verity-b").Size() < need {
			t.Errorf("a slot of %d bytes: %d for the hash area, want %d", size, plan.Part("verity-b").Size(), need)
		}
	}
}

func TestNewTable(t *testing.T) {
	table, plan := released(t)
	must(t, table.Check())
	if gpt.GUID(guid("disk")) != table.DiskGUID || table.Partitions[0].GUID != gpt.GUID(guid("bios")) || table.Partitions[1].GUID != gpt.GUID(guid("esp")) {
		t.Error("the GUIDs are not those that the function gave")
	}
	var labels []string
	for i, p := range table.Partitions {
		labels = append(labels, p.Name)
		if p.First != plan.Parts[i].First || p.Last != plan.Parts[i].Last || p.Type != plan.Parts[i].Type {
			t.Errorf("partition %d is not as planned: %+v", i+1, p)
		}
		if readOnly := p.Attributes == gpt.AttrReadOnly; readOnly != (i >= 2) {
			t.Errorf("partition %d has the attributes %#x", i+1, p.Attributes)
		}
	}
	want := []string{"bios", "esp", "semper_1.0.0", "semper_1.0.0", "semper_1.0.0", "_empty", "_empty", "_empty"}
	if !slices.Equal(labels, want) {
		t.Errorf("labels %q", labels)
	}
	if s := table.Partitions[2].GUID.String(); s != "01020304-0506-0708-090a-0b0c0d0e0f10" {
		t.Errorf("root's PARTUUID %s is not the first half of the root hash", s)
	}
	if s := table.Partitions[3].GUID.String(); s != "11121314-1516-1718-191a-1b1c1d1e1f20" {
		t.Errorf("verity's PARTUUID %s is not the second half of the root hash", s)
	}
	// Pinned: an updater finds the signature of every version ever released by this.
	if s := table.Partitions[4].GUID.String(); s != "e7c66be2-7c10-85a1-aacd-e8a272ef3b03" {
		t.Errorf("verity-sig's PARTUUID is %s", s)
	}
	again, err := NewTable(plan, "1.0.0", hash(1), guid)
	must(t, err)
	if !slices.Equal(again.Partitions, table.Partitions) {
		t.Error("the same input gives another table")
	}
	_, err = NewTable(plan, "1+0", hash(1), guid)
	wantError(t, err, "1+0")
	_, err = NewTable(plan, "1.0.0", hash(1), func(string) [16]byte { return [16]byte{1} })
	wantError(t, err, "same PARTUUID")
}

func TestCheckVersion(t *testing.T) {
	must(t, CheckVersion("1.2.0"))
	must(t, CheckVersion(strings.Repeat("1", 25)))
	wantError(t, CheckVersion(strings.Repeat("1", 26)), "25")
	wantError(t, CheckVersion("1_2"), "not allowed")
	must(t, gpt.CheckName("PRT#semper_"+strings.Repeat("1", 25)))
}

func TestUpdate(t *testing.T) {
	table, _ := released(t)
	running := hash(1)
	idle, err := Idle(table, running)
	must(t, err)
	if idle != (Slot{Name: B, State: Empty, Root: 6, Verity: 7, Sig: 8}) {
		t.Errorf("idle: %+v", idle)
	}
	before := slices.Clone(table.Partitions)

	must(t, MarkWriting(table, B, running, "1.1.0"))
	slots, err := Slots(table)
	must(t, err)
	if slots[1].State != Writing || slots[1].Version != "1.1.0" || table.Partitions[5].Name != "PRT#semper_1.1.0" {
		t.Errorf("while writing: %+v, label %q", slots[1], table.Partitions[5].Name)
	}
	if !slices.Equal(table.Partitions[:5], before[:5]) {
		t.Error("the edit touched another slot")
	}
	wantError(t, MarkComplete(table, B, running, "1.2.0", hash(2)), "was not being written with that: it is writing (version 1.1.0)")
	wantError(t, MarkComplete(table, B, running, "1.1.0", running), "root hash of the running system")
	must(t, MarkComplete(table, B, running, "1.1.0", hash(2)))
	must(t, table.Check())
	slots, err = Slots(table)
	must(t, err)
	want := [2]Slot{
		{Name: A, State: Complete, Version: "1.0.0", RootHash: hash(1), Root: 3, Verity: 4, Sig: 5},
		{Name: B, State: Complete, Version: "1.1.0", RootHash: hash(2), Root: 6, Verity: 7, Sig: 8},
	}
	if slots != want {
		t.Errorf("got %+v", slots)
	}

	// After the reboot B runs and A is idle.
	running = hash(2)
	now, err := Running(table, running)
	must(t, err)
	idle, err = Idle(table, running)
	must(t, err)
	if now != want[1] || idle != want[0] {
		t.Errorf("running %+v, idle %+v", now, idle)
	}
	wantError(t, MarkWriting(table, B, running, "1.2.0"), "only slot A may be changed")
	wantError(t, MarkEmpty(table, B, running), "only slot A may be changed")
	wantError(t, MarkComplete(table, B, running, "1.2.0", hash(3)), "only slot A may be changed")
	wantError(t, MarkComplete(table, A, running, "1.2.0", hash(3)), "it is complete (version 1.0.0)")
	wantError(t, MarkWriting(table, A, running, "1+2"), "not allowed")
	wantError(t, MarkWriting(table, "C", running, "1.2.0"), "slot C")
	must(t, MarkWriting(table, A, running, "1.2.0"))
	if _, err := FindByRootHash(table, hash(1)); !errors.Is(err, ErrNotFound) {
		t.Errorf("the overwritten version is still found: %v", err)
	}
	must(t, MarkEmpty(table, A, running))
	idle, err = Idle(table, running)
	must(t, err)
	if idle.State != Empty || idle.Name != A {
		t.Errorf("emptied: %+v", idle)
	}
	must(t, table.Check())
	wantError(t, MarkWriting(table, A, hash(9), "1.2.0"), "the running system's slot")
}

func TestJudge(t *testing.T) {
	tests := []struct {
		name    string
		edit    func(p []gpt.Partition) // the partitions of slot A
		state   State
		version string
	}{
		{"as released", func([]gpt.Partition) {}, Complete, "1.0.0"},
		{"labels differ", func(p []gpt.Partition) { p[1].Name = "semper_1.0.1" }, Writing, ""},
		{"one is empty", func(p []gpt.Partition) { p[2].Name = LabelEmpty }, Writing, ""},
		{"another name", func(p []gpt.Partition) { p[0].Name, p[1].Name, p[2].Name = "x", "x", "x" }, Writing, ""},
		{"an impossible version", func(p []gpt.Partition) {
			p[0].Name, p[1].Name, p[2].Name = "semper_1+1", "semper_1+1", "semper_1+1"
		}, Writing, ""},
		{"a root of another version", func(p []gpt.Partition) { p[0].GUID[0]++ }, Writing, "1.0.0"},
		{"a signature of another version", func(p []gpt.Partition) { p[2].GUID[0]++ }, Writing, "1.0.0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table, _ := released(t)
			tt.edit(table.Partitions[2:5])
			slots, err := Slots(table)
			must(t, err)
			if slots[0].State != tt.state || slots[0].Version != tt.version {
				t.Errorf("got %+v", slots[0])
			}
		})
	}
}

func TestForeignDisks(t *testing.T) {
	table, _ := released(t)
	table.Partitions = table.Partitions[:7]
	_, err := Slots(table)
	wantError(t, err, "for amd64 there are 2, 2 and 1")
	// It still boots: the pair and its signature are there.
	s, err := FindByRootHash(table, hash(1))
	must(t, err)
	if s.Name != "" || s.Root != 3 || s.Verity != 4 || s.Sig != 5 || s.State != Complete {
		t.Errorf("got %+v", s)
	}
	_, err = Running(table, hash(1))
	wantError(t, err, "there are 2, 2 and 1")

	table, _ = released(t)
	table.Partitions[7].Type = gpt.Archs[1].RootVeritySig
	_, err = Slots(table)
	wantError(t, err, "one architecture")

	table, _ = released(t)
	table.Partitions = table.Partitions[:2]
	_, err = Slots(table)
	wantError(t, err, "no root partition")

	table, _ = released(t)
	table.Partitions[3].GUID[0]++
	_, err = FindByRootHash(table, hash(1))
	wantError(t, err, "the verity partition with the PARTUUID 11121314-1516-1718-191a-1b1c1d1e1f20 is missing")

	table, _ = released(t)
	table.Partitions[5].GUID = table.Partitions[2].GUID
	_, err = FindByRootHash(table, hash(1))
	wantError(t, err, "partitions 3 and 6 are both root partitions")

	// The halves of the root hash in different slots do not make a slot.
	table, _ = released(t)
	table.Partitions[3].GUID, table.Partitions[6].GUID = table.Partitions[6].GUID, table.Partitions[3].GUID
	_, err = Running(table, hash(1))
	wantError(t, err, "do not belong together")
}

func TestVar(t *testing.T) {
	table, plan := released(t)
	number, ready, err := Var(table)
	must(t, err)
	if number != 0 || ready {
		t.Errorf("a released disk has /var as partition %d", number)
	}
	wantError(t, VarReady(table), "no partition")
	_, err = GrowVar(table, plan.DiskSize)
	wantError(t, err, "no partition")
	backup := table.BackupLBA
	_, err = AddVar(table, guid("var"), plan.DiskSize)
	wantError(t, err, "make the disk larger")
	_, err = AddVar(table, guid("var"), plan.DiskSize+63*mib)
	wantError(t, err, "at least 64 MiB")
	if table.BackupLBA != backup || len(table.Partitions) != 8 {
		t.Error("a refused edit changed the table")
	}

	number, err = AddVar(table, guid("var"), plan.DiskSize+200*mib+12345)
	must(t, err)
	p := table.Partitions[8]
	if number != 9 || p.Name != "PRT#var" || p.Type != gpt.TypeVar || p.Offset() != 269*mib || p.Size() != 200*mib || p.GUID != gpt.GUID(guid("var")) {
		t.Errorf("partition %d: %+v", number, p)
	}
	must(t, table.Check())
	_, err = AddVar(table, guid("var"), plan.DiskSize+200*mib)
	wantError(t, err, "has it already")
	if number, ready, err := Var(table); number != 9 || ready || err != nil {
		t.Errorf("Var: %d, %v, %v", number, ready, err)
	}
	must(t, VarReady(table))
	must(t, VarReady(table))
	if number, ready, err := Var(table); number != 9 || !ready || err != nil {
		t.Errorf("Var: %d, %v, %v", number, ready, err)
	}

	for _, tt := range []struct {
		disk, size int64 // MiB beyond the plan, MiB of /var
		grown      bool
	}{{200, 200, false}, {201, 201, true}, {201, 201, false}, {1000, 1000, true}} {
		grown, err := GrowVar(table, plan.DiskSize+tt.disk*mib)
		must(t, err)
		if grown != tt.grown || table.Partitions[8].Size() != tt.size*mib || table.Partitions[8].Offset() != 269*mib {
			t.Errorf("grown by %d MiB: %v, now %d MiB", tt.disk, grown, table.Partitions[8].Size()/mib)
		}
		must(t, table.Check())
	}
	_, err = GrowVar(table, plan.DiskSize)
	wantError(t, err, "usable")

	behind := *table
	must(t, behind.Resize(plan.DiskSize+2000*mib))
	_, err = behind.Append(gpt.Partition{Type: gpt.TypeLinux, GUID: guid("data"), Name: "data"}, 2048, 2048)
	must(t, err)
	_, err = GrowVar(&behind, plan.DiskSize+3000*mib)
	wantError(t, err, `partition 10 ("data") is behind it`)

	table.Partitions[8].Name = "data"
	_, _, err = Var(table)
	wantError(t, err, `the label "data"`)
	table.Partitions = append(table.Partitions, table.Partitions[8])
	_, _, err = Var(table)
	wantError(t, err, "partitions 9 and 10")
}

// A whole life of a disk, each step written to a file that grows, and looked at by sgdisk.
func TestSgdisk(t *testing.T) {
	if _, err := exec.LookPath("sgdisk"); err != nil {
		t.Fatal("sgdisk is missing: install the Debian package gdisk")
	}
	table, plan := released(t)
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	must(t, err)
	defer f.Close()
	size := plan.DiskSize
	step := func(name string) {
		t.Helper()
		must(t, f.Truncate(size))
		must(t, table.Write(f))
		out, err := exec.Command("sgdisk", "-v", path).CombinedOutput()
		if err != nil || !strings.Contains(string(out), "No problems found.") {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
		again, found, err := gpt.Read(f, size)
		must(t, err)
		if found != (gpt.Found{}) {
			t.Errorf("%s: found %+v", name, found)
		}
		table = again
	}
	step("released")
	size += 500 * mib
	_, err = AddVar(table, guid("var"), size)
	must(t, err)
	step("first boot")
	must(t, VarReady(table))
	step("/var is made")
	must(t, MarkWriting(table, B, hash(1), "1.1.0"))
	step("writing B")
	must(t, MarkComplete(table, B, hash(1), "1.1.0", hash(2)))
	step("B complete")
	size += 500 * mib
	_, err = GrowVar(table, size)
	must(t, err)
	step("grown")
	out, err := exec.Command("sgdisk", "-p", path).CombinedOutput()
	must(t, err)
	for _, label := range []string{"bios", "esp", "semper_1.0.0", "semper_1.1.0", "var"} {
		if !strings.Contains(string(out), label) {
			t.Errorf("sgdisk does not show %q:\n%s", label, out)
		}
	}
}
