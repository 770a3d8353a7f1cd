package rollout

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	_ "time/tzdata" // the same zones on every machine

	"github.com/pelletier/go-toml/v2"

	"github.com/semper-os/semper/fault"
)

var noon = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

const hour = Duration(time.Hour)

func TestPlanCheck(t *testing.T) {
	good := Plan{
		Canary: CanaryPlan{Group: "canary", Need: 3, Healthy: hour}, Ramp: Ramp{Start: 1, Over: 24 * hour},
		Limits: Limits{AtOnce: 100, PerPeriod: 10, Period: hour}, Windows: Windows{[]string{"Mon-Fri 09:00 8h"}, "Europe/Berlin"},
		Halt: Limit{Failures: 10, Percent: 2, Sample: 50, SilentAfter: hour},
	}
	for _, c := range []struct {
		name, want string
		change     func(*Plan)
	}{
		{"good", "", func(*Plan) {}},
		{"empty", "", func(p *Plan) { *p = Plan{} }},
		{"waves", "", func(p *Plan) { p.Ramp, p.Waves = Ramp{}, []Wave{{0, 1}, {hour, 50}, {2 * hour, 100}} }},
		{"both", "not both", func(p *Plan) { p.Waves = []Wave{{0, 100}} }},
		{"wave back in time", "wave 2 must come later", func(p *Plan) { p.Ramp, p.Waves = Ramp{}, []Wave{{hour, 1}, {0, 100}} }},
		{"wave that shrinks", "wave 2 must come later", func(p *Plan) { p.Ramp, p.Waves = Ramp{}, []Wave{{0, 50}, {hour, 50}} }},
		{"waves without an end", "end with 100", func(p *Plan) { p.Ramp, p.Waves = Ramp{}, []Wave{{0, 50}} }},
		{"too much", "must be more than 0", func(p *Plan) { p.Ramp, p.Waves = Ramp{}, []Wave{{0, 101}} }},
		{"canaries of nobody", "canary.group is missing", func(p *Plan) { p.Canary.Group = "" }},
		{"period alone", "belong together", func(p *Plan) { p.Limits.PerPeriod = 0 }},
		{"negative", "limits.at_once is -1", func(p *Plan) { p.Limits.AtOnce = -1 }},
		{"percent", "halt.percent is 101", func(p *Plan) { p.Halt.Percent = 101 }},
		{"start alone", "ramp.over is missing", func(p *Plan) { p.Ramp.Over = 0 }},
		{"window", "window", func(p *Plan) { p.Windows.Times = []string{"sometimes"} }},
		{"zone", "zone", func(p *Plan) { p.Windows.Zone = "Mars/Base" }},
		{"years", "ramp.over is", func(p *Plan) { p.Ramp.Over = 10000 * hour }},
	} {
		p := good
		c.change(&p)
		err := p.Check()
		if c.want == "" && err != nil || c.want != "" && (!fault.Is(err, fault.Input) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
		if err != nil {
			continue
		}
		var again, third Plan
		b, err := json.Marshal(p)
		if err == nil {
			err = json.Unmarshal(b, &again)
		}
		if err != nil || fmt.Sprint(again) != fmt.Sprint(p) {
			t.Errorf("%s: JSON %s gives %+v, %v", c.name, b, again, err)
		}
		if b, err = toml.Marshal(p); err == nil {
			err = toml.Unmarshal(b, &third)
		}
		if err != nil || fmt.Sprint(third) != fmt.Sprint(p) {
			t.Errorf("%s: TOML %s gives %+v, %v", c.name, b, third, err)
		}
	}
}

// Places are spread evenly, and each release has an order of its own.
func TestPlace(t *testing.T) {
	const n, bins = 100000, 20
	var count [bins]int
	same := 0.0
	for i := range n {
		id := fmt.Sprintf("machine-%d", i)
		p, q := Place(id, "1.1.0"), Place(id, "1.2.0")
		if p < 0 || p >= 1 || p != Place(id, "1.1.0") {
			t.Fatalf("place of %s: %v", id, p)
		}
		count[int(p*bins)]++
		same += (p - 0.5) * (q - 0.5)
	}
	for i, c := range count {
		if c < n/bins*9/10 || c > n/bins*11/10 {
			t.Errorf("bin %d of %d has %d of %d machines", i, bins, c, n)
		}
	}
	if correlation := same / n * 12; correlation > 0.02 || correlation < -0.02 {
		t.Errorf("two releases' places correlate by %.3f", correlation)
	}
	if Place("ab", "c") == Place("a", "bc") {
		t.Error("machine and release run into each other")
	}
}

// Shares only grow, and a machine is reached when it was told it would be.
func TestShare(t *testing.T) {
	for _, p := range []Plan{
		{}, {Ramp: Ramp{Over: 6 * hour}}, {Ramp: Ramp{Start: 25, Over: 6 * hour}}, {Waves: []Wave{{0, 1}, {hour, 10}, {3 * hour, 100}}}, {Waves: []Wave{{hour, 100}}},
	} {
		last := 0.0
		for at := -time.Hour; at < 8*time.Hour; at += 7 * time.Minute {
			share := p.Share(at)
			if share < last || share < 0 || share > 1 || at < 0 && share != 0 {
				t.Errorf("%+v: %v after %s, %v before", p, share, at, last)
			}
			last = share
		}
		if last != 1 {
			t.Errorf("%+v ends at %v", p, last)
		}
		for i := range 1000 {
			place := float64(i) / 1000
			when := p.when(place)
			if p.Share(when) <= place {
				t.Errorf("%+v: %v is told %s, and not reached then (%v)", p, place, when, p.Share(when))
			}
			if early := when - 2*time.Second; early > 0 && p.Share(early) > place+1e-9 {
				t.Errorf("%+v: %v is told %s, and reached before", p, place, when)
			}
		}
	}
}

func TestStates(t *testing.T) {
	r := Rollout{Version: "1.1.0", State: Draft, Plan: Plan{Canary: CanaryPlan{Group: "canary", Healthy: hour}, Ramp: Ramp{Over: 10 * hour}}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := r.Pause("", "ann", noon); !fault.Is(err, fault.Usage) {
		t.Errorf("a draft pauses: %v", err)
	}
	must(r.Start("ann", noon))
	// The phase lasts an hour, and until all canaries are healthy.
	r.Counted = r.Counted.Add(true, None, Granted)
	if r.Advance(2, 10, noon.Add(2*time.Hour)) {
		t.Error("canaries are through, but one is on its way and one has nothing")
	}
	r.Counted = r.Counted.Add(true, Granted, Complete).Add(true, None, Granted).Add(true, Granted, Complete)
	if r.Advance(2, 10, noon.Add(time.Hour-1)) {
		t.Error("canaries are through too early")
	}
	at := noon.Add(time.Hour)
	if !r.Advance(2, 10, at) || r.State != Ramping || r.Reached(at) != 0 {
		t.Errorf("canaries: %+v", r)
	}
	// The ramp stands still while the rollout does.
	must(r.Pause("lunch", "ann", at.Add(time.Hour)))
	if got := r.Reached(at.Add(100 * time.Hour)); got != 0.1 {
		t.Errorf("a paused ramp goes to %v", got)
	}
	must(r.Resume("", "ann", at.Add(100*time.Hour)))
	if got := r.Reached(at.Add(101 * time.Hour)); got != 0.2 {
		t.Errorf("after the pause it is at %v", got)
	}
	must(r.Halt("bad", at.Add(101*time.Hour)))
	if err := r.Resume("", "", at); !fault.Is(err, fault.Usage) {
		t.Errorf("it resumes by itself: %v", err)
	}
	must(r.Resume("looked at it", "bob", at.Add(102*time.Hour)))
	if r.State != Ramping || r.Base != r.Counted || r.Reached(at.Add(102*time.Hour)) != 0.2 {
		t.Errorf("resumed: %+v", r)
	}
	// What is aborted stays where it was, also when it stood still.
	for _, pause := range []bool{false, true} {
		aborted, end := r, at.Add(103*time.Hour)
		if pause {
			must(aborted.Pause("", "ann", end))
			end = at.Add(150 * time.Hour)
		}
		must(aborted.Abort("", "ann", end))
		if got := aborted.Reached(at.Add(200 * time.Hour)); got != 0.3 {
			t.Errorf("aborted, paused before: %v, it is at %v", pause, got)
		}
	}
	if r.Advance(2, 0, at.Add(109*time.Hour)) || !r.Advance(2, 0, at.Add(110*time.Hour)) || r.State != Done {
		t.Errorf("the end: %+v", r)
	}
	if err := r.Abort("", "ann", at); !fault.Is(err, fault.Usage) {
		t.Errorf("what is done is aborted: %v", err)
	}
}

func TestDecide(t *testing.T) {
	ramping := func(change func(*Rollout)) Rollout {
		r := Rollout{Version: "1.2.0", State: Ramping, Since: noon, Ramp: noon, Plan: Plan{Ramp: Ramp{Over: 10 * hour}}}
		change(&r)
		return r
	}
	early, late := "", ""
	for i := 0; early == "" || late == ""; i++ {
		id := fmt.Sprint("m", i)
		if p := Place(id, "1.2.0"); p < 0.05 {
			early = id
		} else if p > 0.9 && p < 0.91 {
			late = id
		}
	}
	at := noon.Add(time.Hour) // a tenth is reached
	for _, c := range []struct {
		name   string
		r      Rollout
		m      Machine
		cause  Cause
		offer  bool
		reason string
		next   time.Time
	}{
		{"its turn", ramping(func(*Rollout) {}), Machine{ID: early}, Granting, true, "turn", time.Time{}},
		{"later", ramping(func(*Rollout) {}), Machine{ID: late}, NotReached, false, "has reached 10 %", noon.Add(9*time.Hour + 3*time.Minute)},
		{"a canary does not wait", ramping(func(*Rollout) {}), Machine{ID: late, Canary: true}, Granting, true, "turn", time.Time{}},
		{"goes on", ramping(func(*Rollout) {}), Machine{ID: late, Step: Granted}, InProgress, true, "already", time.Time{}},
		{
			"paused", ramping(func(r *Rollout) { r.State, r.Before, r.By, r.Why = Paused, Ramping, "ann", "lunch" }),
			Machine{ID: early, Step: Granted},
			NotRunning, false,
			"is paused since 2026-11-26 12:00 UTC by ann: lunch",
			time.Time{},
		},
		{"canaries first", ramping(func(r *Rollout) { r.State, r.Plan.Canary.Group = Canary, "c" }), Machine{ID: early}, CanaryFirst, false, "canaries of group c first", time.Time{}},
		{"a canary", ramping(func(r *Rollout) { r.State, r.Plan.Canary.Group = Canary, "c" }), Machine{ID: early, Canary: true}, Granting, true, "turn", time.Time{}},
		{"window", ramping(func(r *Rollout) { r.Plan.Windows.Times = []string{"Fri 02:00 1h"} }), Machine{ID: early}, Closed, false, "from 2026-11-27 02:00 UTC", noon.Add(14 * time.Hour)},
		{"at once", ramping(func(r *Rollout) { r.Plan.Limits.AtOnce, r.Counted.All.InFlight = 5, 5 }), Machine{ID: early}, Limited, false, "5 machines update", time.Time{}},
		{"a period's grants", ramping(func(r *Rollout) {
			r.Plan.Limits, r.Counted.Period, r.Counted.Grants = Limits{PerPeriod: 3, Period: 2 * hour}, noon, 3
		}), Machine{ID: early}, Limited, false, "until 2026-11-26 14:00 UTC", noon.Add(2 * time.Hour)},
		{"the next period", ramping(func(r *Rollout) {
			r.Plan.Limits, r.Counted.Period, r.Counted.Grants = Limits{PerPeriod: 3, Period: hour}, noon, 3
		}), Machine{ID: early}, Granting, true, "turn", time.Time{}},
		{"a request that another has overtaken", ramping(func(r *Rollout) {
			r.Plan.Limits, r.Counted.Period, r.Counted.Grants = Limits{PerPeriod: 3, Period: 2 * hour}, at.Add(time.Millisecond), 3
		}), Machine{ID: early}, Limited, false, "until 2026-11-26 15:00 UTC", at.Add(2 * time.Hour)},
		{"a clock that was set back", ramping(func(r *Rollout) {
			r.Plan.Limits, r.Counted.Period, r.Counted.Grants = Limits{PerPeriod: 3, Period: hour}, noon.AddDate(10, 0, 0), 3
		}), Machine{ID: early}, Granting, true, "turn", time.Time{}},
	} {
		d := c.r.Decide(c.m, at)
		if d.Cause != c.cause || d.Offer != c.offer || !strings.Contains(d.Reason, c.reason) {
			t.Errorf("%s: %+v", c.name, d)
		}
		if diff := d.Next.Sub(c.next); !c.next.IsZero() && (diff < -4*time.Minute || diff > 4*time.Minute) || c.next.IsZero() != d.Next.IsZero() {
			t.Errorf("%s: next %s, want %s", c.name, d.Next, c.next)
		}
		if d.Grant != (d.Cause == Granting) || d.Grant && d.Counted.All.InFlight != c.r.Counted.All.InFlight+1 || !d.Grant && d.Counted != c.r.Counted {
			t.Errorf("%s: grant %v, counters %+v", c.name, d.Grant, d.Counted)
		}
	}
}

func TestJudge(t *testing.T) {
	plan := Plan{Canary: CanaryPlan{Group: "c", Failures: 2}, Halt: Limit{Failures: 50, Percent: 3, Sample: 100}}
	count := func(complete, failed, silent int64) Count {
		return Count{Complete: complete, Failed: failed, Silent: silent}
	}
	for _, c := range []struct {
		name   string
		counts Counters
		base   Counters
		state  State
		want   string
	}{
		{"well", Counters{All: count(1000, 10, 5)}, Counters{}, Ramping, ""},
		{"percent", Counters{All: count(970, 20, 10)}, Counters{}, Ramping, "30 of 1000 machines failed, 3 %"},
		{"too few to say", Counters{All: count(90, 9, 0)}, Counters{}, Ramping, ""},
		{"absolute", Counters{All: count(100000, 49, 1)}, Counters{}, Ramping, "50 machines failed; it stops at 50"},
		{"canaries", Counters{All: count(3, 1, 1), Canary: count(3, 1, 1)}, Counters{}, Canary, "2 of 5 canaries failed; it stops at 2: m1 (health check web failed); m2 (silent)"},
		{"one canary", Counters{Canary: count(3, 1, 0)}, Counters{}, Canary, ""},
		{"looked into", Counters{All: count(100, 49, 1)}, Counters{All: count(100, 49, 1)}, Ramping, ""},
		{"paused", Counters{All: count(0, 500, 1)}, Counters{}, Paused, ""},
	} {
		r := Rollout{Version: "1.2.0", Plan: plan, State: c.state, Counted: c.counts, Base: c.base}
		halt, why := r.Judge([]Failure{{"m1", noon, "health check web failed"}, {"m2", noon, "silent"}})
		if halt != (c.want != "") || !strings.HasPrefix(why, c.want) {
			t.Errorf("%s: %v %q, want %q", c.name, halt, why, c.want)
		}
	}
	if why := sentence("x", make([]Failure, 30)); strings.Count(why, "()") != maxNamed || !strings.HasSuffix(why, "; and 10 more") {
		t.Errorf("many: %q", why)
	}
}

// Whatever steps machines make, however often they are told, the counters say how many machines are where.
func TestCounters(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	steps := []Step{None, Granted, Rebooting, Complete, Failed, Silent}
	at := make([]Step, 50)
	var c Counters
	for range 20000 {
		i := rng.IntN(len(at))
		to := steps[rng.IntN(len(steps))]
		c = c.Add(i%5 == 0, at[i], to)
		at[i] = to
		var want Counters
		for i, s := range at {
			want = want.Add(i%5 == 0, None, s)
		}
		if c != want {
			t.Fatalf("%+v, want %+v", c, want)
		}
	}
}

func TestPreview(t *testing.T) {
	p := Plan{Ramp: Ramp{Start: 1, Over: 24 * hour}}
	points := p.Preview(1000)
	if len(points) != 101 || points[0].Machines != 10 || points[100].Machines != 1000 || points[100].After != 24*time.Hour {
		t.Errorf("%+v", points)
	}
	if points := (&Plan{Waves: []Wave{{0, 10}, {hour, 100}}}).Preview(50); len(points) != 2 || points[0].Machines != 5 {
		t.Errorf("%+v", points)
	}
	if points := (&Plan{}).Preview(50); len(points) != 1 || points[0].Machines != 50 {
		t.Errorf("%+v", points)
	}
}

func FuzzPlan(f *testing.F) {
	f.Add([]byte(`{"canary":{"group":"c","need":3,"healthy":"1h"},"ramp":{"start":1,"over":"24h"},"limits":{"at_once":5},"halt":{"percent":2}}`))
	f.Add([]byte(`{"waves":[{"after":"0s","percent":1},{"after":"1h","percent":100}],"windows":{"times":["Mon-Fri 09:00 8h"],"zone":"UTC"}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Plan
		if json.Unmarshal(b, &p) != nil || p.Check() != nil {
			return
		}
		r := Rollout{Version: "1.0.0", State: Draft, Plan: p}
		if err := r.Start("x", noon); err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			d := r.Decide(Machine{ID: fmt.Sprint(i), Canary: i%2 == 0}, noon.Add(time.Duration(i)*time.Hour))
			if d.Grant && !d.Offer || d.Reason == "" || d.Counted.All.InFlight < 0 {
				t.Errorf("%+v", d)
			}
			r.Counted = d.Counted
			if p.Limits.AtOnce > 0 && r.Counted.All.InFlight > p.Limits.AtOnce {
				t.Errorf("%d at once", r.Counted.All.InFlight)
			}
		}
		p.Preview(1000)
	})
}
