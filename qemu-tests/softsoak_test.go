//go:build soak

package qemutests

import (
	"strings"
	"testing"

	"github.com/semper-os/semper/initramfs"
	"github.com/semper-os/semper/updater/agent"
)

// TestSoftRebootByHand soft-reboots without an update, and then with an order that leads nowhere: the first is into the running root, with its /var and /etc, and
// the second becomes a full reboot.
func TestSoftRebootByHand(t *testing.T) {
	t.Parallel()
	m := branch(t, ready)
	m.run("echo mine > /etc/mine")
	boot := m.run(bootID)
	const count = "busctl get-property org.freedesktop.systemd1 /org/freedesktop/systemd1 org.freedesktop.systemd1.Manager SoftRebootsCount"
	m.run("systemctl --no-block soft-reboot")
	m.waitRun(count, func(out string) bool { return strings.TrimSpace(out) == "u 1" })
	m.waitVersion(first)
	if out := m.run("cat /etc/mine; findmnt -no SOURCE /var; " + bootID); out != "mine\n/dev/vda9\n"+boot {
		t.Errorf("after a soft-reboot by hand: %q", out)
	}
	resets := m.Monitor().Count("RESET")
	m.run("echo '{\"root_hash\":\"" + strings.Repeat("ab", 32) + "\"}' > " + initramfs.OrderFolder + "/root.json && systemctl --no-block soft-reboot")
	m.waitRun(bootID, func(out string) bool { return strings.TrimSpace(out) != "" && strings.TrimSpace(out) != boot })
	m.waitVersion(first)
	if n := m.Monitor().Count("RESET") - resets; n != 1 {
		t.Errorf("%d resets, want one", n)
	}
	if out := m.run("cat /etc/mine; findmnt -no SOURCE /var"); out != "mine\n/dev/vda9" {
		t.Errorf("after the full reboot: %q", out)
	}
	if got := m.entries(); got != "semper_1.0.0.efi" {
		t.Errorf("boot entries %q", got)
	}
}

// TestUnhealthyAfterSoftReboot soft-reboots into a version whose health check fails.
func TestUnhealthyAfterSoftReboot(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.publish(sick)
	m := branch(t, ready)
	m.use(s.URL, softly...)
	boot := m.run(bootID)
	m.check()
	r := m.waitStatus(func(r agent.Report) bool { return r.Version == first && r.RolledBack != nil })
	if r.RolledBack.Version != sick || r.RolledBack.Check != "50-demo-fails" || r.Slot != "A" || r.Soft != nil {
		t.Errorf("status: %+v", r)
	}
	if got := m.run(bootID); got == boot {
		t.Error("the machine went back without a boot")
	}
	if n := m.Monitor().Count("RESET"); n != 1 {
		t.Errorf("%d resets, want one, back", n)
	}
	if got := m.entries(); got != "semper_1.0.0.efi semper_1.2.0+0-1.efi" {
		t.Errorf("boot entries %q", got)
	}
	refusedFromNowOn(t, m, s, sick, "50-demo-fails")
}
