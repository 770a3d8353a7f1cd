package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
)

// idleAsk is how many of the machines whose turn is far ask all the same: they must be told to wait.
const idleAsk = 100

// play goes minute by minute until the rollout ends.
func (w *world) play() error {
	ctx := context.Background()
	for minute := int64(0); time.Duration(minute)*time.Minute < patience; minute++ {
		w.now.Store(minute)
		r, err := w.store.Read().Rollout(ctx, w.rollout)
		if err != nil {
			return err
		}
		if err := w.minute(minute, &r); err != nil {
			return err
		}
		if err := w.server.Sweep(ctx); err != nil {
			return err
		}
		if r, err = w.store.Read().Rollout(ctx, w.rollout); err != nil {
			return err
		}
		if err := w.holds(minute, &r); err != nil {
			return fmt.Errorf("after %s: %w", time.Duration(minute)*time.Minute, err)
		}
		if r.State == rollout.Halted || r.State == rollout.Done {
			return w.end(minute, &r)
		}
	}
	return fmt.Errorf("the rollout is not over after %s", patience)
}

// minute lets every machine act whose time has come.
func (w *world) minute(minute int64, r *fleet.Rollout) error {
	reached := r.Reached(w.clock())
	var due []*machine
	idle := 0
	for i := range w.all {
		m := &w.all[i]
		if m.acts > minute || m.state == rests {
			continue
		}
		if m.state == asks && !m.canary && m.place >= reached {
			m.acts = minute + w.pause()
			if idle++; idle > idleAsk {
				continue
			}
		}
		due = append(due, m)
	}
	// What chance decides is drawn before they act side by side, so that a run is the same each time.
	luck := map[*machine]float64{}
	for _, m := range due {
		luck[m] = w.rng.Float64()
		if m.state == asks {
			m.acts = minute + w.pause()
		}
	}
	return w.each(due, func(m *machine) error { return w.act(m, minute, reached, luck[m]) })
}

// pause is how long a machine waits until it asks again: some clocks go wrong by half.
func (w *world) pause() int64 {
	return int64(float64(interval/time.Minute) * (0.75 + 0.75*w.rng.Float64()))
}

func (w *world) act(m *machine, minute int64, reached, luck float64) error {
	switch m.state {
	case asks:
		offer, err := w.say(m, true)
		if err != nil || offer == "" {
			return err
		}
		if offer != newVersion {
			return fmt.Errorf("machine %s is offered %s", m.id, offer)
		}
		if !m.canary && m.place >= reached {
			return fmt.Errorf("machine %s, whose place is %.4f, is given the release when %.4f was reached", m.id, m.place, reached)
		}
		m.state, m.acts = installs, minute+5
	case installs:
		if _, err := w.say(m, false, omaha.Installed(newVersion)); err != nil {
			return err
		}
		m.state, m.acts = boots, minute+3
		if luck < w.silent {
			m.state = rests
		}
	case boots:
		m.boot++
		m.state = rests
		if luck < w.fails {
			m.boot++ // into the new one, and back
			_, err := w.say(m, true, omaha.RolledBack(newVersion, "health check web: connection refused"))
			return err
		}
		m.version = newVersion
		_, err := w.say(m, true, omaha.Completed(oldVersion))
		return err
	}
	return nil
}

// holds checks what must hold always, and takes a point for the picture.
func (w *world) holds(minute int64, r *fleet.Rollout) error {
	c := &r.Counted.All
	reached := r.Reached(w.clock())
	w.points = append(w.points, point{minute, reached, c.Granted, c.InFlight, c.Complete, c.Failed, c.Silent})
	if limit := w.plan.Limits.AtOnce; c.InFlight > limit {
		return fmt.Errorf("%d machines update at once, and the limit is %d", c.InFlight, limit)
	}
	inPlace := int64(0)
	for i := range w.all {
		if w.all[i].canary || w.all[i].place < reached {
			inPlace++
		}
	}
	if c.Granted > inPlace {
		return fmt.Errorf("%d machines were given the release, and the ramp has reached %d", c.Granted, inPlace)
	}
	if minute%60 != 0 {
		return nil
	}
	again, err := w.store.Read().CountSteps(context.Background(), r.ID)
	if err != nil {
		return err
	}
	if a := &again.All; a.InFlight != c.InFlight || a.Complete != c.Complete || a.Failed != c.Failed || a.Silent != c.Silent {
		return fmt.Errorf("the counters say %+v, and the machines %+v", *c, *a)
	}
	return nil
}

// end judges how it came out.
func (w *world) end(minute int64, r *fleet.Rollout) error {
	c := &r.Counted.All
	share := float64(c.Granted) / float64(w.machines)
	w.verdict = fmt.Sprintf("%s after %s, %d of %d machines were given the release, %d complete, %d failed, %d silent", r.State, time.Duration(minute)*time.Minute, c.Granted, w.machines, c.Complete, c.Failed, c.Silent)
	switch {
	case !w.halts && (r.State != rollout.Done || c.Complete != int64(w.machines)):
		return errors.New("it should have come to everybody: " + w.verdict + ": " + r.Why)
	case w.halts && (r.State != rollout.Halted || r.By != ""):
		return errors.New("it should have halted itself: " + w.verdict)
	case w.halts && share > w.touched:
		return fmt.Errorf("it halted too late: %s, %.2f %%", w.verdict, share*100)
	}
	return nil
}
