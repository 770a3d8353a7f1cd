package server

import (
	"cmp"
	"context"
	"maps"
	"net/http"
	"slices"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

const (
	chartPoints = 300 // of a chart at most, about
	chartSeries = 12  // versions that are told apart
	otherSeries = "other"

	// Samples of a rollout come more seldom the older it is, so that there are never too many.
	rolloutSampleEvery = time.Minute
	rolloutSamples     = 500
)

// chartSteps are how far the points of a chart may be apart.
var chartSteps = []time.Duration{store.SampleEvery, time.Hour, 2 * time.Hour, 3 * time.Hour, 6 * time.Hour, 12 * time.Hour, 24 * time.Hour}

// sample counts machines for charts, when it is time to.
func (s *Server) sample(ctx context.Context) error {
	now := s.cfg.Now().UTC()
	at := now.Truncate(store.SampleEvery)
	apps, err := s.store.Read().Applications(ctx)
	if err != nil {
		return err
	}
	for _, app := range apps {
		switch last, err := s.store.Read().LastSample(ctx, app.ID); {
		case err != nil:
			return err
		case !last.Before(at):
			continue
		}
		err := s.store.Write(ctx, func(tx store.Tx) error {
			if err := tx.AddSample(ctx, app.ID, at); err != nil {
				return err
			}
			_, err := tx.ForgetSamples(ctx, app.ID, now)
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// sampleRollout notes how far a rollout is, when it is time to.
func sampleRollout(ctx context.Context, tx store.Tx, r *fleet.Rollout, moved bool, now time.Time) error {
	if r.State == rollout.Draft {
		return nil
	}
	last, err := tx.LastRolloutSample(ctx, r.ID)
	if err != nil {
		return err
	}
	if every := max(rolloutSampleEvery, now.Sub(r.Created)/rolloutSamples); !moved && now.Sub(last) < every {
		return nil
	}
	c := r.Counted.All
	return tx.AddRolloutSample(ctx, r.ID, &store.RolloutSample{At: now, Reached: r.Reached(now), Updating: c.InFlight, Complete: c.Complete, Failed: c.Bad()})
}

func (s *Server) versionChart(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	to := s.cfg.Now().UTC()
	from := to.Add(-7 * 24 * time.Hour)
	for _, t := range []struct {
		name string
		into *time.Time
	}{{"to", &to}, {"from", &from}} {
		if text := query(r, t.name, ""); text != "" {
			if *t.into, err = time.Parse(time.RFC3339, text); err != nil {
				return fault.New(fault.Input, "%s %.40q: want a time such as 2026-01-31T12:00:00Z", t.name, text)
			}
		}
	}
	if from.After(to) {
		return fault.New(fault.Input, "from is after to")
	}
	out, err := VersionChart(r.Context(), s.store.Read(), app.ID, query(r, "channel", ""), query(r, "arch", ""), from, to)
	if err != nil {
		return err
	}
	return reply(w, out)
}

// VersionChart tells how many machines ran each version from one time to another, of one channel and architecture where they are not empty.
func VersionChart(ctx context.Context, tx store.Tx, app, channel, arch string, from, to time.Time) (api.Chart, error) {
	step := chartSteps[len(chartSteps)-1]
	for _, s := range chartSteps {
		if to.Sub(from) <= chartPoints*s {
			step = s
			break
		}
	}
	samples, err := tx.Samples(ctx, app, channel, arch, from, to, step)
	out := api.Chart{Times: []time.Time{}, Series: []api.Series{}}
	if err != nil {
		return out, err
	}
	most := map[string]int64{}
	for _, s := range samples {
		most[s.Version] = max(most[s.Version], s.Machines)
		if n := len(out.Times); n == 0 || !out.Times[n-1].Equal(s.At) {
			out.Times = append(out.Times, s.At)
		}
	}
	versions := slices.SortedFunc(maps.Keys(most), func(a, b string) int { return cmp.Or(cmp.Compare(most[b], most[a]), cmp.Compare(a, b)) })
	index := map[string]int{}
	for i, v := range versions {
		if i >= chartSeries {
			v = otherSeries
		}
		index[versions[i]] = min(i, chartSeries)
		if i <= chartSeries {
			out.Series = append(out.Series, api.Series{Version: v, Machines: make([]int64, len(out.Times))})
		}
	}
	at := 0
	for _, s := range samples {
		for !out.Times[at].Equal(s.At) {
			at++
		}
		out.Series[index[s.Version]].Machines[at] += s.Machines
	}
	return out, nil
}

func (s *Server) progress(w http.ResponseWriter, r *http.Request) error {
	id, err := rolloutID(r)
	if err != nil {
		return err
	}
	tx := s.store.Read()
	ro, err := tx.Rollout(r.Context(), id)
	if err != nil {
		return err
	}
	machines, err := tx.CountMachines(r.Context(), ro.App, ro.Channel, ro.Arch)
	if err != nil {
		return err
	}
	samples, err := tx.RolloutSamples(r.Context(), id)
	if err != nil {
		return err
	}
	out := api.Progress{Machines: machines, Times: []time.Time{}, Reached: []float64{}, Updating: []int64{}, Complete: []int64{}, Failed: []int64{}}
	for _, p := range samples {
		out.Times, out.Reached = append(out.Times, p.At), append(out.Reached, p.Reached)
		out.Updating, out.Complete, out.Failed = append(out.Updating, p.Updating), append(out.Complete, p.Complete), append(out.Failed, p.Failed)
	}
	return reply(w, out)
}
