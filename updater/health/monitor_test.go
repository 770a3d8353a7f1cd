package health

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/powercut"
)

// later is the result of a run at minute n in which the named required checks failed; one in brackets is advisory.
func later(n int, failed string) *Result {
	r := &Result{Healthy: true, At: time.Unix(0, 0).UTC().Add(time.Duration(n) * time.Minute), Checks: []CheckResult{{Name: "ok", OK: true, Required: true}}}
	for _, name := range strings.Fields(failed) {
		advisory := strings.HasPrefix(name, "(")
		r.Checks = append(r.Checks, CheckResult{Name: strings.Trim(name, "()"), Required: !advisory})
		if !advisory {
			r.Healthy = false
		}
	}
	return r
}

func TestMonitor(t *testing.T) {
	for _, c := range []struct {
		name string
		runs string // one word a run: the failed checks joined by +, "." for none; "@2" switches to that version
		want string // one word a run: what is said after it; upper case: it changed
	}{
		{"healthy", ". . . .", "h h h h"},
		{"two bad runs are chance", "a a . a a .", "h h h h h h"},
		{"three in a row", "a a a a", "h h S s"},
		{"not the same check", "a b a b", "h h h h"},
		{"one of two", "a+b a a+c", "h h S"},
		{"advisory never", "(a) (a) (a) (a)", "h h h h"},
		{"healthy again", "a a a . . . .", "h h S s s H h"},
		{"one bad run keeps it sick", "a a a . . b . . .", "h h S s s s s s H"},
		{"after healthy again it takes three", "a a a . . . a a a", "h h S s s H h h S"},
		{"another version starts over", "a a @2 a a a", "h h h h S"},
		{"another version is not sick", "a a a @2 . a @1 a a a", "h h S h h h h S"},
	} {
		t.Run(c.name, func(t *testing.T) {
			folder := powercut.NewWorld().NewFolder(1 << 20)
			version := "1"
			var got []string
			for i, word := range strings.Fields(c.runs) {
				if v, ok := strings.CutPrefix(word, "@"); ok {
					version = v
					continue
				}
				// A new Monitor each time: the file is all it knows.
				m := Monitor{Folder: folder, File: "monitor.json", Log: slog.New(slog.DiscardHandler)}
				v, err := m.Observe(version, later(i, strings.ReplaceAll(strings.Trim(word, "."), "+", " ")))
				if err != nil {
					t.Fatal(err)
				}
				s := "h"
				if v.Sick {
					s = "s"
				}
				if v.Changed != "" {
					s = strings.ToUpper(s)
				}
				if (v.Changed == BecameSick) != (s == "S") || (v.Changed == BecameHealthy) != (s == "H") || v.Sick != (len(v.Checks) > 0) || v.Sick == v.Since.IsZero() || v.Version != version {
					t.Errorf("run %d: %+v", i, v)
				}
				got = append(got, s)
			}
			if s := strings.Join(got, " "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
		})
	}
}

func TestMonitorFile(t *testing.T) {
	world := powercut.NewWorld()
	folder := world.NewFolder(1 << 20)
	m := Monitor{Folder: folder, File: "monitor.json", Log: slog.New(slog.DiscardHandler)}
	for i := range 5 {
		if _, err := m.Observe("1", later(i, "")); err != nil {
			t.Fatal(err)
		}
	}
	if n := world.Changes(); n != 0 {
		t.Errorf("a healthy machine wrote %d times", n)
	}
	for i := range 3 {
		if _, err := m.Observe("1", later(10+i, "a")); err != nil {
			t.Fatal(err)
		}
	}
	n := world.Changes()
	v, err := m.Observe("1", later(20, "a"))
	if err != nil || world.Changes() != n || !v.Since.Equal(time.Unix(12*60, 0)) || v.Checks[0] != "a" {
		t.Errorf("still sick: %+v, %v, %d writes", v, err, world.Changes()-n)
	}
	folder.Put("monitor.json", []byte("{damaged"))
	if v, err := m.Observe("1", later(21, "a")); err != nil || v.Sick {
		t.Errorf("damaged: %+v, %v", v, err)
	}
	var c count
	if ok, err := durable.ReadJSON(folder, "monitor.json", &c); !ok || err != nil || c.Failed["a"] != 1 {
		t.Errorf("after damage: %+v, %v", c, err)
	}
	// What cannot be written did not happen: the next run says it again.
	if _, err := m.Observe("1", later(22, "a")); err != nil {
		t.Fatal(err)
	}
	world.CutAfter(0)
	if _, err := m.Observe("1", later(23, "a")); err == nil {
		t.Error("no error although nothing could be written")
	}
	world.Restore(powercut.Mixed(1))
	if v, err := m.Observe("1", later(24, "a")); err != nil || v.Changed != BecameSick {
		t.Errorf("after the power came back: %+v, %v", v, err)
	}
}
