package server

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

const (
	// gaugesFor is how long what was counted is told again: to count a large fleet takes time, and several may ask.
	gaugesFor = 30 * time.Second

	// maxVersionSeries bounds the versions of one channel that are told apart; the others are "other".
	maxVersionSeries = 30
)

// gauges is what the fleet looked like when it was counted last.
type gauges struct {
	mu   sync.Mutex
	at   time.Time
	text []byte
}

// serveGauges writes how many machines there are, by channel and version and by state, and how far rollouts are.
func (s *Server) serveGauges(ctx context.Context, w io.Writer) error {
	g := &s.gauges
	g.mu.Lock()
	defer g.mu.Unlock()
	now := s.cfg.Now()
	if g.text == nil || now.Sub(g.at) >= gaugesFor || now.Before(g.at) {
		text, err := countFleet(ctx, s.store.Read())
		if err != nil {
			return err
		}
		g.at, g.text = now, text
	}
	_, _ = w.Write(g.text) // who left does not miss it
	return nil
}

type gauge struct {
	name, help string
	lines      []string
}

func (g *gauge) add(value int64, format string, labels ...any) {
	g.lines = append(g.lines, fmt.Sprintf("%s{"+format+"} %d\n", append(append([]any{g.name}, labels...), value)...))
}

func countFleet(ctx context.Context, tx store.Tx) ([]byte, error) {
	machines := gauge{name: "semper_server_machines", help: "Machines that count, by channel and the version that they run."}
	states := gauge{name: "semper_server_machine_states", help: "Machines that count, by how far they are with an update."}
	rollouts := gauge{name: "semper_server_rollout_machines", help: "Machines of a rollout that is not over, by how far they are with it."}
	state := gauge{name: "semper_server_rollout_state", help: "1 for the state that a rollout which is not over is in."}
	apps, err := tx.Applications(ctx)
	if err != nil {
		return nil, err
	}
	for _, app := range apps {
		counts, err := tx.CountFleet(ctx, app.ID)
		if err != nil {
			return nil, err
		}
		addMachines(&machines, app.Name, counts)
		addStates(&states, app.Name, counts)
		open, err := tx.Rollouts(ctx, app.ID, true, maxOpenRollouts)
		if err != nil {
			return nil, err
		}
		for i := range open {
			r := &open[i]
			label := fmt.Sprintf("app=%q,rollout=\"%d\",channel=%q,arch=%q,version=%q", app.Name, r.ID, r.Channel, r.Arch, r.Version)
			c := &r.Counted.All
			for _, step := range []struct {
				name string
				n    int64
			}{{"in-flight", c.InFlight}, {"complete", c.Complete}, {"failed", c.Failed}, {"silent", c.Silent}} {
				rollouts.add(step.n, "%s,step=%q", label, step.name)
			}
			state.add(1, "%s,state=%q", label, string(r.State))
		}
	}
	var out []byte
	for _, g := range []gauge{machines, states, rollouts, state} {
		if len(g.lines) == 0 {
			continue
		}
		out = fmt.Appendf(out, "# HELP %s %s\n# TYPE %s gauge\n", g.name, g.help, g.name)
		for _, l := range g.lines {
			out = append(out, l...)
		}
	}
	return out, nil
}

// addMachines adds one series for each of a channel's commonest versions.
func addMachines(g *gauge, app string, counts []store.FleetCount) {
	type place struct{ channel, arch string }
	type version struct {
		name string
		n    int64
	}
	all := map[place]map[string]int64{}
	for _, c := range counts {
		p := place{c.Channel, c.Arch}
		if all[p] == nil {
			all[p] = map[string]int64{}
		}
		all[p][c.Version] += c.Machines
	}
	var places []place
	for p := range all {
		places = append(places, p)
	}
	slices.SortFunc(places, func(a, b place) int {
		return cmp.Or(cmp.Compare(a.channel, b.channel), cmp.Compare(a.arch, b.arch))
	})
	for _, p := range places[:min(len(places), maxVersionSeries)] { // a channel is whatever a machine says
		var versions []version
		for name, n := range all[p] {
			versions = append(versions, version{name, n})
		}
		slices.SortFunc(versions, func(a, b version) int { return cmp.Or(cmp.Compare(b.n, a.n), cmp.Compare(a.name, b.name)) })
		var other int64
		for i, v := range versions {
			if i >= maxVersionSeries {
				other += v.n
				continue
			}
			g.add(v.n, "app=%q,channel=%q,arch=%q,version=%q", app, p.channel, p.arch, v.name)
		}
		if other > 0 {
			g.add(other, "app=%q,channel=%q,arch=%q,version=\"other\"", app, p.channel, p.arch)
		}
	}
}

func addStates(g *gauge, app string, counts []store.FleetCount) {
	states := map[fleet.State]int64{}
	for _, c := range counts {
		states[c.State] += c.Machines
	}
	for _, st := range []fleet.State{fleet.Unknown, fleet.Granted, fleet.Downloading, fleet.Downloaded, fleet.Installed, fleet.Complete, fleet.Failed} {
		if n := states[st]; n > 0 {
			g.add(n, "app=%q,state=%q", app, string(st))
		}
	}
}
