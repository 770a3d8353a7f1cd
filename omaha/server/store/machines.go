package store

import (
	"context"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
)

const machineColumns = `app, id, alias, arch, version, channel, boot_id, platform, first_version, address, state, state_since, target, detail,
	first_seen, last_seen, retired_at`

func scanMachine(m *fleet.Machine, scan func(...any) error) error {
	var since, first, last, retired int64
	if err := scan(&m.App, &m.ID, &m.Alias, &m.Arch, &m.Version, &m.Channel, &m.BootID, &m.Platform, &m.FirstVersion, &m.Address,
		&m.State, &since, &m.Target, &m.Detail, &first, &last, &retired); err != nil {
		return err
	}
	m.StateSince, m.FirstSeen, m.LastSeen = fromMillis(since), fromMillis(first), fromMillis(last)
	if retired != 0 {
		m.Retired = fromMillis(retired)
	}
	return nil
}

// Machine returns one machine, or ErrNotFound.
func (tx Tx) Machine(ctx context.Context, app, id string) (fleet.Machine, error) {
	var m fleet.Machine
	row := tx.q.QueryRowContext(ctx, "SELECT "+machineColumns+" FROM machines WHERE app = ? AND id = ?", app, id)
	return m, failed("machine "+id, scanMachine(&m, row.Scan))
}

// Machines lists up to limit machines of an application, by id, from the first one after the id given: those that count, or those that are retired.
func (tx Tx) Machines(ctx context.Context, app, after string, retired bool, limit int) ([]fleet.Machine, error) {
	return list(ctx, tx.q, "list machines", scanMachine,
		"SELECT "+machineColumns+" FROM machines WHERE app = ? AND id > ? AND (retired_at <> 0) = ? ORDER BY id LIMIT ?", app, after, retired, limit)
}

// Retire marks up to limit machines that were not seen since some time, and returns how many there were. Nothing of them is forgotten, and one that asks again counts again.
func (tx Tx) Retire(ctx context.Context, before, now time.Time, limit int) (int64, error) {
	res, err := tx.q.ExecContext(ctx, `UPDATE machines SET retired_at = ? WHERE (app, id) IN
		(SELECT app, id FROM machines WHERE retired_at = 0 AND last_seen < ? LIMIT ?)`, millis(now), millis(before), limit)
	if err != nil {
		return 0, failed("retire machines", err)
	}
	n, err := res.RowsAffected()
	return n, failed("retire machines", err)
}

// PutMachine adds a machine or replaces what was known of it. It counts from now on.
func (tx Tx) PutMachine(ctx context.Context, m *fleet.Machine) error {
	_, err := tx.q.ExecContext(ctx, `INSERT INTO machines (`+machineColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)
		ON CONFLICT (app, id) DO UPDATE SET alias = excluded.alias, arch = excluded.arch, version = excluded.version, channel = excluded.channel,
		boot_id = excluded.boot_id, platform = excluded.platform, first_version = excluded.first_version, address = excluded.address,
		state = excluded.state, state_since = excluded.state_since, target = excluded.target, detail = excluded.detail,
		last_seen = max(last_seen, excluded.last_seen), retired_at = 0`,
		m.App, m.ID, m.Alias, m.Arch, m.Version, m.Channel, m.BootID, m.Platform, m.FirstVersion, m.Address,
		string(m.State), millis(m.StateSince), m.Target, m.Detail, millis(m.FirstSeen), millis(m.LastSeen))
	return failed("keep machine "+m.ID, err)
}

// AddEvent keeps an event of a machine, and forgets the oldest ones beyond MaxEvents.
func (tx Tx) AddEvent(ctx context.Context, app, id string, e *fleet.Event) error {
	step := "keep an event of machine " + id
	if _, err := tx.q.ExecContext(ctx, `INSERT INTO events (app, machine, at, type, result, code, version, previous_version, next_version, reason)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`,
		app, id, millis(e.At), int(e.Type), int(e.Result), int64(e.ErrorCode), e.Version, e.PreviousVersion, e.NextVersion, e.Reason); err != nil {
		return failed(step, err)
	}
	_, err := tx.q.ExecContext(ctx, `DELETE FROM events WHERE app = ?1 AND machine = ?2 AND id <=
		(SELECT id FROM events WHERE app = ?1 AND machine = ?2 ORDER BY id DESC LIMIT 1 OFFSET ?3)`, app, id, MaxEvents)
	return failed(step, err)
}

// Events lists the events of a machine, oldest first.
func (tx Tx) Events(ctx context.Context, app, id string) ([]fleet.Event, error) {
	return list(ctx, tx.q, "list events of machine "+id, func(e *fleet.Event, scan func(...any) error) error {
		var at int64
		err := scan(&at, &e.Type, &e.Result, &e.ErrorCode, &e.Version, &e.PreviousVersion, &e.NextVersion, &e.Reason)
		e.At = fromMillis(at)
		return err
	}, `SELECT at, type, result, code, version, previous_version, next_version, reason FROM events
		WHERE app = ? AND machine = ? ORDER BY id`, app, id)
}

// AddFailure notes that a version failed on a machine, and forgets the oldest ones beyond MaxFailures.
func (tx Tx) AddFailure(ctx context.Context, app, id string, f *fleet.Failure) error {
	step := "keep a failed version of machine " + id
	if _, err := tx.q.ExecContext(ctx, `INSERT INTO failed_versions (app, machine, version, at, code, reason, running)
		VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (app, machine, version) DO UPDATE SET at = excluded.at, code = excluded.code, reason = excluded.reason,
		running = excluded.running`,
		app, id, f.Version, millis(f.At), int64(f.Code), f.Reason, f.Running); err != nil {
		return failed(step, err)
	}
	_, err := tx.q.ExecContext(ctx, `DELETE FROM failed_versions WHERE app = ?1 AND machine = ?2 AND version NOT IN
		(SELECT version FROM failed_versions WHERE app = ?1 AND machine = ?2 ORDER BY at DESC, version LIMIT ?3)`, app, id, MaxFailures)
	return failed(step, err)
}

// Failures lists the versions that failed on a machine, oldest first.
func (tx Tx) Failures(ctx context.Context, app, id string) ([]fleet.Failure, error) {
	return list(ctx, tx.q, "list failed versions of machine "+id, func(f *fleet.Failure, scan func(...any) error) error {
		var at int64
		err := scan(&f.Version, &at, &f.Code, &f.Reason, &f.Running)
		f.At = fromMillis(at)
		return err
	}, "SELECT version, at, code, reason, running FROM failed_versions WHERE app = ? AND machine = ? ORDER BY at, version", app, id)
}

// ForgetFailures lets a machine have its failed versions again, and returns how many there were.
func (tx Tx) ForgetFailures(ctx context.Context, app, id string) (int64, error) {
	res, err := tx.q.ExecContext(ctx, "DELETE FROM failed_versions WHERE app = ? AND machine = ?", app, id)
	if err != nil {
		return 0, failed("forget failed versions of machine "+id, err)
	}
	n, err := res.RowsAffected()
	return n, failed("forget failed versions of machine "+id, err)
}

// FleetCount is how many machines of a kind there are.
type FleetCount struct {
	Channel, Arch, Version string
	State                  fleet.State
	Machines               int64
}

// CountFleet counts an application's machines that are not retired.
func (tx Tx) CountFleet(ctx context.Context, app string) ([]FleetCount, error) {
	return list(ctx, tx.q, "count machines", func(c *FleetCount, scan func(...any) error) error {
		return scan(&c.Channel, &c.Arch, &c.Version, &c.State, &c.Machines)
	}, `SELECT channel, arch, version, state, count(*) FROM machines WHERE app = ? AND retired_at = 0
		GROUP BY channel, arch, version, state ORDER BY channel, arch, version, state`, app)
}
