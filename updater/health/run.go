package health

import (
	"context"
	"fmt"
	"time"

	"github.com/semper-os/semper/updater/hook"
)

// Clock is the time that a run lives in.
type Clock struct {
	Now  func() time.Time
	Wait func(ctx context.Context, d time.Duration) // returns early when ctx ends
}

// SystemClock is the machine's.
var SystemClock = Clock{Now: time.Now, Wait: func(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}}

// Options say how checks are run.
type Options struct {
	Clock Clock
	Host  Host
	// Timeout is for checks whose file names none; 0: DefaultTimeout.
	Timeout time.Duration
	// Overall is the time for all checks; 0: the constant.
	Overall time.Duration
	// Later: the run is one of those after the blessing. No check has a grace, and all run, whatever the others say.
	Later bool
}

// one is a check on its way.
type one struct {
	Check
	result   *CheckResult
	deadline time.Time // of the grace; zero before the first attempt
	next     time.Time // of the next attempt; zero: there is none
}

type run struct {
	o   Options
	end time.Time // of the time for all
	all []*one
}

// Run runs the checks. At the first required failure that is final it stops: the machine goes back then, and the later checks often only repeat the first
// one's failure, at the price of the time until the machine serves again.
func Run(ctx context.Context, checks []Check, o Options) Result {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Overall == 0 {
		o.Overall = Overall
	}
	r := run{o: o, end: o.Clock.Now().Add(o.Overall)}
	for _, c := range checks {
		switch {
		case c.Builtin != Server:
		case o.Host.ServerMode == ModeRequired:
			c.Required = true
		case o.Host.ServerMode == ModeAdvisory:
			c.Required = false
		default:
			continue
		}
		if o.Later {
			c.Grace = 0
		}
		if c.Timeout == 0 {
			c.Timeout = o.Timeout
		}
		r.all = append(r.all, &one{Check: c, result: &CheckResult{Name: c.Name, Kind: c.Kind, Required: c.Required}})
	}
	stopped := r.rounds(ctx)
	return r.result(ctx, stopped)
}

// rounds gives every check its turn, and those that have a grace further ones. It returns true when it stopped at a required failure.
func (r *run) rounds(ctx context.Context) (stopped bool) {
	for _, c := range r.all {
		if ctx.Err() != nil || r.left() <= 0 {
			return false
		}
		if final := r.attempt(ctx, c); final && c.Required && !r.o.Later {
			return true
		}
	}
	for {
		var c *one
		for _, w := range r.all {
			if !w.next.IsZero() && (c == nil || w.next.Before(c.next)) {
				c = w
			}
		}
		if c == nil {
			return false
		}
		if d := min(c.next.Sub(r.o.Clock.Now()), r.left()); d > 0 {
			r.o.Clock.Wait(ctx, d)
		}
		if ctx.Err() != nil || r.left() <= 0 {
			return false
		}
		if final := r.attempt(ctx, c); final && c.Required {
			return true
		}
	}
}

// left is what is left of the time for all.
func (r *run) left() time.Duration { return r.end.Sub(r.o.Clock.Now()) }

// attempt runs a check once. It returns true when the check failed and is not tried again.
func (r *run) attempt(ctx context.Context, c *one) (final bool) {
	start := r.o.Clock.Now()
	if c.deadline.IsZero() {
		c.deadline = start.Add(c.Grace)
	}
	left := r.end.Sub(start)
	if left <= 0 {
		return false
	}
	out := r.o.Host.check(ctx, c.Check, min(c.Timeout, left))
	if left < c.Timeout && out.Problem == hook.TookLonger(left) { // not its own time was over
		if c.result.Attempts > 0 {
			return false
		}
		out.Problem = fmt.Sprintf("cut off: the %s for all checks were over", r.o.Overall)
	}
	now := r.o.Clock.Now()
	c.result.Attempts++
	c.result.OK, c.result.Problem, c.result.Output, c.result.Took = out.OK(), out.Problem, out.Output, now.Sub(start)
	c.next = time.Time{}
	if out.OK() {
		return false
	}
	// The last attempt is the one that begins when the grace is over, so that what came up just before is seen.
	if !start.Before(c.deadline) || c.Kind == Broken {
		return true
	}
	c.next = now.Add(c.Retry)
	if c.next.After(c.deadline) {
		c.next = c.deadline
	}
	return false
}

func (r *run) result(ctx context.Context, stopped bool) Result {
	result := Result{Healthy: true, Checks: []CheckResult{}, At: r.o.Clock.Now().UTC()}
	for _, c := range r.all {
		one := c.result
		switch {
		case one.Attempts > 0:
			one.Waiting = !c.next.IsZero()
		case stopped:
			continue // nothing is known of it, and nothing depends on it any more
		case ctx.Err() != nil:
			one.Problem = hook.Interrupted
		default:
			one.Problem = fmt.Sprintf("not run: the %s for all checks were over", r.o.Overall)
		}
		if !one.OK && one.Required {
			result.Healthy = false
		}
		result.Checks = append(result.Checks, *one)
	}
	return result
}
