package drain

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/powercut"
)

// machine is a root folder with hooks that write down how they are called.
type machine struct {
	root string
	log  string
}

// newMachine places hooks. A script's lines run after the call was written down; "->x" is a link to x.
func newMachine(t *testing.T, scripts map[string]string) machine {
	t.Helper()
	m := machine{root: t.TempDir()}
	m.log = filepath.Join(m.root, "calls")
	for name, script := range scripts {
		path := filepath.Join(m.root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		var err error
		if target, ok := strings.CutPrefix(script, "->"); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte("#!/bin/sh\necho \"${0##*/} $*\" >>"+m.log+"\n"+script+"\n"), 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return m
}

// calls returns and forgets the calls so far.
func (m machine) calls(t *testing.T) string {
	t.Helper()
	data, err := os.ReadFile(m.log)
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	os.Remove(m.log)
	return strings.ReplaceAll(strings.TrimSpace(string(data)), "\n", ", ")
}

func (m machine) hooks(state durable.Folder) *hooks {
	return &hooks{root: m.root, state: state, limit: time.Minute, now: func() time.Time { return time.Unix(1700000000, 0) }, log: slog.New(slog.DiscardHandler)}
}

const (
	image = "usr/lib/semper/drain.d/"
	etc   = "etc/semper/drain.d/"
)

func newState() *powercut.Folder { return powercut.NewWorld().NewFolder(1 << 20) }

func recorded(t *testing.T, state durable.Folder) string {
	t.Helper()
	var r record
	if _, err := durable.ReadJSON(state, recordFile, &r); err != nil {
		t.Fatal(err)
	}
	return strings.Join(r.Hooks, " ")
}

func TestDrain(t *testing.T) {
	for _, c := range []struct {
		name    string
		scripts map[string]string
		calls   string // of drain
		err     string
		hook    string
		left    string // in the record after drain
		back    string // calls of undrain after it
	}{
		{"no hooks", nil, "", "", "", "", ""},
		{
			"in order, and back in reverse order",
			map[string]string{image + "20-b": "", etc + "10-a": "", etc + "30-c": ""},
			"10-a drain, 20-b drain, 30-c drain", "", "", "10-a 20-b 30-c", "30-c undrain, 20-b undrain, 10-a undrain",
		},
		{
			"masked and replaced",
			map[string]string{image + "10-a": "exit 1", image + "20-b": "exit 1", etc + "10-a": "->/dev/null", etc + "20-b": "", etc + "30-c~": "exit 1"},
			"20-b drain", "", "", "20-b", "20-b undrain",
		},
		{
			"the first failure stops; what ran is undrained, the failing one too",
			map[string]string{etc + "10-a": "", etc + "20-b": "[ $1 = undrain ] || { echo two pods are left; exit 7; }", etc + "30-c": ""},
			"10-a drain, 20-b drain, 20-b undrain, 10-a undrain", "drain hook 20-b failed: exit status 7: two pods are left", "20-b", "", "",
		},
		{
			"an undrain that fails does not keep the others from it, and is called again",
			map[string]string{etc + "10-a": "", etc + "20-b": "exit 1", etc + "30-c": ""},
			"10-a drain, 20-b drain, 20-b undrain, 10-a undrain", "drain hook 20-b failed: exit status 1", "20-b", "20-b", "20-b undrain",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m, state := newMachine(t, c.scripts), newState()
			err := m.hooks(state).drain(t.Context(), t.Context(), Request{})
			if c.err == "" && err != nil || c.err != "" && (err == nil || err.Error() != c.err || !fault.Is(err, fault.Verification)) {
				t.Errorf("error %v, want %q", err, c.err)
			}
			var h *HookError
			if errors.As(err, &h) != (c.hook != "") || h != nil && h.Hook != c.hook {
				t.Errorf("hook %+v, want %q", h, c.hook)
			}
			if got := m.calls(t); got != c.calls {
				t.Errorf("drain called %s\nwant %s", got, c.calls)
			}
			if got := recorded(t, state); got != c.left {
				t.Errorf("record %q, want %q", got, c.left)
			}
			// Another program, after the reboot.
			_ = m.hooks(state).undrain(t.Context())
			if got := m.calls(t); got != c.back {
				t.Errorf("undrain called %s\nwant %s", got, c.back)
			}
			if c.err == "" {
				if got := recorded(t, state); got != "" {
					t.Errorf("still recorded: %q", got)
				}
				if err := m.hooks(state).undrain(t.Context()); err != nil || m.calls(t) != "" {
					t.Errorf("undrained twice, %v", err)
				}
			}
		})
	}
}

func TestEnvironment(t *testing.T) {
	script := `echo "$SEMPER_DRAIN_REASON, $SEMPER_VERSION_FROM, $SEMPER_VERSION_TO" >>` + filepath.Join(t.TempDir(), "env")
	env := strings.TrimPrefix(script[strings.Index(script, ">>"):], ">>")
	m, state := newMachine(t, map[string]string{etc + "10-a": script}), newState()
	if err := m.hooks(state).drain(t.Context(), t.Context(), Request{Reason: "update; rm -rf /", From: "1.0.0", To: "1.1.0"}); err != nil {
		t.Fatal(err)
	}
	if err := m.hooks(state).undrain(t.Context()); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(env)
	if want := strings.Repeat("update; rm -rf /, 1.0.0, 1.1.0\n", 2); err != nil || string(data) != want {
		t.Errorf("%q, %v, want %q", data, err, want)
	}
}

// The time is for all together: a clock that moves a minute a reading leaves nothing for the third.
func TestOneLimitForAll(t *testing.T) {
	m, state := newMachine(t, map[string]string{etc + "10-a": "", etc + "20-b": "", etc + "30-c": ""}), newState()
	h := m.hooks(state)
	h.limit = time.Hour // of the way back
	now := time.Unix(1700000000, 0)
	h.now = func() time.Time { now = now.Add(time.Minute); return now }
	err := h.drain(t.Context(), t.Context(), Request{Limit: 5 * time.Minute})
	if err == nil || err.Error() != "drain hook 30-c failed: not called: the 5m0s for all drain hooks were over" {
		t.Errorf("error %v", err)
	}
	if got := m.calls(t); got != "10-a drain, 20-b drain, 20-b undrain, 10-a undrain" {
		t.Errorf("called %s", got)
	}
}

func TestHangingHookIsKilled(t *testing.T) {
	m, state := newMachine(t, map[string]string{etc + "10-a": "[ $1 = undrain ] || { echo waiting; sleep 1000; }"}), newState()
	err := m.hooks(state).drain(t.Context(), t.Context(), Request{Limit: 300 * time.Millisecond})
	var h *HookError
	if !errors.As(err, &h) || !strings.Contains(h.Text, "the 300ms for all drain hooks were over") {
		t.Errorf("error %v", err)
	}
	if got := recorded(t, state); got != "" {
		t.Errorf("still drained: %s", got)
	}
}

// A program that is stopped, most often by the reboot, keeps the record.
func TestStoppedKeepsTheRecord(t *testing.T) {
	m, state := newMachine(t, map[string]string{etc + "10-a": "", etc + "20-b": "kill -9 $$"}), newState()
	alive, stop := context.WithCancel(t.Context())
	stop()
	if err := m.hooks(state).drain(t.Context(), alive, Request{}); err == nil {
		t.Error("no error")
	}
	if got := m.calls(t); got != "10-a drain, 20-b drain" {
		t.Errorf("called %s", got)
	}
	if got := recorded(t, state); got != "10-a 20-b" {
		t.Errorf("record %q", got)
	}
}

// A power cut at any change to the disk: whatever was called with drain is called with undrain after the boot.
func TestPowerCuts(t *testing.T) {
	scripts := map[string]string{etc + "10-a": "", etc + "20-b": ""}
	for n := 0; ; n++ {
		for seed := range uint64(3) {
			m, world := newMachine(t, scripts), powercut.NewWorld()
			state := world.NewFolder(1 << 20)
			world.CutAfter(n)
			err := m.hooks(state).drain(t.Context(), t.Context(), Request{})
			if err == nil {
				err = m.hooks(state).undrain(t.Context())
			}
			cut := world.Off()
			if cut != (err != nil) {
				t.Fatalf("cut after %d changes: %v, but error %v", n, cut, err)
			}
			before := m.calls(t)
			world.Restore(powercut.Mixed(seed))
			if err := m.hooks(state).undrain(t.Context()); err != nil {
				t.Fatalf("cut after %d changes: %v", n, err)
			}
			all := before + ", " + m.calls(t)
			for _, name := range []string{"10-a", "20-b"} {
				if i := strings.LastIndex(all, name+" drain"); i >= 0 && !strings.Contains(all[i:], name+" undrain") {
					t.Errorf("cut after %d changes, seed %d: %s stays drained: %s", n, seed, name, all)
				}
			}
			if !cut {
				if n == 0 {
					t.Error("nothing was written")
				}
				return
			}
		}
	}
}

func TestDamagedRecord(t *testing.T) {
	for name, text := range map[string]string{"no JSON": "{", "too many": `{"hooks":[` + strings.TrimSuffix(strings.Repeat(`"x",`, 2*maxHooks+1), ",") + `]}`} {
		m, state := newMachine(t, map[string]string{etc + "10-a": "", etc + "20-b": ""}), newState()
		state.Put(recordFile, []byte(text))
		if err := m.hooks(state).undrain(t.Context()); err != nil || m.calls(t) != "20-b undrain, 10-a undrain" || recorded(t, state) != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestHookThatIsGone(t *testing.T) {
	m, state := newMachine(t, map[string]string{etc + "10-a": ""}), newState()
	state.Put(recordFile, []byte(`{"hooks":["10-a","20-gone"]}`))
	if err := m.hooks(state).undrain(t.Context()); err != nil || m.calls(t) != "10-a undrain" || recorded(t, state) != "" {
		t.Errorf("%v", err)
	}
}

func TestTooManyHooks(t *testing.T) {
	scripts := map[string]string{}
	for i := range maxHooks + 1 {
		scripts[etc+fmt.Sprint(i)] = ""
	}
	m := newMachine(t, scripts)
	if err := m.hooks(newState()).drain(t.Context(), t.Context(), Request{}); !fault.Is(err, fault.Input) || m.calls(t) != "" {
		t.Errorf("error %v", err)
	}
}

func TestRecordCannotBeWritten(t *testing.T) {
	m, world := newMachine(t, map[string]string{etc + "10-a": ""}), powercut.NewWorld()
	state := world.NewFolder(1 << 20)
	world.CutAfter(0)
	if err := m.hooks(state).drain(t.Context(), t.Context(), Request{}); !fault.Is(err, fault.IO) || m.calls(t) != "" {
		t.Errorf("a hook ran that nobody would undrain: %v", err)
	}
	if !slices.Equal(Folders, []string{"usr/lib/semper/drain.d", "etc/semper/drain.d"}) {
		t.Error(Folders)
	}
}
