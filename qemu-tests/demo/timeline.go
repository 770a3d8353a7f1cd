package main

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Who something happened to or was seen by.
const (
	builder  = "build"
	machineW = "machine"
	serverW  = "server"
	demoW    = "demo"
)

// timeline prints what happens, a line each. Its methods may be called from several goroutines.
type timeline struct {
	mu    sync.Mutex
	w     io.Writer
	start time.Time
}

func newTimeline(out ...io.Writer) *timeline {
	t := &timeline{w: io.MultiWriter(out...), start: time.Now()}
	fmt.Fprintf(t.w, "%9s  %-8s %-4s  %s\n", "time", "who", "slot", "what")
	return t
}

// add prints a line. Slot is "A", "B" or "".
func (t *timeline) add(who, slot, format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	for i, part := range strings.Split(text, "\n") {
		if i == 0 {
			fmt.Fprintf(t.w, "%7.1f s  %-8s %-4s  %s\n", time.Since(t.start).Seconds(), who, slot, part)
		} else {
			fmt.Fprintf(t.w, "%28s%s\n", "", part)
		}
	}
}

// since returns how many seconds after the start a time is.
func (t *timeline) since(at time.Time) float64 { return at.Sub(t.start).Seconds() }

// heading prints a line of its own.
func (t *timeline) heading(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	fmt.Fprintf(t.w, "\n%s\n", fmt.Sprintf(format, args...))
}
