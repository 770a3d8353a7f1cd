package health

import (
	"context"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/semper-os/semper/fault"
)

// place writes executables below a fresh root. A text that starts with "->" becomes a symbolic link.
func place(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(text, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(text), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestFind(t *testing.T) {
	root := place(t, map[string]string{
		"usr/lib/semper/health.d/10-units":  "image",
		"usr/lib/semper/health.d/20-net":    "image",
		"usr/lib/semper/health.d/30-off":    "image",
		"usr/lib/semper/health.d/.git":      "no",
		"etc/semper/health.d/20-net":        "machine",
		"etc/semper/health.d/15-mine":       "machine",
		"etc/semper/health.d/30-off":        "->/dev/null",
		"etc/semper/health.d/15-mine~":      "backup of an editor",
		"etc/semper/health.d/missing-check": "->/nonexistent",
	})
	got, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	in := func(dir, name string) Check { return Check{name, filepath.Join(root, dir, name)} }
	want := []Check{
		in("usr/lib/semper/health.d", "10-units"),
		in("etc/semper/health.d", "15-mine"),
		in("etc/semper/health.d", "20-net"),
		in("etc/semper/health.d", "missing-check"), // runs, and fails: better than a check that vanished silently
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got, err := Find(t.TempDir()); err != nil || len(got) != 0 {
		t.Errorf("no folders: %v, %v", got, err)
	}
}

// clock ticks one second at each reading.
func clock() func() time.Time {
	now := time.Unix(1700000000, 0)
	return func() time.Time { now = now.Add(time.Second); return now }
}

func runOne(t *testing.T, script string) (Result, CheckResult) {
	t.Helper()
	root := place(t, map[string]string{"etc/semper/health.d/10-x": script})
	checks, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	r := Run(t.Context(), checks, time.Minute, clock())
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
			if one.Problem != c.problem || one.Output != c.output || one.OK != (c.problem == "") || r.Healthy != one.OK {
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
	for name, content := range map[string]string{"no interpreter": "#!/nonexistent\n", "no program at all": "", "link into nothing": "->/nonexistent"} {
		t.Run(name, func(t *testing.T) {
			if r, one := runOne(t, content); r.Healthy || one.OK || one.Problem == "" {
				t.Errorf("got %+v", one)
			}
		})
	}
	root := place(t, map[string]string{"etc/semper/health.d/10-x": "#!/bin/sh\n"})
	path := filepath.Join(root, "etc/semper/health.d/10-x")
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if r := Run(t.Context(), []Check{{"10-x", path}}, time.Minute, clock()); r.Healthy {
		t.Error("a check without its executable bit passed")
	}
	if err := (&Result{}).Err(); err == nil {
		t.Error("a result that says nothing is healthy")
	}
}

func TestFirstFailureStops(t *testing.T) {
	marker := filepath.Join(t.TempDir(), "ran")
	root := place(t, map[string]string{
		"etc/semper/health.d/10-good":  "#!/bin/sh\n",
		"etc/semper/health.d/20-bad":   "#!/bin/sh\nexit 1\n",
		"etc/semper/health.d/30-after": "#!/bin/sh\ntouch " + marker + "\n",
	})
	checks, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	r := Run(t.Context(), checks, time.Minute, clock())
	if r.Healthy || len(r.Checks) != 2 || r.Failed().Name != "20-bad" {
		t.Errorf("got %+v", r)
	}
	if _, err := os.Stat(marker); err == nil {
		t.Error("a check ran after the failing one")
	}
}

// The child of a check that hangs must not outlive the limit: it holds the write end of a pipe whose end this test waits for.
func TestLimitKillsChildrenToo(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := mkfifo(fifo); err != nil {
		t.Fatal(err)
	}
	opened := make(chan *os.File)
	go func() {
		f, err := os.Open(fifo) // returns when the child opened its end
		if err != nil {
			t.Error(err)
		}
		opened <- f
	}()
	root := place(t, map[string]string{"etc/semper/health.d/10-x": "#!/bin/sh\necho waiting\n(exec sleep 1000 >" + fifo + ") &\nwait\n"})
	checks, err := Find(root)
	if err != nil {
		t.Fatal(err)
	}
	r := Run(t.Context(), checks, 300*time.Millisecond, clock())
	if one := r.Checks[0]; one.OK || one.Problem != "took longer than 300ms" || one.Output != "waiting\n" {
		t.Errorf("got %+v", one)
	}
	f := <-opened
	defer f.Close()
	if n, err := f.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d, %v: want the end of the pipe", n, err)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if r := Run(ctx, []Check{{"10-x", "/bin/true"}}, time.Minute, clock()); r.Healthy || r.Checks[0].Problem != "interrupted" {
		t.Errorf("got %+v", r)
	}
}

func TestOutputIsBounded(t *testing.T) {
	_, one := runOne(t, "#!/bin/sh\ni=0\nwhile [ $i -lt 3000 ]; do echo line $i äöü; i=$((i+1)); done\nexit 1\n")
	if len(one.Output) > 3*maxOutput || !strings.HasPrefix(one.Output, "…") || !strings.HasSuffix(one.Output, "line 2999 äöü\n") || !utf8.ValidString(one.Output) {
		t.Errorf("%d bytes: %q", len(one.Output), one.Output)
	}
	var whole tail
	_, _ = whole.Write(make([]byte, 10*maxOutput))
	if len(whole.b) != maxOutput {
		t.Errorf("kept %d bytes of one large write", len(whole.b))
	}
}

func TestTooMany(t *testing.T) {
	files := map[string]string{}
	for i := range maxChecks + 1 {
		files["etc/semper/health.d/"+strings.Repeat("x", i+1)] = ""
	}
	if _, err := Find(place(t, files)); !fault.Is(err, fault.Input) {
		t.Errorf("error %v", err)
	}
}

func mkfifo(path string) error { return syscall.Mkfifo(path, 0o600) }
