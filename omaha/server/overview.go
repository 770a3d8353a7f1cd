package server

import (
	"cmp"
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

const (
	overviewMachines = 10
	overviewVersions = 200
	freshnessWarning = 3 * 24 * time.Hour // before a statement expires
)

func (s *Server) overview(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	out, err := Overview(r.Context(), s.store.Read(), app.ID, s.cfg.Now())
	if err != nil {
		return err
	}
	return reply(w, out)
}

// Overview tells how the fleet of an application is. It reads counts that are kept, and a few machines.
func Overview(ctx context.Context, tx store.Tx, app string, now time.Time) (api.Overview, error) {
	out := api.Overview{
		Attention: []api.Attention{}, Rollouts: []api.Rollout{}, States: []api.StateCount{}, Versions: []api.VersionCount{}, Failed: []api.Machine{}, Silent: []api.Machine{},
	}
	counts, err := tx.CountFleet(ctx, app)
	if err != nil {
		return out, err
	}
	failed := countOverview(&out, counts)
	if out.Retired, err = tx.CountRetired(ctx, app); err != nil {
		return out, err
	}
	open, err := tx.Rollouts(ctx, app, true, api.MaxPage)
	if err != nil {
		return out, err
	}
	for i := range open {
		r := &open[i]
		out.Rollouts = append(out.Rollouts, DescribeRollout(r, r.Reached(now)))
		if err := overviewRollout(ctx, tx, &out, r); err != nil {
			return out, err
		}
	}
	if failed > 0 {
		attend(&out, "failed-machines", "low", "/machines?state=failed", "the last update of %s failed", machinesWord(failed))
		machines, _, err := tx.SearchMachines(ctx, &store.Search{App: app, States: []fleet.State{fleet.Failed}, Limit: overviewMachines})
		if err != nil {
			return out, err
		}
		for i := range machines {
			out.Failed = append(out.Failed, describeMachine(&machines[i]))
		}
	}
	if err := overviewFreshness(ctx, tx, &out, app, now); err != nil {
		return out, err
	}
	releases, err := tx.Releases(ctx, app)
	if err == nil && len(releases) == 0 {
		attend(&out, "no-release", "low", "/releases", "nothing was published yet")
	}
	slices.SortStableFunc(out.Attention, func(a, b api.Attention) int { return cmp.Compare(a.Severity, b.Severity) }) // high comes before low
	return out, err
}

// rolloutPage is a rollout's page in the console.
func rolloutPage(id int64) string { return fmt.Sprintf("/rollouts/%d", id) }

func machinesWord(n int64) string {
	if n == 1 {
		return "1 machine"
	}
	return fmt.Sprintf("%d machines", n)
}

func countOverview(out *api.Overview, counts []store.FleetCount) (failed int64) {
	states, versions := map[fleet.State]int64{}, map[api.VersionCount]int64{}
	for _, c := range counts {
		out.Machines += c.Machines
		states[c.State] += c.Machines
		versions[api.VersionCount{Channel: c.Channel, Arch: c.Arch, Version: c.Version}] += c.Machines
	}
	for state, n := range states {
		out.States = append(out.States, api.StateCount{State: string(state), Machines: n})
	}
	for v, n := range versions {
		v.Machines = n
		out.Versions = append(out.Versions, v)
	}
	slices.SortFunc(out.States, func(a, b api.StateCount) int { return cmp.Compare(a.State, b.State) })
	slices.SortFunc(out.Versions, func(a, b api.VersionCount) int {
		return cmp.Or(cmp.Compare(a.Channel, b.Channel), cmp.Compare(a.Arch, b.Arch), cmp.Compare(b.Machines, a.Machines), cmp.Compare(a.Version, b.Version))
	})
	out.Versions = out.Versions[:min(len(out.Versions), overviewVersions)]
	return states[fleet.Failed]
}

// overviewRollout says what of a rollout needs a person.
func overviewRollout(ctx context.Context, tx store.Tx, out *api.Overview, r *fleet.Rollout) error {
	link := rolloutPage(r.ID)
	switch r.State {
	case rollout.Halted:
		gist, _, _ := strings.Cut(r.Why, ": ") // all machines are on its page
		last, err := tx.FailedSteps(ctx, r.ID, r.Created, 1)
		if err != nil {
			return err
		}
		if len(last) > 0 && last[0].Why != "" {
			gist += ". The last: " + last[0].Why
		}
		attend(out, "halted-rollout", "high", link, "the rollout of %s in channel %s stopped itself: %s", r.Version, r.Channel, gist)
	case rollout.Paused:
		attend(out, "paused-rollout", "low", link, "the rollout of %s in channel %s is paused", r.Version, r.Channel)
	}
	if r.Counted.All.Silent == 0 {
		return nil
	}
	attend(out, "silent-machines", "high", link, "%s fell silent with %s in channel %s", machinesWord(r.Counted.All.Silent), r.Version, r.Channel)
	steps, err := tx.FailedSteps(ctx, r.ID, r.Created, api.MaxPage)
	if err != nil {
		return err
	}
	var ids []string
	for _, s := range steps {
		if s.Step == rollout.Silent && len(ids)+len(out.Silent) < overviewMachines {
			ids = append(ids, s.Machine)
		}
	}
	machines, err := tx.MachinesByID(ctx, r.App, ids)
	for i := range machines {
		out.Silent = append(out.Silent, describeMachine(&machines[i]))
	}
	return err
}

// overviewFreshness warns of statements that are about to expire: machines would complain then.
func overviewFreshness(ctx context.Context, tx store.Tx, out *api.Overview, app string, now time.Time) error {
	all, err := tx.AllFreshness(ctx)
	for i := range all {
		f := &all[i]
		if f.App != app || f.Expires.Sub(now) > freshnessWarning {
			continue
		}
		severity, is := "low", "expires on"
		if !f.Expires.After(now) {
			severity, is = "high", "expired on"
		}
		attend(out, "stale-freshness", severity, "/channels", "the freshness statement of channel %s for %s %s %s", f.Channel, f.Arch, is, f.Expires.UTC().Format(time.RFC3339))
	}
	return err
}

func attend(out *api.Overview, kind, severity, link, sentence string, args ...any) {
	out.Attention = append(out.Attention, api.Attention{Kind: kind, Severity: severity, Sentence: fmt.Sprintf(sentence, args...), Link: link})
}
