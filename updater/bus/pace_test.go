package bus

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// signals records what is emitted.
type signals []string

func (r *signals) Emit(_ dbus.ObjectPath, name string, values ...any) error {
	short := name[strings.LastIndex(name, ".")+1:]
	*r = append(*r, strings.TrimSpace(short+" "+fmt.Sprintln(values...)))
	return nil
}

// stopped is a clock that is moved by hand. Its timers never fire.
type stopped struct{ now time.Time }

func (c *stopped) Now() time.Time                     { return c.now }
func (*stopped) After(time.Duration) <-chan time.Time { return nil }

func TestFlatcarPace(t *testing.T) {
	clock := &stopped{noon}
	var out signals
	f := newFlatcar(New(Options{Log: discard, Clock: clock}), newQueue())
	f.begin(&out, Status{State: Idle})
	download := Status{State: Downloading, NewVersion: "1.1.0", NewSize: 1000}
	at := func(p float64) Status {
		s := download
		s.Progress = p
		return s
	}
	type step struct {
		after time.Duration
		do    func()
		want  string // operation and progress of what is emitted; empty: nothing
		held  bool
	}
	tell := func(s Status) func() { return func() { f.tell(&out, s) } }
	for i, c := range []step{
		{0, tell(Status{State: Checking}), "CHECKING_FOR_UPDATE 0", false},
		{0, tell(download), "UPDATE_AVAILABLE 0", false},
		{0, tell(download), "", false},
		{0, tell(at(0.001)), "DOWNLOADING 0.001", false}, // the first byte changes the operation
		{time.Second, tell(at(0.005)), "", true},
		{time.Second, tell(at(0.0105)), "", true},
		{time.Second, tell(at(0.0115)), "DOWNLOADING 0.0115", false}, // 1 % since the last signal
		{time.Second, tell(at(0.012)), "", true},
		{9 * time.Second, func() { f.flush(&out) }, "DOWNLOADING 0.012", false}, // 10 s since the last signal
		{10 * time.Second, tell(at(0.013)), "DOWNLOADING 0.013", false},
		{0, tell(at(0.998)), "DOWNLOADING 0.998", false},
		{0, tell(at(1)), "DOWNLOADING 1", false}, // complete
		{0, tell(at(0.5)), "DOWNLOADING 0.5", false},
		{0, tell(Status{State: Installing, NewVersion: "1.1.0", NewSize: 1000}), "FINALIZING 0", false},
		{0, tell(Status{State: Pending, PendingVersion: "1.1.0", PendingSize: 1000}), "UPDATED_NEED_REBOOT 0", false},
		{0, tell(Status{State: Rebooting, PendingVersion: "1.1.0", PendingSize: 1000}), "", false},
	} {
		clock.now = clock.now.Add(c.after)
		out = nil
		c.do()
		var got string
		if len(out) > 0 {
			var l line
			if _, err := fmt.Sscan(strings.TrimPrefix(out[0], "StatusUpdate "), &l.lastChecked, &l.progress, &l.operation); err != nil {
				t.Fatalf("step %d: %q: %v", i, out[0], err)
			}
			got = fmt.Sprint(strings.TrimPrefix(l.operation, "UPDATE_STATUS_"), " ", l.progress)
		}
		if got != c.want || len(out) > 1 {
			t.Errorf("step %d: emitted %q, want %q", i, out, c.want)
		}
		if due := f.due(); !due.IsZero() != c.held {
			t.Errorf("step %d: held back until %v, want %v", i, due, c.held)
		}
	}
}

func TestSemperPace(t *testing.T) {
	clock := &stopped{noon}
	var out signals
	m := newSemper(New(Options{Log: discard, Clock: clock}), newQueue())
	at := func(p float64, reason string) Status {
		return Status{State: Downloading, Progress: p, Reason: reason}.clean()
	}
	m.begin(&out, at(0, ""))
	for i, c := range []struct {
		after time.Duration
		do    func()
		want  []string // changed properties
		held  bool
	}{
		{0, func() { m.tell(&out, at(0, "")) }, nil, false},
		{0, func() { m.tell(&out, at(0.005, "")) }, nil, true},
		{0, func() { m.tell(&out, at(0.005, "slow")) }, []string{"Progress", "Reason"}, false},
		{0, func() { m.tell(&out, at(0.006, "slow")) }, nil, true},
		{10 * time.Second, func() { m.flush(&out) }, []string{"Progress"}, false},
		{0, func() { m.tell(&out, at(0.5, "slow")) }, []string{"Progress"}, false},
	} {
		clock.now = clock.now.Add(c.after)
		before := maps.Clone(m.sent)
		out = nil
		c.do()
		var got []string
		for name, v := range m.sent {
			if before[name].String() != v.String() {
				got = append(got, name)
			}
		}
		slices.Sort(got)
		if !slices.Equal(got, c.want) || len(out) != min(1, len(c.want)) || !m.due().IsZero() != c.held {
			t.Errorf("step %d: told %q (%q), held %v; want %q, %v", i, got, out, m.due(), c.want, c.held)
		}
	}
}
