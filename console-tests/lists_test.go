package consoletests

import (
	"fmt"
	"strconv"
	"testing"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
)

// TestLongLists goes to the end of lists that are longer than what is drawn of them at first.
func TestLongLists(t *testing.T) {
	const long = 103 // the first view has 100
	r := serve(t, "", nil)
	b := start(t, r.url)
	b.open(r.link[len(r.url):])
	b.see("semper keys new")
	for n := range long {
		r.publish(fmt.Sprintf("1.%d.0", n))
	}
	plan := func(n int, start bool) string {
		t.Helper()
		ro, err := r.admin.PlanRollout(t.Context(), client.PlanRolloutQuery{}, api.NewRollout{Version: fmt.Sprintf("1.%d.0", n), Channel: "stable", Start: start})
		if err != nil {
			t.Fatal(err)
		}
		return strconv.FormatInt(ro.ID, 10)
	}
	for n := range long - 1 {
		if _, err := r.admin.SteerRollout(t.Context(), plan(n, false), "abort", api.Steer{Reason: "another one"}); err != nil {
			t.Fatal(err)
		}
	}
	open, last := plan(long-1, true), fmt.Sprintf("1.%d.0", long-1)
	for n := range long {
		box := r.box(n)
		if !box.offered(last) {
			t.Fatalf("machine %d is not offered %s", n, last)
		}
		box.update(last, false)
	}
	for path, end := range map[string]string{
		"/releases":         "1.0.0",
		"/rollouts":         "1.0.0 to stable",
		"/rollouts/" + open: r.box(0).alias,
	} {
		rows := func() (n int) { // and not those of the charts, as tables
			b.js(&n, `() => document.querySelectorAll("main tbody tr:has(th a)").length`)
			return n
		}
		has := func() (is bool) {
			b.js(&is, `(t) => [...document.querySelectorAll("main tbody th a")].some((a) => a.innerText.includes(t))`, end)
			return is
		}
		b.open(path)
		b.see(fmt.Sprintf("Show more of %d", long))
		if n := rows(); n != 100 || has() {
			t.Errorf("%s: %d rows at first, with the last one: %v", path, n, has())
		}
		b.click(fmt.Sprintf("Show more of %d", long))
		b.eventually(path+" to its end", func() bool { return rows() == long && has() && !b.can(fmt.Sprintf("Show more of %d", long)) })
	}
}
