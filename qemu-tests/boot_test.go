package qemutests

import (
	"context"
	"encoding/json"
	"errors"
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
	"github.com/semper-os/semper/qemu-tests/guest"
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

// TestFlippedRootBitIsRefused flips one bit of a root.
func TestFlippedRootBitIsRefused(t *testing.T) {
	t.Parallel()
	t.Run("first block", flippedFirstBlock)
	t.Run("systemd", flippedSystemd)
}

var firmwareStarts = regexp.MustCompile(`BdsDxe: starting`)

// flippedFirstBlock starts a released disk whose first block semper-init itself finds to be wrong: it says so in words, and the machine restarts.
func flippedFirstBlock(t *testing.T) {
	takeSlot(t)
	c := config(t, "machine")
	c.Disk = filepath.Join(world.dir, t.Name(), "disk.raw")
	if err := errors.Join(os.MkdirAll(filepath.Dir(c.Disk), 0o755), guest.CopySparse(filepath.Join(releasePath(first), "disk.raw"), c.Disk)); err != nil {
		t.Fatal(err)
	}
	flipBit(t, c.Disk, layout.A, 1024+200) // in the superblock, where nothing tells it but the hash
	m := start(t, c)
	mark := 0
	for _, line := range []string{
		"SEMPER CANNOT START THIS SYSTEM",
		"What:  The system is damaged: it does not match its root hash",
		`Where: slot A \(version 1\.0\.0\)`,
		"Cause: data block 0 does not match its hash",
		"reboot: Restarting system",
		firmwareStarts.String(),
		"SEMPER CANNOT START THIS SYSTEM",
	} {
		mark = m.waitConsole(mark, regexp.MustCompile(line))
	}
	for _, line := range m.Console.Matches(0, regexp.MustCompile("root mounted|starting systemd")) {
		t.Errorf("the damaged system was used: %s", line.Text)
	}
}

// flippedSystemd installs an update, and flips a bit of its systemd before the reboot. That is found by the kernel, when it reads the block: at each try it
// restarts the machine, and then the old version runs again and says so. /var grows with the disk on the way.
func flippedSystemd(t *testing.T) {
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
	offset := fileOffset(t, filepath.Join(releasePath(second), "root.erofs"), "/usr/lib/systemd/systemd")
	flipBit(t, disk, layout.B, offset)

	c := config(t, "flipped")
	c.Disk = disk
	m = start(t, c)
	refused := regexp.MustCompile(fmt.Sprintf(`device-mapper: verity: \S+ data block %d is corrupted`, offset/4096))
	mark := 0
	for range 3 {
		mark = m.waitConsole(m.waitConsole(mark, refused), firmwareStarts)
	}
	m.waitVersion(first)
	if n := len(m.Console.Matches(mark, refused)); n != 0 {
		t.Errorf("the damaged version was tried more than three times: %d times", 3+n)
	}
	if got := m.entries(); got != fmt.Sprintf("semper_%s.efi semper_%s+0-3.efi", first, second) {
		t.Errorf("boot entries %q: the refused version has not used up its tries", got)
	}
	r := m.waitStatus(func(r agent.Report) bool { return r.RolledBack != nil })
	if r.RolledBack.Version != second || r.Slot != "A" {
		t.Errorf("status: %+v", r)
	}
	f := failure(s.wait("the failed version", hasFailed(second)), second)
	if !strings.Contains(f.Reason, r.RolledBack.Reason) {
		t.Errorf("the server's reason is %q, the machine's %q", f.Reason, r.RolledBack.Reason)
	}
	if got := m.number("blockdev --getsize64 /dev/vda"); got != larger {
		t.Fatalf("the disk has %d bytes", got)
	}
	released, err := os.Stat(filepath.Join(releasePath(first), "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"blockdev --getsize64 /dev/vda9", "df --block-size=1 --output=size /var | tail -1 | tr -d ' '"} {
		if size, added := m.number(command), larger-released.Size(); size < added*9/10 || size > added {
			t.Errorf("%s: %d bytes of the %d that the disk is larger than the released one", command, size, added)
		}
	}
}

// waitConsole waits for a line from a number on, and returns the number after it.
func (m *machine) waitConsole(from int, re *regexp.Regexp) int {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), bootTime)
	defer cancel()
	line, err := m.Console.Wait(ctx, from, re)
	if err != nil {
		m.t.Fatal(err)
	}
	return line.Number + 1
}

// fileOffset returns where an erofs image has the first block of a file's data.
func fileOffset(t *testing.T, image, path string) int64 {
	t.Helper()
	out := tool(t, "dump.erofs", "--path="+path, "-e", image)
	found := regexp.MustCompile(`(?m)^\s*0:\s+0\.\.\s*\d+ \|\s*\d+ :\s*(\d+)\.\.`).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("dump.erofs does not say where %s is:\n%s", path, out)
	}
	offset, err := strconv.ParseInt(found[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return offset
}

// flipBit changes one bit of a slot's root.
func flipBit(t *testing.T, disk string, name layout.Name, offset int64) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	slot, table := findSlot(t, f, name)
	at := table.Partitions[slot.Root-1].Offset() + offset
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	b[0] ^= 0x10
	if err == nil {
		_, err = f.WriteAt(b, at)
	}
	if err := errors.Join(err, f.Close()); err != nil {
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
