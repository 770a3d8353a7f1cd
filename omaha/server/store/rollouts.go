package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
)

const (
	rolloutColumns = `rollouts.id, rollouts.app, rollouts.channel, rollouts.arch, rollouts.plan, rollouts.state, rollouts.since, rollouts.why, rollouts.who, rollouts.goes_on,
	rollouts.ramp, rollouts.stood, rollouts.counted, rollouts.base, rollouts.created_at, rollouts.created_by, ` + releaseColumns
	rolloutTables = `rollouts JOIN releases ON releases.id = rollouts.release JOIN files ON files.release = releases.id AND files.role = 'full'`
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
	return failed(step, tx.q.row(ctx, `INSERT INTO rollouts (state, since, why, who, goes_on, ramp, stood, counted, base, app, channel, arch, release, plan, created_at, created_by)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) RETURNING id`, values...).Scan(&r.ID))
}

// PutRollout keeps what changed of a rollout: its state and its counters.
func (tx Tx) PutRollout(ctx context.Context, r *fleet.Rollout) error {
	step := "keep the rollout of " + r.Version
	values, err := changing(r)
	if err != nil {
		return failed(step, err)
	}
	_, err = tx.q.exec(ctx, `UPDATE rollouts SET state = ?, since = ?, why = ?, who = ?, goes_on = ?, ramp = ?, stood = ?, counted = ?, base = ? WHERE id = ?`,
		append(values, r.ID)...)
	return failed(step, err)
}

// CountRollout keeps a rollout's counters, which is all that changed of it.
func (tx Tx) CountRollout(ctx context.Context, r *fleet.Rollout) error {
	counted, err := json.Marshal(r.Counted)
	if err == nil {
		_, err = tx.q.exec(ctx, "UPDATE rollouts SET counted = ? WHERE id = ?", string(counted), r.ID)
	}
	return failed("count the machines of the rollout of "+r.Version, err)
}

// Rollout returns one rollout, or ErrNotFound.
func (tx Tx) Rollout(ctx context.Context, id int64) (fleet.Rollout, error) {
	var r fleet.Rollout
	row := tx.q.row(ctx, "SELECT "+rolloutColumns+" FROM "+rolloutTables+" WHERE rollouts.id = ?", id)
	return r, failed("rollout", scanRollout(&r, row.Scan))
}

// OpenRollout returns the rollout that is not over in a channel, or ErrNotFound.
func (tx Tx) OpenRollout(ctx context.Context, app, channel, arch string) (fleet.Rollout, error) {
	var r fleet.Rollout
	row := tx.q.row(ctx, "SELECT "+rolloutColumns+" FROM "+rolloutTables+
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

// free is the condition that a machine is not pinned, and did not fail with a version.
func free(version string) string {
	return `NOT EXISTS (SELECT 1 FROM pins WHERE pins.app = machines.app AND pins.machine = machines.id)
	AND NOT EXISTS (SELECT 1 FROM failed_versions WHERE failed_versions.app = machines.app AND failed_versions.machine = machines.id AND failed_versions.version = ` + version + `)`
}

// Canaries counts the machines of a rollout's canary group that follow its channel, were seen since some time, run one of the versions, and are free; and those
// that it was given to already.
func (tx Tx) Canaries(ctx context.Context, r *fleet.Rollout, versions []string, seen time.Time) (n int64, err error) {
	err = tx.q.row(ctx, `SELECT count(*) FROM members JOIN machines ON machines.app = members.app AND machines.id = members.machine
		LEFT JOIN rollout_steps ON rollout_steps.rollout = ?1 AND rollout_steps.machine = members.machine
		WHERE members.app = ?2 AND members.grp = ?3 AND machines.channel = ?4 AND machines.arch = ?5 AND (machines.rollout = ?1 AND machines.step <> '' OR rollout_steps.step <> '' OR machines.version IN (SELECT value FROM json_each(?6))
		AND machines.last_seen >= ?7 AND `+free("?8")+`)`,
		r.ID, r.App, r.Plan.Canary.Group, r.Channel, r.Arch, inOne(versions), millis(seen), r.Version).Scan(&n)
	return n, failed("count canaries", err)
}

// maxVersions bounds how many versions the machines of one channel are asked for.
const maxVersions = 5000

// Versions lists the versions that a channel's machines run.
func (tx Tx) Versions(ctx context.Context, app, channel, arch string) ([]string, error) {
	return list(ctx, tx.q, "list versions", func(v *string, scan func(...any) error) error { return scan(v) },
		"SELECT DISTINCT version FROM machine_counts WHERE app = ? AND channel = ? AND arch = ? ORDER BY version LIMIT ?", app, channel, arch, maxVersions)
}

// CountMachines counts the machines of a channel that are not retired.
func (tx Tx) CountMachines(ctx context.Context, app, channel, arch string) (n int64, err error) {
	return n, failed("count machines", tx.q.row(ctx, "SELECT coalesce(sum(n), 0) FROM machine_counts WHERE app = ? AND channel = ? AND arch = ?", app, channel, arch).Scan(&n))
}

// Lacking reports whether a machine of a rollout's channel waits for its release: it was seen since some time, runs one of the versions, is free, and neither failed
// in the rollout nor has it.
func (tx Tx) Lacking(ctx context.Context, r *fleet.Rollout, versions []string, seen time.Time) (some bool, err error) {
	for _, v := range versions {
		err := tx.q.row(ctx, `SELECT EXISTS (SELECT 1 FROM machines WHERE app = ?1 AND channel = ?2 AND arch = ?3 AND version = ?4 AND last_seen >= ?5
			AND `+free("?6")+`
			AND NOT (rollout = ?7 AND step IN ('failed', 'silent', 'complete'))
			AND NOT EXISTS (SELECT 1 FROM rollout_steps WHERE rollout = ?7 AND machine = machines.id AND step IN ('failed', 'silent', 'complete')))`,
			r.App, r.Channel, r.Arch, v, millis(seen), r.Version, r.ID).Scan(&some)
		if err != nil || some {
			return some, failed("look for machines without "+r.Version, err)
		}
	}
	return false, nil
}
