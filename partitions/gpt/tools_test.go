package gpt

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/diskfs/go-diskfs"
	diskfsgpt "github.com/diskfs/go-diskfs/partition/gpt"
)

// onDisk writes the sample to a file of 4 MiB.
func onDisk(t *testing.T) (path string, table *Table) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(testDisk); err != nil {
		t.Fatal(err)
	}
	table = sample(t)
	if err := table.Write(f); err != nil {
		t.Fatal(err)
	}
	return path, table
}

func sgdisk(t *testing.T, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("sgdisk"); err != nil {
		t.Fatal("sgdisk is missing: install the Debian package gdisk")
	}
	out, err := exec.Command("sgdisk", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("sgdisk %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestSgdiskReadsOurs(t *testing.T) {
	path, table := onDisk(t)
	if out := sgdisk(t, "-v", path); !strings.Contains(out, "No problems found.") {
		t.Errorf("sgdisk -v:\n%s", out)
	}
	for i, p := range table.Partitions {
		if !p.Used() {
			continue
		}
		out := sgdisk(t, "-i", string(rune('1'+i)), path)
		for _, want := range []string{strings.ToUpper(p.Type.String()), strings.ToUpper(p.GUID.String()), "'" + p.Name + "'"} {
			if !strings.Contains(out, want) {
				t.Errorf("sgdisk -i %d does not show %s:\n%s", i+1, want, out)
			}
		}
	}
}

func TestSgdiskAfterGrowing(t *testing.T) {
	path, table := onDisk(t)
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(3 * testDisk); err != nil {
		t.Fatal(err)
	}
	if err := table.Resize(3 * testDisk); err != nil {
		t.Fatal(err)
	}
	if _, err := table.Append(Partition{Type: TypeVar, GUID: id(9), Name: "var"}, 0, 2048); err != nil {
		t.Fatal(err)
	}
	if err := table.Write(f); err != nil {
		t.Fatal(err)
	}
	if out := sgdisk(t, "-v", path); !strings.Contains(out, "No problems found.") {
		t.Errorf("sgdisk -v:\n%s", out)
	}
}

func TestWeReadSgdisks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(path, make([]byte, testDisk), 0o600); err != nil {
		t.Fatal(err)
	}
	sgdisk(t, "-a", "1", "-U", id(1).String(),
		"-n", "1:34:2047", "-t", "1:"+TypeBIOSBoot.String(), "-u", "1:"+id(2).String(), "-c", "1:bios",
		"-n", "4:4096:6000", "-t", "4:"+TypeVar.String(), "-u", "4:"+id(3).String(), "-c", "4:größer", "-A", "4:set:60", path)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, found := read(t, b)
	want := &Table{DiskGUID: id(1), FirstUsable: 34, BackupLBA: testDisk/SectorSize - 1, Partitions: []Partition{
		{Type: TypeBIOSBoot, GUID: id(2), First: 34, Last: 2047, Name: "bios"},
		{},
		{},
		{Type: TypeVar, GUID: id(3), First: 4096, Last: 6000, Attributes: AttrReadOnly, Name: "größer"},
	}}
	if !equal(got, want) || found != (Found{}) {
		t.Errorf("got  %+v, %+v\nwant %+v", got, found, want)
	}
}

func TestDiskfsReadsOurs(t *testing.T) {
	path, table := onDisk(t)
	d, err := diskfs.Open(path, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	pt, err := d.GetPartitionTable()
	if err != nil {
		t.Fatal(err)
	}
	theirs, ok := pt.(*diskfsgpt.Table)
	if !ok {
		t.Fatalf("go-diskfs sees a %T", pt)
	}
	if !strings.EqualFold(theirs.GUID, table.DiskGUID.String()) {
		t.Errorf("disk GUID %s, want %s", theirs.GUID, table.DiskGUID)
	}
	found := 0
	for _, q := range theirs.Partitions {
		if q.Start == 0 {
			continue
		}
		found++
		p := table.Partitions[q.Index-1]
		if q.Start != p.First || q.End != p.Last || !strings.EqualFold(q.GUID, p.GUID.String()) || !strings.EqualFold(string(q.Type), p.Type.String()) || q.Attributes != p.Attributes {
			t.Errorf("go-diskfs sees %+v, want %+v", q, p)
		}
	}
	if found != 3 {
		t.Errorf("go-diskfs sees %d partitions, want 3", found)
	}
}
