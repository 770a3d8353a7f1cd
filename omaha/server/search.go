package server

import (
	"context"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

func (s *Server) machines(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	search, err := searchOf(r, s.cfg.Now())
	if err != nil {
		return err
	}
	search.App = app.ID
	out, err := Machines(r.Context(), s.store.Read(), search)
	if err != nil {
		return err
	}
	return reply(w, out)
}

// searchOf is what a request wants to know.
func searchOf(r *http.Request, now time.Time) (*store.Search, error) {
	q := &store.Search{
		Version: query(r, "version", ""), Channel: query(r, "channel", ""), Arch: query(r, "arch", ""), Group: query(r, "group", ""),
		Platform: query(r, "platform", ""), After: query(r, "after", ""),
	}
	var err error
	if q.Limit, err = limitOf(r); err != nil {
		return nil, err
	}
	if q.Text, err = textOf(r); err != nil {
		return nil, err
	}
	if q.States, err = StatesOf(query(r, "state", "")); err != nil {
		return nil, err
	}
	for _, f := range []struct {
		name string
		into *bool
	}{{"retired", &q.Retired}, {"silent", &q.Silent}} {
		switch query(r, f.name, "") {
		case "", "0":
		case "1":
			*f.into = true
		default:
			return nil, fault.New(fault.Input, "%s: want 1, or nothing", f.name)
		}
	}
	for _, d := range []struct {
		name string
		into *time.Time
	}{{"silent_for", &q.SeenBefore}, {"seen_within", &q.SeenSince}} {
		if text := query(r, d.name, ""); text != "" {
			long, err := time.ParseDuration(text)
			if err != nil || long < 0 {
				return nil, fault.New(fault.Input, "%s %.40q: want a duration such as 48h", d.name, text)
			}
			*d.into = now.Add(-long)
		}
	}
	return q, nil
}

// StatesOf reads states with commas between them.
func StatesOf(text string) (out []fleet.State, err error) {
	if text == "" {
		return nil, nil
	}
	for word := range strings.SplitSeq(text, ",") {
		state := fleet.State(word)
		if !state.Valid() {
			return nil, fault.New(fault.Input, "state: there is no %.40q", word)
		}
		if !slices.Contains(out, state) {
			out = append(out, state)
		}
	}
	return out, nil
}

// Machines lists a page of machines.
func Machines(ctx context.Context, tx store.Tx, search *store.Search) (api.Machines, error) {
	machines, next, err := tx.SearchMachines(ctx, search)
	if err != nil {
		return api.Machines{}, err
	}
	out := api.Machines{Machines: []api.Machine{}, Next: next}
	for i := range machines {
		out.Machines = append(out.Machines, describeMachine(&machines[i]))
	}
	out.Total, err = total(ctx, tx, search)
	return out, err
}

// total is how many machines a search would find in all, where the machines' counts tell; else nil.
func total(ctx context.Context, tx store.Tx, q *store.Search) (*int64, error) {
	if q.Retired || q.Silent || q.Text+q.Group+q.Platform != "" || !q.SeenBefore.IsZero() || !q.SeenSince.IsZero() {
		return nil, nil
	}
	counts, err := tx.CountFleet(ctx, q.App)
	if err != nil {
		return nil, err
	}
	var n int64
	for _, c := range counts {
		if (q.Version == "" || q.Version == c.Version) && (q.Channel == "" || q.Channel == c.Channel) && (q.Arch == "" || q.Arch == c.Arch) && (len(q.States) == 0 || slices.Contains(q.States, c.State)) {
			n += c.Machines
		}
	}
	return &n, nil
}
