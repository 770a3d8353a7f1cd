package store

import (
	"context"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
)

// MaxGroups bounds the groups of an application.
const MaxGroups = 1000

func scanGroup(g *fleet.Group, scan func(...any) error) error {
	var created int64
	err := scan(&g.App, &g.Name, &created, &g.Members)
	g.Created = fromMillis(created)
	return err
}

const groupColumns = "app, name, created_at, (SELECT count(*) FROM members WHERE members.app = machine_groups.app AND grp = name)"

// AddGroup makes a group; one that is there stays as it is.
func (tx Tx) AddGroup(ctx context.Context, app, name string, now time.Time) error {
	_, err := tx.q.exec(ctx, "INSERT INTO machine_groups (app, name, created_at) VALUES (?, ?, ?) ON CONFLICT (app, name) DO NOTHING", app, name, millis(now))
	return failed("add group "+name, err)
}

// DeleteGroup forgets a group and who belongs to it, and reports whether there was one.
func (tx Tx) DeleteGroup(ctx context.Context, app, name string) (bool, error) {
	n, err := tx.q.exec(ctx, "DELETE FROM machine_groups WHERE app = ? AND name = ?", app, name)
	return n > 0, failed("forget group "+name, err)
}

// Group returns one group, or ErrNotFound.
func (tx Tx) Group(ctx context.Context, app, name string) (fleet.Group, error) {
	var g fleet.Group
	row := tx.q.row(ctx, "SELECT "+groupColumns+" FROM machine_groups WHERE app = ? AND name = ?", app, name)
	return g, failed("group "+name, scanGroup(&g, row.Scan))
}

// Groups lists an application's groups by name.
func (tx Tx) Groups(ctx context.Context, app string) ([]fleet.Group, error) {
	return list(ctx, tx.q, "list groups", scanGroup, "SELECT "+groupColumns+" FROM machine_groups WHERE app = ? ORDER BY name", app)
}

// SetMember puts a machine into a group, out of the one that it was in; an empty name takes it out of any.
func (tx Tx) SetMember(ctx context.Context, app, machine, group string) error {
	var err error
	if group == "" {
		_, err = tx.q.exec(ctx, "DELETE FROM members WHERE app = ? AND machine = ?", app, machine)
	} else {
		_, err = tx.q.exec(ctx, "INSERT INTO members (app, machine, grp) VALUES (?, ?, ?) ON CONFLICT (app, machine) DO UPDATE SET grp = excluded.grp", app, machine, group)
	}
	return failed("put machine "+machine+" into a group", err)
}

// Members lists up to limit machines of a group, by id, from the first one after the id given.
func (tx Tx) Members(ctx context.Context, app, group, after string, limit int) ([]string, error) {
	return list(ctx, tx.q, "list the machines of group "+group, func(id *string, scan func(...any) error) error { return scan(id) },
		"SELECT machine FROM members WHERE app = ? AND grp = ? AND machine > ? ORDER BY machine LIMIT ?", app, group, after, limit)
}

// GroupsOf returns the groups of some machines, by machine; one that is in none is not there.
func (tx Tx) GroupsOf(ctx context.Context, app string, machines []string) (map[string]string, error) {
	type member struct{ machine, group string }
	members, err := lookUp(ctx, tx.q, "look up groups", func(m *member, scan func(...any) error) error { return scan(&m.machine, &m.group) },
		"SELECT machine, grp FROM members WHERE app = ? AND machine = ?", pairs(app, machines))
	out := map[string]string{}
	for _, m := range members {
		out[m.machine] = m.group
	}
	return out, err
}

func scanPin(p *fleet.Pin, scan func(...any) error) error {
	var at int64
	err := scan(&p.App, &p.Machine, &p.Version, &p.Why, &p.Who, &at)
	p.At = fromMillis(at)
	return err
}

// Pin returns a machine's pin, or nil.
func (tx Tx) Pin(ctx context.Context, app, machine string) (*fleet.Pin, error) {
	pins, err := list(ctx, tx.q, "pin of machine "+machine, scanPin, "SELECT app, machine, version, why, who, at FROM pins WHERE app = ? AND machine = ?", app, machine)
	if err != nil || len(pins) == 0 {
		return nil, err
	}
	return &pins[0], nil
}

// HasPins tells whether any machine of an application is pinned.
func (tx Tx) HasPins(ctx context.Context, app string) (some bool, err error) {
	return some, failed("look for pins", tx.q.row(ctx, "SELECT EXISTS (SELECT 1 FROM pins WHERE app = ?)", app).Scan(&some))
}

// PinsOf lists the pins of some machines.
func (tx Tx) PinsOf(ctx context.Context, app string, machines []string) ([]fleet.Pin, error) {
	return lookUp(ctx, tx.q, "look up pins", scanPin, "SELECT app, machine, version, why, who, at FROM pins WHERE app = ? AND machine = ?", pairs(app, machines))
}

// Pins lists up to limit pins of an application, by machine, from the first one after the id given.
func (tx Tx) Pins(ctx context.Context, app, after string, limit int) ([]fleet.Pin, error) {
	return list(ctx, tx.q, "list pins", scanPin, "SELECT app, machine, version, why, who, at FROM pins WHERE app = ? AND machine > ? ORDER BY machine LIMIT ?", app, after, limit)
}

// PutPin pins a machine, in place of what it was pinned to.
func (tx Tx) PutPin(ctx context.Context, p *fleet.Pin) error {
	_, err := tx.q.exec(ctx, `INSERT INTO pins (app, machine, version, why, who, at) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (app, machine) DO UPDATE SET version = excluded.version, why = excluded.why, who = excluded.who, at = excluded.at`,
		p.App, p.Machine, p.Version, p.Why, p.Who, millis(p.At))
	return failed("pin machine "+p.Machine, err)
}

// DeletePin frees a machine, and reports whether it was pinned.
func (tx Tx) DeletePin(ctx context.Context, app, machine string) (bool, error) {
	n, err := tx.q.exec(ctx, "DELETE FROM pins WHERE app = ? AND machine = ?", app, machine)
	return n > 0, failed("unpin machine "+machine, err)
}
