package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

const (
	sweepEvery = 10 * time.Second
	sweepBatch = 500 // machines in one transaction

	// lapse is after how long a machine that was given a release, and did not say that it boots it, does not count as updating any more: it may have been switched off.
	lapse = 24 * time.Hour

	// recently is how long ago a machine must have been seen for a rollout to wait for it.
	recently = 24 * time.Hour

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
	return all
}

func (s *Server) sweep(ctx context.Context, id int64) error {
	for {
		more, halted := false, false
		var r fleet.Rollout
		var before rollout.State
		now := s.cfg.Now().UTC()
		err := s.store.Write(ctx, func(tx store.Tx) (err error) {
			if r, err = tx.Rollout(ctx, id); err != nil {
				return err
			}
			before = r.State
			counted := r.Counted
			if more, err = silence(ctx, tx, &r, now); err != nil {
				return err
			}
			if halted, err = judge(ctx, tx, &r, now); err != nil {
				return err
			}
			if err := advance(ctx, tx, &r, now); err != nil {
				return err
			}
			if r.State == before && r.Counted == counted {
				return nil
			}
			return tx.PutRollout(ctx, &r)
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

// silence counts the machines that said that they boot the release and nothing since as failed, and those that were given it long ago as not updating.
func silence(ctx context.Context, tx store.Tx, r *fleet.Rollout, now time.Time) (more bool, err error) {
	for _, c := range []struct {
		from, to rollout.Step
		after    time.Duration
		why      string
	}{
		{rollout.Rebooting, rollout.Silent, r.SilentAfter(), fmt.Sprintf("silent for %s after its reboot", r.SilentAfter())},
		{rollout.Granted, rollout.None, lapse, ""},
	} {
		steps, err := tx.StepsSince(ctx, r.ID, c.from, now.Add(-c.after), sweepBatch)
		if err != nil {
			return false, err
		}
		more = more || len(steps) == sweepBatch
		for i := range steps {
			s := &steps[i]
			r.Counted = r.Counted.Add(s.Canary, s.Step, c.to)
			s.Step, s.Since, s.Why = c.to, now, c.why
			if err := tx.PutRolloutStep(ctx, r.ID, s); err != nil {
				return false, err
			}
		}
	}
	return more, nil
}

// advance moves a rollout on when its time has come. A release that everybody has becomes its channel's.
func advance(ctx context.Context, tx store.Tx, r *fleet.Rollout, now time.Time) error {
	var canaries, left int64
	switch {
	case r.State == rollout.Canary:
		n, err := tx.Canaries(ctx, r, now.Add(-recently))
		if err != nil {
			return err
		}
		canaries = n
	case r.State == rollout.Ramping && r.Reached(now) >= 1:
		some, err := tx.Lacking(ctx, r, now.Add(-recently))
		if err != nil {
			return err
		}
		if some {
			left = 1
		}
	default:
		return nil
	}
	if !r.Advance(canaries, left, now) || r.State != rollout.Done {
		return nil
	}
	if err := tx.SetChannel(ctx, r.App, r.Channel, r.Arch, r.Release.ID, now); err != nil {
		return err
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: "semper-server", What: "rollout-done", Subject: subject(r), Detail: r.Why})
}

// PlanRollout makes a draft of a rollout. Errors are of kind Input.
func PlanRollout(ctx context.Context, tx store.Tx, r *fleet.Rollout, version, who string, now time.Time) error {
	if err := r.Plan.Check(); err != nil {
		return err
	}
	channel, err := tx.Channel(ctx, r.App, r.Channel, r.Arch)
	if err != nil {
		return err
	}
	if r.Release, err = tx.Release(ctx, r.App, r.Arch, version); errors.Is(err, store.ErrNotFound) {
		return conflict("version %q for %s is not published: its files must be there before they are rolled out", version, r.Arch)
	} else if err != nil {
		return err
	}
	if channel.Release != nil && channel.Release.ID == r.Release.ID {
		return conflict("%s is the release of channel %s already", version, r.Channel)
	}
	switch open, err := tx.OpenRollout(ctx, r.App, r.Channel, r.Arch); {
	case err == nil:
		return conflict("channel %s has a rollout already, %d, of %s, which is %s: abort it first", r.Channel, open.ID, open.Version, open.State)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	if g := r.Plan.Canary.Group; g != "" {
		if _, err := tx.Group(ctx, r.App, g); errors.Is(err, store.ErrNotFound) {
			return conflict("there is no group %s for the canaries: make it first, with its machines", g)
		} else if err != nil {
			return err
		}
	}
	r.Version, r.State, r.Since, r.By, r.Why, r.Created, r.CreatedBy = version, rollout.Draft, now, who, "planned", now, who
	if err := tx.AddRollout(ctx, r); err != nil {
		return err
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "rollout-plan", Subject: subject(r)})
}

// SteerRollout does what a person asks of a rollout: start, pause, resume, abort.
func SteerRollout(ctx context.Context, tx store.Tx, id int64, verb, why, who string, now time.Time) (fleet.Rollout, error) {
	r, err := tx.Rollout(ctx, id)
	if err != nil {
		return r, err
	}
	switch verb {
	case "start":
		err = r.Start(who, now)
	case "pause":
		err = r.Pause(why, who, now)
	case "resume":
		err = r.Resume(why, who, now)
	case "abort":
		err = r.Abort(why, who, now)
	default:
		return r, httpError{http.StatusNotFound, fault.New(fault.Input, "a rollout can be started, paused, resumed or aborted, and not %q", verb)}
	}
	if err != nil {
		if fault.Is(err, fault.Usage) {
			err = conflict("%w", err)
		}
		return r, err
	}
	if err := tx.PutRollout(ctx, &r); err != nil {
		return r, err
	}
	return r, tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "rollout-" + verb, Subject: subject(&r), Detail: why})
}
