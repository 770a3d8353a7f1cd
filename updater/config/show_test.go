package config

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// again checks that what Show prints is a drop-in that gives the same settings.
func again(t *testing.T, s Settings) {
	t.Helper()
	var shown strings.Builder
	if err := s.Show(&shown); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(shown.String(), "xxxxx@") {
		return // something is hidden
	}
	got := Defaults()
	if err := got.apply("shown", []byte(shown.String())); err != nil {
		t.Fatalf("%v in\n%s", err, shown.String())
	}
	if changed := Changed(s, got); changed != nil {
		t.Fatalf("%q differ after a round through\n%s", changed, shown.String())
	}
}

func TestShow(t *testing.T) {
	root := place(t, map[string]string{
		"etc/flatcar/update.conf":    "PCR_POLICY_SERVER=x\nGROUP=lts\n",
		"etc/semper/update.d/x.toml": "server = 'https://me:secret@a.example/v1/update'\nservers = ['https://token@b.example']\n[network]\nproxy = 'http://me:secret@proxy:3128'\n",
	})
	s, err := Load(root, "")
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	if err := s.Show(&out); err != nil {
		t.Fatal(err)
	}
	got := strings.Split(strings.ReplaceAll(out.String(), root, ""), "\n")
	for _, want := range []string{
		`server = "https://xxxxx@a.example/v1/update" # /etc/semper/update.d/x.toml:1`,
		`servers = ["https://xxxxx@b.example"]        # /etc/semper/update.d/x.toml:2`,
		`network.proxy = "http://xxxxx@proxy:3128"    # /etc/semper/update.d/x.toml:4`,
		`channel = "lts"                              # /etc/flatcar/update.conf:2`,
		`poll_interval = "45m"                        # default`,
		`payload.max_size = "4GiB"                    # default`,
		`reboot.windows = []                          # default`,
		`reboot.inhibitor_grace = "24h"               # default`,
		`trust.max_age = "14d"                        # default`,
		`# ignored: /etc/flatcar/update.conf:1: PCR_POLICY_SERVER`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("no line %q in\n%s", want, out.String())
		}
	}
	if len(got) != len(keys)+2 { // the ignored one, and what is behind the last line break
		t.Errorf("%d lines", len(got))
	}
	text, err := json.Marshal(s.Values())
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"secret", "token"} {
		if strings.Contains(out.String(), secret) || strings.Contains(string(text), secret) {
			t.Errorf("%q is shown", secret)
		}
	}
	if !strings.Contains(string(text), `{"key":"reboot.windows","value":[],"from":"default"}`) || !strings.Contains(string(text), `"value":2,"from":"default"`) {
		t.Errorf("JSON %s", text)
	}
}

func TestShownSettingsGiveTheSame(t *testing.T) {
	again(t, Defaults())
	again(t, fullSettings())
}

func TestChanged(t *testing.T) {
	a, b := Defaults(), Defaults()
	b.Origin["channel"] = Origin{File: "elsewhere", Line: 1}
	b.Reboot.Windows = nil
	if got := Changed(a, b); got != nil {
		t.Errorf("same values: %q", got)
	}
	b.Channel, b.Reboot.MaxReboots, b.Servers = "beta", 2, []string{"http://a"}
	if got := Changed(a, b); !slices.Equal(got, []string{"servers", "channel", "reboot.max_reboots"}) {
		t.Errorf("got %q", got)
	}
}

func TestRedact(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "",
		"a@b":                           "xxxxx@b",
		"http://host/a@b":               "http://host/a@b",
		"http://u:p@host/v1":            "http://xxxxx@host/v1",
		"http://u:p@host/a@b":           "http://xxxxx@host/a@b",
		"http://u:p%zz@host":            "http://xxxxx@host",
		"u:p@proxy:3128":                "xxxxx@proxy:3128",
		"http:u:p@host":                 "xxxxx@host",
		"https://updates.example.org/x": "https://updates.example.org/x",
	} {
		if got := Redact(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}
