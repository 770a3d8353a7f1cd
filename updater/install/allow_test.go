package install_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/powercut"
	"github.com/semper-os/semper/updater/wire"
)

func TestAllowedDowngrade(t *testing.T) {
	keys := installtest.NewKeys(t)
	old := keys.Release(t, "1.0.5")
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.2.0"))
	core := m.Core()
	if err := core.Handler(agentUID).Allow("1.0.5"); !errors.Is(err, wire.ErrNotRoot) {
		t.Fatalf("semperd allowed it: %v", err)
	}
	if _, err := push(core, old); payload.ReasonOf(err) != payload.OldVersion {
		t.Fatalf("error %v", err)
	}
	must(t, core.Handler(0).Allow("1.0.5"))
	equal(t, "allowed", status(t, core).Allowed, &wire.Allowed{Version: "1.0.5", Until: installtest.Start.Add(time.Hour)})
	if _, err := push(core, keys.Release(t, "1.0.6")); payload.ReasonOf(err) != payload.OldVersion {
		t.Errorf("another old version: %v", err)
	}
	protected := m.Protected(t)
	must(t, second(push(m.Core(), old))) // in a new process too
	equal(t, "protected", m.Protected(t), protected)
	equal(t, "entries", m.Entries(), []string{"semper_1.0.5+3-0.efi", "semper_1.2.0+0-0.efi"})
	equal(t, "state", slices.Sorted(maps.Keys(m.State.Files())), []string{"pending.json", "written.json"})
	core = m.Core()
	st := status(t, core)
	if st.Pending == nil || !st.Pending.Back || st.Trial || st.Allowed != nil {
		t.Fatalf("status %+v", st)
	}
	must(t, reboot(core.Handler(agentUID)))
	equal(t, "boot", m.Boot(t).Version, "1.0.5")
	must(t, m.Core().Bless())
	equal(t, "boot", m.Boot(t).Version, "1.0.5")
	// From there the machine goes forward again.
	must(t, second(push(m.Core(), keys.Release(t, "1.2.1"))))
	equal(t, "entries", m.Entries(), []string{"semper_1.0.5.efi", "semper_1.2.1+3-0.efi"})
	equal(t, "boot", m.Boot(t).Version, "1.2.1")
}

func TestDowngradeThatFailsGoesForward(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.2.0"))
	must(t, m.Core().Handler(0).Allow("1.0.5"))
	must(t, second(push(m.Core(), keys.Release(t, "1.0.5"))))
	equal(t, "boot", m.Boot(t).Version, "1.0.5")
	went, err := m.Core().Rollback(sick)
	must(t, err)
	equal(t, "went", went, true)
	equal(t, "boot", m.Boot(t).Version, "1.2.0")
	st := status(t, m.Core())
	if st.Trial || st.RolledBack == nil || st.RolledBack.Version != "1.0.5" {
		t.Errorf("status %+v", st)
	}
}

func TestAllowEnds(t *testing.T) {
	keys := installtest.NewKeys(t)
	old := keys.Release(t, "1.0.5")
	for _, c := range []struct {
		name   string
		change func(m *installtest.Machine)
		ok     bool
	}{
		{"after 59 minutes", func(m *installtest.Machine) { m.Now = m.Now.Add(59 * time.Minute) }, true},
		{"after an hour", func(m *installtest.Machine) { m.Now = m.Now.Add(time.Hour) }, false},
		{"with a clock set back", func(m *installtest.Machine) { m.Now = m.Now.Add(-time.Second) }, false},
		{"in another boot", func(m *installtest.Machine) { m.Boot(t) }, false},
		{"from another version", func(m *installtest.Machine) { m.Running.Version = "1.3.0" }, false},
		{"damaged", func(m *installtest.Machine) { m.State.Put("allow.json", []byte("{")) }, false},
		{"at another epoch", func(m *installtest.Machine) { m.Running.Epoch = 1 }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := installtest.NewMachine(t, keys, keys.Release(t, "1.2.0"))
			must(t, m.Core().Handler(0).Allow("1.0.5"))
			c.change(m)
			_, err := push(m.Core(), old)
			if c.ok {
				must(t, err)
				return
			}
			if payload.ReasonOf(err) != payload.OldVersion {
				t.Errorf("error %v", err)
			}
			equal(t, "entries", m.Entries(), []string{"semper_1.2.0.efi"})
			if _, ok := m.State.Files()["allow.json"]; ok && m.Running.Epoch == 0 {
				t.Error("the record is still there")
			}
		})
	}
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.2.0"))
	for version, want := range map[string]string{"1.2.0": "is not older", "1.3.0": "is not older", "../x": "version", "": "version", strings.Repeat("1", 65): "version"} {
		if err := m.Core().Handler(0).Allow(version); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("allow %q: %v", version, err)
		}
	}
	// A higher epoch of an older version would leave the newer one behind for good.
	must(t, m.Core().Handler(0).Allow("1.0.5"))
	_, err := push(m.Core(), keys.Make(t, installtest.Spec{Version: "1.0.5", Image: func(i *payload.Image) { i.Epoch = 1 }}))
	if payload.ReasonOf(err) != payload.OldVersion || !strings.Contains(err.Error(), "has to keep epoch 0") {
		t.Errorf("error %v", err)
	}
}

// The power fails at every change of a downgrade: the newer version boots until the older one is whole, and it is then the one that boots.
func TestDowngradeSurvivesPowerCuts(t *testing.T) {
	keys := installtest.NewKeys(t)
	old := keys.Make(t, installtest.Spec{Version: "1.0.5", RootSize: 96 << 10, ChunkSize: 64 << 10})
	base := installtest.NewMachine(t, keys, keys.Release(t, "1.2.0"))
	must(t, base.Core().Handler(0).Allow("1.0.5"))
	for cut := 0; ; cut++ {
		var done bool
		for i, fate := range []powercut.Fate{powercut.Lost, powercut.Kept, powercut.Mixed(uint64(cut))} {
			m := base.Clone()
			before := m.Protected(t)
			m.World.CutAfter(cut)
			_, err := push(m.Core(), old)
			done = err == nil && !m.World.Off()
			m.World.Restore(fate)
			equal(t, fmt.Sprintf("cut after %d, fate %d: protected", cut, i), m.Protected(t), before)
			got := m.Boot(t).Version
			if err == nil && got != "1.0.5" {
				t.Fatalf("cut after %d, fate %d: success was reported, but %s boots", cut, i, got)
			}
			if got == "1.2.0" {
				st := status(t, m.Core())
				must(t, m.Core().Bless())
				if st.Pending == nil {
					must(t, m.Core().Handler(0).Allow("1.0.5"))
					must(t, second(push(m.Core(), old)))
				}
				got = m.Boot(t).Version
			}
			equal(t, fmt.Sprintf("cut after %d, fate %d: boot", cut, i), got, "1.0.5")
			if t.Failed() {
				t.FailNow()
			}
		}
		if done {
			t.Logf("%d changes", cut)
			return
		}
	}
}
