package hook

import (
	"context"
	"io"
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

var set = Set{What: "test hooks", Folders: []string{"usr/lib/semper/test.d", "etc/semper/test.d"}, Max: 5}

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
		"usr/lib/semper/test.d/10-units":  "image",
		"usr/lib/semper/test.d/20-net":    "image",
		"usr/lib/semper/test.d/30-off":    "image",
		"usr/lib/semper/test.d/.git":      "no",
		"etc/semper/test.d/20-net":        "machine",
		"etc/semper/test.d/15-mine":       "machine",
		"etc/semper/test.d/30-off":        "->/dev/null",
		"etc/semper/test.d/15-mine~":      "backup of an editor",
		"etc/semper/test.d/missing-check": "->/nonexistent",
	})
	got, err := set.Find(root)
	if err != nil {
		t.Fatal(err)
	}
	in := func(dir, name string) File { return File{Name: name, Path: filepath.Join(root, dir, name)} }
	want := []File{
		in("usr/lib/semper/test.d", "10-units"),
		in("etc/semper/test.d", "15-mine"),
		in("etc/semper/test.d", "20-net"),
		in("etc/semper/test.d", "missing-check"), // runs, and fails: better than a check that vanished silently
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %v\nwant %v", got, want)
	}
	if got, err := set.Find(t.TempDir()); err != nil || len(got) != 0 {
		t.Errorf("no folders: %v, %v", got, err)
	}
	file := place(t, map[string]string{"etc/semper/test.d": "a file where the folder should be"})
	if _, err := set.Find(file); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "read test hooks: ") {
		t.Errorf("unreadable folder: %v", err)
	}
}

func TestTooMany(t *testing.T) {
	files := map[string]string{}
	for i := range set.Max + 1 {
		files["etc/semper/test.d/"+strings.Repeat("x", i+1)] = ""
	}
	if _, err := set.Find(place(t, files)); !fault.Is(err, fault.Input) || err.Error() != "6 test hooks, at most 5 are run" {
		t.Errorf("error %v", err)
	}
}

func runScript(t *testing.T, script string, limit time.Duration) Outcome {
	t.Helper()
	root := place(t, map[string]string{"x": script})
	return Run(t.Context(), []string{filepath.Join(root, "x")}, []string{"SEMPER_TEST=10-x"}, limit)
}

func TestOutcome(t *testing.T) {
	for _, c := range []struct{ name, script, problem, output string }{
		{"passes", "#!/bin/sh\necho fine\n", "", "fine\n"},
		{"fails", "#!/bin/sh\necho one\necho database is gone >&2\nexit 3\n", "exit status 3", "one\ndatabase is gone\n"},
		{"killed", "#!/bin/sh\nkill -9 $$\n", "signal: killed", ""},
		{"environment and folder", "#!/bin/sh\necho $SEMPER_TEST in $(pwd)\n", "", "10-x in /\n"},
		{"no input", "#!/bin/sh\nread x || echo end\n", "", "end\n"},
		{"leaves a process behind", "#!/bin/sh\necho up\nsleep 30 &\n", "ended, but left a process behind that holds its output", "up\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := runScript(t, c.script, time.Minute); got.Problem != c.problem || got.Output != c.output || got.OK() != (c.problem == "") {
				t.Errorf("got %+v", got)
			}
		})
	}
	for name, content := range map[string]string{"no interpreter": "#!/nonexistent\n", "no program at all": "", "link into nothing": "->/nonexistent"} {
		if got := runScript(t, content, time.Minute); got.OK() {
			t.Errorf("%s: passed", name)
		}
	}
}

// The child of a program that hangs must not outlive the limit: it holds the write end of a pipe whose end this test waits for.
func TestLimitKillsChildrenToo(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(fifo, os.O_RDONLY|syscall.O_NONBLOCK, 0) // does not wait for a writer
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// A child and a grandchild hold the pipe.
	got := runScript(t, "#!/bin/sh\n(echo held; sleep 1000; :) >"+fifo+" &\necho waiting\nwait\n", time.Second)
	if got.Problem != "took longer than 1s" || strings.TrimSuffix(got.Output, "waiting\n") != "" {
		t.Errorf("got %+v", got)
	}
	if _, err := io.ReadAll(f); err != nil { // comes to an end only when all who could write are gone
		t.Error(err)
	}
}

func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := Run(ctx, []string{"/bin/true"}, nil, time.Minute); got.Problem != Interrupted {
		t.Errorf("got %+v", got)
	}
}

func TestOutputIsBounded(t *testing.T) {
	got := runScript(t, "#!/bin/sh\ni=0\nwhile [ $i -lt 3000 ]; do echo line $i äöü; i=$((i+1)); done\nexit 1\n", time.Minute).Output
	if len(got) > 3*MaxOutput || !strings.HasPrefix(got, "…") || !strings.HasSuffix(got, "line 2999 äöü\n") || !utf8.ValidString(got) {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	var whole tail
	_, _ = whole.Write(make([]byte, 10*MaxOutput))
	if len(whole.b) != MaxOutput {
		t.Errorf("kept %d bytes of one large write", len(whole.b))
	}
	if Tail("short\n") != "short\n" {
		t.Error("Tail changed a short text")
	}
}

func TestLastLine(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", ""},
		{"one\ntwo\n\n", "two"},
		{"  only  ", "only"},
		{strings.Repeat("é", 150), strings.Repeat("é", 100) + "…"},
	} {
		if got := LastLine(c.in); got != c.want {
			t.Errorf("LastLine(%q) = %q", c.in, got)
		}
	}
}
