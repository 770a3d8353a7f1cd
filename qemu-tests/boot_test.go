package qemutests

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/semper-os/semper/initramfs"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/updater/agent"
)

// TestFirstBootGrowsVar looks at a machine after its first boot, on a disk that is larger than the released one.
func TestFirstBootGrowsVar(t *testing.T) {
	t.Parallel()
	m := branch(t, ready)
	released, err := os.Stat(filepath.Join(releasePath(first), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	var boot initramfs.Boot
	if err := json.Unmarshal([]byte(m.run("cat /run/semper/boot.json")), &boot); err != nil {
		t.Fatal(err)
	}
	if !boot.VarCreated || boot.Slot != "a" || boot.Version != first || boot.Partitions.Var != "/dev/vda9" {
		t.Errorf("boot.json: %+v", boot)
	}
	const slack = 4 << 20 // alignment and the backup table
	added := diskSize - released.Size()
	if size := m.number("blockdev --getsize64 /dev/vda9"); size < added-slack || size > added {
		t.Errorf("/var's partition has %d bytes, the disk is %d larger than the released one", size, added)
	}
	// ext4 keeps some percent for itself.
	if size := m.number("stat --file-system --format='%b' /var") * m.number("stat --file-system --format='%S' /var"); size < added*9/10 {
		t.Errorf("/var's file system has %d bytes of %d", size, added)
	}
	if label := m.run("lsblk -no PARTLABEL /dev/vda9"); label != "var" {
		t.Errorf("/var's label is %q", label)
	}
	if got := m.entries(); got != "semper_"+first+".efi" {
		t.Errorf("boot entries %q: the first version is not blessed", got)
	}
	if label, blank := m.idleSlot(); label != "_empty" || !blank {
		t.Errorf("slot B is %q, blank %v", label, blank)
	}
	// The root is the verified one and stays as it is; /var and /etc take changes.
	if out, root := m.run("findmnt -no SOURCE,FSTYPE,OPTIONS /"), m.run("readlink -f /dev/mapper/root"); !strings.HasPrefix(out, root+" erofs ro,") {
		t.Errorf("the root is %s, the verified device %s", out, root)
	}
	m.run("! touch /usr/x 2>/dev/null && touch /var/x /etc/x && rm /var/x /etc/x")
	if out := m.run("systemctl --failed --no-legend --plain"); out != "" {
		t.Errorf("failed units:\n%s", out)
	}
	if s := m.waitStatus(func(r agent.Report) bool { return !r.Trial }); s.Version != first || s.Slot != "A" || s.State != agent.StateIdle || s.Trial {
		t.Errorf("status: %+v", s)
	}
}

// number runs a command that prints one.
func (m *machine) number(command string) int64 {
	m.t.Helper()
	n, err := strconv.ParseInt(m.run(command), 10, 64)
	if err != nil {
		m.t.Fatalf("%s: %v", command, err)
	}
	return n
}

// TestFlippedRootBitIsRefused installs an update and flips one bit of its root before the reboot: the new version is refused at each of its tries, then the
// old one runs again and says so. /var grows with the disk on the way.
func TestFlippedRootBitIsRefused(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.publish(second)
	m := branch(t, ready)
	m.use(s.URL, "[reboot]", `strategy = "off"`)
	m.check()
	m.waitStatus(func(r agent.Report) bool {
		return r.State == agent.StatePending && r.Pending != nil && r.Pending.Version == second
	})
	m.run("sync")
	m.Kill()

	disk, err := m.Config.FlatDisk(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const larger = diskSize + 1<<30
	if err := os.Truncate(disk, larger); err != nil {
		t.Fatal(err)
	}
	flipRootBit(t, disk, layout.B)

	c := config(t, "flipped")
	c.Disk = disk
	m = start(t, c)
	refused := regexp.MustCompile(`device-mapper: verity: \S+ data block 0 is corrupted`)
	mark := 0
	for try := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), bootTime)
		line, err := m.Console.Wait(ctx, mark, refused)
		if err == nil {
			mark = line.Number + 1
			// The machine restarts by itself: the loader's counting is seen to go on.
			line, err = m.Console.Wait(ctx, mark, regexp.MustCompile(`BdsDxe: starting`))
			mark = line.Number + 1
		}
		cancel()
		if err != nil {
			t.Fatalf("try %d: %v", try+1, err)
		}
	}
	m.waitVersion(first)
	if got := m.entries(); !strings.Contains(got, fmt.Sprintf("semper_%s+0-3.efi", second)) {
		t.Errorf("boot entries %q: the refused version has not used up its tries", got)
	}
	r := m.waitStatus(func(r agent.Report) bool { return r.RolledBack != nil })
	if r.RolledBack.Version != second || r.Slot != "A" {
		t.Errorf("status: %+v", r)
	}
	f := failure(s.wait("the failed version", hasFailed(second)), second)
	if f.Reason != r.RolledBack.Reason {
		t.Errorf("the server's reason is %q, the machine's %q", f.Reason, r.RolledBack.Reason)
	}
	if size := m.number("blockdev --getsize64 /dev/vda9"); size < 1<<30 {
		t.Errorf("/var's partition has %d bytes: it has not grown with the disk", size)
	}
	if got := m.number("blockdev --getsize64 /dev/vda"); got != larger {
		t.Fatalf("the disk has %d bytes", got)
	}
}

// flipRootBit changes one bit in the first block of a slot's root.
func flipRootBit(t *testing.T, disk string, name layout.Name) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	slot, table := findSlot(t, f, name)
	at := table.Partitions[slot.Root-1].Offset() + 1024 + 200 // in the superblock, where nothing tells it but the hash
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 0x10
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

// findSlot reads a slot out of a disk's partition table.
func findSlot(t *testing.T, f *os.File, name layout.Name) (layout.Slot, *gpt.Table) {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	table, _, err := gpt.Read(f, st.Size())
	if err != nil {
		t.Fatal(err)
	}
	slots, err := layout.Slots(table)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range slots {
		if s.Name == name {
			return s, table
		}
	}
	t.Fatalf("the disk has no slot %s", name)
	return layout.Slot{}, nil
}
