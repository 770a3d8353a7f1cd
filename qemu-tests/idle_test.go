package qemutests

import (
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// idleLimit is what semperd and semper-installd may hold together while there is nothing to do, in KiB. The target is 20 MiB; 20.1 were seen, of which
	// etcd's client is six, linked in for one strategy: it should become a program of its own.
	idleLimit = 24 << 10
	// idleTime is how long the agent is watched, in seconds, and idleWakes how often it may wake up in that time: each of its threads counts.
	idleTime  = 100
	idleWakes = 20
)

// TestIdleAgent looks at the agent of a machine that has nothing to do: semper-installd has ended by itself, semperd is small and asleep.
func TestIdleAgent(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	m := branch(t, ready)
	m.use(s.URL)
	m.run("semperctl check")
	// The installer ends a minute after the last question. Nobody asks any more from here on.
	m.waitRun("pidof semper-installd || echo gone", func(out string) bool { return strings.TrimSpace(out) == "gone" })
	const switches = "cat /proc/$(pidof -s semperd)/task/*/status | sed -n 's/^voluntary_ctxt_switches:[^0-9]*//p' | paste -sd+ | sed 's/^/echo $((/;s/$/))/' | sh"
	number := func(command string) int {
		out := m.run(command)
		n, err := strconv.Atoi(strings.TrimSpace(out))
		if err != nil {
			t.Fatalf("%s: %q", command, out)
		}
		return n
	}
	before := number(switches)
	m.run("sleep " + strconv.Itoa(idleTime))
	wakes := number(switches) - before
	resident := number("sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$(pidof -s semperd)/status")
	if out := m.run("pidof semper-installd || echo gone"); strings.TrimSpace(out) != "gone" {
		t.Errorf("semper-installd runs on an idle machine: %s", out)
	}
	t.Logf("idle: semperd holds %d KiB resident, its threads woke up %d times in %s", resident, wakes, time.Duration(idleTime)*time.Second)
	if resident > idleLimit {
		t.Errorf("semperd holds %d KiB, more than %d", resident, idleLimit)
	}
	if wakes > idleWakes {
		t.Errorf("semperd's threads woke up %d times in %d s, more than %d", wakes, idleTime, idleWakes)
	}
}
