package rollout

import "time"

// Step is how far a machine is with a rollout's release.
type Step string

// The steps. A machine may leave some out, since reports get lost.
const (
	None      Step = ""          // it was not given the release
	Granted   Step = "granted"   // it downloads and installs
	Rebooting Step = "rebooting" // it said that it is installed; its silence counts from now on
	Complete  Step = "complete"  // it runs it and is healthy
	Failed    Step = "failed"    // it said so, or came back from it
	Silent    Step = "silent"    // it said nothing after its reboot
)

func (s Step) inFlight() bool { return s == Granted || s == Rebooting }

// Count is how many machines are at each step.
type Count struct {
	Granted  int64 `json:"granted"`   // ever, those below included
	InFlight int64 `json:"in_flight"` // granted or rebooting
	Complete int64 `json:"complete"`
	Failed   int64 `json:"failed"`
	Silent   int64 `json:"silent"`
}

// Known is how many outcomes are known.
func (c Count) Known() int64 { return c.Complete + c.Failed + c.Silent }

// Bad is how many of them are failures.
func (c Count) Bad() int64 { return c.Failed + c.Silent }

// Counters are what the store keeps for a rollout.
type Counters struct {
	All    Count `json:"all"` // canaries included
	Canary Count `json:"canary"`

	Period time.Time `json:"period,omitzero"` // when the period began that Grants counts in
	Grants int64     `json:"grants"`
}

// Add returns c after a machine's step from one to another. A step to the same place changes nothing, so that a report that comes twice counts once.
func (c Count) Add(from, to Step) Count {
	if from == to {
		return c
	}
	if from == None {
		c.Granted++
	}
	if to == None {
		c.Granted--
	}
	for _, move := range []struct {
		step Step
		n    int64
	}{{from, -1}, {to, 1}} {
		switch move.step {
		case Granted, Rebooting:
			c.InFlight += move.n
		case Complete:
			c.Complete += move.n
		case Failed:
			c.Failed += move.n
		case Silent:
			c.Silent += move.n
		}
	}
	return c
}

// Add returns c after the step of a machine that is a canary or is not.
func (c Counters) Add(canary bool, from, to Step) Counters {
	c.All = c.All.Add(from, to)
	if canary {
		c.Canary = c.Canary.Add(from, to)
	}
	return c
}

// Admit says whether one more machine may be given the release now, within the limits, and else when to ask again (zero: when another machine is through). Where it may,
// counters are what they are after the grant: the caller adds the step, and keeps both in the transaction that it read them in.
func (l Limits) Admit(c Counters, now time.Time) (after Counters, ok bool, next time.Time) {
	if l.AtOnce > 0 && c.All.InFlight >= l.AtOnce {
		return c, false, time.Time{}
	}
	if l.PerPeriod > 0 {
		// Periods follow each other from the first grant on. Requests are not decided on in the order of their times, and servers' clocks differ: a little before the period is
		// in it. A clock that was set back by more begins a new one.
		if now.Before(c.Period.Add(-l.Period.Duration())) || !now.Before(c.Period.Add(l.Period.Duration())) {
			c.Period, c.Grants = now, 0
		}
		if c.Grants >= l.PerPeriod {
			return c, false, c.Period.Add(l.Period.Duration())
		}
		c.Grants++
	}
	return c, true, time.Time{}
}
