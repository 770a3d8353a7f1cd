package store

import (
	"context"
	"slices"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
)

func scanStep(s *fleet.RolloutStep, scan func(...any) error) error {
	var since int64
	err := scan(&s.Machine, &s.Step, &s.Canary, &since, &s.Why)
	s.Since = fromMillis(since)
	return err
}

// MachineStep is how far a machine is with a rollout.
type MachineStep struct {
	Rollout int64
	fleet.RolloutStep
}

// A machine's step is kept with the machine, whose row changes with it anyway, as long as the rollout is the one that the machine is in: until it is over, and another one gives
// it a release. The table rollout_steps has the few others: of rollouts under way in channels that the machine left, or came to, meanwhile, and failures in rollouts that are
// over. No step is in both places.

// allSteps are the steps in both places, with what is known of their machines.
const allSteps = `(SELECT rollout, id AS machine, step, step_canary AS canary, step_since AS since, step_why AS why, version, last_seen FROM machines WHERE rollout <> 0
	UNION ALL SELECT rollout_steps.rollout, rollout_steps.machine, rollout_steps.step, rollout_steps.canary, rollout_steps.since, rollout_steps.why, machines.version, machines.last_seen
	FROM rollout_steps JOIN rollouts ON rollouts.id = rollout_steps.rollout JOIN machines ON machines.app = rollouts.app AND machines.id = rollout_steps.machine) AS steps`

// stepMillis is when a machine came to a step, as it is kept.
func stepMillis(s *MachineStep) int64 {
	if s.Since.IsZero() {
		return 0
	}
	return millis(s.Since)
}

// RolloutSteps lists how far some machines of an application are with a rollout; those that have nothing to do with it are not in the list.
func (tx Tx) RolloutSteps(ctx context.Context, app string, id int64, machines []string) ([]MachineStep, error) {
	here, err := lookUp(ctx, tx.q, "look up steps of machines", scanMachineStep,
		"SELECT rollout, id, step, step_canary, step_since, step_why FROM machines WHERE app = ? AND id = ?", pairs(app, machines))
	if err != nil {
		return nil, err
	}
	here = slices.DeleteFunc(here, func(s MachineStep) bool { return s.Rollout != id })
	others, err := tx.OtherSteps(ctx, id, machines)
	return append(here, others...), err
}

func scanMachineStep(s *MachineStep, scan func(...any) error) error {
	return scanStep(&s.RolloutStep, func(into ...any) error { return scan(append([]any{&s.Rollout}, into...)...) })
}

// OtherSteps lists how far some machines are with a rollout that is not the one they are in.
func (tx Tx) OtherSteps(ctx context.Context, id int64, machines []string) ([]MachineStep, error) {
	var some bool
	if err := tx.q.row(ctx, "SELECT EXISTS (SELECT 1 FROM rollout_steps WHERE rollout = ?)", id).Scan(&some); err != nil || !some {
		return nil, failed("look up steps of machines", err)
	}
	return lookUp(ctx, tx.q, "look up steps of machines", scanMachineStep,
		"SELECT rollout, machine, step, canary, since, why FROM rollout_steps WHERE rollout = ? AND machine = ?", pairs(id, machines))
}

// placeSteps puts the steps of changes into their machines' rows, or keeps them beside.
func (tx Tx) placeSteps(ctx context.Context, changes []Change, rows []machineRow) error {
	p := stepPlaces{tx: tx, over: map[int64]bool{}, beside: map[int64]map[string]bool{}}
	var beside []MachineStep
	for i := range changes {
		r := &rows[i]
		for _, s := range changes[i].Steps {
			s.Machine = r.ID
			if s.Rollout != r.Step.Rollout {
				free, err := p.free(ctx, r, s.Rollout, changes)
				if err != nil {
					return err
				}
				if !free {
					beside = append(beside, s)
					continue
				}
				if r.Step.Step == rollout.Failed || r.Step.Step == rollout.Silent {
					beside = append(beside, r.Step)
				}
			}
			r.Step, r.stepped = s, true
		}
	}
	values := make([][]any, len(beside))
	for i := range beside {
		s := &beside[i]
		values[i] = []any{s.Rollout, s.Machine, string(s.Step), flag(s.Canary), stepMillis(s), s.Why}
	}
	return failed("keep steps of machines", tx.q.many(ctx, `INSERT INTO rollout_steps (rollout, machine, step, canary, since, why) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (rollout, machine) DO UPDATE SET step = excluded.step, canary = excluded.canary, since = excluded.since, why = excluded.why`, values))
}

// stepPlaces knows where steps are that are not in a machine's row.
type stepPlaces struct {
	tx     Tx
	over   map[int64]bool            // rollouts; another one is not known
	beside map[int64]map[string]bool // machines by rollout
}

// free tells whether a machine's row can take its step in another rollout than the one there.
func (p *stepPlaces) free(ctx context.Context, r *machineRow, id int64, changes []Change) (bool, error) {
	if p.beside[id] == nil {
		p.beside[id] = map[string]bool{}
		ids := make([]string, len(changes))
		for i := range changes {
			ids[i] = changes[i].After.ID
		}
		steps, err := p.tx.OtherSteps(ctx, id, ids)
		if err != nil {
			return false, err
		}
		for _, s := range steps {
			p.beside[id][s.Machine] = true
		}
	}
	if p.beside[id][r.ID] {
		return false, nil
	}
	there := r.Step.Rollout
	if there == 0 || r.Step.Step == rollout.None {
		return true, nil
	}
	over, known := p.over[there]
	if !known {
		if err := p.tx.q.row(ctx, "SELECT NOT EXISTS (SELECT 1 FROM rollouts WHERE id = ? AND state NOT IN ('aborted', 'done'))", there).Scan(&over); err != nil {
			return false, failed("look whether a rollout is over", err)
		}
		p.over[there] = over
	}
	return over, nil
}

// MoveSteps keeps that machines of an application are further with rollouts, where they were known to be with them. The rollouts' counters change with them: in the same Write.
func (tx Tx) MoveSteps(ctx context.Context, app string, steps []MachineStep) error {
	here, beside := make([][]any, len(steps)), make([][]any, len(steps))
	for i := range steps {
		s := &steps[i]
		values := []any{string(s.Step), flag(s.Canary), stepMillis(s), s.Why}
		here[i] = append(slices.Clone(values), app, s.Machine, s.Rollout)
		beside[i] = append(values, s.Rollout, s.Machine)
	}
	err := tx.q.many(ctx, "UPDATE machines SET step = ?, step_canary = ?, step_since = ?, step_why = ? WHERE app = ? AND id = ? AND rollout = ?", here)
	if err == nil {
		err = tx.q.many(ctx, "UPDATE rollout_steps SET step = ?, canary = ?, since = ?, why = ? WHERE rollout = ? AND machine = ?", beside)
	}
	return failed("keep steps of machines", err)
}

const selectSteps = "SELECT machine, step, canary, since, why FROM " + allSteps

// QuietSteps lists machines of a rollout that are at a step since before some time and were not seen since then either, the longest first.
func (tx Tx) QuietSteps(ctx context.Context, id int64, step rollout.Step, before time.Time, limit int) ([]fleet.RolloutStep, error) {
	return list(ctx, tx.q, "list silent machines", scanStep, selectSteps+" WHERE rollout = ? AND step = ? AND step <> 'complete' AND since < ? AND last_seen < ? ORDER BY since LIMIT ?",
		id, string(step), millis(before), millis(before), limit)
}

// RunningSteps lists machines of a rollout that are at a step, and were seen with its release for so long after they came to it.
func (tx Tx) RunningSteps(ctx context.Context, r *fleet.Rollout, step rollout.Step, long time.Duration, limit int) ([]fleet.RolloutStep, error) {
	return list(ctx, tx.q, "list machines with "+r.Version, scanStep, selectSteps+" WHERE rollout = ? AND step = ? AND step <> 'complete' AND version = ? AND last_seen - since >= ? ORDER BY since LIMIT ?",
		r.ID, string(step), r.Version, long.Milliseconds(), limit)
}

// ForgetSteps deletes up to limit steps beside those in machines' rows, of rollouts that were over before some time, but for failures, and returns how many there were.
func (tx Tx) ForgetSteps(ctx context.Context, before time.Time, limit int) (int64, error) {
	n, err := tx.q.exec(ctx, `DELETE FROM rollout_steps WHERE (rollout, machine) IN (SELECT rollout, machine FROM rollout_steps
		WHERE rollout IN (SELECT id FROM rollouts WHERE state IN ('aborted', 'done') AND since < ?) AND step NOT IN ('failed', 'silent') LIMIT ?)`, millis(before), limit)
	return n, failed("forget steps of old rollouts", err)
}

// FailedSteps lists the machines of a rollout that failed or fell silent since some time, the latest first.
func (tx Tx) FailedSteps(ctx context.Context, id int64, since time.Time, limit int) ([]fleet.RolloutStep, error) {
	return list(ctx, tx.q, "list failures", scanStep, selectSteps+` WHERE rollout = ? AND step IN ('failed', 'silent') AND step <> 'complete'
		AND since >= ? ORDER BY since DESC, machine LIMIT ?`, id, millis(since), limit)
}

// CountSteps counts a rollout's machines afresh: what its counters must be.
func (tx Tx) CountSteps(ctx context.Context, id int64) (rollout.Counters, error) {
	type row struct {
		step   rollout.Step
		canary bool
		n      int64
	}
	rows, err := list(ctx, tx.q, "count steps", func(r *row, scan func(...any) error) error { return scan(&r.step, &r.canary, &r.n) },
		"SELECT step, canary, count(*) FROM "+allSteps+" WHERE rollout = ? GROUP BY step, canary", id)
	var c rollout.Counters
	for _, r := range rows {
		for range r.n {
			c = c.Add(r.canary, rollout.None, r.step)
		}
	}
	return c, err
}
