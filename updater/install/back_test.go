package install_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/powercut"
	"github.com/semper-os/semper/updater/wire"
)

const asked = "asked by a person"

// settled is a machine on 1.2.0 in slot B, blessed, with 1.1.0 in slot A.
func settled(t *testing.T, keys installtest.Keys) *installtest.Machine {
	t.Helper()
	m := trial(t, keys)
	must(t, m.Core().Bless())
	return m
}

func TestPersonGoesBackAndForth(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := settled(t, keys)
	protected := m.Protected(t)
	core := m.Core()
	if err := core.Handler(agentUID).Rollback(asked); !errors.Is(err, wire.ErrNotRoot) {
		t.Fatalf("semperd went back: %v", err)
	}
	if err := reboot(core.Handler(agentUID)); err == nil || m.Reboots != 0 {
		t.Fatalf("reboot: %v", err)
	}
	for range 2 { // twice is fine
		must(t, core.Handler(0).Rollback(asked))
	}
	equal(t, "entries", m.Entries(), []string{"semper_1.1.0+3-0.efi", "semper_1.2.0+0-0.efi"})
	equal(t, "protected", m.Protected(t), protected)
	st := status(t, core)
	if st.Pending == nil || !st.Pending.Back || st.Pending.Version != "1.1.0" || st.Trial || st.RolledBack != nil || !st.WayBack {
		t.Fatalf("armed: %+v", st)
	}
	if _, err := push(core, keys.Release(t, "1.3.0")); err == nil || !strings.Contains(err.Error(), "the next boot goes back to version 1.1.0") {
		t.Errorf("an update in the way of the way back: %v", err)
	}
	must(t, core.Bless()) // the boot's own service, late
	equal(t, "entries after a late blessing", m.Entries(), []string{"semper_1.1.0+3-0.efi", "semper_1.2.0+0-0.efi"})
	must(t, reboot(core.Handler(agentUID)))
	equal(t, "boot", m.Boot(t), installtest.Booted{Version: "1.1.0", Slot: "A", Entry: "semper_1.1.0+2-1.efi"})

	core = m.Core()
	st = status(t, core)
	if !st.Trial || !st.WayBack || st.RolledBack == nil || st.RolledBack.Version != "1.2.0" || st.RolledBack.Reason != asked || st.Pending != nil {
		t.Fatalf("gone back: %+v", st)
	}
	must(t, core.Bless())
	st = status(t, core)
	if st.Trial || st.RolledBack == nil || st.Blessed == nil || st.Blessed.Version != "1.1.0" || !st.Other.Bootable {
		t.Fatalf("settled: %+v", st)
	}
	equal(t, "entries", m.Entries(), []string{"semper_1.1.0.efi", "semper_1.2.0+0-0.efi"})
	equal(t, "boot", m.Boot(t).Version, "1.1.0")

	// And forth: the newer version needs only its tries, the older one stays the way back.
	core = m.Core()
	must(t, core.Handler(0).Rollback(asked))
	equal(t, "entries", m.Entries(), []string{"semper_1.1.0.efi", "semper_1.2.0+3-0.efi"})
	equal(t, "boot", m.Boot(t).Version, "1.2.0")
	must(t, m.Core().Bless())
	if st := status(t, m.Core()); st.RolledBack != nil || st.Trial {
		t.Errorf("status %+v", st)
	}
}

// What is gone back to is on trial too: when it does not come up, the version that was left on purpose is the way back of the way back.
func TestWayBackThatFails(t *testing.T) {
	keys := installtest.NewKeys(t)
	t.Run("crashes", func(t *testing.T) {
		m := settled(t, keys)
		must(t, m.Core().Handler(0).Rollback(asked))
		for range 3 {
			equal(t, "boot", m.Boot(t).Version, "1.1.0")
		}
		equal(t, "boot", m.Boot(t).Version, "1.2.0")
		core := m.Core()
		st := status(t, core)
		if !st.Trial || st.Pending != nil || st.RolledBack == nil || st.RolledBack.Version != "1.1.0" || !strings.Contains(st.RolledBack.Reason, "tried 3 times") {
			t.Fatalf("status %+v", st)
		}
		must(t, core.Bless())
		equal(t, "entries", m.Entries(), []string{"semper_1.1.0+0-3.efi", "semper_1.2.0.efi"})
		if err := core.Handler(0).Rollback(asked); err == nil || !strings.Contains(err.Error(), "was given up") {
			t.Errorf("gone back to what crashes: %v", err)
		}
	})
	t.Run("is not healthy", func(t *testing.T) {
		m := settled(t, keys)
		must(t, m.Core().Handler(0).Rollback(asked))
		m.Boot(t)
		went, err := m.Core().Rollback(sick)
		must(t, err)
		equal(t, "went", went, true)
		equal(t, "entries", m.Entries(), []string{"semper_1.1.0+0-1.efi", "semper_1.2.0.efi"})
		equal(t, "boot", m.Boot(t).Version, "1.2.0")
		// Both are sick: nothing goes to and fro.
		if went, err := m.Core().Rollback(sick); went || err == nil || m.Reboots != 1 {
			t.Errorf("went %v, %v, %d reboots", went, err, m.Reboots)
		}
		equal(t, "boot", m.Boot(t).Version, "1.2.0")
	})
	t.Run("the newer one is chosen in the menu", func(t *testing.T) {
		m := settled(t, keys)
		hash, image := m.Hash, m.Running
		must(t, m.Core().Handler(0).Rollback(asked))
		m.Boot(t)
		m.Hash, m.Running = hash, image
		must(t, m.Core().Bless())
		if st := status(t, m.Core()); st.Pending == nil || !st.Pending.Back || st.Trial {
			t.Errorf("status %+v", st)
		}
		equal(t, "boot", m.Boot(t).Version, "1.1.0")
	})
	t.Run("from a version on trial", func(t *testing.T) {
		m := trial(t, keys)
		must(t, m.Core().Handler(0).Rollback(asked))
		equal(t, "entries", m.Entries(), []string{"semper_1.1.0+3-0.efi", "semper_1.2.0+0-1.efi"})
		equal(t, "boot", m.Boot(t).Version, "1.1.0")
		if st := status(t, m.Core()); st.WayBack || !st.Trial {
			t.Errorf("status %+v", st)
		}
	})
}

func TestGoingBackIsRefused(t *testing.T) {
	keys := installtest.NewKeys(t)
	const sigA, rootA, verityA = 5 << 20, 2 << 20, 4 << 20
	for _, c := range []struct {
		name   string
		change func(m *installtest.Machine)
		want   string
	}{
		{"nothing there", func(m *installtest.Machine) {
			fresh := installtest.NewMachine(t, keys, keys.Release(t, "1.2.0"))
			*m = *fresh
		}, "slot B holds no version"},
		{"no entry", func(m *installtest.Machine) { must(t, m.ESP.Remove("semper_1.1.0.efi")) }, "has no boot entry"},
		{"given up", func(m *installtest.Machine) { must(t, m.ESP.Rename("semper_1.1.0.efi", "semper_1.1.0+0-3.efi")) }, "was given up"},
		{"an update waits", func(m *installtest.Machine) { must(t, second(push(m.Core(), keys.Release(t, "1.3.0")))) }, "holds version 1.3.0, which waits for its first boot"},
		{"signature gone", func(m *installtest.Machine) { must(t, second(m.Disk.WriteAt(make([]byte, 64<<10), sigA))) }, "signature"},
		{"first block damaged", func(m *installtest.Machine) { must(t, second(m.Disk.WriteAt([]byte("damage"), rootA+100))) }, "slot A"},
		{"hash tree damaged", func(m *installtest.Machine) { must(t, second(m.Disk.WriteAt(make([]byte, 8192), verityA))) }, "slot A"},
		{"older epoch", func(m *installtest.Machine) { m.Running.Epoch = 1 }, "it is of epoch 0, this machine is at epoch 1"},
		{"kernel that says another version", func(m *installtest.Machine) {
			other := keys.Make(t, installtest.Spec{Version: "1.1.0", Image: func(i *payload.Image) { i.Version = "1.1.0" }})
			m.ESP.Put("semper_1.1.0.efi", []byte(strings.ReplaceAll(string(other.UKI), "IMAGE_VERSION=1.1.0", "IMAGE_VERSION=1.0.5")))
		}, `IMAGE_VERSION is "1.0.5"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := settled(t, keys)
			c.change(m)
			entries, changes := m.Entries(), m.World.Changes()
			core := m.Core()
			err := core.Handler(0).Rollback(asked)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			if err := core.RollbackLater(sick); err == nil || m.Reboots != 0 {
				t.Errorf("by policy: %v", err)
			}
			equal(t, "entries", m.Entries(), entries)
			equal(t, "changes", m.World.Changes(), changes)
		})
	}
}

func second[T any](_ T, err error) error { return err }

// A session that has not written anything yet must not keep a person from going back; one that has, took the way back away.
func TestGoingBackDuringASession(t *testing.T) {
	keys := installtest.NewKeys(t)
	r := keys.Release(t, "1.3.0")
	b := wire.Begin{SHA256: r.SHA256Hex(), Size: int64(len(r.Payload)), Version: r.Version}
	m := settled(t, keys)
	core := m.Core()
	h := core.Handler(agentUID)
	must(t, second(h.Begin(b)))
	must(t, second(h.Data(r.Payload[:10])))
	must(t, core.Handler(0).Rollback(asked))
	_, err := h.Data(r.Payload[10:])
	if err == nil {
		err = h.Finish()
	}
	if err == nil || !strings.Contains(err.Error(), "somebody wants to go back") {
		t.Fatalf("the session went on: %v", err)
	}
	must(t, h.Abort())
	equal(t, "boot", m.Boot(t).Version, "1.1.0")

	m = settled(t, keys)
	core = m.Core()
	h = core.Handler(agentUID)
	must(t, second(h.Begin(b)))
	must(t, second(h.Data(r.Payload[:len(r.Payload)/2])))
	if err := core.Handler(0).Rollback(asked); err == nil || !strings.Contains(err.Error(), "being overwritten") {
		t.Fatalf("gone back: %v", err)
	}
	must(t, h.Abort())
	equal(t, "boot", m.Boot(t).Version, "1.2.0")
}

func TestPolicyGoesBackOnce(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := settled(t, keys)
	must(t, m.Core().RollbackLater(sick))
	equal(t, "reboots", m.Reboots, 0)
	equal(t, "entries", m.Entries(), []string{"semper_1.1.0+3-0.efi", "semper_1.2.0+0-0.efi"})
	equal(t, "boot", m.Boot(t).Version, "1.1.0")
	st := status(t, m.Core())
	if st.RolledBack == nil || st.RolledBack.Check != "50-db" || st.RolledBack.Output == "" {
		t.Fatalf("status %+v", st)
	}
	must(t, m.Core().Bless())
	// The older one gets sick later, too: the newer one was left for the same reason.
	if err := m.Core().RollbackLater(sick); !fault.Is(err, fault.Verification) || !strings.Contains(err.Error(), "was left on purpose") {
		t.Fatalf("error %v", err)
	}
	// A person tries the newer one again. It gets sick later again: once is enough.
	must(t, m.Core().Handler(0).Rollback(asked))
	equal(t, "boot", m.Boot(t).Version, "1.2.0")
	must(t, m.Core().Bless())
	if err := m.Core().RollbackLater(sick); !fault.Is(err, fault.Verification) || !strings.Contains(err.Error(), "was left for its health before") {
		t.Fatalf("error %v", err)
	}
	equal(t, "boot", m.Boot(t).Version, "1.2.0")
	// On trial it is given up as ever.
	m = trial(t, keys)
	must(t, m.Core().RollbackLater(&health.Result{Checks: sick.Checks}))
	equal(t, "reboots", m.Reboots, 1)
	equal(t, "boot", m.Boot(t).Version, "1.1.0")
}

// The power fails at every change of going back: the newer version boots and finishes it, or the older one does.
func TestGoingBackSurvivesPowerCuts(t *testing.T) {
	keys := installtest.NewKeys(t)
	base := settled(t, keys)
	for cut := 0; ; cut++ {
		var done bool
		for i, fate := range []powercut.Fate{powercut.Lost, powercut.Kept, powercut.Mixed(1), powercut.Mixed(2), powercut.Mixed(3)} {
			m := base.Clone()
			before := m.Protected(t)
			m.World.CutAfter(cut)
			err := m.Core().RollbackLater(sick)
			done = err == nil && !m.World.Off()
			m.World.Restore(fate)
			equal(t, fmt.Sprintf("cut after %d, fate %d: protected", cut, i), m.Protected(t), before)
			got := m.Boot(t).Version
			if done && got != "1.1.0" {
				t.Fatalf("cut after %d: success was reported, but %s boots", cut, got)
			}
			if got == "1.2.0" {
				// Nothing happened yet, or it is wanted: then it is done at the next boot. Either way a blessing of this boot spoils nothing.
				st := status(t, m.Core())
				must(t, m.Core().Bless())
				if st.Trial {
					t.Fatalf("cut after %d, fate %d: %+v", cut, i, st)
				}
				if st.Pending == nil {
					must(t, m.Core().Handler(0).Rollback(asked)) // the policy's one time may be used up
				}
				got = m.Boot(t).Version
			}
			equal(t, fmt.Sprintf("cut after %d, fate %d: boot", cut, i), got, "1.1.0")
			must(t, m.Core().Bless())
			if st := status(t, m.Core()); st.RolledBack == nil || st.RolledBack.Version != "1.2.0" || st.Trial || st.Pending != nil {
				t.Fatalf("cut after %d, fate %d: %+v", cut, i, st)
			}
		}
		if t.Failed() {
			t.FailNow()
		}
		if done {
			t.Logf("%d changes", cut)
			return
		}
	}
}
