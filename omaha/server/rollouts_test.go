package server

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
)

var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// rolling is a server with a channel at 1.0.0, and 1.1.0 published.
type rolling struct {
	*fixture
	clock    *still
	operator string
	app      string
}

func startRolling(t *testing.T) *rolling {
	t.Helper()
	clock := &still{now: noon}
	f := serve(t, t.TempDir(), Config{Now: clock.read})
	f.publish("semper", "1.0.0", "stable")
	f.publish("semper", "1.1.0", "beta")
	app, err := f.s.store.Read().Application(t.Context(), "semper")
	if err != nil {
		t.Fatal(err)
	}
	return &rolling{f, clock, f.newToken(fleet.Operator), app.ID}
}

// steer calls the REST interface as an operator.
func (f *rolling) steer(method, path string, body any, status int, into any) {
	f.Helper()
	text := ""
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			f.Fatal(err)
		}
		text = string(b)
	}
	got, _, answer := f.do(method, "/api/v1/"+path, text, "Authorization", "Bearer "+f.operator)
	if got != status {
		f.Fatalf("%s %s: status %d, want %d: %s", method, path, got, status, answer)
	}
	if into != nil {
		if err := json.Unmarshal([]byte(answer), into); err != nil {
			f.Fatalf("%s %s: %v in %s", method, path, err, answer)
		}
	}
}

// start starts a rollout of 1.1.0 in stable.
func (f *rolling) start(plan rollout.Plan) api.Rollout {
	f.Helper()
	var r api.Rollout
	f.steer("POST", "rollouts", api.NewRollout{Version: "1.1.0", Channel: "stable", Plan: plan, Start: true}, 200, &r)
	return r
}

func (f *rolling) rollout(id int64) api.RolloutDetail {
	f.Helper()
	var r api.RolloutDetail
	f.steer("GET", fmt.Sprintf("rollouts/%d", id), nil, 200, &r)
	return r
}

func (f *rolling) sweep() {
	f.Helper()
	if err := f.s.Sweep(f.Context()); err != nil {
		f.Fatal(err)
	}
}

// box is a machine that speaks Omaha.
type box struct {
	f       *rolling
	id      string
	version string
	boot    int
	track   string
}

func (f *rolling) box(id string) *box { return &box{f, id, "1.0.0", 1, "stable"} }

// ask sends a check, or events, or both.
func (b *box) ask(check bool, events ...omaha.Event) *omaha.AppResponse {
	b.f.Helper()
	app := b.request(check)
	app.Events = events
	r := omaha.Request{Apps: []omaha.AppRequest{app}}
	return b.f.omaha(string(r.Encode()))
}

func (b *box) request(check bool) omaha.AppRequest {
	return omaha.AppRequest{
		ID: b.f.app, Version: b.version, Track: b.track, MachineID: b.id, MachineAlias: "the " + b.id, BootID: fmt.Sprintf("{%s-%d}", b.id, b.boot), Board: "amd64-usr", Ping: true, UpdateCheck: check,
	}
}

// check returns the version that is offered, or none and the reason.
func (b *box) check() (version, reason string) {
	b.f.Helper()
	u := b.ask(true).UpdateCheck
	if u.Status == omaha.NoUpdate {
		return "", u.Reason
	}
	return u.Manifest.Version, ""
}

// reboots reports that the version is installed and will boot.
func (b *box) reboots(version string) {
	b.f.Helper()
	b.ask(false, omaha.DownloadStarted(version), omaha.DownloadFinished(version), omaha.Installed(version))
}

// healthy is the new version's first word.
func (b *box) healthy(version string) {
	b.f.Helper()
	was := b.version
	b.boot++
	b.version = version
	b.ask(true, omaha.Completed(was))
}

// update is the whole way.
func (b *box) update(version string) {
	b.f.Helper()
	if got, why := b.check(); got != version {
		b.f.Fatalf("%s is offered %q (%s), want %s", b.id, got, why, version)
	}
	b.reboots(version)
	b.healthy(version)
}

func (f *rolling) counted(id int64) rollout.Counters {
	f.Helper()
	r, err := f.s.store.Read().Rollout(f.Context(), id)
	if err != nil {
		f.Fatal(err)
	}
	again, err := f.s.store.Read().CountSteps(f.Context(), id)
	if err != nil {
		f.Fatal(err)
	}
	if r.Counted.All.InFlight != again.All.InFlight || r.Counted.All.Complete != again.All.Complete || r.Counted.All.Bad() != again.All.Bad() ||
		r.Counted.Canary.InFlight != again.Canary.InFlight || r.Counted.Canary.Complete != again.Canary.Complete || r.Counted.Canary.Bad() != again.Canary.Bad() {
		f.Errorf("counters %+v, counted afresh %+v", r.Counted, again)
	}
	return r.Counted
}

// TestRollout goes through a whole one: canaries, a ramp, everybody, and the release becomes the channel's own.
func TestRollout(t *testing.T) {
	f := startRolling(t)
	f.steer("PUT", "groups/lab", nil, 200, nil)
	f.steer("PUT", "machines/c1/group", api.Member{Group: "lab"}, 200, nil)
	f.steer("PUT", "machines/c2/group", api.Member{Group: "lab"}, 200, nil)
	c1, c2 := f.box("c1"), f.box("c2")
	var all []*box
	for i := range 50 {
		all = append(all, f.box(fmt.Sprint("m", i)))
	}
	for _, b := range append(all, c1, c2) {
		if v, why := b.check(); v != "" || !strings.Contains(why, "the machine runs 1.0.0, the release of channel stable") {
			t.Fatalf("%s before the rollout: %q %s", b.id, v, why)
		}
	}
	r := f.start(rollout.Plan{
		Canary: rollout.CanaryPlan{Group: "lab", Healthy: rollout.Duration(time.Hour)},
		Ramp:   rollout.Ramp{Over: rollout.Duration(10 * time.Hour)},
	})
	if r.State != "canary" || r.By == "" || r.CreatedBy != r.By {
		t.Errorf("started: %+v", r)
	}
	if v, why := all[0].check(); v != "" || why != "1.1.0 goes to the canaries of group lab first; 0 of them are healthy with it" {
		t.Errorf("not a canary: %q %s", v, why)
	}
	c1.update("1.1.0")
	f.clock.advance(2 * time.Hour)
	f.sweep()
	if got := f.rollout(r.ID); got.State != "canary" || got.Counted.Canary.Complete != 1 {
		t.Errorf("one of two canaries is healthy: %+v", got.Rollout)
	}
	c2.update("1.1.0")
	f.sweep()
	got := f.rollout(r.ID)
	if got.State != "ramping" || got.Reached != 0 || len(got.Preview) == 0 {
		t.Fatalf("the canaries are through: %+v", got.Rollout)
	}
	// The ramp: machines get it in the order of their places, and what they are told beforehand is true.
	done := 0
	for hour := range 11 {
		for _, b := range all {
			if b.version == "1.1.0" {
				continue
			}
			var why api.Why
			f.steer("GET", "machines/"+b.id+"/why", nil, 200, &why)
			v, reason := b.check()
			if v != why.Offer || v == "" && reason != why.Sentence || why.Rollout != r.ID {
				t.Fatalf("%s was told %q (%s), and gets %q (%s)", b.id, why.Offer, why.Sentence, v, reason)
			}
			if v == "" {
				if why.Cause != "not-reached" || !why.Next.After(f.clock.read()) {
					t.Fatalf("%s: %+v", b.id, why)
				}
				continue
			}
			if place := rollout.Place(b.id, "1.1.0"); place >= float64(hour)/10 {
				t.Errorf("%s at %.2f gets it after %d hours of 10", b.id, place, hour)
			}
			b.reboots(v)
			b.healthy(v)
			done++
		}
		f.sweep()
		f.clock.advance(time.Hour)
	}
	if c := f.counted(r.ID); done != 50 || c.All.Complete != 52 || c.All.InFlight != 0 {
		t.Errorf("%d machines, counters %+v", done, c)
	}
	if got := f.rollout(r.ID); got.State != "done" {
		t.Errorf("everybody has it: %+v", got.Rollout)
	}
	if v, why := f.box("new").check(); v != "1.1.0" {
		t.Errorf("a machine that comes later: %q %s", v, why)
	}
	var audit api.Audits
	f.steer("GET", "audit", nil, 200, &audit)
	var whats []string
	for _, e := range audit.Entries {
		whats = append(whats, e.What)
	}
	if got := strings.Join(whats, " "); got != "rollout-done channel-set rollout-ramp rollout-start rollout-plan machine-group machine-group group-add token-new channel-set release-publish channel-set release-publish token-new" {
		t.Errorf("audit log: %s", got)
	}
	var by []string
	for _, e := range audit.Entries[:3] {
		by = append(by, e.Who+": "+e.Detail+": "+e.Before+" → "+e.After)
	}
	if got := strings.Join(by, "\n"); got != "semper-server: every machine has it: ramping → done\nsemper-server: rollout 1 is done: offers 1.0.0 → offers 1.1.0\nsemper-server: the canaries are healthy: canary → ramping" {
		t.Errorf("what the rollout did by itself:\n%s", got)
	}
}

// TestHalts is each way in which a rollout stops by itself. Going on is a person's act.
func TestHalts(t *testing.T) {
	three := rollout.Plan{Halt: rollout.Limit{Failures: 3, SilentAfter: rollout.Duration(30 * time.Minute)}}
	for _, c := range []struct {
		name string
		fail func(b *box)
		why  string
	}{
		{"reported", func(b *box) {
			b.ask(false, omaha.Failed("1.1.0", omaha.CodePayloadHash, ""))
		}, "hash is not the one announced"},
		{"rolled back and said so", func(b *box) {
			b.reboots("1.1.0")
			b.boot += 2
			b.ask(true, omaha.RolledBack("1.1.0", "web is down"))
		}, "web is down"},
		{"came back without a word", func(b *box) {
			b.reboots("1.1.0")
			b.boot += 2
			b.ask(true)
		}, "the machine booted again and runs 1.0.0, and not 1.1.0"},
		{"silent after the reboot", func(b *box) {
			b.reboots("1.1.0")
			b.f.clock.advance(31 * time.Minute)
			b.f.sweep()
		}, "silent for 30m0s after its reboot"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := startRolling(t)
			f.box("waits").check() // it is not over before everybody has it
			r := f.start(three)
			for i := range 3 {
				if got := f.rollout(r.ID); got.State != "ramping" {
					t.Fatalf("after %d failures it is %s: %s", i, got.State, got.Why)
				}
				b := f.box(fmt.Sprint("bad", i))
				if v, why := b.check(); v != "1.1.0" {
					t.Fatal(why)
				}
				c.fail(b)
			}
			got := f.rollout(r.ID)
			if got.State != "halted" || got.By != "" || !strings.Contains(got.Why, "3 machines failed") || !strings.Contains(got.Why, "bad1") || !strings.Contains(got.Why, c.why) {
				t.Fatalf("after three failures: %s by %q: %s", got.State, got.By, got.Why)
			}
			known, err := f.s.store.Read().Failures(t.Context(), f.app, "bad0")
			if err != nil || c.name != "silent after the reboot" && (len(known) != 1 || !strings.Contains(known[0].Reason, c.why)) {
				t.Errorf("what is known of the first machine's failure: %+v (%v)", known, err)
			}
			if len(got.Failures) != 3 || !strings.Contains(got.Failures[0].Why, c.why) {
				t.Errorf("failures %+v", got.Failures)
			}
			if v, why := f.box("next").check(); v != "" || !strings.Contains(why, "the rollout of 1.1.0 is halted") {
				t.Errorf("the next machine: %q %s", v, why)
			}
			if !strings.Contains(f.log.String(), "rollout halted") {
				t.Error("the log does not say so")
			}
			f.counted(r.ID)
			f.steer("POST", fmt.Sprintf("rollouts/%d/resume", r.ID), api.Steer{Reason: "the rack had no power"}, 200, nil)
			if v, why := f.box("next").check(); v != "1.1.0" {
				t.Errorf("after it was resumed: %q %s", v, why)
			}
			if v, _ := f.box("bad1").check(); v != "" && c.name != "silent after the reboot" {
				t.Errorf("a machine on which it failed gets %s again", v)
			}
		})
	}
}

// TestCanaryHalts: the first canary that fails stops everything, and nobody else was touched.
func TestCanaryHalts(t *testing.T) {
	f := startRolling(t)
	f.steer("PUT", "groups/lab", nil, 200, nil)
	f.steer("PUT", "machines/c1/group", api.Member{Group: "lab"}, 200, nil)
	r := f.start(rollout.Plan{Canary: rollout.CanaryPlan{Group: "lab"}})
	// A group none of which was seen lets nobody through.
	f.sweep()
	if got := f.rollout(r.ID); got.State != "canary" {
		t.Fatalf("without canaries it is %s: %s", got.State, got.Why)
	}
	c1 := f.box("c1")
	c1.check()
	c1.reboots("1.1.0")
	c1.boot += 2
	c1.check()
	got := f.rollout(r.ID)
	if got.State != "halted" || !strings.Contains(got.Why, "1 of 1 canaries failed") || got.Counted.All.Granted != 1 {
		t.Errorf("%s: %s, %+v", got.State, got.Why, got.Counted)
	}
	var refused api.Error
	f.steer("DELETE", "groups/lab", nil, 409, &refused)
	f.steer("POST", fmt.Sprintf("rollouts/%d/abort", r.ID), api.Steer{Reason: "bad"}, 200, nil)
	f.steer("DELETE", "groups/lab", nil, 200, nil)
	if v, why := f.box("m").check(); v != "" || !strings.Contains(why, "the release of channel stable") {
		t.Errorf("after the abort: %q %s", v, why)
	}
}

// TestLimitsHold has many machines ask at once: no limit is ever exceeded.
func TestLimitsHold(t *testing.T) {
	f := startRolling(t)
	r := f.start(rollout.Plan{Limits: rollout.Limits{AtOnce: 7, PerPeriod: 20, Period: rollout.Duration(time.Hour)}})
	var mu sync.Mutex
	granted := map[string]*box{}
	all := map[string]*box{}
	for i := range 100 {
		id := fmt.Sprintf("m%d-%d", i/25, i%25)
		all[id] = f.box(id)
	}
	round := func() (n int) {
		var wait sync.WaitGroup
		for w := range 4 {
			wait.Go(func() {
				for i := range 25 {
					b := all[fmt.Sprintf("m%d-%d", w, i)]
					if v, _ := b.check(); v != "" {
						mu.Lock()
						granted[b.id] = b
						mu.Unlock()
					}
				}
			})
		}
		wait.Wait()
		return len(granted)
	}
	if n := round(); n != 7 {
		t.Errorf("%d at once", n)
	}
	finish := func() {
		for id, b := range granted {
			b.reboots("1.1.0")
			b.healthy("1.1.0")
			delete(granted, id)
		}
	}
	finish()
	if n := round(); n != 7 {
		t.Errorf("%d in the second round", n)
	}
	finish()
	if n := round(); n != 6 {
		t.Errorf("%d in the third round, of 20 an hour", n)
	}
	if v, why := f.box("late").check(); v != "" || why != "1.1.0 was given to 20 machines since 2026-03-04 12:00 UTC, and no more may get it until 2026-03-04 13:00 UTC" {
		t.Errorf("%q %s", v, why)
	}
	f.clock.advance(time.Hour)
	if v, why := f.box("late").check(); v != "1.1.0" {
		t.Errorf("an hour later: %s", why)
	}
	// A machine that was given it and never said that it boots it does not stand in the way for ever.
	if c := f.counted(r.ID); c.All.InFlight != 7 {
		t.Errorf("counters %+v", c)
	}
	f.clock.advance(lapse + time.Minute)
	f.sweep()
	if c := f.counted(r.ID); c.All.InFlight != 0 || c.All.Bad() != 0 || c.All.Granted != 14 {
		t.Errorf("a day later: %+v", c)
	}
}

func TestPinsAndRoads(t *testing.T) {
	f := startRolling(t)
	f.publish("semper", "1.0.5", "alpha")
	f.publish("semper", "0.9.9", "alpha")
	expect := func(b *box, version, reason string) {
		t.Helper()
		if v, why := b.check(); v != version || !strings.Contains(why, reason) {
			t.Errorf("%s with %s gets %q (%s), want %q (%s)", b.id, b.version, v, why, version, reason)
		}
	}
	f.steer("PUT", "machines/held/pin", api.Pin{Reason: "the auditor looks at it"}, 200, nil)
	f.steer("PUT", "machines/kept/pin", api.Pin{Version: "1.0.5"}, 200, nil)
	f.steer("PUT", "machines/lost/pin", api.Pin{Version: "7.0.0"}, 200, nil)
	f.start(rollout.Plan{})
	expect(f.box("held"), "", "the machine is held where it is by token")
	expect(f.box("held"), "", "the auditor looks at it")
	expect(f.box("kept"), "1.0.5", "")
	expect(&box{f, "kept", "1.0.5", 1, "stable"}, "", "the machine runs 1.0.5 and is pinned to 1.0.5")
	expect(f.box("lost"), "", "pinned to 7.0.0, which is not published for amd64")
	f.steer("DELETE", "machines/held/pin", nil, 200, nil)
	f.steer("DELETE", "machines/held/pin", nil, 404, nil)
	expect(f.box("held"), "1.1.0", "")

	// On the way from 0.9 to 1.1 lies a floor; 1.0.5 leads nowhere.
	f.steer("PUT", "releases/1.0.0/road", api.Road{Road: "floor", Reason: "it converts the database"}, 200, nil)
	f.steer("PUT", "releases/1.0.5/road", api.Road{Road: "dead-end"}, 400, nil)
	f.steer("PUT", "releases/1.0.5/road", api.Road{Road: "dead-end", Reason: "its updater is broken; reinstall"}, 200, nil)
	f.steer("PUT", "releases/1.0.5/road", api.Road{Road: "wall"}, 400, nil)
	old := &box{f, "old", "0.9.0", 1, "stable"}
	expect(old, "1.0.0", "")
	expect(&box{f, "old", "1.0.0", 2, "stable"}, "1.1.0", "")
	expect(&box{f, "stuck", "1.0.5", 1, "stable"}, "", "1.0.5 is a dead end and leads to no newer version by itself: its updater is broken; reinstall")
	var why api.Why
	f.steer("GET", "machines/stuck/why", nil, 200, &why)
	if why.Cause != "dead-end" {
		t.Errorf("why %+v", why)
	}
	f.steer("PUT", "releases/1.0.5/road", api.Road{}, 200, nil)
	expect(&box{f, "stuck", "1.0.5", 1, "stable"}, "1.1.0", "")
}

// TestRolloutRefusals: what makes no sense is refused with a reason, and changes nothing.
func TestRolloutRefusals(t *testing.T) {
	f := startRolling(t)
	for _, c := range []struct {
		name   string
		ask    api.NewRollout
		status int
		want   string
	}{
		{"unknown version", api.NewRollout{Version: "9.9.9", Channel: "stable"}, 409, "is not published"},
		{"unknown channel", api.NewRollout{Version: "1.1.0", Channel: "edge"}, 404, "edge"},
		{"what the channel has", api.NewRollout{Version: "1.0.0", Channel: "stable"}, 409, "is the release of channel stable already"},
		{"unknown group", api.NewRollout{Version: "1.1.0", Channel: "stable", Plan: rollout.Plan{Canary: rollout.CanaryPlan{Group: "lab"}}}, 409, "there is no group lab"},
		{"no plan", api.NewRollout{Version: "1.1.0", Channel: "stable", Plan: rollout.Plan{Ramp: rollout.Ramp{Start: 200}}}, 400, "ramp.start is 200"},
	} {
		var e api.Error
		f.steer("POST", "rollouts", c.ask, c.status, &e)
		if !strings.Contains(e.Message, c.want) {
			t.Errorf("%s: %s", c.name, e.Message)
		}
	}
	var r api.Rollout
	f.steer("POST", "rollouts", api.NewRollout{Version: "1.1.0", Channel: "stable"}, 200, &r)
	if v, why := f.box("m").check(); r.State != "draft" || v != "" {
		t.Errorf("a draft is %s and gives %q (%s)", r.State, v, why)
	}
	f.steer("POST", "rollouts", api.NewRollout{Version: "1.1.0", Channel: "stable"}, 409, nil)
	for verb, status := range map[string]int{"pause": 409, "resume": 409, "jump": 404} {
		f.steer("POST", fmt.Sprintf("rollouts/%d/%s", r.ID, verb), api.Steer{}, status, nil)
	}
	f.steer("POST", "rollouts/77/start", api.Steer{}, 404, nil)
	f.steer("GET", "rollouts/x", nil, 404, nil)
	for _, path := range []string{"rollouts", fmt.Sprintf("rollouts/%d/start", r.ID), "machines/m/pin", "groups/x", "machines/m/group", "releases/1.1.0/road"} {
		method := "PUT"
		if strings.HasPrefix(path, "rollouts") {
			method = "POST"
		}
		if status, _, body := f.do(method, "/api/v1/"+path, "{}", "Authorization", "Bearer "+f.newToken(fleet.Publisher)); status != 403 {
			t.Errorf("a publisher may %s %s: %d %s", method, path, status, body)
		}
	}
	if status, _, body := f.do("PUT", "/api/v1/channels/stable", `{"version":"1.1.0"}`, "Authorization", "Bearer "+f.operator); status != 403 {
		t.Errorf("an operator may assign releases: %d %s", status, body)
	}
	f.steer("PUT", "groups/"+url.PathEscape("a b"), nil, 400, nil)
}

// TestCountersAreTrue lets machines do anything in any order: the counters are always what counting afresh gives.
func TestCountersAreTrue(t *testing.T) {
	f := startRolling(t)
	r := f.start(rollout.Plan{Limits: rollout.Limits{AtOnce: 5}, Halt: rollout.Limit{SilentAfter: rollout.Duration(20 * time.Minute)}})
	dice := rand.New(rand.NewPCG(1, 2))
	boxes := make([]*box, 12)
	for i := range boxes {
		boxes[i] = f.box(fmt.Sprint("m", i))
	}
	for range 400 {
		b := boxes[dice.IntN(len(boxes))]
		switch dice.IntN(8) {
		case 0, 1, 2:
			b.check()
		case 3:
			b.reboots("1.1.0")
		case 4:
			b.healthy("1.1.0")
		case 5:
			b.boot++
			b.version = "1.0.0"
			b.check()
		case 6:
			b.ask(false, omaha.RolledBack("1.1.0", ""))
		case 7:
			f.clock.advance(time.Duration(dice.IntN(15)) * time.Minute)
			f.sweep()
		}
		f.counted(r.ID)
	}
	c := f.counted(r.ID)
	if c.All.Granted == 0 || c.All.Known() == 0 {
		t.Errorf("nothing happened: %+v", c)
	}
}
