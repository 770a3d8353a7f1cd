package install_test

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/uki/ukitest"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/wire"
)

// Two soft-reboots, to slot B and back to A, and then a boot: the entries tell the truth at each step, and the slot that runs is never the one that is
// written, although the kernel's command line names another one.
func TestSoftReboots(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	core := m.Core()
	must(t, second(push(core, keys.Release(t, "1.1.0"))))
	going, err := core.Handler(agentUID).Reboot(true)
	must(t, err)
	equal(t, "goes down", going, wire.Going{Soft: true})
	equal(t, "full reboots", m.Reboots, 0)
	equal(t, "soft-reboot", m.SoftReboot(t), installtest.Booted{Version: "1.1.0", Slot: "B", Entry: "semper_1.1.0+3-0.efi"})

	core = m.Core()
	st := status(t, core)
	if st.Version != "1.1.0" || st.Slot != "B" || !st.Trial || !st.WayBack || st.Pending != nil {
		t.Fatalf("on trial: %+v", st)
	}
	equal(t, "soft", *st.Soft, wire.Soft{Count: 1, Version: "1.0.0", Slot: "A"})
	if _, err := push(core, keys.Release(t, "1.2.0")); err == nil || !strings.Contains(err.Error(), "is itself on trial") {
		t.Errorf("an update in the way of the way back: %v", err)
	}
	must(t, core.Bless())
	equal(t, "blessed", m.Entries(), []string{"semper_1.0.0.efi", "semper_1.1.0.efi"})
	if st := status(t, core); st.Blessed == nil || st.Blessed.Version != "1.1.0" || st.Trial {
		t.Fatalf("blessed: %+v", st)
	}

	// The slot that was booted is idle now.
	running := m.Protected(t)
	must(t, second(push(core, keys.Release(t, "1.2.0"))))
	equal(t, "the running slot", m.Protected(t), running)
	equal(t, "entries", m.Entries(), []string{"semper_1.1.0.efi", "semper_1.2.0+3-0.efi"})
	going, err = core.Handler(agentUID).Reboot(true)
	must(t, err)
	equal(t, "goes down", going, wire.Going{Soft: true})
	equal(t, "soft-reboot", m.SoftReboot(t), installtest.Booted{Version: "1.2.0", Slot: "A", Entry: "semper_1.2.0+3-0.efi"})
	equal(t, "soft", *status(t, m.Core()).Soft, wire.Soft{Count: 2, Version: "1.0.0", Slot: "A"})
	must(t, m.Core().Bless())
	equal(t, "boot", m.Boot(t), installtest.Booted{Version: "1.2.0", Slot: "A", Entry: "semper_1.2.0.efi"})
}

// A power cut after a soft-reboot is a boot of the new version, with all its tries.
func TestPowerCutAfterSoftReboot(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	must(t, second(push(m.Core(), keys.Release(t, "1.1.0"))))
	must(t, second(m.Core().Handler(agentUID).Reboot(true)))
	m.SoftReboot(t)
	equal(t, "boot", m.Boot(t), installtest.Booted{Version: "1.1.0", Slot: "B", Entry: "semper_1.1.0+2-1.efi"})
	if st := status(t, m.Core()); !st.Trial || st.Soft != nil {
		t.Errorf("after the boot: %+v", st)
	}
}

func TestUnhealthyAfterSoftReboot(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	must(t, second(push(m.Core(), keys.Release(t, "1.1.0"))))
	must(t, second(m.Core().Handler(agentUID).Reboot(true)))
	m.SoftReboot(t)
	went, err := m.Core().Rollback(&health.Result{Checks: []health.CheckResult{{Name: "10-web", Required: true, Output: "no answer"}}})
	if err != nil || !went || m.Reboots != 1 {
		t.Fatalf("went %v, %v, %d full reboots", went, err, m.Reboots)
	}
	equal(t, "entries", m.Entries(), []string{"semper_1.0.0.efi", "semper_1.1.0+0-1.efi"})
	equal(t, "boot", m.Boot(t), installtest.Booted{Version: "1.0.0", Slot: "A", Entry: "semper_1.0.0.efi"})
	if st := status(t, m.Core()); st.RolledBack == nil || st.RolledBack.Check != "10-web" || st.Soft != nil {
		t.Errorf("back: %+v", st)
	}
}

// What is not the same but for user space is a full reboot, which says why before and when it is asked for.
func TestFullRebootInstead(t *testing.T) {
	keys := installtest.NewKeys(t)
	for name, c := range map[string]struct {
		kernel func(*uki.Parts)
		tune   func(*install.Options)
		want   string
	}{
		"kernel":       {kernel: func(p *uki.Parts) { p.Linux = ukitest.Kernel(9000, true) }, want: "the kernel is another one"},
		"initramfs":    {kernel: func(p *uki.Parts) { p.Initrd = []byte("070701 another") }, want: "the initramfs is another one"},
		"both":         {kernel: func(p *uki.Parts) { p.Linux = ukitest.Kernel(9000, true); p.Initrd = []byte("x") }, want: "the kernel and the initramfs are others"},
		"command line": {kernel: func(p *uki.Parts) { p.Cmdline += " quiet" }, want: "the kernel's command line is another one"},
		"microcode":    {kernel: func(p *uki.Parts) { p.Ucode = []byte("new") }, want: "the microcode is another one"},
		"stub":         {kernel: func(p *uki.Parts) { p.Stub = bytes.Replace(p.Stub, []byte("stub 1"), []byte("stub 2"), 1) }, want: "the boot stub (.sdmagic) is another one"},
		"does not know": {kernel: func(p *uki.Parts) {
			p.OSRelease = bytes.Replace(p.OSRelease, []byte("REBOOT=1"), []byte("REBOOT=0"), 1)
		}, want: "version 1.1.0 does not know soft-reboots"},
		"machine cannot": {tune: func(o *install.Options) { o.SoftReboot = nil }, want: "this system knows no soft-reboot"},
	} {
		t.Run(name, func(t *testing.T) {
			m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
			m.Tune = c.tune
			core := m.Core()
			must(t, second(push(core, keys.Make(t, installtest.Spec{Version: "1.1.0", UKI: c.kernel}))))
			equal(t, "known before", status(t, core).Pending.Full, c.want)
			going, err := core.Handler(agentUID).Reboot(true)
			must(t, err)
			equal(t, "goes down", going, wire.Going{Why: c.want})
			equal(t, "full reboots", m.Reboots, 1)
			equal(t, "soft-reboot to", m.Next, [32]byte{})
			equal(t, "boot", m.Boot(t).Version, "1.1.0")
		})
	}
}

// Nobody asked for a soft-reboot.
func TestNotAskedForSoftReboot(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	must(t, second(push(m.Core(), keys.Release(t, "1.1.0"))))
	going, err := m.Core().Handler(agentUID).Reboot(false)
	must(t, err)
	equal(t, "goes down", going, wire.Going{})
	equal(t, "full reboots", m.Reboots, 1)
}

// What is found wrong at the last moment leads to a full reboot too: the boot loader and semper-init decide then.
func TestSoftRebootFails(t *testing.T) {
	keys := installtest.NewKeys(t)
	for name, c := range map[string]struct {
		spoil func(*testing.T, *installtest.Machine)
		want  string
	}{
		"logind refuses": {func(_ *testing.T, m *installtest.Machine) {
			m.Tune = func(o *install.Options) { o.SoftReboot = func([32]byte) error { return errors.New("no answer") } }
		}, "no answer"},
		"the slot is damaged": {func(_ *testing.T, m *installtest.Machine) {
			m.Tune = func(o *install.Options) {
				open := o.Storage
				o.Storage = func() (install.Storage, error) {
					s, err := open()
					s.Disk = deaf{s.Disk, 4 << 20}
					return s, err
				}
			}
		}, "input/output error"},
		"the running entry changed": {func(t *testing.T, m *installtest.Machine) {
			parts := ukitest.Parts("semper", "1.0.0", strings.Repeat("0", 64))
			kernel, err := uki.Assemble(parts)
			must(t, err)
			m.ESP.Put("semper_1.0.0.efi", kernel)
		}, "no boot entry of the root hash"},
	} {
		t.Run(name, func(t *testing.T) {
			m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
			must(t, second(push(m.Core(), keys.Release(t, "1.1.0"))))
			c.spoil(t, m)
			going, err := m.Core().Handler(agentUID).Reboot(true)
			if err != nil || going.Soft || !strings.Contains(going.Why, c.want) || m.Reboots != 1 {
				t.Errorf("goes down: %+v, %v, %d full reboots; want %q", going, err, m.Reboots, c.want)
			}
		})
	}
}

// Where nobody knows whether the machine goes down, no full reboot is asked for on top.
func TestSoftRebootUnsure(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	m.Tune = func(o *install.Options) {
		o.SoftReboot = func([32]byte) error { return fmt.Errorf("%w: no answer", install.ErrUnsure) }
	}
	must(t, second(push(m.Core(), keys.Release(t, "1.1.0"))))
	if going, err := m.Core().Handler(agentUID).Reboot(true); !errors.Is(err, install.ErrUnsure) || m.Reboots != 0 {
		t.Errorf("goes down: %+v, %v, %d full reboots", going, err, m.Reboots)
	}
}

// deaf is a disk that cannot be read behind an offset.
type deaf struct {
	install.Disk
	from int64
}

func (d deaf) ReadAt(p []byte, off int64) (int, error) {
	if off >= d.from && off < d.Size()-1<<20 { // the partition table's copy is at the end
		return 0, errors.New("input/output error")
	}
	return d.Disk.ReadAt(p, off)
}

// The way back is a full reboot, whatever is asked for.
func TestWayBackIsFull(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := settled(t, keys)
	core := m.Core()
	must(t, core.Handler(0).Rollback(asked))
	going, err := core.Handler(agentUID).Reboot(true)
	must(t, err)
	if going.Soft || !strings.Contains(going.Why, "always a full reboot") || m.Reboots != 1 {
		t.Errorf("goes down: %+v, %d full reboots", going, m.Reboots)
	}
}

// A slot that the kernel still reads from is not written.
func TestHeldSlotIsNotWritten(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	var held []string
	var sick error
	m.Tune = func(o *install.Options) { o.Holders = func() ([]string, error) { return held, sick } }
	core := m.Core()
	before := m.World.Changes()
	held = []string{"dm-0"}
	if _, err := push(core, keys.Release(t, "1.1.0")); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "still in use (dm-0)") {
		t.Errorf("held: %v", err)
	}
	held, sick = nil, errors.New("no sysfs")
	if _, err := push(core, keys.Release(t, "1.1.0")); err == nil || !strings.Contains(err.Error(), "no sysfs") {
		t.Errorf("not known: %v", err)
	}
	equal(t, "changes", m.World.Changes(), before)
	sick = nil
	must(t, second(push(core, keys.Release(t, "1.1.0"))))
}
