package server

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
	"github.com/semper-os/semper/omaha/server/webhooks"
)

// course is a machine's way through the rollout of its channel. The counters of the rollout change with it, in one transaction.
type course struct {
	rollout *fleet.Rollout // nil: the channel has none
	step    fleet.RolloutStep
	changed bool // the step did
	halted  bool // by this
}

// cameBack finds a machine that booted again without the release that it was to boot, where it does not say so itself, with its reason.
func (c *course) cameBack(m, before *fleet.Machine, told []fleet.Failure, now time.Time) *fleet.Failure {
	if c.rollout == nil || slices.ContainsFunc(told, func(f fleet.Failure) bool { return f.Version == c.rollout.Version }) {
		return nil
	}
	return m.CameBack(before, c.step.Step, c.rollout.Version, now)
}

// heard notes that a machine which was to boot the release says something: it is not silent. Once it has booted the release it is waited for anew, for its word that all
// is well.
func (c *course) heard(m, before *fleet.Machine, now time.Time) {
	switch {
	case c.rollout == nil:
	case c.step.Step == rollout.Silent:
		c.move(rollout.Rebooting, "", now)
	case c.step.Step == rollout.Rebooting && m.Version == c.rollout.Version && before.Version != m.Version:
		c.step.Since, c.changed = now, true
	}
}

// leave takes a machine that follows another channel now out of a rollout that it was given a release by.
func (c *course) leave(now time.Time) {
	if c.rollout != nil && (c.step.Step == rollout.Granted || c.step.Step == rollout.Rebooting) {
		c.move(rollout.None, "", now)
	}
}

// after moves the machine on by what it reported.
func (c *course) after(m *fleet.Machine, failures []fleet.Failure, now time.Time) {
	if c.rollout == nil {
		return
	}
	step, why := m.StepAfter(c.step.Step, c.rollout.Version, failures)
	c.move(step, why, now)
}

// decided moves the machine on by what it was answered.
func (c *course) decided(d *fleet.Decision, q *fleet.Question, now time.Time) {
	if d.Rollout == nil || !d.Rollout.Grant {
		return
	}
	c.step.Canary = c.rollout.Plan.Canary.Group != "" && q.Group == c.rollout.Plan.Canary.Group
	c.rollout.Counted = d.Rollout.Counted
	c.step.Step, c.step.Since, c.step.Why, c.changed = rollout.Granted, now, "", true
}

func (c *course) move(to rollout.Step, why string, now time.Time) {
	if to == c.step.Step {
		return
	}
	c.rollout.Counted = c.rollout.Counted.Add(c.step.Canary, c.step.Step, to)
	c.step.Step, c.step.Since, c.step.Why, c.changed = to, now, why, true
}

// namedFailures is how many failures are read to name some in a sentence.
const namedFailures = 50

// judge halts a rollout whose failures are too many, and reports whether it did. The caller keeps the rollout.
func judge(ctx context.Context, tx store.Tx, r *fleet.Rollout, now time.Time) (halted bool, err error) {
	if halt, _ := r.Judge(nil); !halt {
		return false, nil
	}
	steps, err := tx.FailedSteps(ctx, r.ID, r.Since, namedFailures)
	if err != nil {
		return false, err
	}
	failures := make([]rollout.Failure, 0, len(steps))
	for _, s := range steps {
		failures = append(failures, rollout.Failure{Machine: s.Machine, At: s.Since, Why: s.Why})
	}
	_, why := r.Judge(failures)
	before := r.State
	if err := r.Halt(why, now); err != nil {
		return false, err
	}
	if err := auditRollout(ctx, tx, r, "rollout-halt", before, why, itself, now); err != nil {
		return true, err
	}
	about := aboutRollout(r, why)
	for _, s := range steps[:min(len(steps), alertMachines)] {
		about.Machines = append(about.Machines, s.Machine)
	}
	return true, announce(ctx, tx, webhooks.Halt, about, now)
}

// note logs what is on disk by now.
func (c *course) note(log *slog.Logger) {
	if c.halted {
		log.Warn("rollout halted", "rollout", c.rollout.ID, "version", c.rollout.Version, "channel", c.rollout.Channel, "reason", c.rollout.Why)
	}
}
