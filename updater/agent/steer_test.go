package agent_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/install/installtest"
)

// do has a running agent carry out a request.
func do(t *testing.T, h *host, r agent.Request) (string, error) {
	t.Helper()
	stop := drive(t, h)
	defer stop()
	return h.agent.Do(t.Context(), r).Result()
}

// goOn lets the agent do what a command brought about. Its loop may have begun with it, and have been stopped in the middle: it is tried again later then.
func (h *host) goOn() {
	for range 3 {
		h.step()
		h.clock.advance(2 * time.Hour)
	}
}

// still is a host whose loop moves by commands alone.
func still(t *testing.T, keys installtest.Keys, version string) *host {
	t.Helper()
	h := newHost(t, keys, version)
	h.settings.InitialDelay = time.Hour
	h.sleeper = parked{h.clock}
	h.newAgent()
	return h
}

func TestPause(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := still(t, keys, "1.0.0")
	_, err := do(t, h, agent.Request{Verb: agent.VerbPause, Reason: "audit", By: "ada"})
	must(t, err)
	h.offer(keys.Release(t, "1.1.0"))
	h.clock.advance(24 * time.Hour)
	equal(t, "wait", h.step(), time.Hour)
	equal(t, "checks while paused", h.fleet.checks, 0)
	if _, err := do(t, h, agent.Request{Verb: agent.VerbCheck}); err == nil || !strings.Contains(err.Error(), "the agent is paused (audit): 'semperctl resume' first") {
		t.Errorf("check: %v", err)
	}
	h.newAgent() // it lasts
	r := h.agent.Report()
	if r.Paused == nil || r.Paused.Reason != "audit" || r.Paused.By != "ada" || !strings.Contains(strings.Join(r.Explain(h.clock.Now()), "\n"), "paused since 2026-01-02 03:04 UTC by ada: audit") {
		t.Errorf("report %+v", r)
	}
	_, err = do(t, h, agent.Request{Verb: agent.VerbResume})
	must(t, err)
	h.goOn()
	equal(t, "boot", h.boot().Version, "1.1.0")
}

// A pause by file holds an installed update too, and cannot be ended by a command.
func TestPauseBySettings(t *testing.T) {
	h := ready(t, func(h *host) { h.windows = never(t) })
	h.step()
	h.settings.Paused = true
	h.windows.Windows = nil
	h.sleeper = parked{h.clock}
	h.newAgent()
	h.step()
	waiting(t, h, "the agent is paused: paused = true")
	if _, err := do(t, h, agent.Request{Verb: agent.VerbResume}); !fault.Is(err, fault.Input) {
		t.Errorf("resume: %v", err)
	}
}

func TestMetered(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := still(t, keys, "1.0.0")
	_, err := do(t, h, agent.Request{Verb: agent.VerbMetered, On: true})
	must(t, err)
	h.offer(keys.Release(t, "1.1.0"))
	text, err := do(t, h, agent.Request{Verb: agent.VerbUpdate})
	must(t, err)
	equal(t, "answer", text, "the server offers 1.1.0, which is not downloaded over a metered line")
	equal(t, "downloads", len(h.fleet.ranges), 0)
	_, err = do(t, h, agent.Request{Verb: agent.VerbMetered})
	must(t, err)
	h.goOn()
	equal(t, "boot", h.boot().Version, "1.1.0")
}

func TestPin(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.settings.Pin = "1.2.0"
	h.newAgent()
	h.offer(keys.Release(t, "1.1.0"))
	h.step()
	equal(t, "answer", h.agent.Report().CheckResult, "the server offers 1.1.0, but this machine is pinned to 1.2.0 (the defaults)")
	h.offer(keys.Release(t, "1.2.0"))
	h.clock.advance(time.Hour)
	h.step()
	equal(t, "boot", h.boot().Version, "1.2.0")
}

// A version may fail as often as the settings say; then it is left alone until a person says so.
func TestFailsTwice(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.settings.MaxFailures, h.settings.InitialDelay = 2, time.Hour
	h.sleeper = parked{h.clock}
	h.newAgent()
	h.offer(keys.Release(t, "1.1.0"))
	for i := range 2 {
		h.clock.advance(2 * time.Hour)
		h.step()
		equal(t, "boot", h.boot().Version, "1.1.0")
		h.step()
		h.clock.advance(time.Hour)
		_, err := h.Core().Rollback(sick)
		must(t, err)
		equal(t, "boot", h.boot().Version, "1.0.0")
		h.fleet.set(func() { h.fleet.down = true })
		h.step()
		h.fleet.set(func() { h.fleet.down = false })
		equal(t, "failures", h.agent.Report().Failed[0].Times, i+1)
	}
	h.clock.advance(2 * time.Hour)
	h.step()
	if r := h.agent.Report(); !strings.Contains(r.CheckResult, "is not tried again") || r.Pending != nil {
		t.Errorf("report %+v", r)
	}
	equal(t, "downloads", len(h.fleet.ranges), 2)
	if _, err := do(t, h, agent.Request{Verb: agent.VerbRetry, Version: "9.9.9"}); !fault.Is(err, fault.Input) {
		t.Errorf("retry of a version that never failed: %v", err)
	}
	_, err := do(t, h, agent.Request{Verb: agent.VerbRetry, Version: "1.1.0"})
	must(t, err)
	h.clock.advance(2 * time.Hour) // the loop may have begun the attempt, and was cut short
	h.step()
	equal(t, "boot", h.boot().Version, "1.1.0")
	must(t, h.Core().Bless())
	h.step()
	equal(t, "forgotten once it is healthy", len(h.agent.Report().Failed), 0)
}

// Cancelling ends a download, keeps what came, and is not held against the version.
func TestCancel(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := still(t, keys, "1.0.0")
	h.offer(keys.Make(t, installtest.Spec{Version: "1.1.0", RootSize: 1 << 20}))
	first := true
	h.fleet.serve = func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		if !first {
			return false
		}
		first = false
		_, _ = w.Write(data[:600_000])
		w.(http.Flusher).Flush()
		for p := h.agent.Report().Progress; r.Context().Err() == nil && (p == nil || p.Done < 512<<10); p = h.agent.Report().Progress {
			time.Sleep(time.Millisecond)
		}
		if text, err := h.agent.Do(context.Background(), agent.Request{Verb: agent.VerbCancel}).Result(); err != nil || text != "cancelled; what was downloaded is kept" {
			t.Errorf("cancel: %q, %v", text, err)
		}
		<-r.Context().Done()
		return true
	}
	_, err := do(t, h, agent.Request{Verb: agent.VerbUpdate})
	if err == nil || !strings.Contains(err.Error(), "update to 1.1.0: cancelled by a person") {
		t.Errorf("update: %v", err)
	}
	equal(t, "state", h.agent.Report().State, agent.StateIdle)
	equal(t, "failed versions", len(h.agent.Report().Failed), 0)
	text, err := do(t, h, agent.Request{Verb: agent.VerbCancel})
	must(t, err)
	equal(t, "again", text, "there was nothing to cancel")
	_, err = do(t, h, agent.Request{Verb: agent.VerbUpdate})
	must(t, err)
	if len(h.fleet.ranges) != 2 || !strings.HasPrefix(h.fleet.ranges[1], "main bytes=") {
		t.Errorf("ranges %q", h.fleet.ranges)
	}
}

// Servers are tried in order, one that failed is asked after the others for a while, and events go to whichever answers.
func TestSeveralServers(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	second := newFleet(t)
	c, err := client.New(second.URL, client.Options{})
	must(t, err)
	h.more = []agent.NamedServer{{URL: "second", Server: c}}
	h.newAgent()
	h.fleet.set(func() { h.fleet.down = true })
	h.step()
	equal(t, "checks", []int{h.fleet.checks, second.checks}, []int{0, 1})
	r := h.agent.Report()
	if b := r.Bad[h.fleet.URL+"/v1/update"]; b.Times != 1 || b.Until.Sub(h.clock.Now()) != 5*time.Minute || r.LastError != nil {
		t.Errorf("bad %+v, error %+v", r.Bad, r.LastError)
	}
	h.fleet.set(func() { h.fleet.down = false })
	h.clock.advance(time.Minute)
	h.newAgent() // remembered over a restart
	h.step()
	equal(t, "checks while the first is remembered", []int{h.fleet.checks, second.checks}, []int{0, 2})
	h.clock.advance(time.Hour)
	h.step()
	equal(t, "checks afterwards", []int{h.fleet.checks, second.checks}, []int{1, 2})
	equal(t, "forgotten", len(h.agent.Report().Bad), 0)
	second.set(func() { second.down = true })
	h.fleet.set(func() { h.fleet.down = true })
	h.clock.advance(time.Hour)
	h.step()
	if e := h.agent.Report().LastError; e == nil || e.Kind != "network" || !strings.Contains(e.Text, "503") {
		t.Errorf("with both away: %+v", e)
	}
}

// A payload address that failed is tried last the next time.
func TestBadMirrorIsRemembered(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.offer(keys.Release(t, "1.1.0"))
	h.fleet.urls = []string{"%s/gone/", "%s/good/"}
	h.fleet.serve = func(w http.ResponseWriter, r *http.Request, _ []byte) bool {
		if r.PathValue("mirror") != "gone" {
			return false
		}
		http.NotFound(w, r)
		return true
	}
	h.step()
	equal(t, "boot", h.boot().Version, "1.1.0")
	must(t, h.Core().Bless())
	h.fleet.set(func() { h.fleet.ranges = nil })
	h.fleet.urls = []string{"%s/gone/", "%s/good/"}
	h.offer(keys.Release(t, "1.2.0"))
	h.step()
	equal(t, "downloads", h.fleet.ranges, []string{"good "})
}

func TestBandwidthLimit(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.settings.Network.BandwidthLimit = 64 << 10
	h.newAgent()
	r := keys.Make(t, installtest.Spec{Version: "1.1.0", RootSize: 1 << 20})
	h.offer(r)
	begin := h.clock.Now()
	h.step()
	want := time.Duration(float64(len(r.Payload)) / (64 << 10) * float64(time.Second))
	if took := h.clock.Now().Sub(begin); took < want-time.Second || took > want+time.Second {
		t.Errorf("took %v for %d bytes, want %v", took, len(r.Payload), want)
	}
	equal(t, "boot", h.boot().Version, "1.1.0")
}

// On trial the machine finds out whether a server can be reached, once, without asking for an update.
func TestProbeOnTrial(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.offer(keys.Release(t, "1.1.0"))
	h.step()
	h.fleet.set(func() { h.fleet.down = true })
	h.boot()
	checks := h.fleet.checks
	h.step()
	equal(t, "reached", h.agent.Report().Reached, false)
	h.fleet.set(func() { h.fleet.down = false })
	h.clock.advance(15 * time.Second)
	h.step()
	equal(t, "reached", h.agent.Report().Reached, true)
	equal(t, "checks on trial", h.fleet.checks, checks)
	equal(t, "events", len(h.fleet.take()), 3)
}

// What is not Omaha is an error that says so, and changes nothing: a captive portal, an old answer that was kept by a cache, a redirect that drops the body.
func TestStrangeServers(t *testing.T) {
	for _, c := range []struct {
		name   string
		answer http.HandlerFunc
		want   string
	}{
		{"captive portal", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte("<html>Please log in</html>"))
		}, `its answer has the type "text/html"`},
		{"portal that says it is XML", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/xml")
			_, _ = w.Write([]byte("<html>Please log in</html>"))
		}, "html"},
		{"redirect to the portal", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "/login", http.StatusFound)
		}, "the redirect drops the request's body"},
		{"endless", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/xml")
			for range 2000 {
				if _, err := w.Write([]byte(strings.Repeat(" ", 4096))); err != nil {
					return
				}
			}
		}, "bytes"},
		{"empty", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "text/xml") }, "the document is empty"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.answer)
			defer s.Close()
			keys := installtest.NewKeys(t)
			h := newHost(t, keys, "1.0.0")
			h.settings.Server = s.URL + "/v1/update"
			h.newAgent()
			h.step()
			r := h.agent.Report()
			if r.LastError == nil || !strings.Contains(r.LastError.Text, c.want) || r.State != agent.StateIdle || len(r.Failed) != 0 {
				t.Errorf("report %+v", r.LastError)
			}
			if wait := r.NextCheck.Sub(h.clock.Now()); wait <= 0 || wait > time.Minute {
				t.Errorf("next check in %v", wait)
			}
		})
	}
}

// A blessed version that becomes unhealthy is reported once, and so is its recovery.
func TestSickLater(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	later := &health.Later{Verdict: health.Verdict{
		Version: "1.0.0", Sick: true, Since: installtest.Start, Checks: []string{"50-db"},
	}}
	later.Checks = []health.CheckResult{{Name: "50-db", Required: true, Problem: "exit status 1", Output: "no database\n"}}
	h.later = later
	h.newAgent()
	h.step()
	h.clock.advance(time.Hour)
	h.step()
	equal(t, "events", h.fleet.take(), []string{"3/0 1.0.0 code 1"})
	equal(t, "reasons", h.fleet.reasons, []string{"unhealthy after its blessing: health check 50-db failed: exit status 1: no database"})
	r := h.agent.Report()
	if r.Sick == nil || r.Sick.Version != "1.0.0" || !strings.Contains(r.MOTD(), "UNHEALTHY since 2026-01-02 03:04 UTC") || !strings.Contains(r.Metrics(), "\nsemper_sick 1\n") {
		t.Errorf("report %+v", r)
	}
	h.later = &health.Later{Verdict: health.Verdict{Version: "1.0.0"}}
	h.clock.advance(time.Hour)
	h.step()
	equal(t, "over", h.agent.Report().Sick == nil, true)
	if !slices.ContainsFunc(history(t, h), func(e agent.Entry) bool { return e.Text == "version 1.0.0 is healthy again" }) {
		t.Errorf("history %+v", history(t, h))
	}
}

// Checks that find nothing new share one line of the history.
func TestQuietHistory(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	for range 5 {
		h.step()
		h.clock.advance(time.Hour)
	}
	h.fleet.set(func() { h.fleet.reason = "held" })
	h.step()
	var lines []string
	for _, e := range history(t, h) {
		lines = append(lines, strings.TrimSpace(strings.Repeat("x", e.Times)+" "+e.Text))
	}
	equal(t, "history", lines, []string{"xxxxx no update", "x no update: held"})
}
