package consoletests

import (
	"testing"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/rollout"
)

// TestPages shows every page in light, dark and on a phone: each has its heading, fits the window's width, and reports no error. With SEMPER_CONSOLE_PICTURES they are kept as pictures.
func TestPages(t *testing.T) {
	r := serve(t, "", nil)
	b := start(t, r.url)
	b.open(r.link[len(r.url):])
	b.see("semper keys new")
	for _, v := range []string{"1.0.0", "1.1.0"} {
		r.publish(v)
	}
	if _, err := r.admin.SetChannel(t.Context(), "stable", client.SetChannelQuery{}, api.SetChannel{Version: "1.0.0"}); err != nil {
		t.Fatal(err)
	}
	var all []*box
	for i := range 40 {
		box := r.box(i)
		box.ask()
		all = append(all, box)
	}
	plan := rollout.Plan{Halt: rollout.Limit{Failures: 3}}
	if _, err := r.admin.PlanRollout(t.Context(), client.PlanRolloutQuery{}, api.NewRollout{Version: "1.1.0", Channel: "stable", Plan: plan, Start: true}); err != nil {
		t.Fatal(err)
	}
	for i, box := range all[:12] {
		if box.offered("1.1.0") {
			box.update("1.1.0", i%4 != 3)
		}
	}
	lock(t, r, "m1")
	lock(t, r, "m2")
	pages := []struct{ name, path, heading string }{
		{"overview", "/", "Overview"},
		{"machines", "/machines", "Machines"},
		{"machine", "/machines/" + all[3].id, "web-3"},
		{"releases", "/releases", "Releases"},
		{"release", "/releases/amd64/1.1.0", "1.1.0"},
		{"rollouts", "/rollouts", "Rollouts"},
		{"plan", "/rollouts/new", "Plan a rollout"},
		{"rollout", "/rollouts/1", "1.1.0 to stable"},
		{"channels", "/channels", "Channels"},
		{"reboots", "/reboots", "Reboot locks"},
		{"people", "/people", "People"},
		{"audit", "/audit", "Audit log"},
	}
	for _, l := range looks {
		b.as(l)
		for _, p := range pages {
			b.open(p.path)
			b.eventually(p.name+" "+l.name, func() (is bool) {
				b.js(&is, `(h) => (document.querySelector("main h1")?.innerText ?? "").includes(h) && !document.querySelector("main .waiting")`, p.heading)
				return is
			})
			var wide int
			b.js(&wide, `() => document.documentElement.scrollWidth - innerWidth`)
			if wide > 0 {
				t.Errorf("%s, %s: the page is %d pixels wider than the window", p.name, l.name, wide)
			}
			b.shot(p.name + "-" + l.name)
		}
	}
}
