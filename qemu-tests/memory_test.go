package qemutests

import (
	"strconv"
	"strings"
	"testing"

	"github.com/semper-os/semper/updater/agent"
)

// memoryLimit is what semperd and semper-installd may take together while they apply a payload, in KiB.
const memoryLimit = 64 << 10

// sampler notes the most memory that each of the two programs has held, in KiB, for as long as it lives: semper-installd ends when it is idle.
const sampler = `#!/bin/sh
semperd=0 installd=0
while :; do
	for name in semperd semper-installd; do
		pid=$(pidof -s $name) || continue
		peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\).*/\1/p' /proc/$pid/status 2>/dev/null)
		case $name in
		semperd) [ "${peak:-0}" -gt "$semperd" ] && semperd=$peak ;;
		*) [ "${peak:-0}" -gt "$installd" ] && installd=$peak ;;
		esac
	done
	echo "$semperd $installd" >/run/peaks.new && mv /run/peaks.new /run/peaks
	sleep 0.3
done
`

// TestApplyMemory applies a full payload and looks at the most memory that the two programs ever held.
func TestApplyMemory(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.publish(second)
	m := branch(t, ready)
	if err := m.Put(t.Context(), "/var/tmp/sampler", []byte(sampler), 0o755); err != nil {
		t.Fatal(err)
	}
	m.run("systemd-run --quiet /bin/sh /var/tmp/sampler")
	m.use(s.URL, "[reboot]", `strategy = "off"`)
	m.check()
	m.waitStatus(func(r agent.Report) bool { return r.Pending != nil && r.Pending.Version == second })
	peaks := strings.Fields(m.run("cat /run/peaks"))
	if len(peaks) != 2 {
		t.Fatalf("peaks %q", peaks)
	}
	var kib [2]int
	for i, p := range peaks {
		n, err := strconv.Atoi(p)
		if err != nil || n < 1024 {
			t.Fatalf("peaks %q: %v", peaks, err)
		}
		kib[i] = n
	}
	t.Logf("peak resident memory while applying: semperd %d KiB, semper-installd %d KiB, together %d KiB", kib[0], kib[1], kib[0]+kib[1])
	if kib[0]+kib[1] > memoryLimit {
		t.Errorf("semperd held %d KiB and semper-installd %d KiB: more than %d KiB together", kib[0], kib[1], memoryLimit)
	}
}
