package initramfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/verity"
)

func TestOrder(t *testing.T) {
	folder := t.TempDir()
	if got, err := readOrder(folder); got != nil || err != nil {
		t.Fatalf("no order: %v, %v", got, err)
	}
	hash, err := verity.ParseRootHash(hashText)
	if err != nil {
		t.Fatal(err)
	}
	if err := WriteOrder(folder, hash); err != nil {
		t.Fatal(err)
	}
	if got, err := readOrder(folder); err != nil || got == nil || *got != hash {
		t.Errorf("got %v, %v", got, err)
	}
	for range 2 { // twice is fine
		if err := DropOrder(folder); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := os.ReadDir(folder); err != nil || len(left) != 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	for name, text := range map[string]string{"empty": "", "no hash": "{}", "short": `{"root_hash":"4f"}`, "long": strings.Repeat(" ", 4097)} {
		if err := os.WriteFile(filepath.Join(folder, orderFile), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := readOrder(folder); got != nil || !fault.Is(err, fault.Input) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

// A root that does not know soft-reboots would write over itself.
func TestFit(t *testing.T) {
	const known = "ID=semper\nSEMPER_SOFT_REBOOT=1\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  string
	}{
		"fits":          {map[string]string{"usr/lib/os-release": known, "usr/lib/modules/6.12/modules.dep": ""}, ""},
		"older image":   {map[string]string{"usr/lib/os-release": "ID=semper\n", "usr/lib/modules/6.12/modules.dep": ""}, "does not say that it knows soft-reboots"},
		"says no":       {map[string]string{"usr/lib/os-release": "SEMPER_SOFT_REBOOT=10\n", "usr/lib/modules/6.12/modules.dep": ""}, "does not say that it knows soft-reboots"},
		"another's":     {map[string]string{"usr/lib/os-release": known, "usr/lib/modules/6.13/modules.dep": ""}, "no modules for the kernel that runs, 6.12"},
		"no os-release": {map[string]string{"usr/lib/modules/6.12/modules.dep": ""}, "os-release"},
	} {
		err := fit(place(t, c.files), "6.12")
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: error %v, want one with %q", name, err, c.want)
		}
	}
}

// boot.json of the next root is that of a boot into it, but for what the machine was booted with.
func TestDescribeNextRoot(t *testing.T) {
	table, booted := testTable(t, testDiskSize)
	other, err := verity.ParseRootHash(otherHashText)
	if err != nil {
		t.Fatal(err)
	}
	if err := layout.MarkWriting(table, layout.B, booted, "1.1.0"); err != nil {
		t.Fatal(err)
	}
	if err := layout.MarkComplete(table, layout.B, booted, "1.1.0", other); err != nil {
		t.Fatal(err)
	}
	to := func(hash verity.RootHash) tableOf {
		slot, err := layout.FindByRootHash(table, hash)
		if err != nil {
			t.Fatal(err)
		}
		return tableOf{disk: disk{name: "vda"}, table: table, slot: slot}
	}
	n := nextRoot{}
	n.boot.describe(to(booted), booted, "/dev/vda9", true)
	n.boot.Timings.Total = 1150
	n.describe(to(other), other)
	want := Boot{
		Disk: "/dev/vda", Slot: "b", Version: "1.1.0", RootHash: otherHashText, VarCreated: true, Timings: Timings{Total: 1150},
		Partitions: Partitions{
			ESP: "/dev/vda2", Root: "/dev/vda6", Verity: "/dev/vda7", VeritySig: "/dev/vda8",
			OtherRoot: "/dev/vda3", OtherVerity: "/dev/vda4", OtherVeritySig: "/dev/vda5", Var: "/dev/vda9",
		},
	}
	soft := n.boot.Soft
	if n.boot.Soft = nil; n.boot.Slot != want.Slot || n.boot.Partitions != want.Partitions || n.boot.RootHash != want.RootHash || n.boot.Version != want.Version || n.boot.Timings != want.Timings {
		t.Errorf("got  %+v\nwant %+v", n.boot, want)
	}
	if soft == nil || soft.KernelVersion != "1.0.0" || soft.KernelSlot != "a" {
		t.Fatalf("soft-reboot %+v", soft)
	}
	// And back again, by another soft-reboot.
	n.boot.Soft = soft
	if n.describe(to(booted), booted); n.boot.Slot != "a" || n.boot.Partitions.OtherRoot != "/dev/vda6" || n.boot.Soft.KernelVersion != "1.0.0" {
		t.Errorf("and back: %+v, soft %+v", n.boot, n.boot.Soft)
	}
	if _, err := n.boot.Bytes(); !fault.Is(err, fault.Input) {
		t.Errorf("a soft-reboot that was not counted: %v", err)
	}
	n.boot.Soft.Count = 2
	text, err := n.boot.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	if back, err := ParseBoot(text); err != nil || *back.Soft != *n.boot.Soft {
		t.Errorf("read back: %+v, %v", back, err)
	}
}
