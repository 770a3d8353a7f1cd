package qemutests

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/initramfs"
	"github.com/semper-os/semper/updater/agent"
)

// softly makes a machine soft-reboot where it can.
var softly = []string{"[reboot]", "soft = true"}

const bootID = "cat /proc/sys/kernel/random/boot_id"

// seconds runs a command that prints a time.
func (m *machine) seconds(command string) time.Duration {
	m.t.Helper()
	out := m.run(command)
	s, err := strconv.ParseFloat(strings.TrimSpace(out), 64)
	if err != nil {
		m.t.Fatalf("%s: %q: %v", command, out, err)
	}
	return time.Duration(s * float64(time.Second))
}

// blessedAt is when the running version was blessed, by the guest's clock.
func (m *machine) blessedAt() time.Duration {
	m.t.Helper()
	m.waitRun("systemctl is-active semper-bless.service", func(out string) bool { return strings.TrimSpace(out) == "active" })
	return m.seconds("date +%s.%N -d \"$(systemctl show --timestamp=us+utc -P ActiveEnterTimestamp semper-bless.service)\"")
}

// TestSoftReboot updates by a soft-reboot, looks whether all of the machine knows what runs, and compares its time with the one of a reboot of the same version.
func TestSoftReboot(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.publish(second)
	m := branch(t, ready)
	m.use(s.URL, softly...)
	m.run("echo 'vm.swappiness = 7' > " + etcChange)
	boot := m.run(bootID)
	m.check()
	m.waitVersion(second)
	r := m.waitStatus(blessed(second))

	// The kernel is the one that booted, and the new root is verified.
	if got := m.run(bootID); got != boot {
		t.Errorf("boot id %s, was %s: the machine has booted", got, boot)
	}
	if n := m.Monitor().Count("RESET"); n != 0 {
		t.Errorf("%d resets, want none", n)
	}
	if got := m.run("busctl get-property org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager SoftRebootsCount"); got != "u 1" {
		t.Errorf("systemd counts %q soft-reboots", got)
	}
	if out, want := m.run("cat /sys/dev/block/$(mountpoint -d /)/dm/name"), "root_"+r.RootHash; out != want {
		t.Errorf("the root is %s, want %s", out, want)
	}
	if out := m.run("findmnt -no FSTYPE,OPTIONS /"); !strings.HasPrefix(out, "erofs ro,") {
		t.Errorf("the root is %s", out)
	}
	// /var and /etc are what they were; the image's own are the new one's.
	if out := m.run("findmnt -no FSTYPE /etc; findmnt -no SOURCE,FSTYPE /var; cat /proc/sys/vm/swappiness; cat /etc/issue.net"); out != "overlay\n/dev/vda9 ext4\n7\nSemper OS 1.1.0" {
		t.Errorf("/etc and /var: %q", out)
	}
	// Everybody knows what runs.
	if r.Slot != "B" || r.Pending != nil || r.Soft == nil || r.Soft.Count != 1 || r.Soft.Version != first || r.Soft.Slot != "A" {
		t.Errorf("status: %+v", r)
	}
	if out := m.run("semperctl status"); !strings.Contains(out, "1.1.0 (slot B)") || !strings.Contains(out, "of 1.0.0 (slot A)") {
		t.Errorf("semperctl status says\n%s", out)
	}
	if out := m.run("semperctl history"); !strings.Contains(out, "into version 1.1.0, by a soft-reboot: only user space changed") || !strings.Contains(out, "version 1.1.0 is healthy") {
		t.Errorf("semperctl history says\n%s", out)
	}
	var info initramfs.Boot
	if err := json.Unmarshal([]byte(m.run("cat /run/semper/boot.json")), &info); err != nil {
		t.Fatal(err)
	}
	if p := info.Partitions; info.Slot != "b" || info.Version != second || info.RootHash != r.RootHash || p.Root != "/dev/vda6" || p.OtherRoot != "/dev/vda3" || p.ESP != "/dev/vda2" {
		t.Errorf("boot.json: %+v", info)
	}
	if got, want := m.entries(), "semper_1.0.0.efi semper_1.1.0.efi"; got != want {
		t.Errorf("boot entries %q, want %q", got, want)
	}
	if out := m.run("systemctl --failed --no-legend --plain; ls /sys/class/block/vda3/holders /sys/class/block/vda4/holders | grep dm; true"); out != "" {
		t.Errorf("failed units, or what still holds the slot that was left:\n%s", out)
	}
	s.waitComplete(second)
	soft := m.blessedAt() - m.seconds("journalctl --quiet -o short-unix -u semper-installd -g 'soft-reboot into the update' | tail -n 1 | cut -d ' ' -f 1")

	// And the same version, booted.
	begun := m.seconds("date +%s.%N && systemctl reboot")
	m.waitRun(bootID, func(out string) bool { return strings.TrimSpace(out) != "" && strings.TrimSpace(out) != boot })
	m.waitVersion(second)
	full := m.blessedAt() - begun
	r = m.waitStatus(func(r agent.Report) bool { return r.Version == second && r.State == agent.StateIdle })
	if r.Slot != "B" || r.Soft != nil || r.Trial || r.RolledBack != nil {
		t.Errorf("after the reboot: %+v", r)
	}
	if got, want := m.entries(), "semper_1.0.0.efi semper_1.1.0.efi"; got != want {
		t.Errorf("boot entries after the reboot %q, want %q", got, want)
	}
	t.Logf("soft-reboot: %.1f s from the order to the blessing; reboot: %.1f s; saved: %.1f s", soft.Seconds(), full.Seconds(), (full - soft).Seconds())
	if soft >= full {
		t.Errorf("a soft-reboot takes %v, a reboot %v", soft, full)
	}
}
