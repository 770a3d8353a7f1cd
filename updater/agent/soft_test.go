package agent_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/wire"
)

// softBoot restarts all but the kernel: installer and agent.
func (h *host) softBoot() installtest.Booted {
	h.t.Helper()
	h.stop()
	b := h.SoftReboot(h.t)
	h.start()
	return b
}

// texts is what semperctl history shows.
func texts(t *testing.T, h *host) []string {
	t.Helper()
	var out []string
	for _, e := range history(t, h) {
		out = append(out, e.Text)
	}
	return out
}

func TestSoftReboot(t *testing.T) {
	l := &lock{}
	h := ready(t, func(h *host) { h.settings.Reboot.Soft, h.lock = true, l })
	h.step()
	if h.Reboots != 0 || h.Next == [32]byte{} || h.agent.Report().State != agent.StateRebooting {
		t.Fatalf("%d full reboots, a soft one to %x, %+v", h.Reboots, h.Next, h.agent.Report())
	}
	if all := texts(t, h); all[len(all)-1] != "into version 1.1.0, by a soft-reboot: only user space changed" {
		t.Errorf("history %q", all)
	}
	l.take()
	h.step() // while the machine goes down nothing is asked for twice
	equal(t, "full reboots", h.Reboots, 0)

	equal(t, "soft-reboot", h.softBoot().Version, "1.1.0")
	h.fleet.set(func() { h.fleet.offer = nil })
	h.fleet.take()
	h.step()
	r := h.agent.Report()
	if r.State != agent.StateTrial || r.Slot != "B" || r.Soft == nil || *r.Soft != (wire.Soft{Count: 1, Version: "1.0.0", Slot: "A"}) {
		t.Fatalf("on trial: %+v", r)
	}
	if text := strings.Join(r.Explain(h.clock.Now()), "\n"); !strings.Contains(text, "started by a soft-reboot: the kernel is the one of version 1.0.0") {
		t.Errorf("why: %s", text)
	}
	equal(t, "lock on trial", slices.Contains(l.take(), "release"), false)
	must(t, h.Core().Bless())
	h.step()
	equal(t, "lock when healthy", l.take(), []string{"release"})
	if events := h.fleet.take(); !slices.Contains(events, "3/2 from 1.0.0") {
		t.Errorf("events %q", events)
	}
	if r := h.agent.Report(); r.State != agent.StateIdle || r.Locked || r.RebootBy != "" {
		t.Errorf("in the end: %+v", r)
	}
}

// A soft-reboot that led back to where it began is not waited for, although the kernel's boot id is the same; a full reboot comes next.
func TestSoftRebootLeadsNowhere(t *testing.T) {
	h := ready(t, func(h *host) { h.settings.Reboot.Soft = true })
	h.step()
	h.stop()
	h.Soft = &wire.Soft{Count: 1, Version: "1.0.0", Slot: "A"}
	h.start()
	h.step()
	if all := texts(t, h); h.Reboots != 1 || all[len(all)-1] != "into version 1.1.0, by a full reboot: the one before did not lead there" {
		t.Errorf("%d full reboots, history %q", h.Reboots, all)
	}
}

// The reason for a full reboot is told beforehand, and remembered.
func TestFullRebootSaysWhy(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.settings.Reboot.Soft, h.settings.Reboot.Strategy = true, "off"
	h.newAgent()
	h.offer(keys.Make(t, installtest.Spec{Version: "1.1.0", UKI: func(p *uki.Parts) { p.Initrd = []byte("070701 another") }}))
	h.step()
	r := h.agent.Report()
	if text := strings.Join(r.Explain(h.clock.Now()), "\n"); !strings.Contains(text, "The way there is a full reboot: the initramfs is another one.") {
		t.Errorf("why: %s", text)
	}
	h.settings.Reboot.Strategy = "immediate"
	h.newAgent()
	h.step()
	if all := texts(t, h); h.Reboots != 1 || all[len(all)-1] != "into version 1.1.0, by a full reboot: the initramfs is another one" {
		t.Errorf("%d full reboots, history %q", h.Reboots, all)
	}
}

// What the installer finds at the last moment is in the history too.
func TestSoftRebootRefused(t *testing.T) {
	h := ready(t, func(h *host) { h.settings.Reboot.Soft, h.settings.Reboot.Strategy = true, "off" })
	h.step()
	h.stop()
	h.Tune = func(o *install.Options) { o.SoftReboot = nil }
	h.settings.Reboot.Strategy = "immediate"
	h.start()
	h.step()
	all := texts(t, h)
	if h.Reboots != 1 || all[len(all)-1] != "a full reboot instead of a soft-reboot: this system knows no soft-reboot" {
		t.Errorf("%d full reboots, history %q", h.Reboots, all)
	}
}

// By default nobody asks for it.
func TestNoSoftRebootByDefault(t *testing.T) {
	h := ready(t, func(*host) {})
	h.step()
	if r := h.agent.Report(); h.Reboots != 1 || h.Next != [32]byte{} || r.RebootBy != "" {
		t.Errorf("%d full reboots, a soft one to %x, by %q", h.Reboots, h.Next, r.RebootBy)
	}
}
