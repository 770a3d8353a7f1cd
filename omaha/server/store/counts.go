package store

import (
	"cmp"
	"context"
	"slices"

	"github.com/semper-os/semper/omaha/server/fleet"
)

// FleetCount is how many machines of a kind there are.
type FleetCount struct {
	Channel, Arch, Version string
	State                  fleet.State
	Machines               int64
}

// CountFleet returns how many machines an application has that are not retired.
func (tx Tx) CountFleet(ctx context.Context, app string) ([]FleetCount, error) {
	return list(ctx, tx.q, "count machines", func(c *FleetCount, scan func(...any) error) error {
		return scan(&c.Channel, &c.Arch, &c.Version, &c.State, &c.Machines)
	}, "SELECT channel, arch, version, state, n FROM machine_counts WHERE app = ? ORDER BY channel, arch, version, state", app)
}

// CountAfresh counts what CountFleet returns by going through all machines: what it must be.
func (tx Tx) CountAfresh(ctx context.Context, app string) ([]FleetCount, error) {
	return list(ctx, tx.q, "count machines", func(c *FleetCount, scan func(...any) error) error {
		return scan(&c.Channel, &c.Arch, &c.Version, &c.State, &c.Machines)
	}, `SELECT channel, arch, version, state, count(*) FROM machines WHERE app = ? AND retired_at = 0
		GROUP BY channel, arch, version, state ORDER BY channel, arch, version, state`, app)
}

// kind is what machines have in common that are counted together.
type kind struct {
	app, channel, arch, version string
	state                       fleet.State
}

// kinds collects by how many machines of each kind there are more or fewer.
type kinds map[kind]int64

func (k kinds) add(m *fleet.Machine, n int64) {
	if m != nil && m.ID != "" && m.Retired.IsZero() {
		k[kind{m.App, m.Channel, m.Arch, m.Version, m.State}] += n
	}
}

// keep changes the counts that CountFleet returns.
func (k kinds) keep(ctx context.Context, q queryer) error {
	var changed, fewer [][]any
	for key, n := range k {
		row := []any{key.app, key.channel, key.arch, key.version, string(key.state)}
		if n < 0 {
			fewer = append(fewer, row)
		}
		if n != 0 {
			changed = append(changed, append(slices.Clone(row), n))
		}
	}
	slices.SortFunc(changed, func(a, b []any) int { // the same writes are always in the same order
		for i := range 5 {
			if c := cmp.Compare(a[i].(string), b[i].(string)); c != 0 {
				return c
			}
		}
		return 0
	})
	err := q.many(ctx, `INSERT INTO machine_counts (app, channel, arch, version, state, n) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (app, channel, arch, version, state) DO UPDATE SET n = machine_counts.n + excluded.n`, changed)
	if err == nil {
		err = q.many(ctx, "DELETE FROM machine_counts WHERE app = ? AND channel = ? AND arch = ? AND version = ? AND state = ? AND n = 0", fewer)
	}
	return failed("count machines", err)
}
