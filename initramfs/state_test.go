package initramfs

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/verity"
)

const (
	mib          = 1 << 20
	testDiskSize = 400 * mib
)

// testTable is that of a released disk with slot A filled, on a disk of size bytes.
func testTable(t *testing.T, size int64) (*gpt.Table, verity.RootHash) {
	t.Helper()
	hash, err := verity.ParseRootHash(hashText)
	if err != nil {
		t.Fatal(err)
	}
	plan, err := layout.NewPlan(16*mib, 64*mib, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if plan.DiskSize > size {
		t.Fatalf("the plan needs %d bytes", plan.DiskSize)
	}
	n := byte(0)
	table, err := layout.NewTable(plan, "1.0.0", hash, func(string) [16]byte { n++; return [16]byte{n, 6: 0x80, 8: 0x80} })
	if err != nil {
		t.Fatal(err)
	}
	return table, hash
}

// memoryDisk is a sparse disk that loses power after so many writes; negative: never.
type memoryDisk struct {
	mu      sync.Mutex // verity.Format writes from several goroutines
	size    int64
	sectors map[int64][512]byte
	writes  int
	cut     int
}

var errPower = errors.New("power cut")

func (d *memoryDisk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n := 0; n < len(p); {
		at := off + int64(n)
		if at >= d.size {
			return n, io.EOF
		}
		sector := d.sectors[at/512]
		n += copy(p[n:], sector[at%512:])
	}
	return len(p), nil
}

func (d *memoryDisk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.writes++; d.cut >= 0 && d.writes > d.cut {
		return 0, errPower
	}
	if off+int64(len(p)) > d.size || off%512 != 0 || len(p)%512 != 0 {
		return 0, io.ErrShortWrite
	}
	for n := 0; n < len(p); n += 512 {
		d.sectors[(off+int64(n))/512] = [512]byte(p[n:])
	}
	return len(p), nil
}

func (d *memoryDisk) write(p []byte, off int64) {
	if _, err := d.WriteAt(p, off); err != nil {
		panic(err)
	}
}

func (d *memoryDisk) Sync() error { return nil }

// machine does what programs would do to a file system: it writes and reads a superblock, and what /var holds.
type machine struct {
	t       *testing.T
	disk    *memoryDisk
	part    gpt.Partition
	did     []string
	status  map[string]int
	mounted bool
}

func (m *machine) Tell(number int, p gpt.Partition) (string, error) {
	m.part = p
	return fmt.Sprintf("/dev/vda%d", number), nil
}

func (m *machine) Run(limit time.Duration, name string, args ...string) (int, error) {
	m.did = append(m.did, name)
	if limit <= 0 || args[len(args)-1] != "/dev/vda9" {
		m.t.Errorf("%s %q for at most %s", name, args, limit)
	}
	switch name {
	case "mke2fs":
		if _, err := m.disk.WriteAt(superblock(m.part.Size()), m.part.Offset()); err != nil {
			return 0, err
		}
	case "resize2fs":
		if !m.mounted {
			m.t.Error("resize2fs before the mount")
		}
		if _, err := m.disk.WriteAt(superblock(m.part.Size()), m.part.Offset()); err != nil {
			return 0, err
		}
	case "e2fsck":
		if m.mounted || args[0] != "-p" {
			m.t.Errorf("e2fsck %q, mounted %v", args, m.mounted)
		}
	default:
		m.t.Errorf("unknown program %s", name)
	}
	return m.status[name], nil
}

func (m *machine) Mount(node string) error {
	if _, err := ext4Size(io.NewSectionReader(m.disk, m.part.Offset(), m.part.Size())); err != nil || node != "/dev/vda9" {
		return fmt.Errorf("mount %s: %w", node, err)
	}
	m.mounted = true
	return nil
}

// superblock is the start of an ext4 file system of size bytes.
func superblock(size int64) []byte {
	b := make([]byte, 4096)
	s := b[1024:]
	binary.LittleEndian.PutUint32(s[4:], uint32(size/4096))
	binary.LittleEndian.PutUint32(s[24:], 2)
	binary.LittleEndian.PutUint16(s[56:], 0xef53)
	return b
}

func newMemoryDisk(t *testing.T, size int64) *memoryDisk {
	t.Helper()
	table, _ := testTable(t, size)
	d := &memoryDisk{size: size, sectors: map[int64][512]byte{}, cut: -1}
	if err := table.Write(d); err != nil {
		t.Fatal(err)
	}
	d.writes = 0
	return d
}

// bootVar is one boot as far as /var goes.
func bootVar(t *testing.T, d *memoryDisk, status map[string]int) (*machine, string, bool, error) {
	t.Helper()
	table, found, err := gpt.Read(d, d.size)
	if err != nil {
		t.Fatalf("the partition table is lost: %v", err)
	}
	m := &machine{t: t, disk: d, status: status}
	var out bytes.Buffer
	v := &varDisk{
		table: table, found: found, size: d.size, device: d, guid: gpt.GUID{1, 6: 0x40, 8: 0x80}, name: "vda", machine: m,
		console: NewConsole(func() time.Duration { return 0 }, nil, &out),
	}
	node, created, err := v.prepare()
	return m, node, created, err
}

func label(t *testing.T, d *memoryDisk) (string, gpt.Partition) {
	t.Helper()
	table, _, err := gpt.Read(d, d.size)
	if err != nil {
		t.Fatal(err)
	}
	if len(table.Partitions) < 9 {
		return "", gpt.Partition{}
	}
	return table.Partitions[8].Name, table.Partitions[8]
}

func TestVarFirstBootAndGrowth(t *testing.T) {
	d := newMemoryDisk(t, testDiskSize)
	m, node, created, err := bootVar(t, d, nil)
	if err != nil || node != "/dev/vda9" || !created || !m.mounted || !slices.Equal(m.did, []string{"mke2fs"}) {
		t.Fatalf("first boot: %q, %v, %v, did %v", node, created, err, m.did)
	}
	name, p := label(t, d)
	if end := p.Offset() + p.Size(); name != "var" || end > testDiskSize-34*512 || end < testDiskSize-2*mib {
		t.Errorf("partition %q ends at %d", name, end)
	}
	before := d.writes
	m, _, created, err = bootVar(t, d, nil)
	if err != nil || created || !slices.Equal(m.did, []string{"e2fsck"}) || d.writes != before {
		t.Errorf("second boot: %v, %v, did %v, %d writes", created, err, m.did, d.writes-before)
	}
	m, _, _, err = bootVar(t, d, map[string]int{"e2fsck": 1})
	if err != nil || !m.mounted {
		t.Errorf("repaired: %v", err)
	}
	d.size += 1024 * mib
	m, _, created, err = bootVar(t, d, nil)
	if err != nil || created || !slices.Equal(m.did, []string{"e2fsck", "resize2fs"}) {
		t.Errorf("grown: %v, %v, did %v", created, err, m.did)
	}
	if _, p := label(t, d); p.Offset()+p.Size() < d.size-2*mib {
		t.Errorf("the partition ends at %d of %d", p.Offset()+p.Size(), d.size)
	}
	// A failure to grow costs room, not the boot.
	d.size += 1024 * mib
	if m, _, _, err = bootVar(t, d, map[string]int{"resize2fs": 1}); err != nil || !m.mounted {
		t.Errorf("resize2fs failed: %v", err)
	}
}

// TestVarPowerCut cuts the power after each write of the first boot and of a growth. The next boot must make it good, and never format what was in use.
func TestVarPowerCut(t *testing.T) {
	for cut := range 100 {
		d := newMemoryDisk(t, testDiskSize)
		d.cut = cut
		_, _, _, err := bootVar(t, d, nil)
		done := err == nil
		d.cut = -1
		name, _ := label(t, d)
		m, _, created, err := bootVar(t, d, nil)
		if err != nil || created != (name != "var") {
			t.Fatalf("cut after %d writes: label %q, created %v, %v, did %v", cut, name, created, err, m.did)
		}
		if name, _ := label(t, d); name != "var" {
			t.Errorf("cut after %d writes: label %q", cut, name)
		}
		if done {
			if cut < 5 {
				t.Errorf("the first boot has only %d writes", cut)
			}
			break
		}
	}
	for cut := range 100 {
		d := newMemoryDisk(t, testDiskSize)
		if _, _, _, err := bootVar(t, d, nil); err != nil {
			t.Fatal(err)
		}
		d.size += 1024 * mib
		d.writes, d.cut = 0, cut
		m, _, _, err := bootVar(t, d, nil)
		done := err == nil && slices.Contains(m.did, "resize2fs") && d.writes <= cut
		d.cut = -1
		m, _, created, err := bootVar(t, d, nil)
		if err != nil || created {
			t.Fatalf("growth cut after %d writes: created %v, %v", cut, created, err)
		}
		if have, err := ext4Size(io.NewSectionReader(d, m.part.Offset(), m.part.Size())); err != nil || have != m.part.Size() || m.part.Size() < 1024*mib {
			t.Errorf("growth cut after %d writes: file system of %d in a partition of %d bytes, %v", cut, have, m.part.Size(), err)
		}
		if done {
			break
		}
	}
}

func TestVarFailures(t *testing.T) {
	for name, tc := range map[string]struct {
		prepare func(*memoryDisk)
		status  map[string]int
		want    string
		did     string
	}{
		"no room":       {func(d *memoryDisk) { d.size = 140 * mib }, nil, "There is no place for /var", ""},
		"mke2fs fails":  {func(*memoryDisk) {}, map[string]int{"mke2fs": 1}, "mke2fs ended with status 1", "mke2fs"},
		"damaged":       {ready, map[string]int{"e2fsck": 4}, "damaged, more than can be repaired", "e2fsck"},
		"e2fsck fails":  {ready, map[string]int{"e2fsck": 8 | 1}, "damaged, more than can be repaired", "e2fsck"},
		"not ext4":      {func(d *memoryDisk) { ready(d); wipe(d) }, nil, "/var cannot be mounted", "e2fsck"},
		"foreign label": {func(d *memoryDisk) { ready(d); rename(d, "data") }, nil, "The partition table makes no sense", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d := newMemoryDisk(t, testDiskSize)
			tc.prepare(d)
			m, _, _, err := bootVar(t, d, tc.status)
			var f *Failure
			if !errors.As(err, &f) || !strings.Contains(err.Error(), tc.want) || strings.Join(m.did, " ") != tc.did {
				t.Errorf("error %v, did %v, want %q and %q", err, m.did, tc.want, tc.did)
			}
		})
	}
}

// ready makes a disk that has booted once.
func ready(d *memoryDisk) {
	table, _, err := gpt.Read(d, d.size)
	if err == nil {
		var n int
		if n, err = layout.AddVar(table, gpt.GUID{1, 6: 0x40, 8: 0x80}, d.size); err == nil {
			d.write(superblock(table.Partitions[n-1].Size()), table.Partitions[n-1].Offset())
			if err = layout.VarReady(table); err == nil {
				err = table.Write(d)
			}
		}
	}
	if err != nil {
		panic(err)
	}
}

func wipe(d *memoryDisk) {
	table, _, err := gpt.Read(d, d.size)
	if err != nil {
		panic(err)
	}
	d.write(make([]byte, 4096), table.Partitions[8].Offset())
}

func rename(d *memoryDisk, name string) {
	table, _, err := gpt.Read(d, d.size)
	if err == nil {
		table.Partitions[8].Name = name
		err = table.Write(d)
	}
	if err != nil {
		panic(err)
	}
}

// TestTableRepaired boots with one copy of the table damaged.
func TestTableRepaired(t *testing.T) {
	for _, at := range []int64{512, testDiskSize - 512} {
		d := newMemoryDisk(t, testDiskSize)
		ready(d)
		d.write(make([]byte, 512), at)
		if _, _, created, err := bootVar(t, d, nil); err != nil || created {
			t.Fatalf("damage at %d: %v, %v", at, created, err)
		}
		if _, found, err := gpt.Read(d, testDiskSize); err != nil || found.Used != gpt.Both || found.Damage != nil {
			t.Errorf("damage at %d: still %+v, %v", at, found, err)
		}
	}
}

func TestExt4SizeOfRealFileSystem(t *testing.T) {
	for _, args := range [][]string{{"-O", "64bit"}, {"-O", "^64bit"}, {"-b", "1024"}} {
		path := filepath.Join(t.TempDir(), "fs")
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, 64*mib); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("mke2fs", append(append([]string{"-q", "-t", "ext4"}, args...), path)...).CombinedOutput()
		if err != nil {
			t.Fatalf("mke2fs (Debian package e2fsprogs): %v: %s", err, out)
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if got, err := ext4Size(f); err != nil || got != 64*mib {
			t.Errorf("%q: %d, %v", args, got, err)
		}
	}
}

func FuzzExt4Size(f *testing.F) {
	f.Add(superblock(64 * mib))
	f.Add(make([]byte, 100))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := ext4Size(bytes.NewReader(b))
		if err == nil && n < 0 {
			t.Errorf("%d bytes", n)
		}
		if err != nil && !fault.Is(err, fault.Input) && !fault.Is(err, fault.IO) {
			t.Errorf("error %v", err)
		}
	})
}
