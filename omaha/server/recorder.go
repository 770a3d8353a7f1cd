package server

import (
	"context"
	"maps"
	"slices"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

// recordTogether decides on requests, and has what they lead to on disk when it returns: one look at the database, one commit and one sync for all of them.
func (s *Server) recordTogether(b *batch) error {
	ctx := context.Background()
	return s.store.Write(ctx, func(tx store.Tx) error {
		b.gather() // who came while others wrote
		p, err := s.policyIn(ctx, tx)
		if err != nil {
			return err
		}
		known, err := readRecords(ctx, tx, p, said(b.asks...))
		if err != nil {
			return err
		}
		w := writes{known: known, states: map[int64]rollout.State{}}
		for id, r := range known.rollouts {
			w.states[id] = r.State
		}
		for _, a := range b.asks {
			if a.outcomes, err = known.evaluate(ctx, tx, a); err != nil {
				return err
			}
			for i := range a.outcomes {
				if err := w.add(ctx, tx, &a.outcomes[i]); err != nil {
					return err
				}
			}
		}
		return w.flush(ctx, tx)
	})
}

// writes collects what outcomes change.
type writes struct {
	known  *records
	states map[int64]rollout.State // of rollouts, as they are in the database

	changes []store.Change
	at      map[machineKey]int // where a machine is among the changes
	counted map[int64]bool     // rollouts whose counters changed
}

func (w *writes) add(ctx context.Context, tx store.Tx, o *outcome) error {
	m := &o.machine
	if !o.changed {
		return nil
	}
	key := machineKey{m.App, m.ID}
	if w.at == nil {
		w.at, w.counted = map[machineKey]int{}, map[int64]bool{}
	}
	i, twice := w.at[key]
	if !twice {
		i = len(w.changes)
		w.at[key] = i
		w.changes = append(w.changes, store.Change{Before: &w.known.machines[key].stored})
	}
	after, change := *m, &w.changes[i]
	change.After, change.Events = &after, append(change.Events, o.events...)
	for _, c := range []*course{&o.left, &o.course} {
		if !c.changed {
			continue
		}
		step := store.MachineStep{Rollout: c.rollout.ID, RolloutStep: c.step}
		change.Steps = append(slices.DeleteFunc(change.Steps, func(s store.MachineStep) bool { return s.Rollout == step.Rollout }), step)
		w.counted[c.rollout.ID] = true
	}
	w.known.note(o)
	for i := range o.failures {
		if i == 0 { // a failure refers to its machine, which may be new
			if err := w.flush(ctx, tx); err != nil {
				return err
			}
		}
		if err := tx.AddFailure(ctx, m.App, m.ID, &o.failures[i]); err != nil {
			return err
		}
	}
	return w.judge(ctx, tx, o)
}

// judge stops a rollout for which the outcome is one failure too many, before the next request is answered.
func (w *writes) judge(ctx context.Context, tx store.Tx, o *outcome) error {
	for _, c := range []*course{&o.left, &o.course} {
		if !c.changed {
			continue
		}
		if halt, _ := c.rollout.Judge(nil); !halt {
			continue
		}
		if err := w.flush(ctx, tx); err != nil { // the reason names machines as they are in the database
			return err
		}
		var err error
		if c.halted, err = judge(ctx, tx, c.rollout, o.machine.LastSeen); err != nil {
			return err
		}
		w.counted[c.rollout.ID] = true
	}
	return nil
}

// flush writes what was collected.
func (w *writes) flush(ctx context.Context, tx store.Tx) error {
	if err := tx.PutMachines(ctx, w.changes); err != nil {
		return err
	}
	for _, id := range slices.Sorted(maps.Keys(w.counted)) {
		if err := keepRollout(ctx, tx, w.known.rollouts[id], w.states[id]); err != nil {
			return err
		}
		w.states[id] = w.known.rollouts[id].State
	}
	clear(w.at)
	clear(w.counted)
	w.changes = w.changes[:0]
	return nil
}

// keepRollout keeps what changed of a rollout whose state was another one or the same before: only another one changes what machines are answered.
func keepRollout(ctx context.Context, tx store.Tx, r *fleet.Rollout, before rollout.State) error {
	if r.State == before {
		return tx.CountRollout(ctx, r)
	}
	return tx.PutRollout(ctx, r)
}
