package rollout

import (
	"fmt"
	"time"
)

// Cause is the rule that decided, a word for programs.
type Cause string

// The rules, in the order in which they are asked.
const (
	NotRunning  Cause = "rollout-not-running" // draft, paused, halted, aborted
	InProgress  Cause = "in-progress"         // it was given to this machine before, and goes on
	CanaryFirst Cause = "canaries-first"
	NotReached  Cause = "not-reached" // its place comes later
	Closed      Cause = "window-closed"
	Limited     Cause = "limit" // of machines at once, or of grants a period
	Granting    Cause = "granted"
)

// Machine is what a decision needs to know of one.
type Machine struct {
	ID     string
	Canary bool
	Step   Step // with this release
}

// Decision says whether a machine is given the release now, and why.
type Decision struct {
	Offer  bool
	Grant  bool // the offer is a new one: counters change, see Counted
	Cause  Cause
	Reason string    // a sentence without a full stop
	Next   time.Time // when it may be given to it; zero: that is not known, or a person decides

	Counted Counters // what the counters are after the decision
}

// Decide answers a machine of the rollout's channel that could take its release: it is newer than what runs there, and did not fail there (package fleet asks that first).
func (r *Rollout) Decide(m Machine, now time.Time) Decision {
	d := Decision{Counted: r.Counted}
	hold := func(c Cause, next time.Time, format string, args ...any) Decision {
		d.Cause, d.Next, d.Reason = c, next, fmt.Sprintf(format, args...)
		return d
	}
	if !r.State.running() {
		return hold(NotRunning, time.Time{}, "the rollout of %s is %s%s", r.Version, r.State, r.because())
	}
	if m.Step.inFlight() {
		d.Offer, d.Cause = true, InProgress
		d.Reason = fmt.Sprintf("%s was given to this machine already, and it is %s", r.Version, m.Step)
		return d
	}
	if r.State == Canary && !m.Canary {
		return hold(CanaryFirst, time.Time{}, "%s goes to the canaries of group %s first; %d of them are healthy with it", r.Version, r.Plan.Canary.Group, r.Counted.Canary.Complete)
	}
	if !m.Canary {
		place, reached := Place(m.ID, r.Version), r.Reached(now)
		if place >= reached {
			next := r.Ramp.Add(r.Stood + r.Plan.when(place))
			return hold(NotReached, next, "%s has reached %.4g %% of the machines, and this one, at %.4g %%, gets it about %s", r.Version, reached*100, place*100, stamp(next))
		}
	}
	schedule, err := r.Plan.schedule()
	if err != nil { // a plan is checked before it starts; what cannot be read lets nobody through
		return hold(Closed, time.Time{}, "the windows of %s cannot be read: %s", r.Version, err)
	}
	if len(schedule.Windows) > 0 {
		if open, _ := schedule.Open(now); !open {
			next, _ := schedule.Next(now)
			return hold(Closed, next, "%s is given out in its windows only, the next one from %s", r.Version, stamp(next))
		}
	}
	counted, ok, next := r.Plan.Limits.Admit(r.Counted, now)
	if !ok {
		if next.IsZero() {
			return hold(Limited, next, "%d machines update to %s, and no more may at once", r.Counted.All.InFlight, r.Version)
		}
		return hold(Limited, next, "%s was given to %d machines since %s, and no more may get it until %s", r.Version, r.Counted.Grants, stamp(r.Counted.Period), stamp(next))
	}
	d.Offer, d.Grant, d.Cause = true, true, Granting
	d.Counted = counted.Add(m.Canary, m.Step, Granted)
	d.Reason = fmt.Sprintf("it is this machine's turn in the rollout of %s", r.Version)
	return d
}

func (r *Rollout) because() string {
	if r.Since.IsZero() {
		return ""
	}
	text := " since " + stamp(r.Since)
	if r.By != "" {
		text += " by " + r.By
	}
	if r.Why != "" {
		text += ": " + r.Why
	}
	return text
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// Point is the plan's share at a moment.
type Point struct {
	After    time.Duration `json:"after_ns"` // the canaries were through
	Share    float64       `json:"share"`
	Machines int64         `json:"machines"`
}

// previewPoints is how many points a ramp's picture has.
const previewPoints = 100

// Preview is what a plan would do with so many machines if nothing fails and no window or limit holds it up.
func (p *Plan) Preview(machines int64) []Point {
	point := func(after time.Duration) Point {
		share := p.Share(after)
		return Point{after, share, int64(share * float64(machines))}
	}
	switch {
	case len(p.Waves) > 0:
		var out []Point
		for _, w := range p.Waves {
			out = append(out, point(w.After.Duration()))
		}
		return out
	case p.Ramp.Over > 0:
		var out []Point
		for i := range previewPoints + 1 {
			out = append(out, point(p.Ramp.Over.Duration()*time.Duration(i)/previewPoints))
		}
		return out
	}
	return []Point{point(0)}
}
