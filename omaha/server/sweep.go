package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
	"github.com/semper-os/semper/omaha/server/webhooks"
)

const (
	sweepEvery = 10 * time.Second
	sweepBatch = 500 // machines in one transaction

	// lapse is after how long a machine that was given a release, and did not say that it boots it, does not count as updating any more: it may have been switched off.
	lapse = 24 * time.Hour

	// recently is how long ago a machine must have been seen for a rollout to wait for it.
	recently = 24 * time.Hour

	// keepSteps is how long the machines of a rollout that is over are remembered.
	keepSteps   = 30 * 24 * time.Hour
	forgetBatch = 5000

	retireEvery = time.Hour     // it goes through all machines
	retireGrace = 2 * time.Hour // after the server's start, for machines that it could not hear

	maxOpenRollouts = 10_000
)

// Run does what time alone brings about, until ctx ends: it finds machines that fell silent, and moves rollouts on.
func (s *Server) Run(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := s.Sweep(ctx); err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("rollouts could not be looked through", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Sweep looks through the rollouts that are not over, once.
func (s *Server) Sweep(ctx context.Context) error {
	if err := s.store.Settle(ctx); err != nil { // who was heard of is not silent
		return err
	}
	open, err := s.store.Read().Rollouts(ctx, "", true, maxOpenRollouts)
	if err != nil {
		return err
	}
	var all error
	for i := range open {
		if err := s.sweep(ctx, open[i].ID); err != nil {
			all = errors.Join(all, fmt.Errorf("rollout %d: %w", open[i].ID, err))
		}
	}
	return errors.Join(all, s.sample(ctx), s.forget(ctx), s.retire(ctx), s.forgetPeople(ctx))
}

// retire marks machines that were not seen for long. What the server could not hear is not held against them.
func (s *Server) retire(ctx context.Context) error {
	now := s.cfg.Now().UTC()
	if s.cfg.RetireAfter == 0 || now.Sub(s.retired) < retireEvery || now.Sub(s.started) < retireGrace {
		return nil
	}
	for ctx.Err() == nil {
		quiet, err := s.store.Read().Quiet(ctx, now.Add(-s.cfg.RetireAfter), forgetBatch) // which keeps no machine waiting
		if err != nil {
			return err
		}
		for some := range slices.Chunk(quiet, sweepBatch) {
			var n int64
			err := s.store.Write(ctx, func(tx store.Tx) (err error) {
				n, err = tx.Retire(ctx, some, now)
				return err
			})
			if err != nil {
				return err
			}
			s.cfg.Log.Info("machines retired", "machines", n, "not_seen_for", s.cfg.RetireAfter)
		}
		if len(quiet) < forgetBatch {
			s.retired = now
			return nil
		}
	}
	return ctx.Err()
}

// forget deletes what nobody needs of rollouts that are long over: which machines had no trouble with them.
func (s *Server) forget(ctx context.Context) error {
	for ctx.Err() == nil {
		var n int64
		err := s.store.Write(ctx, func(tx store.Tx) (err error) {
			n, err = tx.ForgetSteps(ctx, s.cfg.Now().Add(-keepSteps), forgetBatch)
			return err
		})
		if err != nil || n < forgetBatch {
			return err
		}
	}
	return ctx.Err()
}

func (s *Server) sweep(ctx context.Context, id int64) error {
	for {
		now := s.cfg.Now().UTC()
		// Who is late, and whether anybody waits, is looked for without keeping machines waiting: in a large fleet it takes a while.
		r, err := s.store.Read().Rollout(ctx, id)
		if err != nil {
			return err
		}
		late, more, err := s.late(ctx, &r, now)
		if err != nil {
			return err
		}
		waited, err := awaited(ctx, s.store.Read(), &r, now)
		if err != nil {
			return err
		}
		halted := false
		var before rollout.State
		err = s.store.Write(ctx, func(tx store.Tx) (err error) {
			if r, err = tx.Rollout(ctx, id); err != nil {
				return err
			}
			before = r.State
			counted := r.Counted
			if err := moveLate(ctx, tx, &r, late, now); err != nil {
				return err
			}
			if halted, err = judge(ctx, tx, &r, now); err != nil {
				return err
			}
			if !waited {
				if err := advance(ctx, tx, &r, now); err != nil {
					return err
				}
			}
			if err := sampleRollout(ctx, tx, &r, r.State != before, now); err != nil {
				return err
			}
			if r.State == before && r.Counted == counted {
				return nil
			}
			return keepRollout(ctx, tx, &r, before)
		})
		if err != nil {
			return err
		}
		switch {
		case halted:
			s.cfg.Log.Warn("rollout halted", "rollout", r.ID, "version", r.Version, "channel", r.Channel, "reason", r.Why)
		case r.State != before:
			s.cfg.Log.Info("rollout", "rollout", r.ID, "version", r.Version, "channel", r.Channel, "from", before, "to", r.State, "reason", r.Why)
		}
		if !more || ctx.Err() != nil {
			return ctx.Err()
		}
	}
}

// lateMachine is a machine of which the expected word does not come.
type lateMachine struct {
	fleet.RolloutStep
	to  rollout.Step // what becomes of it
	why string
	// still tells whether that holds for what is known of it now.
	still func(*fleet.Machine, *fleet.RolloutStep) bool
}

// late finds machines of which the expected word does not come: those that run the release all the same have it, those that said that they boot it and nothing since
// have failed, and those that were given it and not heard of again do not update any more. A machine that asks is not silent, whatever it waits for. The server itself
// must have been there to be asked.
func (s *Server) late(ctx context.Context, r *fleet.Rollout, now time.Time) (out []lateMachine, more bool, err error) {
	tx := s.store.Read()
	add := func(steps []fleet.RolloutStep, to rollout.Step, why string, still func(*fleet.Machine, *fleet.RolloutStep) bool) {
		more = more || len(steps) == sweepBatch
		for _, step := range steps {
			out = append(out, lateMachine{step, to, why, still})
		}
	}
	steps, err := tx.RunningSteps(ctx, r, rollout.Rebooting, r.SilentAfter(), sweepBatch)
	if err != nil {
		return nil, false, err
	}
	add(steps, rollout.Complete, "", func(m *fleet.Machine, step *fleet.RolloutStep) bool {
		return m.Version == r.Version && m.LastSeen.Sub(step.Since) >= r.SilentAfter()
	})
	for _, quiet := range []struct {
		from, to rollout.Step
		after    time.Duration
		why      string
	}{
		{rollout.Rebooting, rollout.Silent, r.SilentAfter(), fmt.Sprintf("silent for %s after its reboot", r.SilentAfter())},
		{rollout.Granted, rollout.None, lapse, ""},
	} {
		if now.Sub(s.started) < quiet.after {
			continue
		}
		before := now.Add(-quiet.after)
		steps, err := tx.QuietSteps(ctx, r.ID, quiet.from, before, sweepBatch)
		if err != nil {
			return nil, false, err
		}
		add(steps, quiet.to, quiet.why, func(m *fleet.Machine, step *fleet.RolloutStep) bool {
			return step.Since.Before(before) && m.LastSeen.Before(before)
		})
	}
	return out, more, nil
}

// moveLate moves machines on that are late, unless they were heard of since they were found.
func moveLate(ctx context.Context, tx store.Tx, r *fleet.Rollout, late []lateMachine, now time.Time) error {
	ids := make([]string, len(late))
	for i := range late {
		ids[i] = late[i].Machine
	}
	steps, err := tx.RolloutSteps(ctx, r.App, r.ID, ids)
	if err != nil {
		return err
	}
	machines, err := tx.MachinesByID(ctx, r.App, ids)
	if err != nil {
		return err
	}
	var moved []store.MachineStep
	for _, l := range late {
		m := fleet.Machine{} // one that is not known was never seen
		if i := slices.IndexFunc(machines, func(m fleet.Machine) bool { return m.ID == l.Machine }); i >= 0 {
			m = machines[i]
		}
		i := slices.IndexFunc(steps, func(s store.MachineStep) bool { return s.Machine == l.Machine })
		if i < 0 || steps[i].Step != l.Step || !l.still(&m, &steps[i].RolloutStep) {
			continue
		}
		step := steps[i]
		r.Counted = r.Counted.Add(step.Canary, step.Step, l.to)
		step.Step, step.Since, step.Why = l.to, now, l.why
		steps[i] = step // it may be late in two ways
		moved = append(moved, step)
	}
	if err := tx.MoveSteps(ctx, r.App, moved); err != nil {
		return err
	}
	return announceSilent(ctx, tx, r, moved, now)
}

// announceSilent has webhooks told of machines that fell silent.
func announceSilent(ctx context.Context, tx store.Tx, r *fleet.Rollout, moved []store.MachineStep, now time.Time) error {
	var silent []string
	for i := range moved {
		if moved[i].Step == rollout.Silent {
			silent = append(silent, moved[i].Machine)
		}
	}
	if len(silent) == 0 {
		return nil
	}
	about := aboutRollout(r, fmt.Sprintf("%s fell silent for %s after the reboot into %s", machinesWord(int64(len(silent))), r.SilentAfter(), r.Version))
	about.Machines = silent[:min(len(silent), alertMachines)]
	return announce(ctx, tx, webhooks.Silent, about, now)
}

// awaited tells whether a rollout that has come to all machines still waits for some.
func awaited(ctx context.Context, tx store.Tx, r *fleet.Rollout, now time.Time) (bool, error) {
	if r.State != rollout.Ramping || r.Reached(now) < 1 {
		return false, nil
	}
	able, err := ableVersions(ctx, tx, r)
	if err != nil {
		return false, err
	}
	return tx.Lacking(ctx, r, able, now.Add(-recently))
}

// advance moves a rollout on when its time has come. A release that everybody has becomes its channel's.
func advance(ctx context.Context, tx store.Tx, r *fleet.Rollout, now time.Time) error {
	if r.State != rollout.Canary && (r.State != rollout.Ramping || r.Reached(now) < 1) {
		return nil
	}
	able, err := ableVersions(ctx, tx, r)
	if err != nil {
		return err
	}
	var canaries, left int64
	if r.State == rollout.Canary {
		if canaries, err = tx.Canaries(ctx, r, able, now.Add(-recently)); err != nil {
			return err
		}
	} else if some, err := tx.Lacking(ctx, r, able, now.Add(-recently)); err != nil {
		return err
	} else if some {
		left = 1
	}
	before := r.State
	if !r.Advance(canaries, left, now) {
		return nil
	}
	if r.State != rollout.Done {
		return auditRollout(ctx, tx, r, "rollout-ramp", before, r.Why, itself, now)
	}
	channel, err := tx.Channel(ctx, r.App, r.Channel, r.Arch)
	if err != nil {
		return err
	}
	if err := tx.SetChannel(ctx, r.App, r.Channel, r.Arch, r.Release.ID, now); err != nil {
		return err
	}
	if err := auditChannel(ctx, tx, &channel, &r.Release, fmt.Sprintf("rollout %d is done", r.ID), itself, now); err != nil {
		return err
	}
	if err := auditRollout(ctx, tx, r, "rollout-done", before, r.Why, itself, now); err != nil {
		return err
	}
	return announce(ctx, tx, webhooks.Done, aboutRollout(r, r.Why), now)
}

// ableVersions are those that machines of a rollout's channel run and its release can follow, directly or by way of floors.
func ableVersions(ctx context.Context, tx store.Tx, r *fleet.Rollout) (able []string, err error) {
	versions, err := tx.Versions(ctx, r.App, r.Channel, r.Arch)
	if err != nil {
		return nil, err
	}
	marked, err := tx.MarkedReleases(ctx, r.App)
	if err != nil {
		return nil, err
	}
	marked = slices.DeleteFunc(marked, func(m fleet.Release) bool { return m.Arch != r.Arch })
	for _, v := range versions {
		if r.Release.Follows(v, marked) {
			able = append(able, v)
		}
	}
	return able, nil
}
