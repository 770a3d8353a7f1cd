package consoletests

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/semper-os/semper/omaha/server/store"
)

// pageTarget is within what each page has what it shows.
const pageTarget = 300 * time.Millisecond

// BenchmarkPages opens each page in Chromium on a server with a million machines and a thousand releases, and says how long the server takes for what the page asks of it,
// altogether and for the slowest answer, how long until the browser has it all, and how many bytes came. `make bench-console` runs it, on both databases.
func BenchmarkPages(b *testing.B) {
	onBoth(b, benchPages)
}

func benchPages(t *testing.B, database string) {
	p := provider(t, staff)
	r := serve(t, database, p)
	begun := time.Now()
	r.write(func(tx store.Tx) error { return r.knows(tx, p.URL, make([]time.Duration, len(staff))...) })
	r.fillLarge(t.Context())
	cookie := r.session("Ada Lovelace")
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(os.Stdout, "%d machines, %d releases, %d rollouts, made in %.0f s\n", largeMachines, largeReleases, largeRollouts+1, time.Since(begun).Seconds())
	fmt.Fprintln(w, "page\trequests\tserver\tslowest\tshown after\tbytes\t")
	b := start(t, r.url)
	b.become(cookie)
	b.open("/healthz")  // Chromium starts a process for each server that it has not met
	id := largeID(1007) // it failed
	newest := "/releases/amd64/" + largeVersion(largeReleases-1)
	for _, p := range []struct{ name, path string }{
		{"overview", "/"},
		{"machines", "/machines"},
		{"machines of a version", "/machines?version=" + largeVersion(largeReleases-30)},
		{"machines that failed", "/machines?state=failed"},
		{"machines by part of a name", "/machines?text=node00777"},
		{"machine", "/machines/" + id},
		{"releases", "/releases"},
		{"release", newest},
		{"rollouts", "/rollouts"},
		{"rollout", fmt.Sprintf("/rollouts/%d", largeRollouts+1)},
		{"plan", "/rollouts/new?version=" + largeVersion(largeReleases-1) + "&channel=stable"},
		{"channels", "/channels"},
		{"reboot locks", "/reboots"},
		{"people", "/people"},
		{"audit log", "/audit"},
	} {
		b.open(p.path)
		before := -1
		b.eventually(p.name, func() bool { // it asks for nothing more, and waits for nothing
			var now int
			b.js(&now, `() => !document.querySelector("main h1") || document.querySelector("main .waiting, [data-busy]") ? -1 :
				performance.getEntriesByType("resource").filter(e => e.name.includes("/api/") && e.responseEnd > 0).length`)
			time.Sleep(200 * time.Millisecond)
			same := now == before && now > 0
			before = now
			return same
		})
		var asked []struct {
			URL       string
			Took, End float64 // milliseconds
			Bytes     int64
		}
		b.js(&asked, `() => performance.getEntriesByType("resource").map(e => ({URL: e.name, Took: e.responseEnd - e.requestStart, End: e.responseEnd, Bytes: e.transferSize}))`)
		var requests int
		var all, slowest time.Duration
		var end float64
		var bytes int64
		for _, a := range asked {
			bytes += a.Bytes
			path, ok := strings.CutPrefix(a.URL, r.url)
			if !ok {
				t.Errorf("%s asked %s", p.name, a.URL)
			}
			if !strings.HasPrefix(path, "/api/") || strings.HasPrefix(path, "/api/v1/feed") {
				continue
			}
			took := time.Duration(a.Took * float64(time.Millisecond))
			if !strings.HasSuffix(path, "/preview") { // which is no GET
				took = answerTime(t, a.URL, cookie)
			}
			requests++
			all += took
			slowest, end = max(slowest, took), max(end, a.End)
		}
		late := ""
		if slowest > pageTarget || end > float64(pageTarget.Milliseconds()) {
			late = "over 300 ms"
		}
		fmt.Fprintf(w, "%s\t%d\t%d ms\t%d ms\t%.0f ms\t%d\t %s\n", p.name, requests, all.Milliseconds(), slowest.Milliseconds(), end, bytes, late)
	}
	_ = w.Flush()
}

// answerTime is the median of a few answers.
func answerTime(t testing.TB, url string, cookie *http.Cookie) time.Duration {
	t.Helper()
	var took []time.Duration
	for range 3 {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.AddCookie(cookie)
		begun := time.Now()
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, err = io.Copy(io.Discard, res.Body)
		res.Body.Close()
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s (%v)", url, res.Status, err)
		}
		took = append(took, time.Since(begun))
	}
	slices.Sort(took)
	return took[1]
}
