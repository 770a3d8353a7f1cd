package qemutests

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// idleLimit is what semperd and semper-installd may hold together while there is nothing to do, in KiB.
	idleLimit = 20 << 10
	// idleTime is how long the agent is watched, in seconds, and idleWakes how often it may wake up in that time: no more than once a minute.
	idleTime  = 90
	idleWakes = 2
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
	number := func(command string) int {
		out := m.run(command)
		n, err := strconv.Atoi(strings.TrimSpace(out))
		if err != nil {
			t.Fatalf("%s: %q", command, out)
		}
		return n
	}
	// Five seconds in which any thread went to sleep again are ones in which it was awake; one after the other they are one waking.
	out := m.run(fmt.Sprintf(`last=; n=0; quiet=1; pid=$(pidof -s semperd); end=$(($(date +%%s) + %d))
while [ $(date +%%s) -lt $end ]; do
	now=$(cat /proc/$pid/task/*/status | grep ^voluntary_ctxt_switches)
	if [ -n "$last" ] && [ "$now" != "$last" ]; then [ $quiet = 0 ] || n=$((n + 1)); quiet=0; else quiet=1; fi
	last=$now; sleep 5
done
echo $n`, idleTime))
	wakes, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatalf("%q", out)
	}
	resident := number("sed -n 's/^VmRSS:[^0-9]*\\([0-9]*\\).*/\\1/p' /proc/$(pidof -s semperd)/status")
	if out := m.run("pidof semper-installd || echo gone"); strings.TrimSpace(out) != "gone" {
		t.Errorf("semper-installd runs on an idle machine: %s", out)
	}
	t.Logf("idle: semperd holds %d KiB resident, it woke up %d times in %s", resident, wakes, time.Duration(idleTime)*time.Second)
	if resident > idleLimit {
		t.Errorf("semperd holds %d KiB, more than %d", resident, idleLimit)
	}
	if wakes > idleWakes {
		t.Errorf("semperd woke up %d times in %d s, more than %d", wakes, idleTime, idleWakes)
	}
}
