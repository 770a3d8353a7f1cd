package consoletests

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/semper-os/semper/omaha/server/store"
)

// pageTarget is within what each page has what it shows.
const pageTarget = 300 * time.Millisecond

// BenchmarkPages opens each page in Chromium on a server with a million machines and a thousand releases, and says how long the server takes for what the page asks of it,
// altogether and for the slowest answer, how long until the browser has drawn it all but the charts, and then these, and how many bytes came. The first visit is made by several
// Chromiums that were just started, and others in turn open a page of the same server that is 2 KB of text: what a page costs on this machine whatever is in it.
// `make bench-console` runs it, on both databases.
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
	firstVisits(t, r.url, cookie)
	fmt.Fprintln(w, "page\trequests\tserver\tslowest\tshown after\tcharts\tbytes\t")
	b := visitor(t, r.url, cookie)
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
		drawn := b.drawn()
		var asked []struct {
			URL   string
			Took  float64 // milliseconds
			Bytes int64
		}
		b.js(&asked, `() => performance.getEntriesByType("resource").map(e => ({URL: e.name, Took: e.responseEnd - e.requestStart, Bytes: e.transferSize}))`)
		var requests int
		var all, slowest time.Duration
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
			slowest = max(slowest, took)
		}
		late := ""
		if slowest > pageTarget || drawn.Shown > float64(pageTarget.Milliseconds()) {
			late = "over 300 ms"
		}
		fmt.Fprintf(w, "%s\t%d\t%d ms\t%d ms\t%.0f ms\t%.0f ms\t%d\t %s\n", p.name, requests, all.Milliseconds(), slowest.Milliseconds(), drawn.Shown, drawn.Charts, bytes, late)
	}
	_ = w.Flush()
}

// visits is how many first visits are made.
const visits = 7

// firstVisits says how long the first visit takes, and an almost empty page in turn with it: the medians, and the fastest of each.
func firstVisits(t testing.TB, url string, cookie *http.Cookie) {
	t.Helper()
	var shown, charts, text []float64
	for range visits {
		b := visitor(t, url, cookie)
		b.open("/licences.txt")
		b.eventually("a page of text", func() bool { return b.drawn().First > 0 })
		text = append(text, b.drawn().First)
		b.stop()
		b = visitor(t, url, cookie)
		b.open("/")
		b.eventually("the overview", func() bool { return b.drawn().Charts > 0 })
		shown, charts = append(shown, b.drawn().Shown), append(charts, b.drawn().Charts)
		b.stop()
	}
	for _, all := range [][]float64{shown, charts, text} {
		slices.Sort(all)
	}
	fmt.Fprintf(os.Stdout, "first visit, median (fastest) of %d: overview shown after %.0f (%.0f) ms, with its charts after %.0f (%.0f) ms; 2 KB of text after %.0f (%.0f) ms\n",
		visits, shown[visits/2], shown[0], charts[visits/2], charts[0], text[visits/2], text[0])
}

// visitor is a Chromium that has met the server, for each of which it starts a process, and none of the console's pages.
func visitor(t testing.TB, url string, cookie *http.Cookie) *browser {
	t.Helper()
	b := start(t, url)
	b.become(cookie)
	b.open("/healthz")
	do(b, func(ctx context.Context, t *chromedp.Target) (page.AddScriptToEvaluateOnNewDocumentResult, error) {
		return cdp.Call(ctx, t, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{Source: watchDrawing})
	})
	return b
}

// watchDrawing notes when a page is drawn that waits for nothing, and when with its charts: after the frame that has them was made.
const watchDrawing = `(() => {
	const drawn = globalThis.drawn = { Shown: 0, Charts: 0 };
	const note = (name, is) => {
		if (!is) drawn[name] = 0;
		else if (!drawn[name]) { drawn[name] = -1; requestAnimationFrame(() => setTimeout(() => { if (drawn[name] === -1) drawn[name] = performance.now(); })); }
	};
	new MutationObserver(() => {
		const shown = document.querySelector("main h1") && !document.querySelector("main :is(.waiting, [data-busy])");
		note("Shown", shown);
		note("Charts", shown && !document.querySelector(".chart-box:not(:has(canvas))"));
	}).observe(document, { subtree: true, childList: true });
})()`

// drawing is when something was drawn, in milliseconds since the page was asked for; 0 and less: not yet.
type drawing struct{ First, Shown, Charts float64 }

func (b *browser) drawn() (d drawing) {
	b.t.Helper()
	b.js(&d, `() => ({ First: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? 0, ...globalThis.drawn })`)
	return d
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
