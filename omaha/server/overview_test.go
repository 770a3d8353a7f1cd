package server

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
)

// TestOverview looks at a fleet in which a rollout has stopped itself, for a failure and a machine that fell silent.
func TestOverview(t *testing.T) {
	f := startRolling(t)
	overview := func() (o api.Overview) {
		t.Helper()
		f.steer("GET", "overview", nil, 200, &o)
		return o
	}
	kinds := func(o *api.Overview) (out []string) {
		for _, a := range o.Attention {
			out = append(out, a.Kind+" "+a.Severity)
		}
		return out
	}
	if o := overview(); o.Machines != 0 || len(o.Attention) != 0 || o.Rollouts == nil || o.Failed == nil {
		t.Errorf("an empty fleet: %+v", o)
	}
	var all []*box
	for i := range 5 {
		b := f.box(fmt.Sprint("m", i))
		b.check()
		all = append(all, b)
	}
	f.sweep() // the first sample
	r := f.start(rollout.Plan{Halt: rollout.Limit{Failures: 2}})
	all[0].update("1.1.0")
	for _, b := range all[1:3] {
		if v, why := b.check(); v != "1.1.0" {
			t.Fatalf("%s: %q", v, why)
		}
		b.reboots("1.1.0")
	}
	all[1].boot++
	all[1].ask(true, omaha.Failed("1.1.0", omaha.CodeRollback, "the web server did not start"))
	f.clock.advance(2 * time.Hour)
	f.s.started = noon.Add(-48 * time.Hour)
	f.sweep()
	o := overview()
	if o.Machines != 5 || o.Retired != 0 || len(o.Rollouts) != 1 || o.Rollouts[0].State != "halted" || o.Rollouts[0].ETag == "" {
		t.Errorf("overview %+v", o)
	}
	if got, want := kinds(&o), []string{"halted-rollout high", "silent-machines high", "failed-machines low"}; !slices.Equal(got, want) {
		t.Errorf("attention %v, want %v", got, want)
	}
	if len(o.Failed) != 1 || o.Failed[0].ID != "m1" || len(o.Silent) != 1 || o.Silent[0].ID != "m2" {
		t.Errorf("failed %+v, silent %+v", o.Failed, o.Silent)
	}
	if o.Attention[0].Link != fmt.Sprintf("/rollouts/%d", r.ID) || !strings.HasSuffix(o.Attention[0].Sentence, "stopped itself: 2 machines failed; it stops at 2. The last: silent for 1h0m0s after its reboot") {
		t.Errorf("attention %+v", o.Attention[0])
	}
	for query, want := range map[string][]string{
		"silent=1": {"m2"}, "silent=0&state=failed": {"m1"}, "state=failed,complete": {"m0", "m1"}, "silent=1&state=failed": nil, "state=complete,failed&channel=stable&platform=": {"m0", "m1"},
	} {
		var page api.Machines
		f.steer("GET", "machines?"+query, nil, 200, &page)
		var ids []string
		for i := range page.Machines {
			ids = append(ids, page.Machines[i].ID)
		}
		if !slices.Equal(ids, want) {
			t.Errorf("%s: machines %v, want %v", query, ids, want)
		}
	}
	var detail api.RolloutDetail
	f.steer("GET", fmt.Sprintf("rollouts/%d", r.ID), nil, 200, &detail)
	if len(detail.Failures) != 2 || detail.Failures[0].Alias != "the "+detail.Failures[0].Machine {
		t.Errorf("failures %+v", detail.Failures)
	}
	versions := map[string]int64{}
	for _, v := range o.Versions {
		versions[v.Version] += v.Machines
	}
	if versions["1.0.0"] != 4 || versions["1.1.0"] != 1 {
		t.Errorf("versions %+v", o.Versions)
	}

	var p api.Progress
	f.steer("GET", fmt.Sprintf("rollouts/%d/progress", r.ID), nil, 200, &p)
	if n := len(p.Times); n < 2 || p.Complete[n-1] != 1 || p.Failed[n-1] != 2 || p.Reached[0] != 1 || len(p.Updating) != n {
		t.Errorf("progress %+v", p)
	}
	f.steer("GET", "rollouts/99/progress", nil, 404, nil)

	var c api.Chart
	f.steer("GET", "charts/versions", nil, 200, &c)
	if len(c.Times) != 2 || len(c.Series) != 2 || c.Series[0].Version != "1.0.0" || !slices.Equal(c.Series[0].Machines, []int64{5, 4}) || !slices.Equal(c.Series[1].Machines, []int64{0, 1}) {
		t.Errorf("chart %+v", c)
	}
	for query, status := range map[string]int{
		"channel=beta": 200, "from=yesterday": 400, "from=2026-03-05T00:00:00Z&to=2026-03-04T00:00:00Z": 400, "app=none": 404,
	} {
		f.steer("GET", "charts/versions?"+query, nil, status, nil)
	}
}

func TestSearchOverREST(t *testing.T) {
	f := startRolling(t)
	for i := range 12 {
		f.box(fmt.Sprintf("m%02d", i)).check()
	}
	f.steer("PUT", "groups/lab", nil, 200, nil)
	f.steer("PUT", "machines/m03/group", api.Member{Group: "lab"}, 200, nil)
	f.steer("PUT", "machines/m03/pin", api.Pin{Reason: "a bench"}, 200, nil)
	for _, c := range []struct {
		query  string
		status int
		found  int
		total  int64 // -1: not told
	}{
		{"", 200, 12, 12},
		{"limit=5", 200, 5, 12},
		{"version=1.0.0&channel=stable&arch=amd64", 200, 12, 12},
		{"version=1.1.0", 200, 0, 0},
		{"text=m0", 200, 10, -1},
		{"group=lab", 200, 1, -1},
		{"state=unknown", 200, 12, 12},
		{"state=asleep", 400, 0, 0},
		{"silent_for=1h", 200, 0, -1},
		{"seen_within=1h", 200, 12, -1},
		{"silent_for=long", 400, 0, 0},
		{"retired=1", 200, 0, -1},
		{"retired=2", 400, 0, 0},
		{"limit=0", 400, 0, 0},
		{"text=" + strings.Repeat("x", 201), 400, 0, 0},
		{"text=" + url.QueryEscape("%' OR 1=1 --"), 200, 0, -1},
	} {
		var got api.Machines
		f.steer("GET", "machines?"+c.query, nil, c.status, &got)
		if c.status != 200 {
			continue
		}
		total := int64(-1)
		if got.Total != nil {
			total = *got.Total
		}
		if len(got.Machines) != c.found || total != c.total {
			t.Errorf("%s: %d machines of %d, want %d of %d", c.query, len(got.Machines), total, c.found, c.total)
		}
	}
	var m api.MachineDetail
	f.steer("GET", "machines/m03", nil, 200, &m)
	if m.Group != "lab" || m.Pin == nil || m.Pin.Reason != "a bench" {
		t.Errorf("machine %+v", m)
	}
}

func TestPreview(t *testing.T) {
	f := startRolling(t)
	f.box("m1").check()
	f.steer("PUT", "groups/lab", nil, 200, nil)
	preview := func(n api.NewRollout, status int) (p api.Preview) {
		t.Helper()
		f.steer("POST", "rollouts/preview", n, status, &p)
		return p
	}
	p := preview(api.NewRollout{Version: "1.1.0", Channel: "stable", Plan: rollout.Plan{
		Canary: rollout.CanaryPlan{Group: "lab"}, Waves: []rollout.Wave{{Percent: 10}, {After: rollout.Duration(time.Hour), Percent: 100}}, Halt: rollout.Limit{Percent: 3},
	}}, 200)
	if p.Machines != 1 || p.Canaries != 0 || len(p.Points) != 2 || p.Points[1].Share != 1 || !slices.Equal(p.Warnings, []string{"group lab has no machines: nobody tries it first"}) {
		t.Errorf("preview %+v", p)
	}
	f.start(rollout.Plan{})
	if p := preview(api.NewRollout{Version: "1.1.0", Channel: "stable"}, 200); len(p.Warnings) != 4 {
		t.Errorf("warnings %q", p.Warnings)
	}
	preview(api.NewRollout{Version: "1.1.0", Channel: "stable", Plan: rollout.Plan{Ramp: rollout.Ramp{Start: 50}}}, 400)
	preview(api.NewRollout{Version: "9.9.9", Channel: "stable"}, 404)
	preview(api.NewRollout{Version: "1.1.0", Channel: "none"}, 404)
}

func TestChartThinsOut(t *testing.T) {
	f := startRolling(t)
	for i := range 15 {
		b := f.box(fmt.Sprint("m", i))
		b.version = fmt.Sprintf("1.0.%d", i)
		b.check()
	}
	for range 10 {
		f.sweep()
		f.clock.advance(6 * time.Hour)
	}
	c, err := VersionChart(t.Context(), f.s.store.Read(), f.app, "stable", "amd64", noon.Add(-300*24*time.Hour), f.clock.read())
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Times) != 2 || len(c.Series) != chartSeries+1 || c.Series[chartSeries].Version != "other" || c.Series[chartSeries].Machines[0] != 3 {
		t.Errorf("a point a day of 15 versions: %+v", c)
	}
	c, err = VersionChart(t.Context(), f.s.store.Read(), f.app, "", "", noon, f.clock.read())
	if err != nil || len(c.Times) != 10 {
		t.Errorf("all points: %+v (%v)", c.Times, err)
	}
}

func TestRebootGroupsOverREST(t *testing.T) {
	f := startRolling(t)
	var g api.RebootGroup
	f.steer("PUT", "reboots/rack", map[string]any{"slots": 2, "lease": "30m"}, 200, &g)
	if g.Slots != 2 || g.Lease != "30m0s" || g.ETag == "" {
		t.Errorf("group %+v", g)
	}
	for _, id := range []string{"a", "b", "c"} {
		_, _, _ = f.do("POST", "/v1/pre-reboot", fmt.Sprintf(`{"client_params":{"id":%q,"group":"rack"}}`, id), "fleet-lock-protocol", "true")
	}
	var all api.RebootGroups
	f.steer("GET", "reboots", nil, 200, &all)
	i := slices.IndexFunc(all.Groups, func(g api.RebootGroup) bool { return g.Name == "rack" })
	if i < 0 || len(all.Groups[i].Holders) != 2 || len(all.Groups[i].Queue) != 1 || all.Groups[i].Queue[0].Machine != "c" {
		t.Fatalf("groups %+v", all)
	}
	f.steer("DELETE", "reboots/rack/holders/a", api.Steer{Reason: "it burnt down"}, 200, nil)
	f.steer("DELETE", "reboots/rack/holders/a", api.Steer{Reason: "it burnt down"}, 404, nil)
	f.steer("PUT", "reboots/rack", map[string]any{"slots": -1}, 400, nil)
	f.steer("PUT", "reboots/rack", map[string]any{"lease": "soon"}, 400, nil)
	f.steer("PUT", "reboots/rack", map[string]any{"sluts": 1}, 400, nil)
	status, _, body := f.do("PUT", "/api/v1/reboots/rack", `{"slots":3}`, "Authorization", "Bearer "+f.operator, "If-Match", `"old"`)
	if status != 412 {
		t.Errorf("status %d: %s", status, body)
	}
	var log api.Audits
	f.steer("GET", "audit?text=rack", nil, 200, &log)
	if len(log.Entries) != 2 || log.Entries[0].Detail != "it burnt down" || log.Entries[1].After != "2 slots, lease 30m0s" || log.Entries[1].Before != "" {
		t.Errorf("audit log %+v", log.Entries)
	}
}

func TestTokensOverREST(t *testing.T) {
	f := startRolling(t)
	f.operator = f.newToken(fleet.Admin)
	var made api.MadeToken
	f.steer("POST", "tokens", api.NewToken{Role: "viewer", Label: "a wall"}, 200, &made)
	if status, _, _ := f.do("GET", "/api/v1/machines", "", "Authorization", "Bearer "+made.Secret); status != 200 {
		t.Errorf("the new token: status %d", status)
	}
	var all api.Tokens
	f.steer("GET", "tokens", nil, 200, &all)
	if !slices.ContainsFunc(all.Tokens, func(k api.Token) bool { return k == made.Token }) {
		t.Errorf("tokens %+v", all)
	}
	f.steer("DELETE", "tokens/"+made.ID, nil, 200, nil)
	f.steer("DELETE", "tokens/"+made.ID, nil, 404, nil)
	if status, _, _ := f.do("GET", "/api/v1/machines", "", "Authorization", "Bearer "+made.Secret); status != 401 {
		t.Errorf("the revoked token: status %d", status)
	}
	f.steer("POST", "tokens", api.NewToken{Role: "king"}, 400, nil)
	var app api.Application
	f.steer("PUT", "applications/other", api.NewApplication{ID: "0a1b2c3d-d1af-4bde-9a0a-97b76e56dc57", Channels: []string{"stable"}}, 200, &app)
	if app.Name != "other" || app.ID != "{0a1b2c3d-d1af-4bde-9a0a-97b76e56dc57}" {
		t.Errorf("application %+v", app)
	}
	f.steer("PUT", "applications/other", api.NewApplication{ID: "0a1b2c3d-d1af-4bde-9a0a-97b76e56dc57"}, 409, nil)
}
