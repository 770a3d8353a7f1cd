package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

const etcDir = "etc/semper/update.d"

func readFile(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestWriteDropIn(t *testing.T) {
	root := place(t, map[string]string{"usr/lib/semper/update.d/00.toml": "channel = 'stable'\n"})
	path := filepath.Join(root, etcDir, DropInName)
	for _, step := range []struct {
		set    map[string]any
		remove []string
		want   string // the file; empty: there is none
	}{
		{nil, []string{"pin"}, ""},
		{map[string]any{"channel": "beta"}, nil, "channel = \"beta\"\n"},
		{map[string]any{"pin": "1.2.0", "paused": true}, nil, "channel = \"beta\"\npin = \"1.2.0\"\npaused = true\n"},
		{map[string]any{"pin": "1.3.0"}, []string{"channel", "jitter"}, "pin = \"1.3.0\"\npaused = true\n"},
		{nil, []string{"pin", "paused"}, ""},
		{map[string]any{
			"alias": "a\"\\ä", "poll_interval": 90 * time.Minute, "trust.max_age": 14 * day, "max_failures": 3, "reboot.max_reboots": int64(2),
			"servers": []string{"http://a", "http://b"}, "payload.max_size": "1GiB",
		}, nil, "servers = [\"http://a\", \"http://b\"]\nalias = \"a\\\"\\\\ä\"\nmax_failures = 3\npoll_interval = \"1h30m\"\n" +
			"payload.max_size = \"1GiB\"\nreboot.max_reboots = 2\ntrust.max_age = \"14d\"\n"},
	} {
		var got Settings
		var err error
		if step.set != nil {
			if got, err = WriteDropIn(root, etcDir, DropInName, step.set); err != nil {
				t.Fatal(err)
			}
		}
		if step.remove != nil {
			if got, err = RemoveKey(root, etcDir, DropInName, step.remove...); err != nil {
				t.Fatal(err)
			}
		}
		loaded, err := Load(root, "")
		if err != nil {
			t.Fatal(err)
		}
		if changed := Changed(got, loaded); changed != nil || fmt.Sprint(got.Origin) != fmt.Sprint(loaded.Origin) {
			t.Errorf("told %+v\nloaded %+v", got, loaded)
		}
		want := []string{DropInName}
		if step.want == "" {
			want = nil
		} else if file := readFile(t, path); file != dropInHeader+step.want {
			t.Errorf("file\n%swant\n%s", file, step.want)
		}
		entries, err := os.ReadDir(filepath.Dir(path))
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, e := range entries {
			names = append(names, e.Name())
		}
		if !slices.Equal(names, want) {
			t.Errorf("folder has %q, want %q", names, want)
		}
	}
}

// semperd is another user, and must be able to read what root wrote.
func TestDropInIsReadable(t *testing.T) {
	defer unix.Umask(unix.Umask(0o077))
	root := t.TempDir()
	if _, err := WriteDropIn(root, "run/semper/update.d", DropInName, map[string]any{"paused": true}); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]os.FileMode{"run/semper": 0o755, "run/semper/update.d": 0o755, "run/semper/update.d/" + DropInName: 0o644} {
		info, err := os.Stat(filepath.Join(root, name))
		if err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
}

// A later file that overrides what was written shows in the result.
func TestOverriddenDropIn(t *testing.T) {
	root := place(t, map[string]string{"run/semper/update.d/99.toml": "channel = 'alpha'\n"})
	s, err := WriteDropIn(root, etcDir, DropInName, map[string]any{"channel": "beta"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (Origin{filepath.Join(root, "run/semper/update.d/99.toml"), 1}); s.Channel != "alpha" || s.Origin["channel"] != want {
		t.Errorf("channel %s from %v", s.Channel, s.Origin["channel"])
	}
}

// What Load would refuse is not written, and the old file stays.
func TestDropInRefusals(t *testing.T) {
	const before = "jitter = \"1m\"\n"
	for _, c := range []struct {
		name, dir, file string
		set             map[string]any
		want            string
	}{
		{"unknown key", etcDir, DropInName, map[string]any{"chanel": "beta"}, `unknown key "chanel", did you mean "channel"?`},
		{"unknown table", etcDir, DropInName, map[string]any{"colours.red": "beta"}, `unknown key "colours.red"`},
		{"value", etcDir, DropInName, map[string]any{"channel": "a/b"}, `channel: channel "a/b": only letters`},
		{"type", etcDir, DropInName, map[string]any{"paused": "yes"}, `paused: want true or false`},
		{"odd type", etcDir, DropInName, map[string]any{"paused": 1.5}, `paused: a setting cannot be a float64`},
		{"not UTF-8", etcDir, DropInName, map[string]any{"alias": "\xff"}, `alias: not UTF-8 text`},
		{"line break", etcDir, DropInName, map[string]any{"alias": "a\nchannel = 'b'"}, `alias: "a\nchannel = 'b'" is not a name`},
		{"key of another file", etcDir, DropInName, map[string]any{"poll_interval": 30 * time.Second}, "jitter (2m, from "},
		{"other folder", "etc", DropInName, map[string]any{"paused": true}, "no place for settings"},
		{"path", etcDir, "../x.toml", map[string]any{"paused": true}, "no place for settings"},
		{"other name", etcDir, "x.conf", map[string]any{"paused": true}, "no place for settings"},
		{"hidden name", etcDir, ".x.toml", map[string]any{"paused": true}, "no place for settings"},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := place(t, map[string]string{etcDir + "/" + DropInName: before, "run/semper/update.d/x.toml": "jitter = '2m'"})
			_, err := WriteDropIn(root, c.dir, c.file, c.set)
			refused(t, err, c.want)
			entries, err := os.ReadDir(filepath.Join(root, etcDir))
			if err != nil || len(entries) != 1 || readFile(t, filepath.Join(root, etcDir, DropInName)) != before {
				t.Errorf("the folder has changed: %v, %v", entries, err)
			}
		})
	}
}

func TestRemoveKeyRefusals(t *testing.T) {
	root := place(t, map[string]string{
		"usr/lib/semper/update.d/a.toml": "[reboot]\nstrategy = 'window'\n",
		etcDir + "/" + DropInName:        "reboot.windows = ['Sun 01:00 2h']\n",
	})
	_, err := RemoveKey(root, etcDir, DropInName, "reboot.windows")
	refused(t, err, "needs reboot.windows, which is empty")
	if _, err := Load(root, ""); err != nil {
		t.Errorf("the file is gone: %v", err)
	}
	_, err = RemoveKey(root, etcDir, DropInName, "reboot.window")
	refused(t, err, `did you mean "reboot.windows"?`)
}

// A value that somebody wrote there by hand and that keeps everything from loading can be replaced and removed.
func TestDropInIsRepaired(t *testing.T) {
	for _, repair := range []func(root string) (Settings, error){
		func(root string) (Settings, error) { return RemoveKey(root, etcDir, DropInName, "pin") },
		func(root string) (Settings, error) {
			return WriteDropIn(root, etcDir, DropInName, map[string]any{"pin": "1.0.0"})
		},
	} {
		root := place(t, map[string]string{etcDir + "/" + DropInName: "pin = '_'\nchannel = 'beta'\n"})
		if s, err := repair(root); err != nil || s.Channel != "beta" {
			t.Errorf("%v, channel %q", err, s.Channel)
		}
	}
	root := place(t, map[string]string{etcDir + "/" + DropInName: "pin = \n"})
	_, err := RemoveKey(root, etcDir, DropInName, "pin")
	refused(t, err, DropInName+":1: ")
}

// Changes at the same time all arrive.
func TestDropInsAtTheSameTime(t *testing.T) {
	root := t.TempDir()
	sets := []map[string]any{{"channel": "beta"}, {"paused": true}, {"pin": "1.0.0"}, {"alias": "a"}, {"max_failures": 3}, {"reboot.max_reboots": 3}}
	var all sync.WaitGroup
	for _, set := range sets {
		all.Go(func() {
			if _, err := WriteDropIn(root, etcDir, DropInName, set); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	s, err := Load(root, "")
	if err != nil || len(s.Origin) != len(sets) {
		t.Errorf("%v, %v", s.Origin, err)
	}
}

func TestUnwritableFolder(t *testing.T) {
	root := place(t, map[string]string{etcDir: "a file"})
	if _, err := WriteDropIn(root, etcDir, DropInName, map[string]any{"paused": true}); !fault.Is(err, fault.IO) && !fault.Is(err, fault.Input) {
		t.Errorf("error %v", err)
	}
	if text := readFile(t, filepath.Join(root, etcDir)); !strings.HasPrefix(text, "a file") {
		t.Errorf("%q", text)
	}
}
