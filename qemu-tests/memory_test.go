package qemutests

import (
	"strconv"
	"strings"
	"testing"
)

// memoryLimit is what semperd and semper-installd may take together while they apply a payload, in KiB.
const memoryLimit = 64 << 10

const (
	samplerIn = "/var/tmp/sampler"
	peaksIn   = "/var/tmp/peaks"
)

// sampler notes the most memory that each of the two programs has held, in KiB, for as long as it lives: semper-installd ends a minute after its work. What the sampler itself
// takes is missing to semper-installd, which runs with a low weight, so it has a lower one.
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
	echo "$semperd $installd" >` + peaksIn + `.new && mv ` + peaksIn + `.new ` + peaksIn + `
	sleep 5
done
`

// TestApplyMemory looks at the most memory that the two programs ever held while they applied a full payload: the update that other tests go on from.
func TestApplyMemory(t *testing.T) {
	t.Parallel()
	m := branch(t, updated)
	peaks := strings.Fields(m.run("cat " + peaksIn))
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
