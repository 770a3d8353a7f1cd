package server

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

const answersTotal = "semper_server_answers_total"

// lookTimeout is how long the database may take to answer what it has on some machines.
const lookTimeout = 30 * time.Second

// outcome is what one application's part of a request leads to.
type outcome struct {
	app      *omaha.AppRequest
	status   omaha.AppStatus
	machine  fleet.Machine
	changed  bool // more than when it was seen
	granted  bool // a new grant
	events   []fleet.Event
	failures []fleet.Failure // new ones
	decision *fleet.Decision // of an update check
	course   course          // the rollout that it is part of
	left     course          // the one of the channel that it followed before
	fresh    string          // the freshness statement of the machine's channel
}

// decide finds out what a request leads to, and has it on disk when it returns. A request that changes nothing but when the machine was
// seen, the usual one, takes no write.
func (s *Server) decide(req *omaha.Request, address string, now time.Time) ([]outcome, error) {
	p, usual := s.memo.of(req, s.store.Changes())
	if usual {
		if a := s.memo.recall(p); a != nil {
			o := a.outcome(req, address, now)
			s.store.Touch(o.machine.App, o.machine.ID, address, now)
			s.metrics.add(answersTotal, "from", "memory")
			return []outcome{o}, nil
		}
	}
	a := &ask{req: req, address: address, now: now}
	policy, err := s.policyNow(context.Background())
	if err != nil {
		return nil, err
	}
	if !reports(req) && !policy.mayGrant(req) {
		if err := s.looks.do(a); err != nil {
			return nil, err
		}
		if !changes(a.outcomes) {
			if usual {
				if answer, ok := a.outcomes[0].memorable(); ok {
					s.memo.keep(p, answer)
				}
			}
			s.touch(a.outcomes)
			s.metrics.add(answersTotal, "from", "database")
			return a.outcomes, nil
		}
	}
	s.metrics.add(answersTotal, "from", "record")
	// What was just read may be stale by now: the recorder decides again.
	err = s.records.do(a)
	if err == nil && !changes(a.outcomes) {
		s.touch(a.outcomes)
		return a.outcomes, nil
	}
	for i := range a.outcomes {
		s.memo.forget(a.outcomes[i].machine.App, a.outcomes[i].machine.ID)
	}
	return a.outcomes, err
}

// touch notes that machines were seen of which nothing else is news.
func (s *Server) touch(outcomes []outcome) {
	for i := range outcomes {
		if m := &outcomes[i].machine; m.ID != "" {
			s.store.Touch(m.App, m.ID, m.Address, m.LastSeen)
		}
	}
}

// mayGrant tells that a machine asks whose channel has a rollout that gives it a release now, or will not: that is decided where it can be recorded at once.
func (p *policy) mayGrant(req *omaha.Request) bool {
	for i := range req.Apps {
		m := describing(req, &req.Apps[i])
		s := p.streams[stream{m.App, m.Channel, m.Arch}]
		if s != nil && s.rolling && req.Apps[i].UpdateCheck && m.Version != s.rolls {
			return true
		}
	}
	return false
}

// lookTogether decides on requests as far as that can be done without a write.
func (s *Server) lookTogether(b *batch) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic while a request was decided on: %v", p)
		}
	}()
	ctx, cancel := context.WithTimeout(context.Background(), lookTimeout)
	defer cancel()
	policy, err := s.policyNow(ctx)
	if err != nil {
		return err
	}
	tx := s.store.Read()
	known, err := readRecords(ctx, tx, policy, said(b.asks...))
	if err != nil {
		return err
	}
	for _, a := range b.asks {
		// Nothing of this is kept: what one is given here is not taken from another.
		if a.outcomes, err = known.apart().evaluate(ctx, tx, a); err != nil {
			return err
		}
	}
	return nil
}

// reports tells that a request says what happened, which is kept in any case.
func reports(req *omaha.Request) bool {
	for i := range req.Apps {
		for _, e := range req.Apps[i].Events {
			if !e.Idle() {
				return true
			}
		}
	}
	return false
}

func changes(outcomes []outcome) bool {
	for i := range outcomes {
		if outcomes[i].changed {
			return true
		}
	}
	return false
}

// describing is a machine as a request describes it.
func describing(req *omaha.Request, app *omaha.AppRequest) fleet.Machine {
	return fleet.Machine{
		App: normalAppID(app.ID), ID: req.Machine(app), Alias: app.MachineAlias, Arch: req.Arch(app), Version: app.Version, Channel: app.Track,
		BootID: app.BootID, Platform: app.OEM, FirstVersion: app.AlephVersion,
	}
}

// said is how the machines of some requests describe themselves.
func said(asks ...*ask) []fleet.Machine {
	var out []fleet.Machine
	for _, a := range asks {
		for i := range a.req.Apps {
			out = append(out, describing(a.req, &a.req.Apps[i]))
		}
	}
	return out
}

// evaluate decides on all applications of a request. The machines in one request are different ones, or one application would be there twice: then the later one is of the
// same machine after the earlier.
func (r *records) evaluate(ctx context.Context, tx store.Tx, a *ask) ([]outcome, error) {
	out := make([]outcome, 0, len(a.req.Apps))
	for i := range a.req.Apps {
		o, err := r.evaluateApp(ctx, tx, a, &a.req.Apps[i])
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

func (r *records) evaluateApp(ctx context.Context, tx store.Tx, a *ask, app *omaha.AppRequest) (outcome, error) {
	o := outcome{app: app, status: omaha.AppOK}
	m := describing(a.req, app)
	if app.ID == "" {
		o.status = omaha.AppInvalidID
		return o, nil
	}
	if _, known := r.policy.apps[m.App]; !known {
		o.status = omaha.AppUnknown
		return o, nil
	}
	before := fleet.Machine{State: fleet.Unknown, StateSince: a.now, FirstSeen: a.now}
	if rec := r.machines[machineKey{m.App, m.ID}]; rec != nil && rec.machine.ID != "" {
		before = rec.machine
	}
	m.State, m.StateSince, m.Target, m.Detail = before.State, before.StateSince, before.Target, before.Detail
	m.FirstSeen, m.LastSeen, m.Address, m.Events = before.FirstSeen, before.LastSeen, before.Address, before.Events
	o.machine = m
	o.hear(r, &before, a.now)
	if app.UpdateCheck {
		if err := r.readPinned(ctx, tx, &o.machine); err != nil {
			return o, err
		}
		o.check(r, a.now)
	}
	o.changed = m.ID != "" && (o.machine != before || len(o.events) > 0 || o.course.changed || o.left.changed)
	o.machine.Address, o.machine.LastSeen = a.address, a.now
	return o, nil
}

// hear takes in what the machine says of itself.
func (o *outcome) hear(r *records, before *fleet.Machine, now time.Time) {
	m := &o.machine
	for _, e := range o.app.Events {
		if e.Idle() {
			continue
		}
		o.events = append(o.events, fleet.Event{Event: e, At: now, Version: m.Version})
		if f := m.Advance(e, now); f != nil {
			o.failures = append(o.failures, *f)
		}
	}
	m.Events += int64(len(o.events))
	o.course = r.course(m)
	if before.ID != "" && (before.Channel != m.Channel || before.Arch != m.Arch) {
		o.left = r.course(before)
		o.left.leave(now)
	}
	if f := o.course.cameBack(m, before, o.failures, now); f != nil {
		o.failures = append(o.failures, *f)
	} else {
		o.course.heard(m, before, now)
	}
	if len(o.events) > 0 || len(o.failures) > 0 {
		o.course.after(m, o.failures, now)
	}
}

// check decides on the machine's update check.
func (o *outcome) check(r *records, now time.Time) {
	q := r.question(&o.machine, &o.course, o.failures)
	q.Now = now
	d := fleet.Decide(q)
	o.decision = &d
	if s := r.policy.streams[stream{o.machine.App, o.machine.Channel, o.machine.Arch}]; s != nil {
		o.fresh = s.fresh
	}
	if d.Offer != nil {
		o.granted = o.machine.Grant(d.Offer.Version, now)
	}
	o.course.decided(&d, q, now)
}

// normalAppID brings an id into the form in which it is kept; clients write it with and without braces, in both cases.
func normalAppID(id string) string {
	return "{" + strings.ToLower(strings.Trim(id, "{}")) + "}"
}
