package initramfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/verity"
)

// fakeSys makes a sysfs with disks: name to its folder below /sys/devices, and files within it.
func fakeSys(t *testing.T, files map[string]string, disks map[string]string) string {
	t.Helper()
	sys := t.TempDir()
	write := func(name, text string) {
		p := filepath.Join(sys, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range files {
		write(name, text)
	}
	if err := os.MkdirAll(filepath.Join(sys, "block"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, dir := range disks {
		write(filepath.Join(dir, "dev"), "1:1\n")
		if err := os.Symlink(filepath.Join("..", dir), filepath.Join(sys, "block", name)); err != nil {
			t.Fatal(err)
		}
	}
	return sys
}

func TestListDisks(t *testing.T) {
	const pci = "devices/pci0000:00/"
	usb := pci + "0000:00:01.0/usb1/1-1/host9/target9:0:0/9:0:0:0/block/sda"
	late := pci + "0000:00:05.0/host0/target0:0:10/0:0:10:0/block/sdb"
	early := pci + "0000:00:05.0/host0/target0:0:2/0:0:2:0/block/sdc"
	nvme := pci + "0000:00:1f.0/nvme/nvme0/nvme0n1"
	stick := pci + "0000:00:02.0/virtio0/block/vda"
	sys := fakeSys(t, map[string]string{
		usb + "/size":   "2048\n",
		late + "/size":  "2048\n",
		early + "/size": "4096\n", early + "/queue/logical_block_size": "4096\n",
		nvme + "/size":  "8\n",
		stick + "/size": "8\n", stick + "/removable": "1\n",
		"devices/virtual/block/loop0/size": "8\n",
		"devices/virtual/block/dm-0/size":  "8\n",
		pci + "cd/block/sr0/size":          "8\n",
		pci + "empty/block/sdd/size":       "0\n",
		pci + "huge/block/sde/size":        "99999999999999999999\n",
		pci + "path/nvme1c0n1/size":        "8\n", pci + "path/nvme1c0n1/hidden": "1\n",
	}, map[string]string{
		"sda": usb, "sdb": late, "sdc": early, "nvme0n1": nvme, "vda": stick, "loop0": "devices/virtual/block/loop0", "dm-0": "devices/virtual/block/dm-0",
		"sr0": pci + "cd/block/sr0", "sdd": pci + "empty/block/sdd", "sde": pci + "huge/block/sde", "nvme1c0n1": pci + "path/nvme1c0n1",
	})
	disks := listDisks(sys)
	var names []string
	for _, d := range disks {
		names = append(names, d.name)
	}
	// Fixed before removable and USB; target 2 before target 10; PCI slot 05 before 1f.
	if want := []string{"sdc", "sdb", "nvme0n1", "sda", "vda"}; !slices.Equal(names, want) {
		t.Fatalf("disks %v, want %v", names, want)
	}
	if d := disks[0]; d.size != 4096*512 || d.sector != 4096 || d.removable || d.node() != "/dev/sdc" {
		t.Errorf("sdc: %+v", d)
	}
	if got := listDisks(filepath.Join(sys, "none")); got != nil {
		t.Errorf("no sysfs: %v", got)
	}
}

func TestReader(t *testing.T) {
	hash, err := verity.ParseRootHash(hashText)
	if err != nil {
		t.Fatal(err)
	}
	a, b := disk{name: "vda", path: "a", size: 20e9}, disk{name: "vdb", path: "b", size: 5e6}
	stuck := disk{name: "sdx", path: "x", size: 1e9}
	release := make(chan struct{})
	defer close(release)
	bell := newDoorbell()
	failing := true
	r := newReader(hash, func(d disk, h verity.RootHash) tableOf {
		switch {
		case d == stuck:
			<-release
		case d == b && failing:
			return tableOf{disk: d, err: errors.New("input/output error")}
		}
		if h != hash {
			t.Errorf("asked for %s", h)
		}
		return tableOf{disk: d}
	}, bell.ring)
	wait := func(until func() bool) {
		t.Helper()
		for !until() {
			select {
			case <-bell:
			case <-time.After(10 * time.Second):
				t.Fatal("nothing happens")
			}
		}
	}
	answered := func(n int) func() bool {
		return func() bool {
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.known)-len(r.stale) == n
		}
	}
	r.scan([]disk{b, a, stuck})
	wait(answered(2))
	found, idle := r.found()
	if len(found) != 1 || found[0].disk != a || idle {
		t.Errorf("found %+v, idle %v", found, idle)
	}
	want := []string{"/dev/sdx (1.0 GB): does not answer", "/dev/vdb (5.0 MB): input/output error"}
	if got := r.report(); !slices.Equal(got, want) {
		t.Errorf("report %q", got)
	}
	// A second scan reads nothing again; after forget it reads what failed, and until then the old answer counts.
	failing = false
	r.scan([]disk{a, b})
	if got := r.report(); !slices.Equal(got, want) {
		t.Errorf("report %q", got)
	}
	r.forget()
	if got := r.report(); !slices.Equal(got, want) {
		t.Errorf("report %q", got)
	}
	r.scan([]disk{a, b})
	wait(func() bool { found, _ := r.found(); return len(found) == 2 })
	if found, _ := r.found(); found[0].disk != a || found[1].disk != b {
		t.Errorf("found %+v", found)
	}
}

func TestWhyNot(t *testing.T) {
	table, hash := testTable(t, testDiskSize)
	other := hash
	other[0]++
	for _, tc := range []struct {
		t    tableOf
		want string
	}{
		{tableOf{err: errors.New("no partition table")}, "no partition table"},
		{tableOf{table: table, err: layout.ErrNotFound}, "slot A holds version 1.0.0 with root hash 1829abf8…"},
		{tableOf{table: &gpt.Table{}, err: layout.ErrNotFound}, "not a disk of Semper's, or one that lacks a partition: slots: the disk has no root partition of a known architecture"},
	} {
		if got := whyNot(tc.t); got != tc.want {
			t.Errorf("why not: %q, want %q", got, tc.want)
		}
	}
	text := strings.Join(message(errNoDisk(hash, []string{"/dev/vda (1.0 GB): no partition table"}, 31*time.Second)), " ")
	for _, want := range []string{"No disk has the system", "1829abf8-2d76-0191-2080-77c4acfb9b5a", "within 31 seconds", "/dev/vda (1.0 GB): no partition"} {
		if !strings.Contains(strings.Join(strings.Fields(text), " "), want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	if err := errNoDisk(hash, nil, time.Second); !strings.Contains(err.Error(), "no disk at all was found") {
		t.Errorf("error %v", err)
	}
}

func TestReadTableRefusesLargeSectors(t *testing.T) {
	if got := readTable(disk{name: "vda", sector: 4096}, verity.RootHash{}); got.err == nil || got.err.Error() != "sectors of 4096 bytes are not supported" {
		t.Errorf("error %v", got.err)
	}
}

func TestPartitionName(t *testing.T) {
	for disk, want := range map[string]string{"vda": "vda9", "nvme0n1": "nvme0n1p9", "mmcblk0": "mmcblk0p9", "sdaa": "sdaa9"} {
		if got := partitionName(disk, 9); got != want {
			t.Errorf("partition 9 of %s is %s, want %s", disk, got, want)
		}
	}
}

// fakeKernel is what the kernel believes of partitions.
type fakeKernel struct {
	have map[int]kernelPartition
	did  []string
	err  error
}

func (k *fakeKernel) Lookup(_ string, number int) (kernelPartition, bool) {
	p, ok := k.have[number]
	return p, ok
}

func (k *fakeKernel) Add(_ *os.File, number int, p kernelPartition) error {
	k.did = append(k.did, "add")
	k.have[number] = p
	return k.err
}

func (k *fakeKernel) Resize(_ *os.File, number int, p kernelPartition) error {
	k.did = append(k.did, "resize")
	k.have[number] = p
	return k.err
}

func TestTellKernel(t *testing.T) {
	p := gpt.Partition{First: 2048, Last: 4095}
	for _, tc := range []struct {
		name string
		have map[int]kernelPartition
		did  string
		err  string
	}{
		{"known", map[int]kernelPartition{3: {2048, 2048}}, "", ""},
		{"unknown", map[int]kernelPartition{}, "add", ""},
		{"smaller", map[int]kernelPartition{3: {2048, 100}}, "resize", ""},
		{"elsewhere", map[int]kernelPartition{3: {4096, 2048}}, "", "the kernel has it at sector 4096, the partition table at 2048"},
	} {
		k := &fakeKernel{have: tc.have}
		node, err := tellKernel(k, nil, "nvme0n1", 3, p)
		if tc.err == "" && (err != nil || node != "/dev/nvme0n1p3" || k.have[3] != kernelPartition{2048, 2048}) ||
			tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) || strings.Join(k.did, " ") != tc.did {
			t.Errorf("%s: %q, %v, did %v", tc.name, node, err, k.did)
		}
	}
	if _, err := tellKernel(&fakeKernel{have: map[int]kernelPartition{}, err: errors.New("busy")}, nil, "vda", 3, p); err == nil || err.Error() != "/dev/vda3: tell the kernel: busy" {
		t.Errorf("error %v", err)
	}
}

func TestLookupPartition(t *testing.T) {
	sys := fakeSys(t, map[string]string{
		"block/vda/vda3/start": "2048\n", "block/vda/vda3/size": "100\n", "block/vda/vda4/start": "x\n", "block/vda/vda5/start": "1\n",
	}, nil)
	if p, ok := lookupPartition(sys, "vda", 3); !ok || p != (kernelPartition{2048, 100}) {
		t.Errorf("vda3: %+v, %v", p, ok)
	}
	for _, n := range []int{4, 5, 6} {
		if p, ok := lookupPartition(sys, "vda", n); ok {
			t.Errorf("vda%d: %+v", n, p)
		}
	}
}
