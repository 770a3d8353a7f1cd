package store

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
)

const machineColumns = `app, id, alias, arch, version, channel, boot_id, platform, first_version, address, state, state_since, target, detail,
	first_seen, last_seen, retired_at, events`

func scanMachine(m *fleet.Machine, scan func(...any) error) error {
	var since, first, last, retired int64
	if err := scan(&m.App, &m.ID, &m.Alias, &m.Arch, &m.Version, &m.Channel, &m.BootID, &m.Platform, &m.FirstVersion, &m.Address,
		&m.State, &since, &m.Target, &m.Detail, &first, &last, &retired, &m.Events); err != nil {
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
	row := tx.q.row(ctx, "SELECT "+machineColumns+" FROM machines WHERE app = ? AND id = ?", app, id)
	return m, failed("machine "+id, scanMachine(&m, row.Scan))
}

// Machines lists up to limit machines of an application, by id, from the first one after the id given: those that count, or those that are retired.
func (tx Tx) Machines(ctx context.Context, app, after string, retired bool, limit int) ([]fleet.Machine, error) {
	from := "machines WHERE retired_at = 0"
	if retired {
		from = "machines INDEXED BY machines_retired WHERE retired_at <> 0"
	}
	return list(ctx, tx.q, "list machines", scanMachine, "SELECT "+machineColumns+" FROM "+from+" AND app = ? AND id > ? ORDER BY id LIMIT ?", app, after, limit)
}

// MachinesByID returns those of some machines that are known.
func (tx Tx) MachinesByID(ctx context.Context, app string, ids []string) ([]fleet.Machine, error) {
	return lookUp(ctx, tx.q, "look up machines", scanMachine, "SELECT "+machineColumns+" FROM machines WHERE app = ? AND id = ?", pairs(app, ids))
}

// CountRetired counts the machines of an application that do not count any more.
func (tx Tx) CountRetired(ctx context.Context, app string) (n int64, err error) {
	return n, failed("count retired machines", tx.q.row(ctx, "SELECT count(*) FROM machines INDEXED BY machines_retired WHERE app = ? AND retired_at <> 0", app).Scan(&n))
}

// Quiet lists up to limit machines that count and were not seen since some time. It goes through all machines.
func (tx Tx) Quiet(ctx context.Context, before time.Time, limit int) ([]fleet.Machine, error) {
	return list(ctx, tx.q, "look for machines to retire", scanMachine, "SELECT "+machineColumns+" FROM machines WHERE retired_at = 0 AND last_seen < ? LIMIT ?", millis(before), limit)
}

// Retire marks those of some machines that are as they were listed, and returns how many there were. Nothing of them is forgotten, and one that asks again counts again.
func (tx Tx) Retire(ctx context.Context, machines []fleet.Machine, now time.Time) (retired int64, err error) {
	counts := kinds{}
	for i := range machines {
		m := &machines[i]
		n, err := tx.q.exec(ctx, `UPDATE machines SET retired_at = ? WHERE app = ? AND id = ? AND retired_at = 0 AND last_seen = ? AND channel = ? AND arch = ? AND version = ? AND state = ?`,
			millis(now), m.App, m.ID, millis(m.LastSeen), m.Channel, m.Arch, m.Version, string(m.State))
		if err != nil {
			return 0, failed("retire machines", err)
		}
		if retired += n; n > 0 {
			counts.add(m, -1)
		}
	}
	return retired, counts.keep(ctx, tx.q)
}

// Known is a machine as the database has it.
type Known struct {
	fleet.Machine
	Step      MachineStep // in the rollout that it is in; its Rollout is 0 when that is none
	lastEvent int64
}

// KnownMachines returns those of some machines that are known, for PutMachines.
func (tx Tx) KnownMachines(ctx context.Context, app string, ids []string) ([]Known, error) {
	return lookUp(ctx, tx.q, "look up machines", func(k *Known, scan func(...any) error) error {
		var since int64
		err := scanMachine(&k.Machine, func(into ...any) error {
			return scan(append(into, &k.lastEvent, &k.Step.Rollout, &k.Step.Step, &k.Step.Canary, &since, &k.Step.Why)...)
		})
		k.Step.Machine, k.Step.Since = k.ID, fromMillis(since)
		return err
	}, "SELECT "+machineColumns+", last_event, rollout, step, step_canary, step_since, step_why FROM machines WHERE app = ? AND id = ?", pairs(app, ids))
}

// Change is what becomes of a machine.
type Change struct {
	Before *Known         // as the same Write found it; nil, or without an ID, for one that was not known
	After  *fleet.Machine // it counts from now on
	Events []fleet.Event  // that it reports; After's number of events is with them
	Steps  []MachineStep  // in rollouts, that are other ones now; the rollouts' counters change with them: in the same Write, by CountRollout
}

// PutMachines adds machines and replaces what was known of them. No machine may be in the list twice. Each Before that is there is then as the database has it.
func (tx Tx) PutMachines(ctx context.Context, changes []Change) error {
	rows := make([]machineRow, len(changes))
	counts := kinds{}
	for i := range changes {
		c := &changes[i]
		r := &rows[i]
		if c.Before != nil {
			r.Known = *c.Before
			counts.add(&c.Before.Machine, -1)
		}
		r.before, r.Machine = r.Machine, *c.After
		r.Retired = time.Time{}
		counts.add(&r.Machine, 1)
	}
	if err := tx.addEvents(ctx, changes, rows); err != nil {
		return err
	}
	if err := tx.placeSteps(ctx, changes, rows); err != nil {
		return err
	}
	written := map[string][][]any{}
	for i := range rows {
		query, values := rows[i].write()
		written[query] = append(written[query], values)
	}
	for _, query := range slices.Sorted(maps.Keys(written)) {
		if err := tx.q.many(ctx, query, written[query]); err != nil {
			return failed("keep machines", err)
		}
	}
	for i := range changes {
		if b := changes[i].Before; b != nil {
			*b = rows[i].Known
		}
	}
	return counts.keep(ctx, tx.q)
}

// machineRow is a machine as it is to be written.
type machineRow struct {
	Known
	before  fleet.Machine
	stepped bool // Step is another one
}

// write is the statement that writes a row, with its arguments. It names no column that an index has and that stays as it was: the index is not touched then.
func (r *machineRow) write() (query string, values []any) {
	m := &r.Machine
	seen := millis(m.LastSeen)
	values = []any{m.Alias, m.BootID, m.Platform, m.FirstVersion, m.Address, string(m.State), millis(m.StateSince), m.Target, m.Detail, m.Events, r.lastEvent}
	set := ""
	add := func(columns string, more ...any) {
		set += columns
		values = append(values, more...)
	}
	fresh := r.before.ID == ""
	if fresh || !r.before.Retired.IsZero() {
		set += ", retired_at = 0"
	}
	if fresh || r.before.Arch != m.Arch || r.before.Version != m.Version || r.before.Channel != m.Channel {
		add(", arch = ?, version = ?, channel = ?", m.Arch, m.Version, m.Channel)
	}
	if fresh || r.stepped {
		s := &r.Step
		add(", rollout = ?, step = ?, step_canary = ?, step_since = ?, step_why = ?", s.Rollout, string(s.Step), flag(s.Canary), stepMillis(s), s.Why)
	}
	if fresh {
		return `INSERT INTO machines (alias, boot_id, platform, first_version, address, state, state_since, target, detail, events, last_event, arch, version, channel,
			rollout, step, step_canary, step_since, step_why, last_seen, app, id, first_seen, retired_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)`,
			append(values, seen, m.App, m.ID, millis(m.FirstSeen))
	}
	return `UPDATE machines SET alias = ?, boot_id = ?, platform = ?, first_version = ?, address = ?, state = ?, state_since = ?, target = ?, detail = ?, events = ?, last_event = ?` +
		set + `, last_seen = CASE WHEN last_seen > ? THEN last_seen ELSE ? END WHERE app = ? AND id = ?`, append(values, seen, seen, m.App, m.ID)
}

// AddFailure notes that a version failed on a machine, and forgets the oldest ones beyond MaxFailures.
func (tx Tx) AddFailure(ctx context.Context, app, id string, f *fleet.Failure) error {
	step := "keep a failed version of machine " + id
	if _, err := tx.q.exec(ctx, `INSERT INTO failed_versions (app, machine, version, at, code, reason, running)
		VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (app, machine, version) DO UPDATE SET at = excluded.at, code = excluded.code, reason = excluded.reason,
		running = excluded.running`,
		app, id, f.Version, millis(f.At), int64(f.Code), f.Reason, f.Running); err != nil {
		return failed(step, err)
	}
	_, err := tx.q.exec(ctx, `DELETE FROM failed_versions WHERE app = ?1 AND machine = ?2 AND version NOT IN
		(SELECT version FROM failed_versions WHERE app = ?1 AND machine = ?2 ORDER BY at DESC, version LIMIT ?3)`, app, id, MaxFailures)
	return failed(step, err)
}

const failureColumns = "version, at, code, reason, running"

func scanFailure(f *fleet.Failure, scan func(...any) error) error {
	var at int64
	err := scan(&f.Version, &at, &f.Code, &f.Reason, &f.Running)
	f.At = fromMillis(at)
	return err
}

// Failures lists the versions that failed on a machine, oldest first.
func (tx Tx) Failures(ctx context.Context, app, id string) ([]fleet.Failure, error) {
	return list(ctx, tx.q, "list failed versions of machine "+id, scanFailure,
		"SELECT "+failureColumns+" FROM failed_versions WHERE app = ? AND machine = ? ORDER BY at, version", app, id)
}

// MachineFailure is a version that failed on a machine.
type MachineFailure struct {
	Machine string
	fleet.Failure
}

// FailuresOf lists the versions that failed on some machines, oldest first.
func (tx Tx) FailuresOf(ctx context.Context, app string, ids []string) ([]MachineFailure, error) {
	return lookUp(ctx, tx.q, "look up failed versions", func(f *MachineFailure, scan func(...any) error) error {
		return scanFailure(&f.Failure, func(into ...any) error { return scan(append([]any{&f.Machine}, into...)...) })
	}, "SELECT machine, "+failureColumns+" FROM failed_versions WHERE app = ? AND machine = ? ORDER BY at, version", pairs(app, ids))
}

// ForgetFailures lets a machine have its failed versions again, and returns how many there were.
func (tx Tx) ForgetFailures(ctx context.Context, app, id string) (int64, error) {
	n, err := tx.q.exec(ctx, "DELETE FROM failed_versions WHERE app = ? AND machine = ?", app, id)
	return n, failed("forget failed versions of machine "+id, err)
}
