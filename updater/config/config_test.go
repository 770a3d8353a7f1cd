package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
)

// place writes files below a fresh root and returns it.
func place(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestNoFilesGivesDefaults(t *testing.T) {
	got, err := Load(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, Defaults()) {
		t.Errorf("got %+v, want the defaults", got)
	}
}

func TestLaterFileWinsKeyByKey(t *testing.T) {
	root := place(t, map[string]string{
		"usr/lib/semper/update.d/00-defaults.toml": "server = 'http://image/v1/update'\nchannel = 'stable'\npoll_interval = '10m'\n[reboot]\nstrategy = 'off'\n",
		"usr/lib/semper/update.d/50-more.toml":     "channel = 'beta'\n",
		"usr/lib/semper/update.d/.hidden.toml":     "nonsense",
		"usr/lib/semper/update.d/readme.txt":       "nonsense",
		"etc/semper/update.d/10-site.toml":         "server = 'https://site.example/v1/update'\n[payload]\nmax_size = '512MiB'\n",
		"run/semper/update.d/99.toml":              "channel = 'alpha'\ninitial_delay = '0s'\n",
		"creds/semper.update.toml":                 "poll_interval = '5s'\njitter = '1s'\n",
	})
	got, err := Load(root, filepath.Join(root, "creds"))
	if err != nil {
		t.Fatal(err)
	}
	in := func(p string) string { return filepath.Join(root, p) }
	want := Settings{
		Server: "https://site.example/v1/update", Channel: "alpha",
		PollInterval: 5 * time.Second, InitialDelay: 0, Jitter: time.Second,
		RebootStrategy: RebootOff, MaxPayload: 512 << 20,
		Origin: map[string]string{
			"server":           in("etc/semper/update.d/10-site.toml"),
			"channel":          in("run/semper/update.d/99.toml"),
			"poll_interval":    in("creds/semper.update.toml"),
			"initial_delay":    in("run/semper/update.d/99.toml"),
			"jitter":           in("creds/semper.update.toml"),
			"reboot.strategy":  in("usr/lib/semper/update.d/00-defaults.toml"),
			"payload.max_size": in("etc/semper/update.d/10-site.toml"),
		},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

func TestMissingCredentialIsFine(t *testing.T) {
	if _, err := Load(t.TempDir(), t.TempDir()); err != nil {
		t.Fatal(err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"typing error", "server = ''\n\nchanel = 'beta'\n", `x.toml:3: unknown key "chanel", did you mean "channel"?`},
		{"in a table", "[reboot]\nstratgy = 'off'\n", `x.toml:2: unknown key "reboot.stratgy", did you mean "reboot.strategy"?`},
		{"without its table", "strategy = 'off'\n", `x.toml:1: unknown key "strategy", did you mean "reboot.strategy"?`},
		{"nothing near", "colour = 'red'\n", `x.toml:1: unknown key "colour" (keys are server, channel, poll_interval, initial_delay, jitter, reboot.strategy, payload.max_size)`},
		{"unknown table", "[network]\nproxy = 'x'\n", `x.toml:1: unknown key "network"`},
		{"syntax", "server = \n", `x.toml:1: `},
		{"key twice", "channel = 'a'\nchannel = 'b'\n", `x.toml:2: `},
		{"number as duration", "poll_interval = 5\n", `x.toml: "5" is not a duration`},
		{"bad duration", "\npoll_interval = '5 minutes'\n", `x.toml:2: poll_interval: "5 minutes" is not a duration`},
		{"negative duration", "jitter = '-5m'\n", `"-5m" is out of range`},
		{"silenced for decades", "poll_interval = '87600h'\n", "is out of range"},
		{"busy loop", "poll_interval = '1ms'\njitter = '0s'\n", "poll_interval must be at least 1s, it is 1ms"},
		{"jitter over interval", "poll_interval = '1m'\njitter = '2m'\n", "must not exceed poll_interval"},
		{"not a URL", "server = 'update.example'\n", `"update.example" is not a server address`},
		{"other scheme", "server = 'file:///etc/passwd'\n", "is not a server address"},
		{"channel with a slash", "channel = 'a/b'\n", "only letters, digits"},
		{"strategy", "[reboot]\nstrategy = 'window'\n", `x.toml:2: reboot.strategy: unknown reboot strategy "window" (want "immediate" or "off")`},
		{"size", "[payload]\nmax_size = '4 potatoes'\n", `"4 potatoes" is not a size`},
		{"size overflows", "[payload]\nmax_size = '9223372036854775807GiB'\n", "is not a size"},
		{"size zero", "[payload]\nmax_size = '0'\n", "is not a size"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(place(t, map[string]string{"etc/semper/update.d/x.toml": c.text}), "")
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one that contains %q", err, c.want)
			}
			if !fault.Is(err, fault.Input) {
				t.Errorf("kind %v, want input", fault.KindOf(err))
			}
		})
	}
}

func TestHugeFileRefused(t *testing.T) {
	root := place(t, map[string]string{"etc/semper/update.d/x.toml": strings.Repeat("#", maxFileBytes+1)})
	if _, err := Load(root, ""); err == nil || !strings.Contains(err.Error(), "at most 65536 bytes") {
		t.Fatalf("error %v", err)
	}
}

// Every key named in messages must exist in the struct, and the other way round.
func TestKeysMatchStruct(t *testing.T) {
	var got []string
	var walk func(prefix string, ty reflect.Type)
	walk = func(prefix string, ty reflect.Type) {
		for i := range ty.NumField() {
			f := ty.Field(i)
			if name := prefix + f.Tag.Get("toml"); f.Type.Kind() == reflect.Struct {
				walk(name+".", f.Type)
			} else {
				got = append(got, name)
			}
		}
	}
	walk("", reflect.TypeFor[file]())
	if !reflect.DeepEqual(got, keys) {
		t.Errorf("struct has %q, keys has %q", got, keys)
	}
}

func FuzzApply(f *testing.F) {
	f.Add([]byte("server = 'http://a/v1/update'\n[reboot]\nstrategy='off'\n[payload]\nmax_size='1GiB'"))
	f.Add([]byte("chanel = 1"))
	f.Add([]byte("[[reboot]]"))
	f.Add([]byte("jitter = {a = 1}"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := Defaults()
		if err := s.apply("x.toml", data); err != nil {
			if !fault.Is(err, fault.Input) {
				t.Fatalf("kind %v: %v", fault.KindOf(err), err)
			}
			return
		}
		if s.PollInterval < time.Second || s.MaxPayload <= 0 || s.Channel == "" {
			t.Fatalf("accepted impossible settings %+v", s)
		}
	})
}
