package consoletests

import (
	"fmt"
	"slices"
	"testing"

	"github.com/semper-os/semper/omaha/server/api"
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
			b.asksOnce(p.name)
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

	b.as(looks[0])
	tiles(b)
	turn(b)
	keys(b)
	for _, act := range []struct{ path, button, says string }{
		{"/machines/" + failed.id, "Pin", "Pin this machine?"},
		{"/machines/" + failed.id, "Set group", "A machine is in one group at most"},
		{"/machines/" + failed.id, "Retry failed versions", "may be offered to it again"},
		{"/releases/amd64/1.6.0", "Withdraw", "Machines that run it keep it"},
		{"/releases/amd64/1.6.0", "Set a channel", "Set a channel to 1.6.0"},
		{"/channels", "New group", "Make a group"},
		{"/people", "New token", "Make a token"},
		{"/people", "New webhook", "Make a webhook"},
		{"/reboots", "Change group fra1", "More slots let the next ones go"},
	} {
		b.open(act.path)
		b.click(act.button)
		b.see(act.says)
		b.accessible(act.button, looks[0])
	}

	if _, err := r.as("Ada Lovelace").PutPerson(t.Context(), "oidc:4", api.SetRole{Role: "viewer"}); err != nil {
		t.Fatal(err)
	}
	viewer := start(t, r.url)
	viewer.become(r.session("Dennis Ritchie"))
	viewer.open("/machines/" + failed.id)
	viewer.see("Failed here")
	viewer.see("Dennis Ritchie")
	if viewer.can("Retry failed versions") || viewer.can("Pin") {
		t.Error("a viewer is shown what only operators may do with a machine")
	}

	// The check itself sees what is wrong.
	b.open("/")
	b.see("Needs a person")
	b.js(new(any), `() => { document.querySelector("main h1").style.color = "#eee"; document.querySelector("button").replaceChildren(); }`)
	var rules []string
	for _, v := range b.violations(allRules) {
		rules = append(rules, v.Rule)
	}
	if !slices.Contains(rules, "color-contrast") {
		t.Errorf("a heading in light grey breaks %v alone", rules)
	}
	empty(t, b)
}

// asksOnce looks whether the page has taken all that was asked for ahead. The chart's beginning may be another minute's.
func (b *browser) asksOnce(name string) {
	b.t.Helper()
	var left []string
	b.js(&left, `() => {
		const plain = (url) => url.replace(/from=[^&]*/, "");
		const asked = performance.getEntriesByType("resource").map((e) => e.name.slice(location.origin.length));
		return [...globalThis.semperEarly?.keys() ?? ["nothing was asked for ahead"]].filter((url) => !asked.some((a) => a !== url && plain(a) === plain(url)));
	}`)
	if len(left) > 0 {
		b.t.Errorf("%s: asked for in first.ts, and not used: %v", name, left)
	}
}

// empty looks at a server that was just started: its pages say what to do.
func empty(t *testing.T, b *browser) {
	t.Helper()
	r := serve(t, "", nil)
	b.base = r.url
	b.open(r.link[len(r.url):])
	b.see("semper keys new")
	for _, l := range looks {
		b.as(l)
		b.accessible("first", l)
		b.whole("first", l)
	}
	b.as(looks[0])
	for path, says := range map[string]string{
		"/machines": "semper vm run", "/rollouts": "it stops by itself", "/releases": "semper publish", "/channels": "A group is a name for some machines", "/reboots": "A machine asks for one of the slots",
		"/people": "A webhook is an address of yours",
	} {
		b.open(path)
		b.see(says)
		b.accessible("empty "+path, looks[0])
	}
}

// tiles holds the overview's numbers against the lists that they lead to.
func tiles(b *browser) {
	b.t.Helper()
	b.open("/")
	b.see("Needs a person")
	var all []struct {
		Name, To string
		N        int
	}
	b.js(&all, `() => [...document.querySelectorAll("main .tiles a")].map((a) => ({ Name: a.querySelector(".tile-name").innerText, N: Number(a.querySelector(".tile-n").innerText), To: a.pathname + a.search }))`)
	if len(all) != 4 {
		b.t.Fatalf("the overview's totals are %+v", all)
	}
	for _, tile := range all {
		b.open(tile.To)
		b.eventually(fmt.Sprintf("%d machines at %s", tile.N, tile.To), func() bool {
			var n int
			b.js(&n, `() => document.querySelectorAll("main tbody tr").length`)
			return n == min(tile.N, 100) && tile.N > 0
		})
	}
}

// turn goes through the pages of a list, and back.
func turn(b *browser) {
	b.t.Helper()
	first := func() (id string) {
		b.js(&id, `() => document.querySelector("main tbody th")?.innerText ?? ""`)
		return id
	}
	b.open("/machines")
	b.see("Next page")
	var ids []string
	for range 2 {
		id := first()
		ids = append(ids, id)
		b.click("Next page")
		b.eventually("the next page", func() bool { now := first(); return now != "" && now != id })
	}
	for i := range ids {
		b.click("Previous page")
		b.eventually("the page before", func() bool { return first() == ids[len(ids)-1-i] })
	}
	if b.can("Previous page") {
		b.t.Error("there is a page before the first one")
	}
}

// keys goes to a machine without a mouse, and back.
func keys(b *browser) {
	b.t.Helper()
	at := func(what, is string) {
		b.t.Helper()
		b.eventually(what, func() (yes bool) {
			b.js(&yes, is)
			return yes
		})
	}
	b.open("/")
	b.see("Needs a person")
	b.press("g")
	b.press("m")
	at("the machines, by g m", `() => location.pathname === "/machines" && document.querySelectorAll("main tbody th a").length > 1`)
	b.press("j")
	b.press("j")
	b.press("k")
	at("the first row, by j and k", `() => document.activeElement === document.querySelector("main tbody th a")`)
	b.press("\r")
	at("a machine, by Enter", `() => location.pathname.startsWith("/machines/") && document.activeElement?.tagName === "H1"`)
	b.press("g")
	b.press("a")
	at("the audit log, by g a", `() => location.pathname === "/audit"`)
	b.press("/")
	at("the search, by /", `() => document.activeElement?.matches("[data-search]")`)
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
