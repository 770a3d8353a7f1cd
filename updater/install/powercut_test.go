package install_test

import (
	"fmt"
	"log/slog"
	"os"
	"testing"

	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/powercut"
)

// agentUID is the user of semperd in tests.
const agentUID = 990

var discard = slog.New(slog.DiscardHandler)

// The power fails at every single change that an update makes, from the first byte to the blessing, with several fates of what was not synced. Each
// time: whatever the boot loader could choose verifies to its root hash, what runs is untouched, and the update completes afterwards.
func TestPowerCutAtEveryChange(t *testing.T) {
	keys := installtest.NewKeys(t)
	r0, r1 := keys.Release(t, "1.0.0"), keys.Release(t, "1.1.0")
	r2 := keys.Make(t, installtest.Spec{Version: "1.2.0", RootSize: 96 << 10, ChunkSize: 32 << 10})
	base := installtest.NewMachine(t, keys, r0)
	_, err := push(base.Core(), r1)
	must(t, err)
	base.Boot(t)
	must(t, base.Core().Bless()) // 1.1.0 runs in slot B, 1.0.0 is its way back in slot A

	fates := map[string]powercut.Fate{"lost": powercut.Lost, "kept": powercut.Kept}
	seeds := uint64(1)
	if os.Getenv("SEMPER_SOAK") != "" {
		seeds = 40
	}
	total := 0
	for cut := 0; ; cut++ {
		finished := false
		for seed := range seeds {
			fates[fmt.Sprint("seed ", seed)] = powercut.Mixed(seed<<32 | uint64(cut))
		}
		for name, fate := range fates {
			total++
			m := base.Clone()
			before := m.Protected(t)
			m.World.CutAfter(cut)
			_, err := push(m.Core(), r2)
			finished = err == nil && !m.World.Off()
			m.World.Restore(fate)
			equal(t, fmt.Sprintf("cut after %d, %s: protected", cut, name), m.Protected(t), before)
			got := m.Boot(t).Version
			if err == nil && got != "1.2.0" {
				t.Fatalf("cut after %d, %s: success was reported, but %s boots", cut, name, got)
			}
			if got == "1.1.0" {
				if st := status(t, m.Core()); st.RolledBack != nil || st.Pending != nil {
					t.Fatalf("cut after %d, %s: status %+v", cut, name, st)
				}
				if _, err := push(m.Core(), r2); err != nil {
					t.Fatalf("cut after %d, %s: the update does not complete: %v", cut, name, err)
				}
				if got := m.Boot(t).Version; got != "1.2.0" {
					t.Fatalf("cut after %d, %s: %s boots after the update", cut, name, got)
				}
			} else if got != "1.2.0" {
				t.Fatalf("cut after %d, %s: %s boots", cut, name, got)
			}
			if !status(t, m.Core()).Trial {
				t.Fatalf("cut after %d, %s: no trial", cut, name)
			}
			if finished {
				blessCut(t, m, fate)
			}
			if t.Failed() {
				t.FailNow()
			}
		}
		if finished {
			t.Logf("%d changes, %d power cuts", cut, total)
			return
		}
	}
}

// blessCut cuts the power at every change of a blessing.
func blessCut(t *testing.T, base *installtest.Machine, fate powercut.Fate) {
	t.Helper()
	for cut := 0; ; cut++ {
		m := base.Clone()
		m.World.CutAfter(cut)
		err := m.Core().Bless()
		done := err == nil && !m.World.Off()
		m.World.Restore(fate)
		if got := m.Boot(t).Version; got != "1.2.0" {
			t.Fatalf("cut after %d of the blessing: %s boots", cut, got)
		}
		must(t, m.Core().Bless())
		st := status(t, m.Core())
		if st.Blessed == nil || st.Blessed.Version != "1.2.0" || st.Trial || st.RolledBack != nil {
			t.Fatalf("cut after %d of the blessing: status %+v", cut, st)
		}
		equal(t, "entries", m.Entries(), []string{"semper_1.1.0.efi", "semper_1.2.0.efi"})
		if done {
			return
		}
	}
}
