package server

import (
	"context"
	"errors"
	"slices"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// record is what the database has on a machine.
type record struct {
	machine  fleet.Machine // without an ID: it is not known
	stored   store.Known   // the same, as it is in the database
	failures []fleet.Failure
	pin      *fleet.Pin
	pinned   *fleet.Release // that it is pinned to, where it is published
	group    string
	steps    []store.MachineStep
}

// records are those of the machines of some requests, and all else that is needed to answer them: evaluate asks the database nothing.
type records struct {
	policy   *policy
	machines map[machineKey]*record
	rollouts map[int64]*fleet.Rollout // of the channels that the machines follow or followed
}

type machineKey struct{ app, id string }

// readRecords reads what is on record of some machines: a handful of queries, however many they are. Said is what they say of themselves now.
func readRecords(ctx context.Context, tx store.Tx, p *policy, said []fleet.Machine) (*records, error) {
	r := &records{policy: p, machines: map[machineKey]*record{}, rollouts: map[int64]*fleet.Rollout{}}
	ids := map[string][]string{}
	for i := range said {
		m := &said[i]
		if _, known := p.apps[m.App]; !known || m.ID == "" {
			continue
		}
		if k := (machineKey{m.App, m.ID}); r.machines[k] == nil {
			r.machines[k] = &record{}
			ids[m.App] = append(ids[m.App], m.ID)
		}
	}
	for app, ids := range ids {
		slices.Sort(ids) // neighbours on disk one after the other
		if err := r.readMachines(ctx, tx, app, ids); err != nil {
			return nil, err
		}
		if err := r.readSteps(ctx, tx, app, ids, said); err != nil {
			return nil, err
		}
		if err := r.readRest(ctx, tx, app, ids); err != nil {
			return nil, err
		}
	}
	return r, nil
}

func (r *records) readMachines(ctx context.Context, tx store.Tx, app string, ids []string) error {
	machines, err := tx.KnownMachines(ctx, app, ids)
	if err != nil {
		return err
	}
	for i := range machines {
		m := r.machines[machineKey{app, machines[i].ID}]
		m.machine, m.stored = machines[i].Machine, machines[i]
		if machines[i].Step.Rollout != 0 {
			m.steps = append(m.steps, machines[i].Step)
		}
	}
	failures, err := tx.FailuresOf(ctx, app, ids)
	if err != nil {
		return err
	}
	for _, f := range failures {
		m := r.machines[machineKey{app, f.Machine}]
		m.failures = append(m.failures, f.Failure)
	}
	return nil
}

// readSteps reads the rollouts of the channels that the machines follow, or did until now, and how far they are with them.
func (r *records) readSteps(ctx context.Context, tx store.Tx, app string, ids []string, said []fleet.Machine) error {
	var rollouts []int64
	need := func(m *fleet.Machine) error {
		id := r.policy.rollout(m)
		if id == 0 || m.App != app || slices.Contains(rollouts, id) {
			return nil
		}
		ro, err := tx.Rollout(ctx, id)
		if err != nil {
			return err
		}
		rollouts = append(rollouts, id)
		r.rollouts[id] = &ro
		return nil
	}
	for i := range said {
		if err := need(&said[i]); err != nil {
			return err
		}
	}
	for _, id := range ids {
		if err := need(&r.machines[machineKey{app, id}].machine); err != nil {
			return err
		}
	}
	for _, id := range rollouts {
		steps, err := tx.OtherSteps(ctx, id, ids)
		if err != nil {
			return err
		}
		for _, s := range steps {
			m := r.machines[machineKey{app, s.Machine}]
			m.steps = append(m.steps, s)
		}
	}
	return nil
}

// readRest reads what only some fleets have: groups that are canaries, and pins.
func (r *records) readRest(ctx context.Context, tx store.Tx, app string, ids []string) error {
	for _, ro := range r.rollouts {
		if ro.App != app || ro.Plan.Canary.Group == "" {
			continue
		}
		groups, err := tx.GroupsOf(ctx, app, ids)
		if err != nil {
			return err
		}
		for id, g := range groups {
			r.machines[machineKey{app, id}].group = g
		}
		break
	}
	if !r.policy.apps[app] {
		return nil
	}
	pins, err := tx.PinsOf(ctx, app, ids)
	if err != nil {
		return err
	}
	for i := range pins {
		r.machines[machineKey{app, pins[i].Machine}].pin = &pins[i]
	}
	return nil
}

// apart are the same records, but that rollouts can be changed without changing r's.
func (r *records) apart() *records {
	out := *r
	if len(r.rollouts) > 0 {
		out.rollouts = make(map[int64]*fleet.Rollout, len(r.rollouts))
		for id, ro := range r.rollouts {
			c := *ro
			out.rollouts[id] = &c
		}
	}
	return &out
}

// readPinned finds the release that a machine is pinned to.
func (r *records) readPinned(ctx context.Context, tx store.Tx, m *fleet.Machine) error {
	rec := r.machines[machineKey{m.App, m.ID}]
	if rec == nil || rec.pin == nil || rec.pin.Version == "" {
		return nil
	}
	release, err := tx.Release(ctx, m.App, m.Arch, rec.pin.Version)
	switch {
	case errors.Is(err, store.ErrNotFound):
		rec.pinned = nil
		return nil
	case err != nil:
		return err
	}
	rec.pinned = &release
	return nil
}

// course is where a machine is in the rollout of a channel that it follows.
func (r *records) course(m *fleet.Machine) course {
	id := r.policy.rollout(m)
	rec := r.machines[machineKey{m.App, m.ID}]
	if id == 0 || rec == nil || r.rollouts[id] == nil {
		return course{}
	}
	c := course{rollout: r.rollouts[id], step: fleet.RolloutStep{Machine: m.ID}}
	for i := range rec.steps {
		if rec.steps[i].Rollout == id {
			c.step = rec.steps[i].RolloutStep
		}
	}
	return c
}

// question gathers what fleet.Decide needs to know. Fresh are failures that are not on record yet.
func (r *records) question(m *fleet.Machine, c *course, fresh []fleet.Failure) *fleet.Question {
	q := &fleet.Question{Machine: m, Rollout: c.rollout, Step: c.step.Step, Failures: fresh, Marked: r.policy.marked[stream{app: m.App, arch: m.Arch}]}
	if s := r.policy.streams[stream{m.App, m.Channel, m.Arch}]; s != nil {
		q.Channel = &s.channel
	}
	if rec := r.machines[machineKey{m.App, m.ID}]; rec != nil {
		q.Failures = append(slices.Clone(fresh), rec.failures...)
		q.Pin, q.Pinned, q.Group = rec.pin, rec.pinned, rec.group
	}
	return q
}

// note brings the records up to what an outcome, which will be kept, says.
func (r *records) note(o *outcome) {
	rec := r.machines[machineKey{o.machine.App, o.machine.ID}]
	if rec == nil {
		return
	}
	rec.machine = o.machine
	for _, f := range o.failures {
		rec.failures = append(slices.DeleteFunc(rec.failures, func(old fleet.Failure) bool { return old.Version == f.Version }), f)
	}
	for _, c := range []*course{&o.course, &o.left} {
		if !c.changed {
			continue
		}
		rec.steps = append(slices.DeleteFunc(rec.steps, func(s store.MachineStep) bool { return s.Rollout == c.rollout.ID }), store.MachineStep{Rollout: c.rollout.ID, RolloutStep: c.step})
	}
}
