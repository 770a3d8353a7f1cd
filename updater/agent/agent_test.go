package agent_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/wire"
)

// The main job: check, download, install, reboot, trial, blessing, and the server knows of each step.
func TestUpdate(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.offer(keys.Release(t, "1.1.0"))
	h.step()
	equal(t, "events", h.fleet.take(), []string{"13/1 1.1.0", "14/1 1.1.0", "3/1 1.1.0"})
	equal(t, "reboots", h.Reboots, 1)
	r := h.agent.Report()
	equal(t, "state", r.State, agent.StateRebooting)
	equal(t, "pending", r.Pending, &wire.Pending{Version: "1.1.0", From: "1.0.0", At: installtest.Start})
	equal(t, "who asked", []string{h.fleet.machine.ID, h.fleet.machine.Version, h.fleet.machine.Track, h.fleet.machine.AlephVersion, h.fleet.machine.Board},
		[]string{application, "1.0.0", "stable", "1.0.0", "amd64-usr"})
	equal(t, "agents", h.fleet.agents, map[string]bool{"semperd-test/1.0.0": true})

	equal(t, "a second step while it goes down", h.step(), 10*time.Minute)
	equal(t, "reboots", h.Reboots, 1)

	equal(t, "boot", h.boot().Version, "1.1.0")
	h.fleet.set(func() { h.fleet.offer = nil })
	equal(t, "wait on trial", h.step(), 15*time.Second)
	r = h.agent.Report()
	equal(t, "state", r.State, agent.StateTrial)
	equal(t, "trial", []any{r.Version, r.Slot, r.Trial}, []any{"1.1.0", "B", true})
	equal(t, "checks on trial", h.fleet.checks, 1)
	must(t, h.Core().Bless())
	h.step()
	equal(t, "events", h.fleet.take(), []string{"3/2 from 1.0.0"})
	r = h.agent.Report()
	equal(t, "report", []any{r.State, r.Version, r.Trial, r.CheckResult, r.LastError == nil, r.Unreported}, []any{agent.StateIdle, "1.1.0", false, "no update", true, 0})
	equal(t, "version and first version", []string{h.fleet.machine.Version, h.fleet.machine.AlephVersion}, []string{"1.1.0", "1.0.0"})
	// Told once, however often it looks and starts.
	h.newAgent()
	h.step()
	equal(t, "events", h.fleet.take(), nil)

	var lines []string
	for _, e := range history(t, h) {
		lines = append(lines, string(e.State)+": "+e.Text)
	}
	equal(t, "history", lines, []string{
		"checking: asking the update server", "downloading: version 1.1.0", "installing: version 1.1.0", "pending: version 1.1.0 is installed",
		"draining: before the reboot into version 1.1.0", "rebooting: into version 1.1.0",
		"trial: version 1.1.0 must pass its health checks", "trial: version 1.1.0 is healthy; it replaced 1.0.0",
		"idle: version 1.1.0 runs", "idle: no update",
	})
}

var sick = &health.Result{Checks: []health.CheckResult{{Name: "50-db", Problem: "exit status 1", Output: "connecting\nno database\n"}}}

func TestFailedHealthCheck(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.1.0")
	h.offer(keys.Release(t, "1.2.0"))
	h.step()
	equal(t, "boot", h.boot().Version, "1.2.0")
	h.step()
	_, err := h.Core().Rollback(sick)
	must(t, err)
	equal(t, "boot", h.boot().Version, "1.1.0")
	h.fleet.take()
	h.step()
	equal(t, "events", h.fleet.take(), []string{"3/0 1.2.0 code 44"})
	equal(t, "reason", h.fleet.reasons, []string{"health check 50-db failed: exit status 1: no database | connecting | no database"})
	// The server offers it all the same; the machine knows better.
	r := h.agent.Report()
	if r.State != agent.StateIdle || !strings.Contains(r.CheckResult, "1.2.0, which failed here on 2026-01-02 03:04:05 UTC and is not tried again: health check 50-db") {
		t.Errorf("report %+v", r)
	}
	if r.RolledBack == nil || r.RolledBack.Version != "1.2.0" || r.LastError == nil || !strings.Contains(r.LastError.Text, "rolled back from 1.2.0: health check 50-db failed") || r.LastError.Code != 44 {
		t.Errorf("report %+v %+v", r, r.LastError)
	}
	equal(t, "downloads", len(h.fleet.ranges), 1)
	// It stays so over restarts, and ends with a newer version.
	h.newAgent()
	h.step()
	equal(t, "downloads", len(h.fleet.ranges), 1)
	equal(t, "events", h.fleet.take(), nil)
	h.offer(keys.Release(t, "1.3.0"))
	h.clock.advance(time.Hour)
	h.step()
	equal(t, "boot", h.boot().Version, "1.3.0")
	must(t, h.Core().Bless())
	h.step()
	r = h.agent.Report()
	equal(t, "over", []any{r.RolledBack == nil, r.LastError == nil, r.Version}, []any{true, true, "1.3.0"})
}

func TestKernelPanic(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.1.0")
	h.offer(keys.Release(t, "1.2.0"))
	h.step()
	h.stop()
	for range 3 {
		equal(t, "boot", h.Boot(t).Version, "1.2.0")
	}
	equal(t, "boot", h.Boot(t).Version, "1.1.0")
	h.start()
	h.fleet.take()
	h.step()
	equal(t, "events", h.fleet.take(), []string{"3/0 1.2.0 code 44"})
	if !strings.Contains(h.fleet.reasons[0], "tried 3 times and never got as far as its health checks") {
		t.Errorf("reasons %q", h.fleet.reasons)
	}
	equal(t, "reboots", h.Reboots, 1)
}

// Everything that must not be installed: nothing boots, the reason is in the report and at the server, and it is not tried again.
func TestRefusals(t *testing.T) {
	keys := installtest.NewKeys(t)
	good := keys.Release(t, "1.2.0")
	flipped := good
	flipped.Payload = slices.Clone(good.Payload)
	flipped.Payload[len(flipped.Payload)/2] ^= 0x20
	truncated := func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)-4000))
		_, _ = w.Write(data[:len(data)-4000])
		return true
	}
	portal := func(w http.ResponseWriter, _ *http.Request, _ []byte) bool {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		_, _ = w.Write([]byte("<html>log in"))
		w.(http.Flusher).Flush()
		return true
	}
	redirected := func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		if r.URL.RawQuery == "login" {
			return portal(w, r, data)
		}
		http.Redirect(w, r, r.URL.Path+"?login", http.StatusFound)
		return true
	}
	// Without a length it looks like a transfer that breaks off, each time at the same byte.
	unsized := func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		_, _ = w.Write(data[:len(data)-4000])
		w.(http.Flusher).Flush()
		return true
	}
	for _, c := range []struct {
		name    string
		release installtest.Release
		serve   func(http.ResponseWriter, *http.Request, []byte) bool
		event   string
		want    string
		again   int // downloads at the next check
	}{
		{"flipped byte", flipped, nil, "3/0 1.2.0 code 29", "SHA-256", 0},
		{"another key", installtest.NewKeys(t).Release(t, "1.2.0"), nil, "3/0 1.2.0 code 18", "trusted keys", 0},
		{"older version", keys.Release(t, "1.0.0"), nil, "3/0 1.0.0 code 35", "version 1.0.0 is not newer than 1.1.0", 0},
		{"truncated file", good, truncated, "3/0 1.2.0 code 9", "were announced", 5},
		{"captive portal", good, portal, "3/0 1.2.0 code 9", "a web page came instead of the payload", 5},
		{"captive portal elsewhere", good, redirected, "3/0 1.2.0 code 9", "a web page came instead of the payload", 10}, // each is asked for twice
		{"truncated file of unknown size", good, unsized, "3/0 1.2.0 code 9", "the transfer ended after", 5},
		{"gone", good, func(w http.ResponseWriter, r *http.Request, _ []byte) bool { http.NotFound(w, r); return true }, "3/0 1.2.0 code 9", `answered "404 Not Found"`, 5},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, keys, "1.1.0")
			h.offer(c.release)
			h.fleet.set(func() { h.fleet.serve = c.serve })
			before := h.Protected(t)
			h.step()
			events := h.fleet.take()
			if n := len(events); n == 0 || events[n-1] != c.event {
				t.Errorf("events %q, want %q at last", events, c.event)
			}
			if len(h.fleet.reasons) != 1 || !strings.Contains(h.fleet.reasons[0], c.want) {
				t.Errorf("reasons %q, want one with %q", h.fleet.reasons, c.want)
			}
			r := h.agent.Report()
			if r.LastError == nil || !strings.Contains(r.LastError.Text, c.want) || r.LastError.Version != c.release.Version || r.State != agent.StateIdle || r.Pending != nil {
				t.Errorf("report %+v %+v", r, r.LastError)
			}
			equal(t, "reboots", h.Reboots, 0)
			equal(t, "protected", h.Protected(t), before)
			equal(t, "entries", h.Entries(), []string{"semper_1.1.0.efi"})
			h.fleet.set(func() { h.fleet.ranges = nil })
			h.clock.advance(5 * time.Hour)
			h.step()
			equal(t, "downloads at the next check", len(h.fleet.ranges), c.again)
		})
	}
}

// A refusal by the running version's rules ends with that version.
func TestPolicyRefusalEndsWithTheVersion(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	far := keys.Make(t, installtest.Spec{Version: "2.0.0", Image: minVersion("1.1.0")})
	h.offer(far)
	h.step()
	equal(t, "event", h.fleet.take()[1:], []string{"3/0 2.0.0 code 35"})
	h.offer(keys.Release(t, "1.1.0"))
	h.clock.advance(time.Hour)
	h.step()
	h.boot()
	must(t, h.Core().Bless())
	h.offer(far)
	h.step()
	equal(t, "boot", h.boot().Version, "2.0.0")
}

// A download that breaks off goes on where it stopped, with a range, in the same attempt.
func TestBrokenDownloadResumes(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.offer(keys.Release(t, "1.1.0"))
	breaks := 0
	h.fleet.serve = func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		if breaks++; breaks > 2 {
			return false
		}
		var from int
		if s := r.Header.Get("Range"); s != "" {
			_, _ = fmt.Sscanf(s, "bytes=%d-", &from)
			w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(data)-1, len(data)))
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)-from))
		if from > 0 {
			w.WriteHeader(http.StatusPartialContent)
		}
		_, _ = w.Write(data[from : from+50_000]) // the server then drops the connection, as less than announced was written
		return true
	}
	h.step()
	equal(t, "boot", h.boot().Version, "1.1.0")
	if len(h.fleet.ranges) != 3 || h.fleet.ranges[0] != "main " || !strings.HasPrefix(h.fleet.ranges[1], "main bytes=") || h.fleet.ranges[1] == h.fleet.ranges[2] {
		t.Errorf("ranges %q", h.fleet.ranges)
	}
	equal(t, "waits", len(h.clock.slept), 2)
	equal(t, "events", h.fleet.take(), []string{"13/1 1.1.0", "14/1 1.1.0", "3/1 1.1.0"})
}

// A server that knows nothing of ranges sends all of it again; what is known is skipped.
func TestServerWithoutRanges(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.offer(keys.Release(t, "1.1.0"))
	tries := 0
	h.fleet.serve = func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		if tries++; tries == 1 {
			data = data[:70_000]
		}
		_, _ = w.Write(data)
		return true
	}
	h.step()
	equal(t, "boot", h.boot().Version, "1.1.0")
	equal(t, "tries", tries, 2)
}

// semperd is stopped in the middle of a download, and so is semper-installd: the next start goes on, and nothing was a failure.
func TestStoppedInTheMiddle(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.offer(keys.Make(t, installtest.Spec{Version: "1.1.0", RootSize: 1 << 20}))
	ctx, cancel := context.WithCancel(t.Context())
	h.fleet.serve = func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		if ctx.Err() != nil {
			return false
		}
		w.Header().Set("Content-Length", fmt.Sprint(len(data)))
		_, _ = w.Write(data[:600_000])
		w.(http.Flusher).Flush()
		for p := h.agent.Report().Progress; r.Context().Err() == nil && (p == nil || p.Done < 512<<10); p = h.agent.Report().Progress {
			time.Sleep(time.Millisecond)
		}
		cancel()
		<-r.Context().Done()
		return true
	}
	h.agent.Step(ctx)
	equal(t, "reboots", h.Reboots, 0)
	h.stop()
	h.start()
	r := h.agent.Report()
	equal(t, "no error", r.LastError == nil, true)
	h.step()
	equal(t, "boot", h.boot().Version, "1.1.0")
	if len(h.fleet.ranges) != 2 || !strings.HasPrefix(h.fleet.ranges[1], "main bytes=") {
		t.Errorf("ranges %q", h.fleet.ranges)
	}
	for _, e := range h.fleet.take() {
		if strings.Contains(e, "3/0") {
			t.Errorf("event %q", e)
		}
	}
}

func TestMirrors(t *testing.T) {
	keys := installtest.NewKeys(t)
	good := keys.Release(t, "1.1.0")
	h := newHost(t, keys, "1.0.0")
	h.offer(good)
	h.fleet.urls = []string{"%s/gone/", "http://127.0.0.1:1/", "%s/bad/", "%s/good/"}
	h.fleet.serve = func(w http.ResponseWriter, r *http.Request, data []byte) bool {
		switch r.PathValue("mirror") {
		case "gone":
			http.NotFound(w, r)
			return true
		case "bad":
			b := slices.Clone(data)
			b[len(b)/2] ^= 1
			_, _ = w.Write(b)
			return true
		}
		return false
	}
	h.step()
	equal(t, "downloads", h.fleet.ranges, []string{"gone ", "bad ", "good "})
	equal(t, "boot", h.boot().Version, "1.1.0")
	equal(t, "events", h.fleet.take(), []string{"13/1 1.1.0", "14/1 1.1.0", "3/1 1.1.0"})
}

// While the server is away the waits grow, and what it must know is kept on disk until it answers.
func TestServerAway(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.1.0")
	h.offer(keys.Release(t, "1.2.0"))
	h.step()
	h.boot()
	_, err := h.Core().Rollback(sick)
	must(t, err)
	h.fleet.take()
	h.fleet.set(func() { h.fleet.down = true })
	h.boot()
	var waits []time.Duration
	for range 6 {
		h.step()
		r := h.agent.Report()
		if !strings.Contains(r.LastError.Text, "503 Service Unavailable: out for lunch") || r.LastError.Kind != "network" || r.Unreported != 1 {
			t.Fatalf("report %+v %+v", r, r.LastError)
		}
		wait := r.NextCheck.Sub(h.clock.Now())
		waits = append(waits, wait)
		h.clock.advance(wait)
	}
	for i, w := range waits {
		if limit := time.Minute << i; w < limit/10 || w > limit {
			t.Errorf("wait %d is %v, want %v to %v (all %v)", i, w, limit/10, limit, waits)
		}
	}
	h.newAgent() // a crash loses nothing
	h.fleet.set(func() { h.fleet.down = false })
	h.step()
	equal(t, "events", h.fleet.take(), []string{"3/0 1.2.0 code 44"})
	equal(t, "unreported", h.agent.Report().Unreported, 0)
	equal(t, "error is over", strings.Contains(h.agent.Report().CheckResult, "not tried again"), true)
}

func TestPollInterval(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.settings.InitialDelay = 10 * time.Minute
	h.newAgent()
	wait := h.step()
	equal(t, "checks before the initial delay", h.fleet.checks, 0)
	if wait < 5*time.Minute || wait > 15*time.Minute {
		t.Errorf("first wait %v, want 10 minutes moved by up to 5", wait)
	}
	h.clock.advance(wait)
	if wait = h.step(); wait < 40*time.Minute || wait > 50*time.Minute {
		t.Errorf("wait %v, want 45 minutes moved by up to 5", wait)
	}
	equal(t, "checks", h.fleet.checks, 1)
	h.fleet.set(func() { h.fleet.poll, h.fleet.reason = 30*time.Minute, "the rollout is paused" })
	h.clock.advance(wait)
	if wait = h.step(); wait < 25*time.Minute || wait > 35*time.Minute {
		t.Errorf("wait %v, want the server's 30 minutes moved by up to 5", wait)
	}
	equal(t, "result", h.agent.Report().CheckResult, "no update: the rollout is paused")
	// A clock that was years ahead when the next check was planned must not silence the machine.
	h.clock.advance(-10 * 365 * 24 * time.Hour)
	h.step()
	if wait = h.step(); wait > 16*time.Minute {
		t.Errorf("after the clock was set back: wait %v", wait)
	}
}

func TestRebootOff(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.settings.Reboot.Strategy = config.RebootOff
	h.newAgent()
	h.offer(keys.Release(t, "1.1.0"))
	h.step()
	r := h.agent.Report()
	equal(t, "state", []any{r.State, r.Pending.Version, h.Reboots}, []any{agent.StatePending, "1.1.0", 0})
	equal(t, "events", h.fleet.take(), []string{"13/1 1.1.0", "14/1 1.1.0", "3/1 1.1.0"})
	h.clock.advance(time.Hour)
	h.step()
	equal(t, "offered again", h.agent.Report().CheckResult, "the server offers 1.1.0, which is installed and waits for a reboot")
	h.offer(keys.Release(t, "1.2.0"))
	h.clock.advance(time.Hour)
	h.step()
	equal(t, "a newer one replaces it", h.agent.Report().Pending.Version, "1.2.0")
	equal(t, "boot", h.boot().Version, "1.2.0")
}

// The boot loader never chooses the new entry: that must not become an endless loop.
func TestRebootLoopEnds(t *testing.T) {
	keys := installtest.NewKeys(t)
	r0 := keys.Release(t, "1.0.0")
	h := newHost(t, keys, "1.0.0")
	h.offer(keys.Release(t, "1.1.0"))
	h.step()
	for range 6 {
		h.stop()
		h.Boot(t)
		for _, name := range h.Entries() {
			if strings.HasPrefix(name, "semper_1.1.0") && name != "semper_1.1.0+3-0.efi" {
				must(t, h.ESP.Rename(name, "semper_1.1.0+3-0.efi")) // somebody's loader does not count either
				must(t, h.ESP.Sync())
			}
		}
		h.Hash, h.Running = r0.RootHash, r0.Image
		h.start()
		h.clock.advance(11 * time.Minute)
		h.step()
	}
	equal(t, "reboots", h.Reboots, 3)
	r := h.agent.Report()
	if r.LastError == nil || !strings.Contains(r.LastError.Text, "after 3 reboots the machine still runs 1.0.0: the boot loader does not choose it") {
		t.Errorf("report %+v %+v", r, r.LastError)
	}
}

func TestTooLarge(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.settings.Payload.MaxSize = 1000
	h.newAgent()
	h.offer(keys.Release(t, "1.1.0"))
	h.step()
	equal(t, "downloads", len(h.fleet.ranges), 0)
	equal(t, "events", h.fleet.take(), []string{"3/0 1.1.0 code 11"})
}

func TestInstallerAway(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.stop()
	if wait := h.step(); wait < 6*time.Second || wait > time.Minute {
		t.Errorf("wait %v", wait)
	}
	r := h.agent.Report()
	if !strings.Contains(r.InstallerError, "connect to semper-installd") || h.fleet.checks != 0 {
		t.Errorf("report %+v, %d checks", r, h.fleet.checks)
	}
	for range 10 {
		if wait := h.step(); wait > 5*time.Minute {
			t.Errorf("wait %v", wait)
		}
	}
	h.start()
	h.step()
	equal(t, "error", h.agent.Report().InstallerError, "")
	equal(t, "last error", h.agent.Report().LastError == nil, true)
	equal(t, "checks", h.fleet.checks, 1)
}

// Somebody else's session is no failure of the version.
func TestInstallerBusy(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	r := keys.Release(t, "1.1.0")
	h.offer(r)
	other, err := wire.Dial(t.Context(), h.path)
	must(t, err)
	defer other.Close()
	_, err = other.Begin(wire.Begin{SHA256: r.SHA256Hex(), Size: int64(len(r.Payload)), Version: "1.1.0"})
	must(t, err)
	h.step()
	equal(t, "events", h.fleet.take(), []string{"3/0 1.1.0 code 36"})
	report := h.agent.Report()
	if report.LastError == nil || !strings.Contains(report.LastError.Text, "another installation is running") || len(report.Failed) != 0 {
		t.Errorf("report %+v", report)
	}
	must(t, other.Abort())
	h.clock.advance(time.Hour)
	h.step()
	equal(t, "boot", h.boot().Version, "1.1.0")
}

// A fresh machine waits for its blessing; if that never comes and there is nothing to go back to, an update is the only help.
func TestSickFreshMachine(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	must(t, h.ESP.Rename("semper_1.0.0.efi", "semper_1.0.0+3-0.efi"))
	must(t, h.ESP.Sync())
	h.boot()
	h.offer(keys.Release(t, "1.1.0"))
	h.step()
	equal(t, "state", h.agent.Report().State, agent.StateTrial)
	h.clock.advance(31 * time.Minute)
	h.step()
	equal(t, "boot", h.boot().Version, "1.1.0")
}

// A sick version on trial is not updated while there is a way back.
func TestNoUpdateOnTrial(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.offer(keys.Release(t, "1.1.0"))
	h.step()
	h.boot()
	h.offer(keys.Release(t, "1.2.0"))
	h.clock.advance(24 * time.Hour)
	h.step()
	equal(t, "state", h.agent.Report().State, agent.StateTrial)
	equal(t, "entries", h.Entries(), []string{"semper_1.0.0.efi", "semper_1.1.0+2-1.efi"})
}

func TestDamagedState(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.state.Put("state.json", []byte("{torn"))
	h.newAgent()
	h.step()
	equal(t, "checks", h.fleet.checks, 1)
	equal(t, "files", slices.Sorted(maps.Keys(h.state.Files())), []string{"state.json", "state.json.damaged"})
}

func TestNoServer(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.settings.Server = ""
	h.newAgent()
	equal(t, "wait", h.step(), time.Hour)
	r := h.agent.Report()
	equal(t, "report", []any{r.Version, r.Server, r.State, r.LastError == nil}, []any{"1.0.0", "", agent.StateIdle, true})
}
