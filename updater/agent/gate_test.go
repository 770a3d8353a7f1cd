package agent_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/logind"
	"github.com/semper-os/semper/window"
)

// ready returns a host with 1.1.0 installed, whose first try to reboot is still to come.
func ready(t *testing.T, prepare func(*host)) *host {
	t.Helper()
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	prepare(h)
	h.newAgent()
	h.offer(keys.Release(t, "1.1.0"))
	return h
}

// waiting checks that the machine has not gone down, and why.
func waiting(t *testing.T, h *host, want string) {
	t.Helper()
	r := h.agent.Report()
	if r.State != agent.StatePending || h.Reboots != 0 || !strings.Contains(r.Waiting, want) {
		t.Fatalf("state %s, %d reboots, waits for %q, want %q", r.State, h.Reboots, r.Waiting, want)
	}
}

func TestWindow(t *testing.T) {
	h := ready(t, func(h *host) { // the clock starts on Friday 2026-01-02 at 03:04:05
		w, err := window.Parse("Sat 22:00 2h")
		must(t, err)
		h.windows = window.Schedule{Windows: []window.Window{w}, Location: time.UTC}
		h.settings.Reboot.Strategy = config.RebootWindow
	})
	wait := h.step()
	waiting(t, h, "opens Sat 2026-01-03 22:00 UTC")
	if wait > time.Hour {
		t.Errorf("wait %v", wait)
	}
	h.clock.advance(42*time.Hour + 54*time.Minute) // 21:58:05
	if wait = h.step(); wait > 2*time.Minute {
		t.Errorf("wait %v just before the window", wait)
	}
	waiting(t, h, "opens Sat")
	h.clock.advance(2 * time.Minute)
	h.step()
	equal(t, "reboots in the window", h.Reboots, 1)
}

// The window closes while the hooks run: no reboot, and what was drained comes back.
func TestWindowClosesDuringDrain(t *testing.T) {
	l := &lock{}
	h := ready(t, func(h *host) {
		w, err := window.Parse("Fri 03:00 30m")
		must(t, err)
		h.windows, h.lock = window.Schedule{Windows: []window.Window{w}, Location: time.UTC}, l
		h.drain = func() error { h.clock.advance(time.Hour); return nil }
	})
	h.step()
	waiting(t, h, "opens Fri 2026-01-09 03:00 UTC")
	equal(t, "undrained", h.drained, 1)
	equal(t, "lock", l.take(), []string{"release", "acquire", "release"})
}

func TestLock(t *testing.T) {
	l := &lock{refused: errors.New("2 of 2 slots are taken")}
	h := ready(t, func(h *host) { h.lock = l })
	wait := h.step()
	waiting(t, h, "waits for the fleet's reboot lock: 2 of 2 slots are taken")
	equal(t, "calls", l.take(), []string{"release", "acquire"}) // a start gives back what an earlier life may hold
	if wait > 30*time.Second {
		t.Errorf("first wait %v", wait)
	}
	for range 12 {
		h.clock.advance(wait)
		if wait = h.step(); wait > 5*time.Minute {
			t.Errorf("wait %v", wait)
		}
	}
	if calls := l.take(); slices.Contains(calls, "release") || slices.Contains(calls, "held") || len(calls) != 12 {
		t.Errorf("calls while it is refused: %q", calls)
	}
	l.refused = nil
	h.clock.advance(wait)
	h.step()
	equal(t, "calls", l.take(), []string{"acquire", "held"})
	equal(t, "reboots", h.Reboots, 1)
	equal(t, "held", h.agent.Report().Locked, true)

	// On trial the lock stays; the blessing gives it back.
	equal(t, "boot", h.boot().Version, "1.1.0")
	h.fleet.set(func() { h.fleet.offer = nil })
	h.step()
	equal(t, "calls on trial", l.take(), []string{"acquire"}) // the agent is another process now; that takes it over
	h.clock.advance(6 * time.Minute)
	h.step()
	equal(t, "calls later on trial", l.take(), []string{"held"}) // which renews it
	must(t, h.Core().Bless())
	l.away = errors.New("no route to host")
	wait = h.step()
	equal(t, "calls", l.take(), []string{"release"})
	equal(t, "still held", h.agent.Report().Locked, true)
	if wait > 5*time.Minute || h.agent.Report().LastError == nil {
		t.Errorf("wait %v, error %v", wait, h.agent.Report().LastError)
	}
	l.away = nil
	h.clock.advance(wait)
	h.step()
	equal(t, "calls", l.take(), []string{"release"})
	equal(t, "held", h.agent.Report().Locked, false)
	h.clock.advance(time.Hour)
	h.step()
	equal(t, "calls when all is done", l.take(), nil)
}

// A clock that was years ahead when waits were planned does not make them last for years once it is right.
func TestClockSetBack(t *testing.T) {
	const years = 10 * 365 * 24 * time.Hour
	t.Run("lock to give back", func(t *testing.T) {
		l := &lock{}
		h := ready(t, func(h *host) { h.lock = l })
		h.step()
		h.boot()
		h.fleet.set(func() { h.fleet.offer = nil })
		must(t, h.Core().Bless())
		l.away = errors.New("no route to host")
		h.step()
		l.take()
		l.away = nil
		h.clock.advance(-years)
		h.step()
		equal(t, "calls", l.take(), []string{"release"})
	})
	t.Run("inhibitor", func(t *testing.T) {
		h := ready(t, func(h *host) {
			h.login = &login{inhibitors: []logind.Inhibitor{{Who: "backup", Why: "tape is running"}}}
		})
		h.step()
		h.clock.advance(-years)
		h.step()
		waiting(t, h, "backup")
		h.clock.advance(25 * time.Hour)
		h.step()
		equal(t, "reboots", h.Reboots, 1)
	})
	t.Run("user", func(t *testing.T) {
		h := ready(t, func(h *host) { h.login = &login{sessions: []logind.Session{{ID: "1", User: "root"}}} })
		h.step()
		h.clock.advance(-years)
		h.step()
		waiting(t, h, "waits for users to log out")
		h.clock.advance(time.Hour)
		h.step()
		equal(t, "reboots", h.Reboots, 1)
	})
	t.Run("trial with nothing to go back to", func(t *testing.T) {
		keys := installtest.NewKeys(t)
		h := newHost(t, keys, "1.0.0")
		must(t, h.ESP.Rename("semper_1.0.0.efi", "semper_1.0.0+3-0.efi"))
		must(t, h.ESP.Sync())
		h.boot()
		h.offer(keys.Release(t, "1.1.0"))
		h.step()
		h.clock.advance(-years)
		h.step()
		equal(t, "state", h.agent.Report().State, agent.StateTrial)
		h.clock.advance(31 * time.Minute)
		h.step()
		equal(t, "boot", h.boot().Version, "1.1.0")
	})
	t.Run("report", func(t *testing.T) {
		h := ready(t, func(h *host) { h.drain = func() error { return errors.New("no") } })
		h.step()
		h.fleet.set(func() { h.fleet.down = true })
		h.clock.advance(time.Hour)
		h.step() // what the second failure is told with does not arrive
		if n := h.agent.Report().Unreported; n == 0 {
			t.Fatal("nothing is to be reported")
		}
		h.fleet.set(func() { h.fleet.down = false })
		h.clock.advance(-years)
		h.step()
		equal(t, "unreported", h.agent.Report().Unreported, 0)
	})
}

// A machine that comes back to its old version is healthy too, and gives the lock back.
func TestLockAfterRollback(t *testing.T) {
	l := &lock{}
	h := ready(t, func(h *host) { h.lock = l })
	h.step()
	equal(t, "boot", h.boot().Version, "1.1.0")
	_, err := h.Core().Rollback(sick)
	must(t, err)
	l.take()
	equal(t, "boot", h.boot().Version, "1.0.0")
	h.step()
	equal(t, "calls", l.take(), []string{"release"})
}

// The lease ran out while the hooks ran: the machine asks again and does not reboot.
func TestLockLost(t *testing.T) {
	l := &lock{lost: errors.New("the lease has expired")}
	h := ready(t, func(h *host) { h.lock = l })
	wait := h.step()
	waiting(t, h, "the reboot lock was lost while the drain hooks ran, and is asked for again: the lease has expired")
	equal(t, "calls", l.take(), []string{"release", "acquire", "held", "release"})
	equal(t, "undrained", h.drained, 1)
	l.lost = nil
	h.clock.advance(wait)
	h.step()
	equal(t, "reboots", h.Reboots, 1)
}

// A crash between the question and its answer does not forget a lock.
func TestLockSurvivesCrash(t *testing.T) {
	l := &lock{}
	h := ready(t, func(h *host) {
		h.lock = l
		h.drain = func() error { panic("power cut") }
	})
	func() {
		defer func() { _ = recover() }()
		h.step()
	}()
	l.take()
	h.drain = nil
	h.lock = l
	h.newAgent()
	equal(t, "known to be held", h.agent.Report().Locked, true)
	h.step()
	equal(t, "calls", l.take(), []string{"release", "acquire", "held"})
	equal(t, "reboots", h.Reboots, 1)
}

func TestDrainFails(t *testing.T) {
	l := &lock{}
	h := ready(t, func(h *host) {
		h.lock = l
		h.drain = func() error {
			return fault.New(fault.Verification, "drain hook 10-db failed: exit status 1: replica is behind")
		}
	})
	wait := h.step()
	waiting(t, h, "a drain hook failed: no reboot into 1.1.0: drain hook 10-db failed: exit status 1: replica is behind")
	equal(t, "calls", l.take(), []string{"release", "acquire", "release"})
	if wait < time.Minute || wait > 10*time.Minute {
		t.Errorf("wait %v", wait)
	}
	if events := h.fleet.take(); events[len(events)-1] != "3/9 1.1.0" {
		t.Errorf("events %q", events)
	}
	h.clock.advance(wait / 2)
	h.step()
	equal(t, "no second try before its time", l.take(), nil)
	h.drain = nil
	h.clock.advance(wait)
	h.step()
	equal(t, "reboots", h.Reboots, 1)
}

func TestInhibitors(t *testing.T) {
	h := ready(t, func(h *host) {
		h.login = &login{inhibitors: []logind.Inhibitor{{Who: "backup", Why: "tape is running"}}}
	})
	wait := h.step()
	waiting(t, h, "waits for what inhibits the shutdown: backup (tape is running), until 2026-01-03 03:04:05 UTC at most")
	if wait > time.Minute {
		t.Errorf("wait %v", wait)
	}
	h.clock.advance(23 * time.Hour)
	h.step()
	waiting(t, h, "backup")
	h.login.inhibitors = nil
	h.clock.advance(time.Minute)
	h.step()
	equal(t, "reboots", h.Reboots, 1)
}

func TestInhibitorsForTooLong(t *testing.T) {
	h := ready(t, func(h *host) {
		h.login = &login{inhibitors: []logind.Inhibitor{{Who: "forgotten", Why: "?"}}}
	})
	h.step()
	waiting(t, h, "forgotten")
	h.clock.advance(25 * time.Hour)
	h.step()
	equal(t, "reboots", h.Reboots, 1)
}

// A logind that does not answer is a no, but not for ever.
func TestLogindAway(t *testing.T) {
	h := ready(t, func(h *host) {
		h.login = &login{err: errors.New("no bus")}
		h.settings.Reboot.InhibitorGrace = 0
	})
	h.step()
	waiting(t, h, "logind does not answer (no bus)")
	h.clock.advance(25 * time.Hour)
	h.step()
	equal(t, "reboots", h.Reboots, 1)
}

func TestUsers(t *testing.T) {
	h := ready(t, func(h *host) {
		h.login = &login{sessions: []logind.Session{{ID: "3", User: "core", TTY: "pts/0"}}}
	})
	h.step()
	waiting(t, h, "waits for users to log out, until 2026-01-02 03:14:05 UTC at most: core")
	if len(h.warned) != 1 || !strings.Contains(h.warned[0], "pts/0: This machine reboots into Semper version 1.1.0 at 03:14 UTC") {
		t.Errorf("warned %q", h.warned)
	}
	h.clock.advance(time.Minute)
	h.login.sessions = append(h.login.sessions, logind.Session{ID: "4", User: "ada", TTY: "pts/1"})
	h.step()
	waiting(t, h, "core, ada")
	if len(h.warned) != 2 || !strings.HasPrefix(h.warned[1], "pts/1: ") {
		t.Errorf("warned %q", h.warned)
	}
	h.clock.advance(10 * time.Minute)
	h.step()
	equal(t, "reboots", h.Reboots, 1)
}

func TestUsersLeave(t *testing.T) {
	h := ready(t, func(h *host) {
		h.login = &login{sessions: []logind.Session{{ID: "3", User: "core", TTY: "pts/0"}}}
	})
	h.step()
	h.login.sessions = nil
	h.clock.advance(time.Minute)
	h.step()
	equal(t, "reboots", h.Reboots, 1)
}

func TestReload(t *testing.T) {
	old := &lock{refused: errors.New("busy")}
	h := ready(t, func(h *host) { h.lock, h.sleeper = old, parked{h.clock} })
	h.step()
	waiting(t, h, "busy")
	path := control(t, h)
	stop := drive(t, h)
	old.take()
	h.settings.Reboot.Strategy, h.lock = config.RebootOff, nil
	_, err := agent.Ask(t.Context(), path, agent.Request{Verb: agent.VerbReload})
	must(t, err)
	stop()
	equal(t, "the old lock", old.take(), []string{"release"})
	h.step()
	waiting(t, h, "reboot.strategy is off")
	// Settings that cannot be used change nothing.
	h.settings.Server = "::"
	stop = drive(t, h)
	_, err = agent.Ask(t.Context(), path, agent.Request{Verb: agent.VerbReload})
	stop()
	if !fault.Is(err, fault.Input) || h.agent.Report().Reboot != "off" || len(h.agent.Report().Servers) != 1 {
		t.Errorf("error %v, report %+v", err, h.agent.Report())
	}
}

// drive runs the agent's loop, in which only commands move anything, until the function it returns is called.
func drive(t *testing.T, h *host) func() {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h.agent.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// never is a window that is not open when the tests begin, nor for two days.
func never(t *testing.T) window.Schedule {
	t.Helper()
	w, err := window.Parse("Mon 22:00 1h")
	must(t, err)
	return window.Schedule{Windows: []window.Window{w}, Location: time.UTC}
}
