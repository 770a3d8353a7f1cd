package consoletests

import (
	"slices"
	"testing"
)

// TestPages shows every page in light, dark and on a phone: each has its heading, fits the window's width, breaks none of axe's rules, and reports no error. With SEMPER_CONSOLE_PICTURES they are kept as pictures.
func TestPages(t *testing.T) {
	f := lived(t)
	r := f.r
	b := start(t, r.url)
	b.become(r.session("Ada Lovelace"))
	failed := f.of("stable", "arm64")[0]
	for _, u := range f.of("stable", "amd64") {
		if _, bad := u.fates["1.6.0"]; bad && u.back {
			failed = u
		}
	}
	pages := []struct{ name, path, heading string }{
		{"overview", "/", "Overview"},
		{"machines", "/machines", "Machines"},
		{"machine", "/machines/" + failed.id, failed.alias},
		{"releases", "/releases", "Releases"},
		{"release", "/releases/amd64/1.6.0", "1.6.0"},
		{"rollouts", "/rollouts", "Rollouts"},
		{"plan", "/rollouts/new?version=1.7.0&channel=stable&group=lab", "Plan a rollout"},
		{"rollout", "/rollouts/6", "1.6.0 to stable"},
		{"halted", "/rollouts/7", "1.6.0 to stable"},
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
				b.js(&is, `(h) => (document.querySelector("main h1")?.innerText ?? "").includes(h) && !document.querySelector("main .waiting, .chart-box:not(:has(canvas)), [data-busy]")`, p.heading)
				return is
			})
			var wide int
			b.js(&wide, `() => document.documentElement.scrollWidth - innerWidth`)
			if wide > 0 {
				t.Errorf("%s, %s: the page is %d pixels wider than the window", p.name, l.name, wide)
			}
			b.accessible(p.name, l)
			b.whole(p.name, l)
		}
		dialogs(b, l)
	}

	// The check itself sees what is wrong.
	b.js(new(any), `() => { document.querySelector("main h1").style.color = "#eee"; document.querySelector("button").replaceChildren(); }`)
	var rules []string
	for _, v := range b.violations(allRules) {
		rules = append(rules, v.Rule)
	}
	if !slices.Contains(rules, "color-contrast") {
		t.Errorf("a heading in light grey breaks %v alone", rules)
	}
}

// dialogs opens what lies over pages.
func dialogs(b *browser, l look) {
	b.t.Helper()
	over := func(name, path string, open func(), title string) {
		b.t.Helper()
		b.open(path)
		b.eventually(name, func() (is bool) {
			b.js(&is, `() => !!document.querySelector("main h1") && !document.querySelector("main .waiting")`)
			return is
		})
		open()
		b.see(title)
		b.accessible(name, l)
		b.shot(name + "-" + l.name)
	}
	over("start", "/rollouts/new?version=1.7.0&channel=stable", func() { b.click("Start…") }, "Start now")
	over("abort", "/rollouts/6", func() { b.click("Abort") }, "It ends for good")
	over("keys", "/", func() {
		b.eventually("the list of keys", func() (is bool) { // once somebody listens to keys
			b.press("?")
			b.js(&is, `() => document.querySelector("dialog[open]") !== null`)
			return is
		})
	}, "Next and previous row")
	if l.width < 600 {
		over("more", "/", func() { b.click("More") }, "Audit log")
	}
	over("sign-in", "/sign-in", func() {}, "Sign in to Semper")
}
