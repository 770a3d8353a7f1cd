package health

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
)

// place writes files below a fresh root. A text that starts with "->" becomes a symbolic link; one that starts with "#!" may be executed.
func place(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if strings.HasPrefix(text, "#!") {
			mode = 0o755
		}
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), mode)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// clock ticks at each reading, and waiting takes no time.
type clock struct {
	now   time.Time
	tick  time.Duration
	waits []time.Duration
}

func (c *clock) options() Options {
	return Options{Clock: Clock{
		Now:  func() time.Time { c.now = c.now.Add(c.tick); return c.now },
		Wait: func(_ context.Context, d time.Duration) { c.waits = append(c.waits, d); c.now = c.now.Add(d) },
	}}
}

func newClock() *clock { return &clock{now: time.Unix(1700000000, 0), tick: time.Second} }

func find(t *testing.T, root string) []Check {
	t.Helper()
	checks, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	return checks
}

func runOne(t *testing.T, script string) (Result, CheckResult) {
	t.Helper()
	root := place(t, map[string]string{"etc/semper/health.d/10-x": script})
	r := Run(t.Context(), find(t, root), newClock().options())
	return r, r.Checks[0]
}

func TestOutcome(t *testing.T) {
	for _, c := range []struct{ name, script, problem, output, err string }{
		{"passes", "#!/bin/sh\necho fine\n", "", "fine\n", ""},
		{"fails", "#!/bin/sh\necho one\necho database is gone >&2\nexit 3\n", "exit status 3", "one\ndatabase is gone\n", "health check 10-x failed: exit status 3: database is gone"},
		{"silent", "#!/bin/sh\nexit 1\n", "exit status 1", "", "health check 10-x failed: exit status 1"},
		{"killed", "#!/bin/sh\nkill -9 $$\n", "signal: killed", "", "health check 10-x failed: signal: killed"},
		{"knows its name", "#!/bin/sh\necho $SEMPER_HEALTH_CHECK in $(pwd)\n", "", "10-x in /\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, one := runOne(t, c.script)
			if one.Problem != c.problem || one.Output != c.output || one.OK != (c.problem == "") || r.Healthy != one.OK || one.Attempts != 1 || !one.Required || one.Kind != Exec {
				t.Errorf("got %+v", one)
			}
			if err := r.Err(); c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err || !fault.Is(err, fault.Verification)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			if one.Took != time.Second {
				t.Errorf("took %v by the injected clock", one.Took)
			}
		})
	}
}

func TestDoubtIsFailure(t *testing.T) {
	for name, content := range map[string]string{
		"no interpreter": "#!/nonexistent\n", "no program at all": "", "link into nothing": "->/nonexistent", "no executable bit": ":\n",
	} {
		t.Run(name, func(t *testing.T) {
			if r, one := runOne(t, content); r.Healthy || one.OK || one.Problem == "" {
				t.Errorf("got %+v", one)
			}
		})
	}
	if err := (&Result{}).Err(); err == nil {
		t.Error("a result that says nothing is healthy")
	}
	if _, err := Find(place(t, map[string]string{"etc/semper/health.d": "no folder"})); !fault.Is(err, fault.IO) {
		t.Errorf("a folder that cannot be read: %v", err)
	}
}

func TestTooMany(t *testing.T) {
	files := map[string]string{}
	for i := range maxChecks + 1 {
		files["etc/semper/health.d/"+strings.Repeat("x", i+1)+".toml"] = ""
	}
	if _, err := Find(place(t, files)); !fault.Is(err, fault.Input) {
		t.Errorf("error %v", err)
	}
}

func TestTimeLimit(t *testing.T) {
	root := place(t, map[string]string{
		"etc/semper/health.d/10-x": "#!/bin/sh\nsleep 1000\n",
	})
	o := newClock().options()
	o.Timeout = 200 * time.Millisecond
	if one := Run(t.Context(), find(t, root), o).Checks[0]; one.OK || one.Problem != "took longer than 200ms" {
		t.Errorf("got %+v", one)
	}
	hangs := Options{Clock: newClock().options().Clock, Timeout: 50 * time.Millisecond, Host: Host{Agent: func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}}
	if one := Run(t.Context(), []Check{{Name: "20-y", Kind: Builtin, Builtin: Agent}}, hangs).Checks[0]; one.Problem != "took longer than 50ms" {
		t.Errorf("builtin: %+v", one)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := Run(ctx, []Check{{Name: "10-x", Kind: Exec, Argv: []string{"/bin/true"}, Required: true}}, newClock().options())
	if r.Healthy || r.Checks[0].Problem != "interrupted" || r.Checks[0].Attempts != 0 {
		t.Errorf("got %+v", r)
	}
}

// attempts runs checks whose programs fail for the first n attempts, and says how each ended and after how many.
func attempts(t *testing.T, fails map[string]int, o Options, checks ...Check) (Result, string) {
	t.Helper()
	var order []string
	all := make([]Check, len(checks))
	for i, c := range checks {
		dir := t.TempDir()
		script := "#!/bin/sh\necho x >>" + dir + "/tries\n[ $(wc -l <" + dir + "/tries) -gt " + strconv.Itoa(fails[c.Name]) + " ]\n"
		path := filepath.Join(dir, c.Name)
		if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
			t.Fatal(err)
		}
		c.Kind, c.Argv = Exec, []string{path}
		all[i] = c
	}
	r := Run(t.Context(), all, o)
	for _, c := range r.Checks {
		word := "ok"
		switch {
		case c.Waiting:
			word = "waiting"
		case c.Attempts == 0:
			word = "not run"
		case !c.OK:
			word = "failed"
		}
		order = append(order, c.Name+" "+word+" "+strconv.Itoa(c.Attempts))
	}
	return r, strings.Join(order, ", ")
}

func TestGraces(t *testing.T) {
	const never = 1000
	check := func(name string, grace time.Duration, required bool) Check {
		return Check{Name: name, Required: required, Grace: grace, Retry: 10 * time.Second}
	}
	for _, c := range []struct {
		name    string
		checks  []Check
		fails   map[string]int
		later   bool
		overall time.Duration
		tick    time.Duration
		healthy bool
		want    string
		err     string
		waited  time.Duration // at most: not the sum of the graces
	}{
		{
			name:   "all pass",
			checks: []Check{check("a", 0, true), check("b", time.Minute, true)}, healthy: true, want: "a ok 1, b ok 1",
		},
		{
			name:   "first failure stops",
			checks: []Check{check("a", 0, true), check("b", 0, true), check("c", 0, true)}, fails: map[string]int{"b": never},
			want: "a ok 1, b failed 1", err: "health check b failed: exit status 1",
		},
		{
			name:   "comes up within its grace, after the others had their turn",
			checks: []Check{check("a", time.Minute, true), check("b", 0, true)}, fails: map[string]int{"a": 3},
			healthy: true, want: "a ok 4, b ok 1", waited: 30 * time.Second,
		},
		{
			name:   "graces run side by side",
			checks: []Check{check("a", 2*time.Minute, true), check("b", 2*time.Minute, true), check("c", 2*time.Minute, true)},
			fails:  map[string]int{"a": 4, "b": 5, "c": 6}, healthy: true, want: "a ok 5, b ok 6, c ok 7", waited: 80 * time.Second,
		},
		{
			// 35 s: attempts at about 0, 12 and 24, and a last one when the grace is over.
			name:   "the last attempt is at the end of the grace",
			checks: []Check{check("a", 35*time.Second, true)}, fails: map[string]int{"a": never},
			want: "a failed 4", err: "health check a failed: exit status 1", waited: 35 * time.Second,
		},
		{
			name:   "what came up just before the end passes",
			checks: []Check{check("a", 35*time.Second, true)}, fails: map[string]int{"a": 3}, healthy: true, want: "a ok 4", waited: 35 * time.Second,
		},
		{
			name:   "the final failure is named, not the one that waits",
			checks: []Check{check("a", time.Minute, true), check("b", 0, true)}, fails: map[string]int{"a": never, "b": never},
			want: "a waiting 1, b failed 1", err: "health check b failed: exit status 1",
		},
		{
			name:   "the shorter grace ends the run",
			checks: []Check{check("a", 10*time.Minute, true), check("b", time.Minute, true)}, fails: map[string]int{"a": never, "b": never},
			want: "a waiting 5, b failed 6", err: "health check b failed: exit status 1", waited: time.Minute,
		},
		{
			name:   "an advisory failure decides nothing",
			checks: []Check{check("a", 0, false), check("b", 0, true)}, fails: map[string]int{"a": never}, healthy: true, want: "a failed 1, b ok 1",
		},
		{
			name:   "an advisory grace decides nothing",
			checks: []Check{check("a", 20*time.Second, false), check("b", 0, true)}, fails: map[string]int{"a": never}, healthy: true, want: "a failed 3, b ok 1", waited: 20 * time.Second,
		},
		{
			name:   "the time for all is over",
			checks: []Check{check("a", 15*time.Minute, true), check("b", 0, true)}, fails: map[string]int{"a": never}, overall: 30 * time.Second,
			want: "a waiting 2, b ok 1", err: "health check a failed: exit status 1", waited: 30 * time.Second,
		},
		{
			name:   "the time for all is over before the first attempt",
			checks: []Check{check("a", 0, true), check("b", 0, true)}, overall: 4 * time.Minute, tick: time.Minute,
			want: "a ok 1, b not run 0", err: "health check b failed: not run: the 4m0s for all checks were over",
		},
		{
			name:   "later: no grace, and all run",
			checks: []Check{check("a", time.Minute, true), check("b", 0, true), check("c", 0, false)}, fails: map[string]int{"a": 1, "b": never, "c": never}, later: true,
			want: "a failed 1, b failed 1, c failed 1", err: "health check a failed: exit status 1",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			clock := newClock()
			if c.tick != 0 {
				clock.tick = c.tick
			}
			o := clock.options()
			o.Later, o.Overall = c.later, c.overall
			r, got := attempts(t, c.fails, o, c.checks...)
			if got != c.want || r.Healthy != c.healthy {
				t.Errorf("healthy %v: %s\nwant %v: %s", r.Healthy, got, c.healthy, c.want)
			}
			if err := r.Err(); c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			var waited time.Duration
			for _, d := range clock.waits {
				waited += d
			}
			if waited > c.waited {
				t.Errorf("waited %v, at most %v", waited, c.waited)
			}
		})
	}
}

func TestBrokenIsNotRetried(t *testing.T) {
	clock := newClock()
	r := Run(t.Context(), []Check{{Name: "a", Kind: Broken, Required: true, Grace: time.Hour, Err: errors.New("a.toml:3: no")}}, clock.options())
	if r.Healthy || r.Checks[0].Attempts != 1 || r.Err().Error() != "health check a failed: a.toml:3: no" || len(clock.waits) != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestFailedAndAdvisories(t *testing.T) {
	r := Result{Checks: []CheckResult{{Name: "a"}, {Name: "b", Required: true, Waiting: true}, {Name: "c", OK: true, Required: true}, {Name: "d", Required: true}}}
	if got := r.Failed(); got == nil || got.Name != "d" {
		t.Errorf("failed: %+v", got)
	}
	if got := r.Advisories(); len(got) != 1 || got[0].Name != "a" {
		t.Errorf("advisories: %+v", got)
	}
	r.Healthy = true
	if r.Failed() != nil || r.Err() != nil {
		t.Error("a healthy result has a failed check")
	}
	// A result that does not tell required from advisory, from a version before there were any.
	old := Result{Checks: []CheckResult{{Name: "50-db", Problem: "exit status 1"}}}
	if got := old.Failed(); got == nil || got.Name != "50-db" {
		t.Errorf("old result: %+v", got)
	}
}
