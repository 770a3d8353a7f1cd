package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/wire"
)

// serve answers every question with reply and returns the socket's path and the questions.
func serve(t *testing.T, reply agent.Reply) (string, <-chan string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	asked := make(chan string, 10)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			line, _ := bufio.NewReader(c).ReadString('\n')
			asked <- strings.TrimSpace(line)
			data, _ := json.Marshal(reply)
			_, _ = c.Write(append(data, '\n'))
			c.Close()
		}
	}()
	return path, asked
}

func ctl(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	code = run(t.Context(), args, &out, &errs)
	return code, out.String(), errs.String()
}

var now = time.Date(2026, 3, 1, 3, 0, 0, 0, time.UTC)

func before(d time.Duration) time.Time { return now.Add(-d) }

func TestStatusIsReadable(t *testing.T) {
	for _, c := range []struct {
		name string
		r    agent.Report
		want string
	}{
		{"all well", agent.Report{
			Version: "1.1.0", Slot: "B", State: agent.StateIdle, Servers: []string{"http://updates.example/v1/update"}, Channel: "stable",
			LastCheck: before(10 * time.Minute), CheckResult: "no update", NextCheck: now.Add(35 * time.Minute), Reboot: "immediate",
		}, `
Running:      1.1.0 (slot B)
State:        idle: waiting for the next check
Server:       http://updates.example/v1/update, channel stable
Last check:   2026-03-01 02:50:00 UTC (10 min ago): no update
Next check:   2026-03-01 03:35:00 UTC (in 35 min)
Last error:   none
`},
		{"rolled back", agent.Report{
			Version: "1.1.0", Slot: "B", State: agent.StateIdle, Servers: []string{"http://updates.example/v1/update"}, Channel: "stable", Unreported: 1,
			RolledBack: &wire.RolledBack{Version: "1.2.0", Reason: "health check 50-db failed: exit status 1: no database", At: before(3 * time.Hour)},
			LastError:  &agent.Problem{Text: "rolled back from 1.2.0: health check 50-db failed", At: before(3 * time.Hour)},
			Failed:     []agent.Failed{{Version: "1.2.0", At: before(3 * time.Hour)}},
		}, `
Running:      1.1.0 (slot B)
State:        idle: waiting for the next check
Rolled back:  from 1.2.0, 2026-03-01 00:00:00 UTC (3 h ago)
  reason:     health check 50-db failed: exit status 1: no database
Server:       http://updates.example/v1/update, channel stable
Last check:   never
Unreported:   1 event(s) that the server has not got yet
Last error:   2026-03-01 00:00:00 UTC (3 h ago): rolled back from 1.2.0: health check 50-db failed
Not retried:  1.2.0, failed 2026-03-01 00:00:00 UTC (3 h ago) (semperctl retry 1.2.0 tries it again)
`},
		{"downloading", agent.Report{
			Version: "1.1.0", Slot: "B", State: agent.StateDownloading, Why: "version 1.2.0", Servers: []string{"http://x/v1/update"}, Channel: "beta",
			Progress: &agent.Progress{Version: "1.2.0", Done: 50 << 20, Total: 200 << 20}, LastCheck: before(time.Second), CheckResult: "the server offers 1.2.0",
		}, `
Running:      1.1.0 (slot B)
State:        downloading 1.2.0: 50.0 MiB of 200.0 MiB (25 %)
Server:       http://x/v1/update, channel beta
Last check:   2026-03-01 02:59:59 UTC (1 s ago): the server offers 1.2.0
Last error:   none
`},
		{"pending, no server", agent.Report{
			Version: "1.1.0", Slot: "B", State: agent.StatePending, Why: "version 1.2.0 is installed", Since: before(50 * time.Hour), Reboot: "off",
			Pending: &wire.Pending{Version: "1.2.0", From: "1.1.0", At: before(50 * time.Hour)},
		}, `
Running:      1.1.0 (slot B)
State:        pending: version 1.2.0 is installed, since 2026-02-27 01:00:00 UTC (2 days ago)
Installed:    1.2.0, 2026-02-27 01:00:00 UTC (2 days ago); reboot into it when it suits you: systemctl reboot
Server:       none is set (server = "http://HOST/v1/update" in /etc/semper/update.d/*.toml)
Last error:   none
`},
		{"on trial", agent.Report{Version: "1.2.0", Slot: "A", Trial: true, State: agent.StateTrial, Why: "version 1.2.0 must pass its health checks", Since: before(30 * time.Second)}, `
Running:      1.2.0 (slot A), on trial: its health checks are not through yet
State:        trial: version 1.2.0 must pass its health checks, since 2026-03-01 02:59:30 UTC (30 s ago)
Server:       none is set (server = "http://HOST/v1/update" in /etc/semper/update.d/*.toml)
Last error:   none
`},
		{"soft-rebooted, and soon again", agent.Report{
			Version: "1.1.0", Slot: "B", State: agent.StatePending, Why: "version 1.2.0 is installed", Soft: &wire.Soft{Count: 2, Version: "1.0.0", Slot: "A"},
			Pending: &wire.Pending{Version: "1.2.0", From: "1.1.0", At: before(time.Minute)}, RebootBy: "a soft-reboot: only user space changed",
		}, `
Running:      1.1.0 (slot B)
Kernel:       of 1.0.0 (slot A), which the machine booted; soft-rebooted 2 times since
State:        pending: version 1.2.0 is installed
Installed:    1.2.0, 2026-03-01 02:59:00 UTC (60 s ago); the machine reboots into it by itself, by a soft-reboot: only user space changed
Server:       none is set (server = "http://HOST/v1/update" in /etc/semper/update.d/*.toml)
Last error:   none
`},
		{"a bad night", agent.Report{
			Version: "1.1.0", Slot: "B", State: agent.StatePending, Why: "version 1.2.0 is installed", Since: before(time.Hour), Reboot: "etcd", MaxFailures: 2,
			Pending: &wire.Pending{Version: "1.2.0", From: "1.1.0", At: before(time.Hour)}, Waiting: "waits for the fleet's reboot lock: 1 of 1 slots are taken by db-3",
			Servers: []string{"https://a/v1/update", "https://b/v1/update"}, Channel: "stable", Metered: true, Pin: "1.2.0",
			Paused: &agent.Pause{Reason: "audit", By: "ada"}, Sick: &agent.Sickness{Version: "1.1.0", Since: before(2 * time.Hour), Why: "health check 50-db failed"},
			Failed:    []agent.Failed{{Version: "1.1.5", At: before(3 * time.Hour), Times: 1}},
			Freshness: agent.Freshness{Problem: "the statement expired on 2026-02-01"},
		}, `
Running:      1.1.0 (slot B)
State:        pending: version 1.2.0 is installed, since 2026-03-01 02:00:00 UTC (60 min ago)
UNHEALTHY:    2026-03-01 01:00:00 UTC (2 h ago): health check 50-db failed
Installed:    1.2.0, 2026-03-01 02:00:00 UTC (60 min ago); waits for the fleet's reboot lock: 1 of 1 slots are taken by db-3
PAUSED:       by ada: audit (semperctl resume)
Metered:      nothing is downloaded (semperctl metered off)
Pinned:       to 1.2.0
Server:       https://a/v1/update, https://b/v1/update, channel stable
Last check:   never
Last error:   none
Failed:       1.1.5, 1 of 2 times, 2026-03-01 00:00:00 UTC (3 h ago)
Freshness:    the statement expired on 2026-02-01
`},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			printStatus(&out, &c.r, now)
			if got := "\n" + out.String(); got != c.want {
				t.Errorf("got%swant%s", got, c.want)
			}
		})
	}
}

func TestExitCodes(t *testing.T) {
	well := agent.Reply{Status: &agent.Report{Version: "1.0.0"}}
	blind := agent.Reply{Status: &agent.Report{InstallerError: "connection refused"}}
	failed := agent.Reply{Error: "update to 1.2.0: the payload's metadata has 1 signature(s)", Kind: "verification"}
	for _, c := range []struct {
		name           string
		reply          agent.Reply
		args           []string
		code           int
		asked          string
		stdout, stderr string // parts of them; "-" wants nothing at all
	}{
		{"status", well, []string{"status"}, 0, `{"verb":"status"}`, "1.0.0", "-"},
		{"status json", well, []string{"status", "--json"}, 0, `{"verb":"status"}`, `"version": "1.0.0"`, "-"},
		{"status without installer", blind, []string{"status"}, 1, `{"verb":"status"}`, "Installer:    does not answer", "the installer does not answer: connection refused"},
		{"the same in json", blind, []string{"status", "--json"}, 1, `{"verb":"status"}`, `"installer_error": "connection refused"`, "does not answer"},
		{"update", agent.Reply{Text: "version 1.2.0 is installed"}, []string{"update"}, 0, `{"verb":"update"}`, "version 1.2.0 is installed\n", "-"},
		{"update, failed", failed, []string{"update", "--retry"}, 1, `{"verb":"update","retry":true}`, "-", "semperctl: update to 1.2.0"},
		{"the same in json", failed, []string{"--json", "update"}, 1, `{"verb":"update"}`, `"kind": "verification"`, "-"},
		{"not root", agent.Reply{Error: "only root may do that", Kind: "usage"}, []string{"check"}, 2, `{"verb":"check"}`, "-", "only root"},
		{"check json", agent.Reply{Text: "no update"}, []string{"check", "--json"}, 0, `{"verb":"check"}`, `"result": "no update"`, "-"},
		{"history", agent.Reply{History: []agent.Entry{{At: now, State: "pending", Text: "version 1.2.0"}}}, []string{"history"}, 0, `{"verb":"history"}`, "2026-03-01 03:00:00  pending      version 1.2.0\n", "-"},
		{"empty history json", agent.Reply{}, []string{"history", "--json"}, 0, `{"verb":"history"}`, "[]\n", "-"},
		{
			"counted history",
			agent.Reply{History: []agent.Entry{{At: now, State: "idle", Text: "no update", Times: 3, Last: now.Add(time.Hour)}}},
			[]string{"history"},
			0, `{"verb":"history"}`,
			"2026-03-01 03:00:00  idle         no update (3 checks, the last on 2026-03-01 04:00:00)\n", "-",
		},
		{"why", well, []string{"why"}, 0, `{"verb":"status"}`, "No update server is set, so the machine never asks", "-"},
		{"why json", well, []string{"why", "--json"}, 0, `{"verb":"status"}`, `"why": [`, "-"},
		{"metrics", well, []string{"metrics"}, 0, `{"verb":"status"}`, "\nsemper_info{version=\"1.0.0\",slot=\"\",channel=\"\",strategy=\"\"} 1\n", "-"},
		{"cancel", agent.Reply{Text: "cancelled"}, []string{"cancel"}, 0, `{"verb":"cancel"}`, "cancelled\n", "-"},
		{"resume", agent.Reply{Text: "resumed"}, []string{"resume"}, 0, `{"verb":"resume"}`, "resumed\n", "-"},
		{"metered", agent.Reply{Text: "the line is metered"}, []string{"metered", "on"}, 0, `{"verb":"metered","on":true}`, "metered", "-"},
		{"metered, mistyped", well, []string{"metered", "yes"}, 2, "", "-", "wants one of on, off"},
		{"retry", agent.Reply{Text: "forgiven"}, []string{"retry", "1.2.0"}, 0, `{"verb":"retry","version":"1.2.0"}`, "forgiven", "-"},
		{"retry, never failed", agent.Reply{Error: "version 1.2.0 has not failed here", Kind: "input"}, []string{"retry", "1.2.0"}, 1, `{"verb":"retry","version":"1.2.0"}`, "-", "has not failed here"},
		{"reload", agent.Reply{Error: "/etc/semper/update.d/x.toml:1: unknown key", Kind: "input"}, []string{"reload"}, 1, `{"verb":"reload"}`, "-", "x.toml:1"},
		{"config show", agent.Reply{Text: "channel = \"stable\"   # default\n"}, []string{"config", "show"}, 0, `{"verb":"config"}`, "channel = \"stable\"   # default\n", "-"},
		{"channel", agent.Reply{Status: &agent.Report{Channel: "beta"}}, []string{"channel"}, 0, `{"verb":"status"}`, "beta\n", "-"},
		{"channel json", agent.Reply{Status: &agent.Report{Channel: "beta"}}, []string{"channel", "--json"}, 0, `{"verb":"status"}`, `"channel": "beta"`, "-"},
		{"not pinned", well, []string{"pin"}, 0, `{"verb":"status"}`, "not pinned\n", "-"},
		{"pin contradiction", well, []string{"pin", "1.0.0", "--off"}, 2, "", "-", "contradict"},
		{"rollback without installer", well, []string{"rollback", "--install-socket", "/nowhere"}, 1, "", "-", "semper-installd"},
		{"downgrade without installer", well, []string{"update", "--allow-downgrade", "1.0.0", "--install-socket", "/nowhere"}, 1, "", "-", "semper-installd"},
		{"no such verb", well, []string{"upgrade"}, 2, "", "-", `"upgrade"`},
		{"no such flag", well, []string{"status", "--jsn"}, 2, "", "-", "--jsn"},
		{"argument", well, []string{"update", "1.2.0"}, 2, "", "-", "takes no arguments"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, asked := serve(t, c.reply)
			code, stdout, stderr := ctl(t, append(c.args, "--socket", path)...)
			if code != c.code {
				t.Errorf("exit code %d, want %d", code, c.code)
			}
			for _, s := range []struct{ name, got, want string }{{"stdout", stdout, c.stdout}, {"stderr", stderr, c.stderr}} {
				if s.want == "-" && s.got != "" || s.want != "-" && !strings.Contains(s.got, s.want) {
					t.Errorf("%s is %q, want %q", s.name, s.got, s.want)
				}
			}
			select {
			case q := <-asked:
				if q != c.asked {
					t.Errorf("asked %s, want %s", q, c.asked)
				}
			default:
				if c.asked != "" {
					t.Error("nothing was asked")
				}
			}
		})
	}
}

func TestNoAgent(t *testing.T) {
	code, _, stderr := ctl(t, "status", "--socket", filepath.Join(t.TempDir(), "nobody"))
	if code != 1 || !strings.Contains(stderr, "semperd does not answer (see 'systemctl status semperd')") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
}

func TestHealth(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "etc/semper/health.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	record := filepath.Join(t.TempDir(), "health.json")
	read := func() health.Result {
		data, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err)
		}
		var r health.Result
		if err := json.Unmarshal(data, &r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	code, stdout, _ := ctl(t, "health", "--root", root, "--record", record)
	if code != 0 || !read().Healthy || stdout != "there are no health checks\n" {
		t.Errorf("no checks: exit code %d, %q", code, stdout)
	}
	write("10-good", "#!/bin/sh\n")
	write("20-bad", "#!/bin/sh\necho no database\nexit 1\n")
	code, stdout, stderr := ctl(t, "health", "--root", root, "--record", record)
	if r := read(); code != 1 || r.Healthy || r.Failed().Output != "no database\n" {
		t.Errorf("exit code %d, %+v", code, r)
	}
	if !strings.Contains(stdout, "ok      10-good") || !strings.Contains(stdout, "FAILED  20-bad") || !strings.Contains(stdout, "no database\n") ||
		stderr != "semperctl: health check 20-bad failed: exit status 1: no database\n" {
		t.Errorf("%q, %q", stdout, stderr)
	}
	code, stdout, _ = ctl(t, "health", "--json", "--root", root)
	var r health.Result
	if err := json.Unmarshal([]byte(stdout), &r); err != nil || code != 1 || r.Healthy {
		t.Errorf("json: exit code %d, %v, %q", code, err, stdout)
	}
	write("15-maybe.toml", "exec = [\"/bin/false\"]\nrequired = false\n")
	write("20-bad", "#!/bin/sh\n")
	code, stdout, stderr = ctl(t, "health", "--root", root, "--record", record)
	if code != 0 || !strings.Contains(stdout, "warn    15-maybe (") || !strings.Contains(stdout, "): exit status 1\n") || stderr != "" || len(read().Checks) != 3 {
		t.Errorf("advisory: exit code %d, %q, %q", code, stdout, stderr)
	}
	if info, err := os.Stat(record); err != nil || info.Mode().Perm() != 0o644 {
		t.Errorf("record: %v, %v", info, err)
	}
	write("16-broken.toml", "unti = \"a.service\"\n")
	code, _, stderr = ctl(t, "health", "--root", root)
	if code != 1 || !strings.Contains(stderr, `16-broken.toml:1: unknown key "unti", did you mean "unit"?`) {
		t.Errorf("broken file: exit code %d, %q", code, stderr)
	}
	if code, _, stderr = ctl(t, "health", "--server", "perhaps"); code != 2 || !strings.Contains(stderr, "--server") {
		t.Errorf("wrong mode: exit code %d, %q", code, stderr)
	}
	if code, _, stderr = ctl(t, "health", "--root", root, "--record", "/nonexistent/x"); code != 1 || !strings.Contains(stderr, "/nonexistent") {
		t.Errorf("unwritable record: exit code %d, %q", code, stderr)
	}
}

func TestHealthMonitor(t *testing.T) {
	root, state := t.TempDir(), filepath.Join(t.TempDir(), "health")
	dir, boot := filepath.Join(root, "etc/semper/health.d"), filepath.Join(root, "boot.json")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		filepath.Join(dir, "10-bad.toml"): "exec = [\"/bin/false\"]\ngrace = \"15m\"\n", // would wait for a quarter of an hour, were there graces
		filepath.Join(dir, "20-good"):     "#!/bin/sh\n",
		boot: `{"schema":1,"disk":"/dev/vda","partitions":{"esp":"/dev/vda2","root":"/dev/vda3","verity":"/dev/vda4","verity_sig":"/dev/vda5","var":"/dev/vda9"},` +
			`"slot":"a","version":"1.2.0","root_hash":"` + strings.Repeat("ab", 32) + `"}`,
	} {
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	record := filepath.Join(root, "later.json")
	for i, want := range []struct {
		sick    bool
		changed health.Change
		text    string
	}{{}, {}, {true, health.BecameSick, "version 1.2.0 is sick from now on: 10-bad failed in 3 runs in a row\n"}, {true, "", "version 1.2.0 is sick since "}} {
		code, stdout, stderr := ctl(t, "health", "--root", root, "--boot", boot, "--monitor", filepath.Join(state, "monitor.json"), "--record", record)
		data, err := os.ReadFile(record)
		if err != nil {
			t.Fatal(err, stderr)
		}
		var got health.Later
		if err := json.Unmarshal(data, &got); err != nil {
			t.Fatal(err)
		}
		v := got.Verdict
		if code != 1 || v.Sick != want.sick || v.Changed != want.changed || v.Version != "1.2.0" || !strings.Contains(stdout, want.text) || len(got.Checks) != 2 || got.Healthy {
			t.Errorf("run %d: exit code %d, %+v, %q, %q", i, code, got, stdout, stderr)
		}
	}
	code, stdout, _ := ctl(t, "health", "--json", "--root", root, "--boot", boot, "--monitor", filepath.Join(state, "monitor.json"))
	var got health.Later
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 1 || !got.Verdict.Sick {
		t.Errorf("json: exit code %d, %v, %q", code, err, stdout)
	}
	if code, _, stderr := ctl(t, "health", "--root", root, "--boot", filepath.Join(root, "nothing"), "--monitor", filepath.Join(state, "monitor.json")); code != 1 || !strings.Contains(stderr, "how this system was started") {
		t.Errorf("unknown version: exit code %d, %q", code, stderr)
	}
}

func TestReached(t *testing.T) {
	servers := []string{"http://u/v1/update"}
	for _, c := range []struct {
		name string
		r    agent.Report
		want string
	}{
		{"reached", agent.Report{Servers: servers, Reached: true}, ""},
		{"no server", agent.Report{}, ""},
		{"not yet", agent.Report{Servers: servers}, "no update server has answered since this boot"},
		{"in vain", agent.Report{Servers: servers, LastError: &agent.Problem{Kind: "network", Text: "connection refused"}}, "no update server has answered since this boot: connection refused"},
		{"another error", agent.Report{Servers: servers, LastError: &agent.Problem{Kind: "io", Text: "the disk"}}, "no update server has answered since this boot"},
	} {
		err := reached(&c.r)
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// What the check of the server means is for the settings to say, unless a flag does; later runs never make a version sick for it.
func TestServerCheckFollowsSettings(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "etc/semper/health.d")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "30-server.toml"), []byte("builtin = \"server\"\ngrace = \"12m\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode  string
		trial bool
		args  []string
		code  int
		want  string
	}{
		{"required", true, nil, 1, "FAILED  30-server"},
		{"required", false, nil, 0, "ok      30-server"}, // it was healthy before: nothing depends on the server
		{"advisory", true, nil, 0, "warn    30-server"},
		{"off", true, nil, 0, "there are no health checks"},
		{"off", false, []string{"--server", "required"}, 1, "FAILED  30-server"},
	} {
		path, _ := serve(t, agent.Reply{Status: &agent.Report{
			Version: "1.0.0", Trial: c.trial, Servers: []string{"http://u/v1/update"}, HealthServer: c.mode, HealthGrace: 0,
		}})
		args := append([]string{"health", "--root", root, "--socket", path}, c.args...)
		if len(c.args) > 0 { // the flag leaves the file's grace
			if err := os.WriteFile(filepath.Join(dir, "30-server.toml"), []byte("builtin = \"server\"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		if code, out, errs := ctl(t, args...); code != c.code || !strings.Contains(out, c.want) {
			t.Errorf("%s %v: exit code %d, %q %q, want %d, %q", c.mode, c.args, code, out, errs, c.code, c.want)
		}
	}
}

// The channel is a drop-in of the administrator's folder, which semperd is then told to read; what would not be read is not written.
func TestChannelWritesDropIn(t *testing.T) {
	root := t.TempDir()
	if err := os.MkdirAll(filepath.Join(root, "etc/semper"), 0o755); err != nil {
		t.Fatal(err)
	}
	path, asked := serve(t, agent.Reply{Text: "the settings were read again"})
	try := func(args ...string) (int, string) {
		var out, errs bytes.Buffer
		code := runIn(t.Context(), root, append(args, "--socket", path), &out, &errs)
		return code, out.String() + errs.String()
	}
	file := filepath.Join(root, "etc/semper/update.d/90-semperctl.toml")
	if code, text := try("channel", "beta"); code != 0 || text != "the machine follows channel beta\n" {
		t.Errorf("exit code %d, %q", code, text)
	}
	if q := <-asked; q != `{"verb":"reload"}` {
		t.Errorf("asked %s", q)
	}
	if code, text := try("pin", "1.2.0"); code != 0 {
		t.Errorf("exit code %d, %q", code, text)
	}
	data, err := os.ReadFile(file)
	if err != nil || !strings.Contains(string(data), "channel = \"beta\"\n") && !strings.Contains(string(data), "channel = 'beta'\n") {
		t.Errorf("%v: %s", err, data)
	}
	if code, text := try("channel", "a b"); code != 1 || !strings.Contains(text, "only letters, digits") {
		t.Errorf("exit code %d, %q", code, text)
	}
	if again, err := os.ReadFile(file); err != nil || !bytes.Equal(again, data) {
		t.Errorf("a refused value was written: %v %s", err, again)
	}
	late := filepath.Join(root, "run/semper/update.d")
	if err := os.MkdirAll(late, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(late, "x.toml"), []byte("channel = \"alpha\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if code, text := try("channel", "stable"); code != 1 || !strings.Contains(text, "overrides it") {
		t.Errorf("exit code %d, %q", code, text)
	}
}

// The manual has a page for each verb, and is the same each time.
func TestManualPages(t *testing.T) {
	dirs := [2]string{t.TempDir(), t.TempDir()}
	for _, d := range dirs {
		if code, _, errs := ctl(t, "man", d); code != 0 {
			t.Fatalf("exit code %d, %s", code, errs)
		}
	}
	for _, page := range []string{"semperctl.8", "semperctl-status.8", "semperctl-why.8", "semperctl-etc-diff.8", "semperctl-config-show.8", "semperctl-rollback.8"} {
		a, err := os.ReadFile(filepath.Join(dirs[0], page))
		if err != nil {
			t.Error(err)
			continue
		}
		b, err := os.ReadFile(filepath.Join(dirs[1], page))
		if err != nil || !bytes.Equal(a, b) || !bytes.Contains(a, []byte(".TH")) {
			t.Errorf("%s: %v", page, err)
		}
	}
}
