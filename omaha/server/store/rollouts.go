package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
)

const (
	rolloutColumns = `rollouts.id, rollouts.app, rollouts.channel, rollouts.arch, rollouts.plan, rollouts.state, rollouts.since, rollouts.why, rollouts.who, rollouts.goes_on,
	rollouts.ramp, rollouts.stood, rollouts.counted, rollouts.base, rollouts.created_at, rollouts.created_by, ` + releaseColumns
	rolloutTables = `rollouts JOIN releases ON releases.id = rollouts.release JOIN files ON files.release = releases.id AND files.role = 'full'
	JOIN blobs ON blobs.sha256 = files.sha256`
)

func scanRollout(r *fleet.Rollout, scan func(...any) error) error {
	var plan, counted, base []byte
	var since, ramp, stood, created int64
	err := scanRelease(&r.Release, func(release ...any) error {
		return scan(append([]any{
			&r.ID, &r.App, &r.Channel, &r.Arch, &plan, &r.State, &since, &r.Why, &r.By, &r.Before, &ramp, &stood, &counted, &base, &created, &r.CreatedBy,
		}, release...)...)
	})
	if err != nil {
		return err
	}
	for _, part := range []struct {
		text []byte
		into any
	}{{plan, &r.Plan}, {counted, &r.Counted}, {base, &r.Base}} {
		if err := json.Unmarshal(part.text, part.into); err != nil {
			return err
		}
	}
	r.Version, r.Since, r.Created, r.Stood = r.Release.Version, fromMillis(since), fromMillis(created), time.Duration(stood)*time.Millisecond
	if ramp != 0 {
		r.Ramp = fromMillis(ramp)
	}
	return nil
}

// changing are a rollout's columns that change, in the order of AddRollout and PutRollout.
func changing(r *fleet.Rollout) ([]any, error) {
	counted, err := json.Marshal(r.Counted)
	if err != nil {
		return nil, err
	}
	base, err := json.Marshal(r.Base)
	if err != nil {
		return nil, err
	}
	ramp := int64(0)
	if !r.Ramp.IsZero() {
		ramp = millis(r.Ramp)
	}
	return []any{string(r.State), millis(r.Since), r.Why, r.By, string(r.Before), ramp, r.Stood.Milliseconds(), string(counted), string(base)}, nil
}

// AddRollout keeps a new rollout and gives it its ID.
func (tx Tx) AddRollout(ctx context.Context, r *fleet.Rollout) error {
	step := "add a rollout of " + r.Version
	plan, err := json.Marshal(r.Plan)
	if err != nil {
		return failed(step, err)
	}
	values, err := changing(r)
	if err != nil {
		return failed(step, err)
	}
	values = append(values, r.App, r.Channel, r.Arch, r.Release.ID, string(plan), millis(r.Created), r.CreatedBy)
	res, err := tx.q.ExecContext(ctx, `INSERT INTO rollouts (state, since, why, who, goes_on, ramp, stood, counted, base, app, channel, arch, release, plan, created_at, created_by)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, values...)
	if err != nil {
		return failed(step, err)
	}
	r.ID, err = res.LastInsertId()
	return failed(step, err)
}

// PutRollout keeps what changed of a rollout: its state and its counters.
func (tx Tx) PutRollout(ctx context.Context, r *fleet.Rollout) error {
	step := "keep the rollout of " + r.Version
	values, err := changing(r)
	if err != nil {
		return failed(step, err)
	}
	_, err = tx.q.ExecContext(ctx, `UPDATE rollouts SET state = ?, since = ?, why = ?, who = ?, goes_on = ?, ramp = ?, stood = ?, counted = ?, base = ? WHERE id = ?`,
		append(values, r.ID)...)
	return failed(step, err)
}

// Rollout returns one rollout, or ErrNotFound.
func (tx Tx) Rollout(ctx context.Context, id int64) (fleet.Rollout, error) {
	var r fleet.Rollout
	row := tx.q.QueryRowContext(ctx, "SELECT "+rolloutColumns+" FROM "+rolloutTables+" WHERE rollouts.id = ?", id)
	return r, failed("rollout", scanRollout(&r, row.Scan))
}

// OpenRollout returns the rollout that is not over in a channel, or ErrNotFound.
func (tx Tx) OpenRollout(ctx context.Context, app, channel, arch string) (fleet.Rollout, error) {
	var r fleet.Rollout
	row := tx.q.QueryRowContext(ctx, "SELECT "+rolloutColumns+" FROM "+rolloutTables+
		" WHERE rollouts.app = ? AND rollouts.channel = ? AND rollouts.arch = ? AND rollouts.state NOT IN ('aborted', 'done')", app, channel, arch)
	return r, failed("rollout in channel "+channel, scanRollout(&r, row.Scan))
}

// Rollouts lists an application's newest rollouts, newest first; open ones only where that is asked for, of all applications where app is empty.
func (tx Tx) Rollouts(ctx context.Context, app string, open bool, limit int) ([]fleet.Rollout, error) {
	where := " WHERE (?1 = '' OR rollouts.app = ?1)"
	if open {
		where += " AND rollouts.state NOT IN ('aborted', 'done')"
	}
	return list(ctx, tx.q, "list rollouts", scanRollout, "SELECT "+rolloutColumns+" FROM "+rolloutTables+where+" ORDER BY rollouts.id DESC LIMIT ?2", app, limit)
}

func scanStep(s *fleet.RolloutStep, scan func(...any) error) error {
	var since int64
	err := scan(&s.Machine, &s.Step, &s.Canary, &since, &s.Why)
	s.Since = fromMillis(since)
	return err
}

// RolloutStep returns how far a machine is with a rollout; the zero value but for its name if it has nothing to do with it yet.
func (tx Tx) RolloutStep(ctx context.Context, id int64, machine string) (fleet.RolloutStep, error) {
	steps, err := list(ctx, tx.q, "step of machine "+machine, scanStep,
		"SELECT machine, step, canary, since, why FROM rollout_steps WHERE rollout = ? AND machine = ?", id, machine)
	if err != nil || len(steps) == 0 {
		return fleet.RolloutStep{Machine: machine}, err
	}
	return steps[0], nil
}

// PutRolloutStep keeps how far a machine is. The rollout's counters change with it: in the same Write, by PutRollout.
func (tx Tx) PutRolloutStep(ctx context.Context, id int64, s *fleet.RolloutStep) error {
	_, err := tx.q.ExecContext(ctx, `INSERT INTO rollout_steps (rollout, machine, step, canary, since, why) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (rollout, machine) DO UPDATE SET step = excluded.step, canary = excluded.canary, since = excluded.since, why = excluded.why`,
		id, s.Machine, string(s.Step), s.Canary, millis(s.Since), s.Why)
	return failed("keep the step of machine "+s.Machine, err)
}

// StepsSince lists machines of a rollout that are at a step since before some time, the longest first.
func (tx Tx) StepsSince(ctx context.Context, id int64, step rollout.Step, before time.Time, limit int) ([]fleet.RolloutStep, error) {
	return list(ctx, tx.q, "list steps", scanStep, `SELECT machine, step, canary, since, why FROM rollout_steps
		WHERE rollout = ? AND step = ? AND step <> 'complete' AND since < ? ORDER BY since LIMIT ?`, id, string(step), millis(before), limit)
}

// FailedSteps lists the machines of a rollout that failed or fell silent since some time, the latest first.
func (tx Tx) FailedSteps(ctx context.Context, id int64, since time.Time, limit int) ([]fleet.RolloutStep, error) {
	return list(ctx, tx.q, "list failures", scanStep, `SELECT machine, step, canary, since, why FROM rollout_steps
		WHERE rollout = ? AND step IN ('failed', 'silent') AND step <> 'complete' AND since >= ? ORDER BY since DESC, machine LIMIT ?`, id, millis(since), limit)
}

// Canaries counts the machines of a rollout's canary group that follow its channel, were seen since some time, and could take its release or did.
func (tx Tx) Canaries(ctx context.Context, r *fleet.Rollout, seen time.Time) (n int64, err error) {
	err = tx.q.QueryRowContext(ctx, `SELECT count(*) FROM members JOIN machines ON machines.app = members.app AND machines.id = members.machine
		LEFT JOIN rollout_steps ON rollout_steps.rollout = ? AND rollout_steps.machine = members.machine
		WHERE members.app = ? AND members.grp = ? AND machines.channel = ? AND machines.arch = ? AND machines.last_seen >= ?
		AND (machines.version <> ? OR rollout_steps.step <> '')`,
		r.ID, r.App, r.Plan.Canary.Group, r.Channel, r.Arch, millis(seen), r.Version).Scan(&n)
	return n, failed("count canaries", err)
}

// CountMachines counts the machines of a channel.
func (tx Tx) CountMachines(ctx context.Context, app, channel, arch string) (n int64, err error) {
	return n, failed("count machines", tx.q.QueryRowContext(ctx, "SELECT count(*) FROM machines WHERE app = ? AND channel = ? AND arch = ?", app, channel, arch).Scan(&n))
}

// Lacking reports whether a machine that was seen since some time follows a rollout's channel, has not its release, and did not fail with it.
func (tx Tx) Lacking(ctx context.Context, r *fleet.Rollout, seen time.Time) (some bool, err error) {
	err = tx.q.QueryRowContext(ctx, `SELECT EXISTS (SELECT 1 FROM machines WHERE app = ?1 AND channel = ?2 AND arch = ?3 AND (version < ?4 OR version > ?4) AND last_seen >= ?5
		AND NOT EXISTS (SELECT 1 FROM rollout_steps WHERE rollout = ?6 AND machine = machines.id AND step IN ('failed', 'silent', 'complete')))`,
		r.App, r.Channel, r.Arch, r.Version, millis(seen), r.ID).Scan(&some)
	return some, failed("look for machines without "+r.Version, err)
}

// CountSteps counts a rollout's machines afresh: what its counters must be.
func (tx Tx) CountSteps(ctx context.Context, id int64) (rollout.Counters, error) {
	type row struct {
		step   rollout.Step
		canary bool
		n      int64
	}
	rows, err := list(ctx, tx.q, "count steps", func(r *row, scan func(...any) error) error { return scan(&r.step, &r.canary, &r.n) },
		"SELECT step, canary, count(*) FROM rollout_steps WHERE rollout = ? GROUP BY step, canary", id)
	var c rollout.Counters
	for _, r := range rows {
		for range r.n {
			c = c.Add(r.canary, rollout.None, r.step)
		}
	}
	return c, err
}
