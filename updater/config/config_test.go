package config

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
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
		put(t, filepath.Join(root, name), text)
	}
	return root
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// refused checks that err is the user's fault and says want.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("error %v, want one that contains %q", err, want)
	}
	if !fault.Is(err, fault.Input) {
		t.Errorf("kind %v, want input", fault.KindOf(err))
	}
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
		"usr/share/flatcar/update.conf":            "GROUP=lts\nMACHINE_ALIAS=rack-1\nSERVER=https://flatcar.example/v1/update\n",
		"usr/lib/semper/update.d/00-defaults.toml": "server = 'http://image/v1/update'\nchannel = 'stable'\npoll_interval = '10m'\n[reboot]\nstrategy = 'off'\nwindows = ['01:00 1h', '02:00 1h']\n",
		"usr/lib/semper/update.d/50-more.toml":     "channel = 'beta'\n",
		"usr/lib/semper/update.d/.hidden.toml":     "nonsense",
		"usr/lib/semper/update.d/readme.txt":       "nonsense",
		"etc/semper/update.d/10-site.toml":         "server = 'https://site.example/v1/update'\n[payload]\nmax_size = '512MiB'\n[reboot]\nwindows = ['03:00 1h']\n",
		"etc/semper/update.d/10-site.toml.new":     "nonsense",
		"run/semper/update.d/99.toml":              "channel = 'alpha'\ninitial_delay = '0s'\n",
		"creds/semper.update.toml":                 "poll_interval = '5s'\njitter = '1s'\n",
	})
	got, err := Load(root, filepath.Join(root, "creds"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(p string, line int) Origin { return Origin{File: filepath.Join(root, p), Line: line} }
	want := Defaults()
	want.Server, want.Channel, want.Alias = "https://site.example/v1/update", "alpha", "rack-1"
	want.PollInterval, want.InitialDelay, want.Jitter = 5*time.Second, 0, time.Second
	want.Reboot.Strategy, want.Reboot.Windows, want.Payload.MaxSize = RebootOff, []string{"03:00 1h"}, 512<<20
	want.Origin = map[string]Origin{
		"server":           at("etc/semper/update.d/10-site.toml", 1),
		"channel":          at("run/semper/update.d/99.toml", 1),
		"alias":            at("usr/share/flatcar/update.conf", 2),
		"poll_interval":    at("creds/semper.update.toml", 1),
		"initial_delay":    at("run/semper/update.d/99.toml", 2),
		"jitter":           at("creds/semper.update.toml", 2),
		"reboot.strategy":  at("usr/lib/semper/update.d/00-defaults.toml", 5),
		"reboot.windows":   at("etc/semper/update.d/10-site.toml", 5),
		"payload.max_size": at("etc/semper/update.d/10-site.toml", 3),
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

// full sets every key to something else than its default.
const full = `server = "https://a.example/v1/update"
servers = ["https://b.example/v1/update", "http://c.example"]
channel = "beta"
alias = "rack 7, \"top\""
pin = "1.2.0~rc1"
paused = true
max_failures = 10
poll_interval = "1h30m"
initial_delay = "90s"
jitter = "500ms"
[network]
proxy = "socks5://127.0.0.1:1080"
ca_file = "/etc/ssl/site.pem"
client_certificate = "/etc/semper/client.pem"
client_key = "/etc/semper/client.key"
bandwidth_limit = "2MiB"
metered = true
[payload]
max_size = "1000"
[install]
cache = "use"
[reboot]
strategy = "window"
windows = ["Mon-Fri 02:00 3h", "Sun 01:00 30m"]
time_zone = "Europe/Berlin"
user_grace = 0
inhibitor_grace = "2w"
drain_timeout = "1h"
soft = true
max_reboots = 1
fleetlock = { url = "https://lock.example/base", group = "web.1" }
[reboot.etcd]
endpoints = ["https://e1.example:2379", "https://e2.example:2379"]
group = "web-2"
lease = "24h"
ca_file = "/etc/etcd/ca.pem"
certificate = "/etc/etcd/cert.pem"
key = "/etc/etcd/key.pem"
username = "semper"
password_file = "/etc/etcd/password"
[health]
server = "advisory"
grace = "0"
interval = 0
later = "rollback"
[trust]
freshness = "require"
max_age = "365d"
`

func fullSettings() Settings {
	return Settings{
		Server: "https://a.example/v1/update", Servers: []string{"https://b.example/v1/update", "http://c.example"},
		Channel: "beta", Alias: `rack 7, "top"`, Pin: "1.2.0~rc1", Paused: true, MaxFailures: 10,
		PollInterval: 90 * time.Minute, InitialDelay: 90 * time.Second, Jitter: 500 * time.Millisecond,
		Network: Network{
			Proxy: "socks5://127.0.0.1:1080", CAFile: "/etc/ssl/site.pem", ClientCertificate: "/etc/semper/client.pem",
			ClientKey: "/etc/semper/client.key", BandwidthLimit: 2 << 20, Metered: true,
		},
		Payload: Payload{MaxSize: 1000},
		Install: Install{Cache: CacheUse},
		Reboot: Reboot{
			Strategy: RebootWindow, Windows: []string{"Mon-Fri 02:00 3h", "Sun 01:00 30m"}, TimeZone: "Europe/Berlin",
			UserGrace: 0, InhibitorGrace: 14 * 24 * time.Hour, DrainTimeout: time.Hour, MaxReboots: 1, Soft: true,
			FleetLock: FleetLock{URL: "https://lock.example/base", Group: "web.1"},
			Etcd: Etcd{
				Endpoints: []string{"https://e1.example:2379", "https://e2.example:2379"}, Group: "web-2", Lease: 24 * time.Hour,
				CAFile: "/etc/etcd/ca.pem", Certificate: "/etc/etcd/cert.pem", Key: "/etc/etcd/key.pem", Username: "semper", PasswordFile: "/etc/etcd/password",
			},
		},
		Health: Health{Server: Advisory, Grace: 0, Interval: 0, Later: LaterRollback},
		Trust:  Trust{Freshness: FreshnessRequire, MaxAge: 365 * 24 * time.Hour},
	}
}

func TestEveryKey(t *testing.T) {
	root := place(t, map[string]string{"etc/semper/update.d/x.toml": full})
	got, err := Load(root, "")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(full, "\n")
	for _, k := range keys {
		o, ok := got.Origin[k.name]
		_, last := split(k.name)
		if !ok || !strings.Contains(lines[o.Line-1], last+" = ") {
			t.Errorf("%s: origin %v, %v", k.name, o, ok)
		}
	}
	if changed := Changed(Defaults(), got); !slices.Equal(changed, names()) {
		t.Errorf("not all keys differ from the defaults: %q", changed)
	}
	got.Origin = nil
	if want := fullSettings(); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// The table of keys must reach every field of Settings, and each but once.
func TestKeysCoverStruct(t *testing.T) {
	fields := 0
	var count func(ty reflect.Type)
	count = func(ty reflect.Type) {
		for f := range ty.Fields() {
			if f.Type.Kind() == reflect.Struct {
				count(f.Type)
			} else {
				fields++
			}
		}
	}
	count(reflect.TypeFor[Settings]())
	if fields -= 2; fields != len(keys) { // Ignored and Origin
		t.Errorf("%d fields, %d keys", fields, len(keys))
	}
	other := fullSettings()
	seen := map[string]bool{}
	for _, k := range keys {
		s := Defaults()
		v, err := decoded(k.get(&other))
		if err == nil {
			err = k.set(&s, v)
		}
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		if got := Changed(Defaults(), s); !slices.Equal(got, []string{k.name}) || seen[k.name] {
			t.Errorf("setting %s changes %q", k.name, got)
		}
		seen[k.name] = true
	}
}

func TestHugeFileRefused(t *testing.T) {
	_, err := Load(place(t, map[string]string{"etc/semper/update.d/x.toml": strings.Repeat("#", maxFileBytes+1)}), "")
	refused(t, err, "at most 65536 bytes")
}

func TestTooManyFilesRefused(t *testing.T) {
	root := t.TempDir()
	for i := range maxFiles + 1 {
		put(t, filepath.Join(root, "etc/semper/update.d", strings.Repeat("a", i+1)+".toml"), "")
	}
	_, err := Load(root, "")
	refused(t, err, "101 settings files, at most 100 are read")
}

func TestCheckWindow(t *testing.T) {
	_, err := Load(place(t, map[string]string{"etc/semper/update.d/x.toml": "[reboot]\nwindows = ['tomorrow']\n"}), "")
	refused(t, err, "x.toml:2: reboot.windows: ")
}

func TestAllServers(t *testing.T) {
	for _, c := range []struct {
		server  string
		servers []string
		want    []string
	}{
		{"", nil, nil},
		{"a", nil, []string{"a"}},
		{"", []string{"b", "c"}, []string{"b", "c"}},
		{"c", []string{"b", "c", "b"}, []string{"c", "b"}},
	} {
		s := Settings{Server: c.server, Servers: c.servers}
		if got := s.AllServers(); !slices.Equal(got, c.want) {
			t.Errorf("%q, %q: got %q", c.server, c.servers, got)
		}
	}
}

func TestLocation(t *testing.T) {
	for zone, want := range map[string]string{"UTC": "UTC", "local": "Local", "America/New_York": "America/New_York"} {
		l, err := (&Reboot{TimeZone: zone}).Location()
		if err != nil || l.String() != want {
			t.Errorf("%s: %v, %v", zone, l, err)
		}
	}
}

func FuzzApply(f *testing.F) {
	f.Add([]byte(full))
	f.Add([]byte("chanel = 1"))
	f.Add([]byte("[[reboot]]"))
	f.Add([]byte("jitter = {a = 1}"))
	f.Add([]byte("reboot = {etcd = {group = '1'}, \"strategy\" = '''off'''}\n# \r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s := Defaults()
		if err := s.apply("x.toml", data); err != nil {
			if !fault.Is(err, fault.Input) {
				t.Fatalf("kind %v: %v", fault.KindOf(err), err)
			}
			return
		}
		if s.PollInterval < time.Second || s.Payload.MaxSize <= 0 || s.Channel == "" || s.Reboot.MaxReboots < 1 || len(s.Servers) > 8 {
			t.Fatalf("accepted impossible settings %+v", s)
		}
		lines := strings.Count(string(data), "\n") + 1
		for key, o := range s.Origin {
			if o.Line < 1 || o.Line > lines {
				t.Fatalf("%s is on line %d of %d", key, o.Line, lines)
			}
		}
		again(t, s)
	})
}
