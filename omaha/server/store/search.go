package store

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
)

// Search says which machines are wanted; what is empty does not matter.
type Search struct {
	App     string
	Retired bool // those that do not count any more, instead of those that do

	Text     string // the beginning of an id, or else a part of an id, an alias or an address, in either case
	Version  string
	Channel  string
	Arch     string
	Group    string
	States   []fleet.State // any of them
	Platform string        // a part of it, in either case
	Silent   bool          // those that fell silent in a rollout under way

	SeenBefore time.Time // not seen since
	SeenSince  time.Time

	After string // the machine to begin behind
	Limit int
}

const (
	// searchRows bounds how many machines one search looks at: in a large fleet, what is rare takes several.
	searchRows = 40_000

	// maxSearchKinds is how many kinds of machines are looked through one beside the other; when there are more, all machines are.
	maxSearchKinds = 16
)

// SearchMachines lists machines by id. Next is where the search goes on, empty where it has come to its end; with few machines, or none, it may not have.
func (tx Tx) SearchMachines(ctx context.Context, s *Search) (found []fleet.Machine, next string, err error) {
	places, err := tx.searchPlaces(ctx, s)
	if err != nil {
		return nil, "", err
	}
	filter, filterArgs := s.filter()
	found = []fleet.Machine{}
	for _, p := range places {
		inner := p.from + " ORDER BY " + p.order + " LIMIT ?"
		args := slices.Concat(p.args, []any{searchRows / len(places)}, filterArgs, []any{s.Limit})
		some, err := list(ctx, tx.q, "search machines", scanMachine,
			"SELECT "+machineColumns+" FROM (SELECT machines.* FROM "+inner+") AS machines WHERE "+filter+" ORDER BY id LIMIT ?", args...)
		if err != nil {
			return nil, "", err
		}
		end := ""
		if len(some) == s.Limit {
			end = some[s.Limit-1].ID
		} else if end, err = tx.searchEnd(ctx, &p, searchRows/len(places)); err != nil {
			return nil, "", err
		}
		if end != "" && (next == "" || end < next) {
			next = end
		}
		found = append(found, some...)
	}
	slices.SortFunc(found, func(a, b fleet.Machine) int { return cmp.Compare(a.ID, b.ID) })
	if next != "" { // what lies behind is found again by the next search
		found = slices.DeleteFunc(found, func(m fleet.Machine) bool { return m.ID > next })
	}
	if len(found) > s.Limit {
		found = found[:s.Limit]
		next = found[s.Limit-1].ID
	}
	return found, next, nil
}

// searchPlace is a part of the table machines that can be read by id.
type searchPlace struct {
	from  string // tables and conditions
	order string // the column with the machine's id
	args  []any
}

// searchEnd is the last machine that a search of a place looks at, empty when it comes to the place's end.
func (tx Tx) searchEnd(ctx context.Context, p *searchPlace, rows int) (string, error) {
	last, err := list(ctx, tx.q, "search machines", func(id *string, scan func(...any) error) error { return scan(id) },
		"SELECT "+p.order+" FROM "+p.from+" ORDER BY "+p.order+" LIMIT 1 OFFSET ?", append(slices.Clone(p.args), rows-1)...)
	if err != nil || len(last) == 0 {
		return "", err
	}
	return last[0], nil
}

// searchPlaces are the smallest parts that an index leads to and that hold all machines wanted.
func (tx Tx) searchPlaces(ctx context.Context, s *Search) ([]searchPlace, error) {
	one := func(from string, args ...any) []searchPlace { return []searchPlace{{from, "machines.id", args}} }
	switch {
	case s.Group != "":
		return []searchPlace{{
			"members JOIN machines ON machines.app = members.app AND machines.id = members.machine WHERE members.app = ? AND members.grp = ? AND members.machine > ?",
			"members.machine",
			[]any{s.App, s.Group, s.After},
		}}, nil
	case s.Text != "":
		var some bool
		from, to := s.Text, s.Text+"\U0010ffff"
		if err := tx.q.row(ctx, "SELECT EXISTS (SELECT 1 FROM machines WHERE app = ? AND id >= ? AND id < ?)", s.App, from, to).Scan(&some); err != nil {
			return nil, failed("search machines", err)
		}
		if some {
			return one("machines WHERE app = ? AND id > ? AND id >= ? AND id < ?", s.App, s.After, from, to), nil
		}
	}
	switch {
	case s.Silent:
		return one("machines WHERE app = ? AND id > ? AND "+silentHere, s.App, s.After, s.App), nil
	case s.Retired:
		return one("machines INDEXED BY machines_retired WHERE app = ? AND retired_at <> 0 AND id > ?", s.App, s.After), nil
	case len(s.States) == 1 && s.States[0] == fleet.Failed:
		return one("machines INDEXED BY machines_failed WHERE app = ? AND state = 'failed' AND id > ?", s.App, s.After), nil
	case s.Version+s.Channel+s.Arch != "" || len(s.States) > 0:
		kinds, err := tx.searchKinds(ctx, s)
		if err != nil {
			return nil, err
		}
		if len(kinds) > maxSearchKinds {
			break
		}
		var places []searchPlace
		for _, k := range kinds {
			places = append(places, one("machines WHERE app = ? AND channel = ? AND arch = ? AND version = ? AND id > ?", s.App, k.Channel, k.Arch, k.Version, s.After)...)
		}
		return places, nil
	}
	return one("machines WHERE app = ? AND id > ?", s.App, s.After), nil
}

// silentHere is the condition that a machine fell silent in a rollout of an application that is not over. Few do: it stops before they are many.
const silentHere = `id IN (SELECT steps.machine FROM rollouts JOIN ` + allSteps + ` ON steps.rollout = rollouts.id
	WHERE rollouts.app = ? AND rollouts.state NOT IN ('aborted', 'done') AND steps.step = 'silent' AND steps.step <> 'complete')`

// searchKinds are the channels, architectures and versions of the machines wanted that are there.
func (tx Tx) searchKinds(ctx context.Context, s *Search) ([]FleetCount, error) {
	counts, err := tx.CountFleet(ctx, s.App)
	var out []FleetCount
	for _, c := range counts {
		if s.Version != "" && c.Version != s.Version || s.Channel != "" && c.Channel != s.Channel || s.Arch != "" && c.Arch != s.Arch || len(s.States) > 0 && !slices.Contains(s.States, c.State) {
			continue
		}
		c.State, c.Machines = "", 0
		if !slices.Contains(out, c) {
			out = append(out, c)
		}
	}
	return out, err
}

// filter is the condition that the machines wanted meet.
func (s *Search) filter() (string, []any) {
	conditions, args := []string{"retired_at = 0"}, []any{}
	if s.Retired {
		conditions[0] = "retired_at <> 0"
	}
	add := func(condition string, values ...any) {
		conditions = append(conditions, condition)
		args = append(args, values...)
	}
	for _, c := range []struct{ column, value string }{
		{"version", s.Version}, {"channel", s.Channel}, {"arch", s.Arch},
	} {
		if c.value != "" {
			add(c.column+" = ?", c.value)
		}
	}
	if len(s.States) > 0 {
		states := make([]any, len(s.States))
		for i, state := range s.States {
			states[i] = string(state)
		}
		add("state IN (?"+strings.Repeat(", ?", len(states)-1)+")", states...)
	}
	if s.Platform != "" {
		add(`lower(platform) LIKE ? ESCAPE '\'`, containing(s.Platform))
	}
	if s.Silent {
		add(silentHere, s.App)
	}
	if s.Text != "" {
		part := containing(s.Text)
		add(`(lower(id) LIKE ? ESCAPE '\' OR lower(alias) LIKE ? ESCAPE '\' OR address LIKE ? ESCAPE '\')`, part, part, part)
	}
	if !s.SeenBefore.IsZero() {
		add("last_seen < ?", millis(s.SeenBefore))
	}
	if !s.SeenSince.IsZero() {
		add("last_seen >= ?", millis(s.SeenSince))
	}
	return strings.Join(conditions, " AND "), args
}
