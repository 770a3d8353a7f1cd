package config

import (
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
)

func TestParseUpdateConf(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"", ""},
		{"# comment\n; comment\n\n  \nGROUP=stable", "5:GROUP=stable"},
		{"GROUP=stable\r\nSERVER=x\r\n", "1:GROUP=stable 2:SERVER=x"},
		{"  A_1 = b c  ", "1:A_1=b c"},
		{"A=", "1:A="},
		{"A=# nothing", "1:A="},
		{"A=b # comment", "1:A=b"},
		{"A=b#c", "1:A=b#c"},
		{"A=b=c", "1:A=b=c"},
		{`A="b c" # comment`, "1:A=b c"},
		{`A="b\"c\\d\$e\` + "`" + `\n"`, `1:A=b"c\d$e` + "`" + `\n`},
		{`A='b\"c # d'`, `1:A=b\"c # d`},
		{`A=""`, "1:A="},
		{`A=$HOME\x"y"`, `1:A=$HOME\x"y"`},
		{"A=1\nA=2", "1:A=1 2:A=2"},
	} {
		vars, err := parseUpdateConf("u", []byte(c.text))
		var got []string
		for _, v := range vars {
			got = append(got, strings.TrimPrefix(v.origin.String(), "u:")+":"+v.name+"="+v.value)
		}
		if err != nil || strings.Join(got, " ") != c.want {
			t.Errorf("%q: got %q, %v", c.text, got, err)
		}
	}
	for _, c := range []struct{ text, want string }{
		{"\nsecret words", "u:2: not KEY=VALUE"},
		{"=x", "u:1: not KEY=VALUE"},
		{"1A=x", "u:1: not KEY=VALUE"},
		{"A B=x", "u:1: not KEY=VALUE"},
		{"export A=x", "u:1: not KEY=VALUE"},
		{strings.Repeat("A", 65) + "=x", "u:1: not KEY=VALUE"},
		{"A='x", "u:1: A: the quote is not closed"},
		{`A="x\"`, "u:1: A: the quote is not closed"},
		{`A="x"y`, "u:1: A: text after the closing quote"},
		{`A="x"#y`, "u:1: A: text after the closing quote"},
		{"A=x\x00y", "u:1: A: a control character"},
		{"A=\xff", "u: not UTF-8"},
	} {
		_, err := parseUpdateConf("u", []byte(c.text))
		refused(t, err, c.want)
		if strings.Contains(err.Error(), "secret") {
			t.Errorf("%v tells what the line holds", err)
		}
	}
}

func TestUpdateConf(t *testing.T) {
	const toml = "run/semper/update.d/x.toml"
	// want lists the keys that differ from the defaults as Show prints them, with their origins: S and E are the two update.conf, T is the drop-in.
	for _, c := range []struct{ name, share, etc, toml, want string }{
		{"nothing", "", "", "", ""},
		{"group", "GROUP=lts", "", "", `channel="lts" S1`},
		{"etc over share, key by key", "GROUP=lts\nSERVER=http://a", "\nGROUP=beta", "", `server="http://a" S2; channel="beta" E2`},
		{"later line wins", "", "GROUP=lts\nGROUP=beta", "", `channel="beta" E2`},
		{"TOML over both", "GROUP=lts", "GROUP=beta", "channel = 'alpha'", `channel="alpha" T1`},
		{"set to nothing is not set", "GROUP=lts\nSERVER=http://a", "GROUP=\nSERVER=''", "", ""},
		{"server", "", "SERVER=https://public.example/v1/update/", "", `server="https://public.example/v1/update/" E1`},
		{"server disabled", "SERVER=http://a", "SERVER=disabled", "", `server="" E1`},
		{"alias", "", "MACHINE_ALIAS='rack 7'", "", `alias="rack 7" E1`},
		{"reboot", "", "REBOOT_STRATEGY=reboot", "", `reboot.strategy="immediate" E1`},
		{"off", "", "REBOOT_STRATEGY=off", "", `reboot.strategy="off" E1`},
		{"best effort without etcd", "", "REBOOT_STRATEGY=best-effort", "", `reboot.strategy="immediate" E1`},
		{
			"best effort with etcd", "LOCKSMITHD_ENDPOINT=http://e:2379", "REBOOT_STRATEGY=best-effort", "",
			`reboot.strategy="etcd" E1; reboot.etcd.endpoints=["http://e:2379"] S1`,
		},
		{
			"etcd", "", "LOCKSMITHD_ENDPOINT='https://e1:2379, https://e2:2379'\nREBOOT_STRATEGY=etcd-lock\nLOCKSMITHD_GROUP=web\n" +
				"LOCKSMITHD_ETCD_CAFILE=/ca\nLOCKSMITHD_ETCD_CERTFILE=/cert\nLOCKSMITHD_ETCD_KEYFILE=/key", "",
			`reboot.strategy="etcd" E2; reboot.etcd.endpoints=["https://e1:2379", "https://e2:2379"] E1; reboot.etcd.group="web" E3; ` +
				`reboot.etcd.ca_file="/ca" E4; reboot.etcd.certificate="/cert" E5; reboot.etcd.key="/key" E6`,
		},
		{"etcd where locksmith looks", "", "REBOOT_STRATEGY=etcd-lock", "", `reboot.strategy="etcd" E1; reboot.etcd.endpoints=["http://127.0.0.1:2379"] E1`},
		{"etcd switched off by TOML", "", "REBOOT_STRATEGY=etcd-lock", "[reboot]\nstrategy = 'off'", `reboot.strategy="off" T2`},
		{
			"daily window", "LOCKSMITHD_REBOOT_WINDOW_START=2:05\nLOCKSMITHD_REBOOT_WINDOW_LENGTH=90m", "", "",
			`reboot.strategy="window" S1; reboot.windows=["Mon-Sun 02:05 1h30m"] S1; reboot.time_zone="local" S1`,
		},
		{
			"weekly window in two files, without prefix", "REBOOT_WINDOW_START='thursday 23:00'", "REBOOT_WINDOW_LENGTH=72h0m0s\nREBOOT_STRATEGY=reboot", "",
			`reboot.strategy="window" S1; reboot.windows=["Thu 23:00 72h"] S1; reboot.time_zone="local" S1`,
		},
		{
			"the prefix wins", "LOCKSMITHD_REBOOT_WINDOW_START=01:00\nLOCKSMITHD_REBOOT_WINDOW_LENGTH=1h", "REBOOT_WINDOW_START=02:00\nREBOOT_WINDOW_LENGTH=2h", "",
			`reboot.strategy="window" S1; reboot.windows=["Mon-Sun 01:00 1h"] S1; reboot.time_zone="local" S1`,
		},
		{
			"window with a strategy of another kind", "", "REBOOT_WINDOW_START=02:00\nREBOOT_WINDOW_LENGTH=61.5s\nREBOOT_STRATEGY=off", "",
			`reboot.strategy="off" E3; reboot.windows=["Mon-Sun 02:00 1m1s"] E1; reboot.time_zone="local" E1`,
		},
		{
			"TOML replaces the window, and with it what it implies", "", "REBOOT_WINDOW_START=02:00\nREBOOT_WINDOW_LENGTH=1h", "[reboot]\nwindows = ['Sun 01:00 2h']",
			`reboot.windows=["Sun 01:00 2h"] T2`,
		},
		{
			"TOML replaces the time zone and the strategy", "", "REBOOT_WINDOW_START=02:00\nREBOOT_WINDOW_LENGTH=1h", "[reboot]\ntime_zone = 'UTC'\nstrategy = 'immediate'",
			`reboot.strategy="immediate" T3; reboot.windows=["Mon-Sun 02:00 1h"] E1; reboot.time_zone="UTC" T2`,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := place(t, map[string]string{"usr/share/flatcar/update.conf": c.share, "etc/flatcar/update.conf": c.etc, toml: c.toml})
			s, err := Load(root, "")
			if err != nil {
				t.Fatal(err)
			}
			names := strings.NewReplacer(root+"/usr/share/flatcar/update.conf:", "S", root+"/etc/flatcar/update.conf:", "E", root+"/"+toml+":", "T")
			var got []string
			for _, v := range s.Values() {
				if v.From != "default" {
					text, err := literal(v.Value)
					if err != nil {
						t.Fatal(err)
					}
					got = append(got, v.Key+"="+text+" "+names.Replace(v.From))
				}
			}
			if strings.Join(got, "; ") != c.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "; "), c.want)
			}
			if s.Ignored != nil {
				t.Errorf("ignored %q", s.Ignored)
			}
		})
	}
}

func TestUpdateConfIgnored(t *testing.T) {
	root := place(t, map[string]string{
		"usr/share/flatcar/update.conf": "PCR_POLICY_SERVER=x\n",
		"etc/flatcar/update.conf":       "GROUP=lts\nDOWNLOAD_PASSWORD='geheim'\nGRUOP=x\n",
	})
	s, err := Load(root, "")
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		root + "/usr/share/flatcar/update.conf:1: PCR_POLICY_SERVER", root + "/etc/flatcar/update.conf:2: DOWNLOAD_PASSWORD", root + "/etc/flatcar/update.conf:3: GRUOP",
	}
	if !slices.Equal(s.Ignored, want) {
		t.Errorf("got %q", s.Ignored)
	}
}

func TestUpdateConfRefusals(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"nonsense", "update.conf:1: not KEY=VALUE"},
		{"GROUP=a/b", `update.conf:1: GROUP: channel "a/b"`},
		{"SERVER=htp://a", `update.conf:1: SERVER: "htp://a" is not a server address`},
		{"REBOOT_STRATEGY=rebot", `update.conf:1: REBOOT_STRATEGY: "rebot" is not possible`},
		{"LOCKSMITHD_GROUP=a b", `update.conf:1: LOCKSMITHD_GROUP: group "a b"`},
		{"LOCKSMITHD_ENDPOINT=http://e,", `update.conf:1: LOCKSMITHD_ENDPOINT: "" is not an end point`},
		{"LOCKSMITHD_ETCD_CAFILE=ca.pem", `update.conf:1: LOCKSMITHD_ETCD_CAFILE: "ca.pem" is not an absolute path`},
		{"LOCKSMITHD_ETCD_CERTFILE=/c", "update.conf:1) needs reboot.etcd.key"},
		{"\nREBOOT_WINDOW_START=02:00", "update.conf:2: REBOOT_WINDOW_START needs LOCKSMITHD_REBOOT_WINDOW_LENGTH beside it"},
		{"LOCKSMITHD_REBOOT_WINDOW_LENGTH=1h", "update.conf:1: LOCKSMITHD_REBOOT_WINDOW_LENGTH needs LOCKSMITHD_REBOOT_WINDOW_START beside it"},
		{"REBOOT_WINDOW_START=24:00\nREBOOT_WINDOW_LENGTH=1h", "update.conf:1: REBOOT_WINDOW_START: want"},
		{"REBOOT_WINDOW_START=2:5\nREBOOT_WINDOW_LENGTH=1h", "REBOOT_WINDOW_START: want"},
		{"REBOOT_WINDOW_START=02:60\nREBOOT_WINDOW_LENGTH=1h", "REBOOT_WINDOW_START: want"},
		{"REBOOT_WINDOW_START=+2:00\nREBOOT_WINDOW_LENGTH=1h", "REBOOT_WINDOW_START: want"},
		{"REBOOT_WINDOW_START=Thurs 02:00\nREBOOT_WINDOW_LENGTH=1h", "REBOOT_WINDOW_START: want"},
		{"REBOOT_WINDOW_START=02:00\nREBOOT_WINDOW_LENGTH=24h", "update.conf:2: REBOOT_WINDOW_LENGTH: \"24h\" is not the length of this window (want a duration like \"1h30m\", at least 1m and less than 24h)"},
		{"REBOOT_WINDOW_START=Thu 02:00\nREBOOT_WINDOW_LENGTH=168h", "at least 1m and less than 7d)"},
		{"REBOOT_WINDOW_START=02:00\nREBOOT_WINDOW_LENGTH=59s", "REBOOT_WINDOW_LENGTH: \"59s\" is not the length"},
		{"REBOOT_WINDOW_START=02:00\nREBOOT_WINDOW_LENGTH=long", "REBOOT_WINDOW_LENGTH: \"long\" is not the length"},
		{strings.Repeat("#", maxFileBytes+1), "at most 65536 bytes"},
	} {
		_, err := Load(place(t, map[string]string{"etc/flatcar/update.conf": c.text}), "")
		refused(t, err, c.want)
	}
}

func FuzzUpdateConf(f *testing.F) {
	f.Add("GROUP=lts # comment\nSERVER=\"https://a\\\"\"\n; x\nA='b'\r\n")
	f.Add("REBOOT_WINDOW_START=Thu 23:00\nREBOOT_WINDOW_LENGTH=1h30m\n")
	f.Add("A=\x00")
	f.Fuzz(func(t *testing.T, text string) {
		vars, err := parseUpdateConf("u", []byte(text))
		if err != nil {
			if !fault.Is(err, fault.Input) {
				t.Fatalf("kind %v: %v", fault.KindOf(err), err)
			}
			return
		}
		// What was read and is written in single or double quotes is read again as the same.
		var again strings.Builder
		for _, v := range vars {
			if !strings.Contains(text, v.name) || v.origin.Line < 1 || v.origin.Line > strings.Count(text, "\n")+1 {
				t.Fatalf("%+v out of %q", v, text)
			}
			again.WriteString(v.name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v.value) + "\"\n")
		}
		got, err := parseUpdateConf("u", []byte(again.String()))
		if err != nil || len(got) != len(vars) {
			t.Fatalf("%v from %q", err, again.String())
		}
		for i := range got {
			if got[i].name != vars[i].name || got[i].value != vars[i].value {
				t.Fatalf("%+v became %+v", vars[i], got[i])
			}
		}
	})
}

func FuzzWindowStart(f *testing.F) {
	f.Add("Thu 23:00")
	f.Add("2:05")
	f.Fuzz(func(t *testing.T, text string) {
		days, clock, err := parseWindowStart(text)
		if err != nil {
			return
		}
		if again, same, err := parseWindowStart(clock); err != nil || again != everyDay || same != clock || len(clock) != 5 || days == "" {
			t.Fatalf("%q: %q %q", text, days, clock)
		}
	})
}
