package config

import (
	"strings"
	"testing"
)

func TestRefusals(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"typing error", "server = ''\n\nchanel = 'beta'\n", `x.toml:3: unknown key "chanel", did you mean "channel"?`},
		{"in a table", "[reboot]\nstratgy = 'off'\n", `x.toml:2: unknown key "reboot.stratgy", did you mean "reboot.strategy"?`},
		{"in a table in a table", "[reboot.etcd]\n\nleas = 2\n", `x.toml:3: unknown key "reboot.etcd.leas", did you mean "reboot.etcd.lease"?`},
		{"in an inline table", "[reboot]\nmax_reboots = 3\netcd = { group = 'a', end_points = [] }\n", `x.toml:3: unknown key "reboot.etcd.end_points", did you mean "reboot.etcd.endpoints"?`},
		{"dotted", "reboot.etcd.leese = '1h'\n", `x.toml:1: unknown key "reboot.etcd.leese", did you mean "reboot.etcd.lease"?`},
		{"array key", "[reboot]\nwindow = [\n'a',\n]\n", `x.toml:2: unknown key "reboot.window", did you mean "reboot.windows"?`},
		{"after an array of many lines", "[reboot]\nwindows = [\n'a',\n'b'\n]\nstrategi = \"off\"\n", `x.toml:6: unknown key "reboot.strategi", did you mean "reboot.strategy"?`},
		{"without its table", "strategy = 'off'\n", `x.toml:1: unknown key "strategy", did you mean "reboot.strategy"?`},
		{"in the wrong table", "[network]\nfreshness = 'off'\n", `x.toml:2: unknown key "network.freshness", did you mean "trust.freshness"?`},
		{"the nearer of two", "[reboot.etcd]\ngroups = 'a'\n", `did you mean "reboot.etcd.group"?`},
		{"nothing near", "colour = 'red'\n", `x.toml:1: unknown key "colour" (here can be server, servers, channel, alias, pin, paused, max_failures, poll_interval, initial_delay, jitter, network, payload, install, reboot, health, trust)`},
		{"nothing near in a table", "[trust]\ncolour = 'red'\n", `x.toml:2: unknown key "trust.colour" (here can be trust.freshness, trust.max_age)`},
		{"long", strings.Repeat("k", 200) + " = 1\n", `unknown key "kkkk`},
		{"unknown table", "\n[netwrk]\nproxy = 'x'\n", `x.toml:2: unknown table "netwrk", did you mean "network"?`},
		{"unknown table in a table", "[reboot.fleet_lock]\nurl = 'x'\n", `x.toml:1: unknown table "reboot.fleet_lock", did you mean "reboot.fleetlock"?`},
		{"unknown inline table", "colours = { a = 1 }\n", `x.toml:1: unknown key "colours"`},
		{"quoted dot", "'reboot.strategy' = 'off'\n", `x.toml:1: unknown key "\"reboot.strategy\""`},
		{"empty key", "'' = 1\n", `x.toml:1: unknown key "\"\""`},
		{"array of tables", "[[reboot]]\nstrategy = 'off'\n", `x.toml:1: table "reboot" is there once: write [reboot] with single brackets`},
		{"key as table", "[channel]\nname = 'a'\n", `x.toml:1: "channel" is a key and not a table: write channel = …`},
		{"table as key", "reboot = 'off'\n", `x.toml:1: "reboot" is a table and not a key: write [reboot] and its keys below it`},
		{"syntax", "server = \n", `x.toml:1: `},
		{"key twice", "channel = 'a'\nchannel = 'b'\n", `x.toml:2: `},
		{"not UTF-8", "channel = '\xff'\n", `x.toml:1: `},

		{"number as string", "channel = 5\n", `x.toml:1: channel: want a string, it is 5`},
		{"string as boolean", "paused = 'yes'\n", `x.toml:1: paused: want true or false, it is "yes"`},
		{"string as number", "max_failures = '2'\n", `x.toml:1: max_failures: want a number, it is "2"`},
		{"float as number", "max_failures = 2.5\n", `want a number, it is 2.5`},
		{"table as string", "channel = { a = 1 }\n", `x.toml:1: channel: want a string, it is a table`},
		{"array as string", "channel = ['a']\n", `want a string, it is an array`},
		{"date as duration", "jitter = 1979-05-27\n", `x.toml:1: jitter: want a duration, it is a date or time`},
		{"string as array", "servers = 'http://user:word@a'\n", `servers: want an array of strings, it is "http://xxxxx@a"`},
		{"array of numbers", "servers = [1]\n", `servers: want a string, it is 1`},
		{"boolean as size", "[payload]\nmax_size = true\n", `want a size, it is true`},

		{"number as duration", "poll_interval = 5\n", `x.toml:1: poll_interval: "5" is not a duration`},
		{"bad duration", "\npoll_interval = '5 minutes'\n", `x.toml:2: poll_interval: "5 minutes" is not a duration`},
		{"part of a day", "poll_interval = '1.5d'\n", `"1.5d" is not a duration`},
		{"days and hours", "poll_interval = '1d12h'\n", `"1d12h" is not a duration`},
		{"no number of days", "poll_interval = 'd'\n", `"d" is not a duration`},
		{"negative days", "poll_interval = '-1d'\n", `"-1d" is not a duration`},
		{"very many weeks", "poll_interval = '99999999999999w'\n", `is not a duration`},
		{"negative duration", "jitter = '-5m'\n", `"-5m" is out of range (0s to 30d)`},
		{"silenced for decades", "poll_interval = '87600h'\n", `"87600h" is out of range (1s to 30d)`},
		{"busy loop", "poll_interval = '1ms'\njitter = '0s'\n", `poll_interval: "1ms" is out of range (1s to 30d)`},
		{"delay", "initial_delay = '31d'\n", `"31d" is out of range (0s to 30d)`},

		{"not a URL", "server = 'update.example'\n", `"update.example" is not a server address`},
		{"other scheme", "server = 'file:///etc/passwd'\n", "is not a server address"},
		{"no host", "server = 'http://:80/v1/update'\n", "is not a server address"},
		{"password in a wrong URL", "server = 'ftp://user:word@host'\n", `"ftp://xxxxx@host" is not a server address`},
		{"empty server in the list", "servers = ['']\n", `servers: "" is not a server address`},
		{"too many servers", "servers = [" + strings.Repeat("'http://a', ", 9) + "]\n", "9 entries, at most 8 are allowed"},
		{"long server", "server = 'http://" + strings.Repeat("a", 2048) + "'\n", "longer than 2048 bytes"},
		{"no channel", "channel = ''\n", "a channel's name has 1 to 64 characters, not 0"},
		{"long channel", "channel = '" + strings.Repeat("a", 65) + "'\n", "a channel's name has 1 to 64 characters, not 65"},
		{"channel with a slash", "channel = 'a/b'\n", "only letters, digits"},
		{"long alias", "alias = '" + strings.Repeat("a", 129) + "'\n", "is not a name"},
		{"alias with a line break", "alias = \"a\\nb\"\n", "is not a name"},
		{"pin", "pin = '1.0_2'\n", `x.toml:1: pin: version "1.0_2"`},
		{"no failures", "max_failures = 0\n", "0 is out of range (1 to 10)"},
		{"failures", "max_failures = 11\n", "11 is out of range (1 to 10)"},

		{"proxy", "[network]\nproxy = 'proxy:3128'\n", `network.proxy: "proxy:3128" is not a proxy`},
		{"proxy without scheme and with password", "[network]\nproxy = 'me:secret@proxy:3128'\n", `"xxxxx@proxy:3128" is not a proxy`},
		{"proxy with a path", "[network]\nproxy = 'http://proxy/x'\n", "is not a proxy"},
		{"socks4", "[network]\nproxy = 'socks4://proxy'\n", "is not a proxy"},
		{"relative path", "[network]\nca_file = 'ca.pem'\n", `network.ca_file: "ca.pem" is not an absolute path`},
		{"path with dots", "[network]\nca_file = '/etc/../ca.pem'\n", "is not an absolute path"},
		{"relative etcd path", "[reboot.etcd]\nca_file = 'ca.pem'\n", "is not an absolute path"},
		{"relative password file", "[reboot.etcd]\npassword_file = 'p'\n", "is not an absolute path"},
		{"slow", "[network]\nbandwidth_limit = '16383'\n", `"16383" is too small (want 0 or at least 16KiB)`},
		{"negative bandwidth", "[network]\nbandwidth_limit = -1\n", `"-1" is not a size`},

		{"size", "[payload]\nmax_size = '4 potatoes'\n", `"4 potatoes" is not a size`},
		{"size overflows", "[payload]\nmax_size = '9223372036854775807GiB'\n", "is not a size"},
		{"size zero", "[payload]\nmax_size = '0'\n", `"0" is too small (want at least 1)`},
		{"cache", "[install]\ncache = 'drop'\n", `x.toml:2: install.cache: "drop" is not possible (want "keep" or "use")`},

		{"strategy", "[reboot]\nstrategy = 'later'\n", `x.toml:2: reboot.strategy: "later" is not possible (want "immediate", "off", "window", "fleetlock" or "etcd")`},
		{"empty window", "[reboot]\nwindows = ['']\n", "a window has 1 to 200 characters"},
		{"many windows", "[reboot]\nwindows = [" + strings.Repeat("'a',", 51) + "]\n", "51 entries, at most 50 are allowed"},
		{"time zone", "[reboot]\ntime_zone = 'Europe/Nowhere'\n", `"Europe/Nowhere" is not a time zone`},
		{"empty time zone", "[reboot]\ntime_zone = ''\n", `"" is not a time zone`},
		{"time zone Local", "[reboot]\ntime_zone = 'Local'\n", `"Local" is not a time zone (want "local"`},
		{"time zone as a path", "[reboot]\ntime_zone = '../../etc/passwd'\n", "is not a time zone"},
		{"users", "[reboot]\nuser_grace = '25h'\n", `"25h" is out of range (0s to 24h)`},
		{"inhibitors", "[reboot]\ninhibitor_grace = '5w'\n", `"5w" is out of range (0s to 30d)`},
		{"no time for draining", "[reboot]\ndrain_timeout = 0\n", `"0" is out of range (1s to 1h)`},
		{"draining", "[reboot]\ndrain_timeout = '61m'\n", `"61m" is out of range (1s to 1h)`},
		{"no reboot", "[reboot]\nmax_reboots = 0\n", "0 is out of range (1 to 10)"},
		{"reboots", "[reboot]\nmax_reboots = 11\n", "11 is out of range (1 to 10)"},
		{"fleetlock URL", "[reboot.fleetlock]\nurl = 'lock.example'\n", `reboot.fleetlock.url: "lock.example" is not an address`},
		{"fleetlock group", "[reboot.fleetlock]\ngroup = 'a_b'\n", `group "a_b": only letters, digits and "-." are allowed`},
		{"no fleetlock group", "[reboot.fleetlock]\ngroup = ''\n", "a group's name has 1 to 64 characters"},
		{"etcd endpoint", "[reboot.etcd]\nendpoints = ['e1:2379']\n", `"e1:2379" is not an end point`},
		{"etcd password", "[reboot.etcd]\nendpoints = ['http://root:word@e1:2379']\n", `"http://xxxxx@e1:2379" is not an end point`},
		{"etcd endpoints", "[reboot.etcd]\nendpoints = [" + strings.Repeat("'http://e',", 11) + "]\n", "11 entries, at most 10 are allowed"},
		{"short lease", "[reboot.etcd]\nlease = '59s'\n", `"59s" is out of range (1m to 24h)`},
		{"long lease", "[reboot.etcd]\nlease = '25h'\n", "is out of range (1m to 24h)"},

		{"health server", "[health]\nserver = 'yes'\n", `(want "required", "advisory" or "off")`},
		{"grace", "[health]\ngrace = '16m'\n", `"16m" is out of range (0s to 15m)`},
		{"interval", "[health]\ninterval = '59s'\n", `"59s" is out of range (0 or 1m to 30d)`},
		{"long interval", "[health]\ninterval = '31d'\n", `"31d" is out of range (0 or 1m to 30d)`},
		{"later", "[health]\nlater = 'reboot'\n", `(want "report" or "rollback")`},
		{"freshness", "[trust]\nfreshness = true\n", "trust.freshness: want a string, it is true"},
		{"young", "[trust]\nmax_age = '59m'\n", `"59m" is out of range (1h to 365d)`},
		{"old", "[trust]\nmax_age = '366d'\n", `"366d" is out of range (1h to 365d)`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Load(place(t, map[string]string{"etc/semper/update.d/x.toml": c.text}), "")
			refused(t, err, c.want)
		})
	}
}

// Values at the limits are allowed.
func TestLimits(t *testing.T) {
	for _, text := range []string{
		"poll_interval = '1s'\njitter = '1s'\n", "poll_interval = '30d'\njitter = '30d'\n", "initial_delay = '720h'\n", "jitter = 0\n",
		"server = ''\n", "servers = []\n", "servers = [" + strings.Repeat("'http://a', ", 8) + "]\n",
		"channel = '" + strings.Repeat("a", 64) + "'\n", "alias = '" + strings.Repeat("ä", 64) + "'\n", "max_failures = 1\n", "pin = ''\n",
		"[network]\nproxy = ''\n", "[network]\nproxy = 'none'\n", "[network]\nproxy = 'http://me:secret@proxy:3128/'\n", "[network]\nproxy = 'https://proxy'\n",
		"[network]\nbandwidth_limit = '16KiB'\n", "[network]\nbandwidth_limit = 0\n", "[network]\nbandwidth_limit = 1048576\n",
		"[payload]\nmax_size = '1'\n", "[payload]\nmax_size = '9223372036854775807'\n",
		"[reboot]\nuser_grace = '1d'\n", "[reboot]\ninhibitor_grace = 0\n", "[reboot]\ninhibitor_grace = '30d'\n", "[reboot]\ndrain_timeout = '1s'\n",
		"[reboot]\nmax_reboots = 10\n", "[reboot]\ntime_zone = 'local'\n", "[reboot]\nwindows = [" + strings.Repeat("'02:00 1h',", 50) + "]\n",
		"[reboot.etcd]\nlease = '1m'\nendpoints = [" + strings.Repeat("'http://[::1]:2379',", 10) + "]\n",
		"[health]\ngrace = '15m'\ninterval = '1m'\n", "[health]\ninterval = '30d'\n", "[trust]\nmax_age = '1h'\n", "[trust]\nmax_age = '52w'\n",
	} {
		if _, err := Load(place(t, map[string]string{"etc/semper/update.d/x.toml": text}), ""); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

// Keys in two files that do not go together are both named with their places.
func TestCrossChecks(t *testing.T) {
	for _, c := range []struct{ a, b, want string }{
		{"poll_interval = '1m'", "\njitter = '2m'", "jitter (2m, from B:2) must not exceed poll_interval (1m, from A:1)"},
		{"", "jitter = '46m'", "jitter (46m, from B:1) must not exceed poll_interval (45m, from the defaults)"},
		{"[reboot]\nstrategy = 'window'", "", `reboot.strategy "window" (from A:2) needs reboot.windows, which is empty (from the defaults)`},
		{"[reboot]\nstrategy = 'window'\nwindows = ['02:00 1h']", "[reboot]\nwindows = []", `reboot.strategy "window" (from A:2) needs reboot.windows, which is empty (from B:2)`},
		{"[reboot]\nstrategy = 'fleetlock'", "[reboot.fleetlock]\nurl = ''", `reboot.strategy "fleetlock" (from A:2) needs reboot.fleetlock.url, which is empty (from B:2)`},
		{"[reboot]\nstrategy = 'etcd'", "", `reboot.strategy "etcd" (from A:2) needs reboot.etcd.endpoints, which is empty (from the defaults)`},
		{"[network]\nclient_certificate = '/a'", "[network]\nclient_key = ''", `network.client_certificate ("/a", from A:2) needs network.client_key, which is empty (from B:2)`},
		{"", "[network]\nclient_key = '/b'", `network.client_key ("/b", from B:2) needs network.client_certificate, which is empty (from the defaults)`},
		{"[reboot.etcd]\ncertificate = '/a'", "", `reboot.etcd.certificate ("/a", from A:2) needs reboot.etcd.key`},
		{"[reboot.etcd]\nkey = '/a'", "", `reboot.etcd.key ("/a", from A:2) needs reboot.etcd.certificate`},
		{"[reboot.etcd]\nusername = 'u'", "", `reboot.etcd.username ("u", from A:2) needs reboot.etcd.password_file`},
		{"[reboot.etcd]\npassword_file = '/p'", "", `reboot.etcd.password_file ("/p", from A:2) needs reboot.etcd.username`},
	} {
		root := place(t, map[string]string{"usr/lib/semper/update.d/a.toml": c.a, "run/semper/update.d/b.toml": c.b})
		_, err := Load(root, "")
		want := strings.ReplaceAll(c.want, "from A:", "from "+root+"/usr/lib/semper/update.d/a.toml:")
		refused(t, err, strings.ReplaceAll(want, "from B:", "from "+root+"/run/semper/update.d/b.toml:"))
	}
}
