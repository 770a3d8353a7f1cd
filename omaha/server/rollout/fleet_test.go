package rollout

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// fleet is a simulation on virtual time: machines ask every 45 minutes, some fail, some fall silent.
type fleet struct {
	r        *Rollout
	machines []*simulated
	rng      *rand.Rand
	fails    float64 // share of machines that come back from the release
	silent   float64 // share that dies with it
	failures []Failure
	periods  map[int64]int64 // grants by hour since the start
	atOnce   int64           // the most in flight
}

type simulated struct {
	Machine
	asks, done time.Time
}

func newFleet(plan Plan, n, canaries int) *fleet {
	f := &fleet{r: &Rollout{Version: "1.2.0", State: Draft, Plan: plan}, rng: rand.New(rand.NewPCG(7, 9)), periods: map[int64]int64{}}
	for i := range n {
		f.machines = append(f.machines, &simulated{Machine: Machine{ID: fmt.Sprintf("m%06d", i), Canary: i < canaries}, asks: noon.Add(time.Duration(f.rng.Int64N(int64(45 * time.Minute))))})
	}
	return f
}

// run goes minute by minute until the rollout stops or ends.
func (f *fleet) run(t *testing.T, canaries int64, limit time.Duration) time.Time {
	t.Helper()
	if err := f.r.Start("ann", noon); err != nil {
		t.Fatal(err)
	}
	for now := noon; now.Before(noon.Add(limit)); now = now.Add(time.Minute) {
		left := int64(0)
		for _, m := range f.machines {
			f.step(t, m, now)
			if m.Step == None {
				left++
			}
		}
		if halt, why := f.r.Judge(f.failures); halt {
			if err := f.r.Halt(why, now); err != nil {
				t.Fatal(err)
			}
		}
		f.r.Advance(canaries, left, now)
		f.atOnce = max(f.atOnce, f.r.Counted.All.InFlight)
		if f.r.State == Halted || f.r.State == Done {
			return now
		}
	}
	t.Fatalf("it is %s after %s: %+v", f.r.State, limit, f.r.Counted)
	return noon
}

func (f *fleet) move(m *simulated, to Step, now time.Time, why string) {
	f.r.Counted = f.r.Counted.Add(m.Canary, m.Step, to)
	m.Step = to
	if to == Failed || to == Silent {
		f.failures = slices.Insert(f.failures, 0, Failure{m.ID, now, why})
	}
}

func (f *fleet) step(t *testing.T, m *simulated, now time.Time) {
	switch {
	case m.Step == Granted && !now.Before(m.done):
		f.move(m, Rebooting, now, "")
		m.done = now.Add(3 * time.Minute)
		if f.rng.Float64() < f.silent {
			m.done = now.Add(f.r.SilentAfter())
		}
	case m.Step == Rebooting && !now.Before(m.done):
		switch {
		case m.done.Sub(now) <= 0 && f.silent > 0 && f.rng.Float64() < f.silent:
			f.move(m, Silent, now, "it said nothing after its reboot")
		case f.rng.Float64() < f.fails:
			f.move(m, Failed, now, "health check web failed")
		default:
			f.move(m, Complete, now, "")
		}
	case m.Step == None && !now.Before(m.asks):
		m.asks = now.Add(45 * time.Minute)
		d := f.r.Decide(m.Machine, now)
		if !d.Grant {
			return
		}
		if !m.Canary && Place(m.ID, f.r.Version) >= f.r.Reached(now) {
			t.Errorf("%s is given the release before its turn", m.ID)
		}
		f.r.Counted, m.Step = d.Counted, Granted
		m.done = now.Add(5 * time.Minute)
		f.periods[int64(now.Sub(noon)/time.Hour)]++
	}
}

func TestFleet(t *testing.T) {
	plan := Plan{
		Canary: CanaryPlan{Group: "canary", Healthy: 2 * hour}, Ramp: Ramp{Over: 24 * hour},
		Limits: Limits{AtOnce: 100}, Halt: Limit{Percent: 2, Sample: 100, SilentAfter: hour},
	}
	t.Run("well", func(t *testing.T) {
		p := plan
		p.Limits = Limits{AtOnce: 200, PerPeriod: 600, Period: hour}
		f := newFleet(p, 5000, 20)
		end := f.run(t, 20, 72*time.Hour)
		if f.r.State != Done || f.r.Counted.All.Complete != 5000 || f.r.Counted.Canary.Complete != 20 {
			t.Errorf("%s: %+v", f.r.State, f.r.Counted)
		}
		if f.atOnce > 200 {
			t.Errorf("%d at once", f.atOnce)
		}
		for h, n := range f.periods {
			if n > 2*600 { // an hour of the clock touches two periods
				t.Errorf("%d grants in hour %d", n, h)
			}
		}
		t.Logf("5000 machines in %s", end.Sub(noon))
	})
	t.Run("three percent fail", func(t *testing.T) {
		f := newFleet(plan, 100000, 20)
		f.machines = slices.DeleteFunc(f.machines, func(m *simulated) bool { // those whose turn is far do nothing here
			return !m.Canary && Place(m.ID, "1.2.0") > 0.1
		})
		// The canaries are few, so they may be lucky.
		f.r.Plan.Canary.Failures = 5
		f.fails = 0.03
		f.run(t, 20, 72*time.Hour)
		touched := f.r.Counted.All.Granted
		if f.r.State != Halted || touched > 500 || !strings.Contains(f.r.Why, "machines failed") || !strings.Contains(f.r.Why, "health check web failed") {
			t.Errorf("%s with %d of 100000 machines touched: %.200s", f.r.State, touched, f.r.Why)
		}
		t.Logf("halted with %d of 100000 machines touched", touched)
	})
	t.Run("bad canary", func(t *testing.T) {
		f := newFleet(plan, 1000, 10)
		f.fails = 1
		f.run(t, 10, 72*time.Hour)
		if f.r.State != Halted || f.r.Counted.All != f.r.Counted.Canary || f.r.Counted.All.Granted > 10 {
			t.Errorf("%s: %+v", f.r.State, f.r.Counted)
		}
	})
	t.Run("silence", func(t *testing.T) {
		f := newFleet(plan, 1000, 10)
		f.silent = 1
		end := f.run(t, 10, 72*time.Hour)
		if f.r.State != Halted || f.r.Counted.All.Silent == 0 || f.r.Counted.All != f.r.Counted.Canary || end.Sub(noon) < time.Hour {
			t.Errorf("%s after %s: %+v", f.r.State, end.Sub(noon), f.r.Counted)
		}
	})
}
