package agent_test

import (
	"testing"

	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/install/installtest"
)

// Whoever hears of a download, or that it is being installed, hears of which version and how large, from the first word to the last; and of nothing afterwards.
func TestProgressGoesWithItsState(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(payload []byte)
		last   agent.StateName
	}{
		{"installed", func([]byte) {}, agent.StatePending},
		{"refused", func(p []byte) { p[len(p)/2] ^= 1 }, agent.StateIdle},
	} {
		t.Run(c.name, func(t *testing.T) {
			keys := installtest.NewKeys(t)
			h := newHost(t, keys, "1.0.0")
			h.settings.Reboot.Strategy = config.RebootOff
			seen := map[agent.StateName]int{}
			h.publish = func(r agent.Report) {
				seen[r.State]++
				busy := r.State == agent.StateDownloading || r.State == agent.StateInstalling
				if p := r.Progress; busy && (p == nil || p.Version != "1.1.0" || p.Total != int64(len(h.fleet.offer.Payload))) || !busy && p != nil {
					t.Errorf("%s with progress %+v", r.State, p)
				}
			}
			h.newAgent()
			to := keys.Release(t, "1.1.0")
			c.damage(to.Payload)
			h.offer(to)
			h.step()
			if r := h.agent.Report(); r.State != c.last || seen[c.last] == 0 || seen[agent.StateDownloading] == 0 {
				t.Errorf("state %s, reports %v", r.State, seen)
			}
		})
	}
}

// An agent that is started anew on a machine on which nothing happens tells what runs there.
func TestFirstLookIsTold(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := still(t, keys, "1.0.0")
	h.step()
	var told []agent.Report
	h.publish = func(r agent.Report) { told = append(told, r) }
	h.newAgent()
	h.step()
	if len(told) == 0 || told[len(told)-1].Version != "1.0.0" || told[len(told)-1].Slot != "A" {
		t.Fatalf("told %+v", told)
	}
	n := len(told)
	h.step()
	equal(t, "reports of a step without news", len(told)-n, 0)
}
