package health

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// systemctl writes a program that answers as systemctl does, and checks how it is asked.
func systemctl(t *testing.T, cases string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "systemctl")
	script := "#!/bin/sh\n[ \"$1 $2\" = '--no-pager --full' ] || exit 9\nshift 2\ncase \"$*\" in\n" + cases + "*) echo \"unexpected: $*\" >&2; exit 8 ;;\nesac\n"
	if err := os.WriteFile(path, []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestFailedUnits(t *testing.T) {
	const list = "'list-units --state=failed --plain --no-legend')\n"
	for _, c := range []struct{ name, cases, problem, output string }{
		{"none", list + ";;\n", "", ""},
		{
			"of the image, of its owner, of a generator, waiting for the network",
			list + `cat <<'END'
a.service                          loaded failed failed A
mine.service                       loaded failed failed Mine
mnt-x.mount                        loaded failed failed /mnt/x
systemd-networkd-wait-online.service loaded failed failed Wait
systemd-networkd-wait-online@eth0.service loaded failed failed Wait
semper-rollback.service            loaded failed failed Back
b@1\x2d2.service                   loaded failed failed B
gone.service                       not-found failed failed gone.service
END
;;
'show --property=Id,FragmentPath -- a.service mine.service mnt-x.mount b@1\x2d2.service gone.service') cat <<'END'
Id=a.service
FragmentPath=/usr/lib/systemd/system/a.service

Id=mine.service
FragmentPath=/etc/systemd/system/mine.service

Id=mnt-x.mount
FragmentPath=/run/systemd/generator/mnt-x.mount

Id=b@1\x2d2.service
FragmentPath=/usr/lib/systemd/system/b@.service

Id=gone.service
FragmentPath=
END
;;
'status --lines=10 -- a.service b@1\x2d2.service') echo "a.service: no database"; exit 3 ;;
`, `failed units: a.service b@1\x2d2.service`, "a.service: no database\n",
		},
		{
			"only the owner's",
			list + "echo mine.service loaded failed failed Mine ;;\n'show --property=Id,FragmentPath -- mine.service') echo Id=mine.service; echo FragmentPath=/etc/systemd/system/mine.service ;;\n", "", "",
		},
		{"systemd does not answer", list + "printf 'No systemd.\\nFailed to connect\\n' >&2; exit 1 ;;\n", "systemd does not say which units have failed: exit status 1: No systemd.; Failed to connect", ""},
		{
			"less than was asked for",
			list + "echo a.service; echo b.service ;;\n'show --property=Id,FragmentPath -- a.service b.service') echo Id=a.service ;;\n", "systemd told of 1 units, asked for 2", "",
		},
		{"more than can be meant", list + "i=0; while [ $i -lt 101 ]; do echo x$i.service; i=$((i+1)); done ;;\n", "101 units have failed", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := Host{Systemctl: systemctl(t, c.cases)}
			got := h.check(t.Context(), Check{Kind: Builtin, Builtin: FailedUnits}, DefaultTimeout)
			if got.Problem != c.problem || got.Output != c.output {
				t.Errorf("got %+v\nwant %s, %q", got, c.problem, c.output)
			}
		})
	}
	none := Host{Systemctl: "/nonexistent/systemctl"}
	if got := none.check(t.Context(), Check{Kind: Builtin, Builtin: FailedUnits}, DefaultTimeout); got.OK() {
		t.Error("passed without systemctl")
	}
}

func TestUnitStates(t *testing.T) {
	const show = "'show --property=Id,LoadState,ActiveState,SubState,Result,ConditionResult,ExecMainExitTimestampMonotonic -- x.service')"
	props := func(words string) string {
		keys := []string{"LoadState", "ActiveState", "SubState", "Result", "ConditionResult", "ExecMainExitTimestampMonotonic"}
		out := "Id=x.service\n"
		for i, w := range strings.Fields(words) {
			out += keys[i] + "=" + w + "\n"
		}
		return out
	}
	for _, c := range []struct {
		words            string
		active, exitedOK string // the problem; "" passes
	}{
		{"loaded active running success yes 0", "", "x.service is active (running), want exited-ok"},
		{"loaded active listening success yes", "", "x.service is active (listening), want exited-ok"},
		{"loaded active exited success yes 12345", "", ""},
		{"loaded reloading reload success yes 0", "", "x.service is reloading (reload), want exited-ok"},
		{"loaded inactive dead success yes 12345", "x.service is inactive (dead), want active", ""},
		{"loaded inactive dead success no 0", "x.service is inactive (dead), want active", "x.service did not run: one of its conditions is not met"},
		{"loaded inactive dead success yes 0", "x.service is inactive (dead), want active", "x.service did not run yet"},
		{"loaded activating start success yes 0", "x.service is activating (start), want active", "x.service is activating (start), want exited-ok"},
		{"loaded failed failed exit-code yes 12345", "x.service is failed (failed), want active", "x.service is failed (failed), want exited-ok"},
		{"not-found inactive dead success no 0", `x.service: systemd says "not-found" instead of loaded`, `x.service: systemd says "not-found" instead of loaded`},
		{"masked inactive dead success no 0", `x.service: systemd says "masked" instead of loaded`, `x.service: systemd says "masked" instead of loaded`},
	} {
		h := Host{Systemctl: systemctl(t, show+" cat <<'END'\n"+props(c.words)+"END\n;;\n'status --lines=10 -- x.service') echo why; exit 3 ;;\n")}
		for state, want := range map[State]string{Active: c.active, ExitedOK: c.exitedOK} {
			got := h.check(t.Context(), Check{Kind: Unit, Unit: "x.service", State: state}, DefaultTimeout)
			output := ""
			if want != "" && strings.HasPrefix(c.words, "loaded") {
				output = "why\n"
			}
			if got.Problem != want || got.Output != output {
				t.Errorf("%s, want %s: %+v\nwant %q, %q", c.words, state, got, want, output)
			}
		}
	}
}

const (
	routeHead = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
	route4    = "eth0\t00000000\t0202000A\t0003\t0\t0\t1024\t00000000\t0\t0\t0\n"
	local4    = "eth0\t0002000A\t00000000\t0001\t0\t0\t1024\t00FFFFFF\t0\t0\t0\n"
	half4     = "tun0\t00000000\t00000000\t0003\t0\t0\t0\t00000080\t0\t0\t0\n" // 0.0.0.0/1
	reject4   = "*\t00000000\t00000000\t0200\t0\t0\t0\t00000000\t0\t0\t0\n"
	route6    = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe800000000000000000000000000002 00000400 00000001 00000000 00000003     eth0\n"
	reject6   = "00000000000000000000000000000000 00 00000000000000000000000000000000 00 00000000000000000000000000000000 ffffffff 00000001 00000000 00200200       lo\n"
	local6    = "fe800000000000000000000000000000 40 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 00000001     eth0\n"
)

func TestNetwork(t *testing.T) {
	for _, c := range []struct {
		name, v4, v6 string
		addresses    []string
		want         string
	}{
		{"IPv4", routeHead + local4 + route4, local6 + reject6, []string{"127.0.0.1/8", "10.0.2.15/24", "fe80::1/64"}, ""},
		{"IPv6 alone", routeHead, local6 + route6 + reject6, []string{"::1/128", "2001:db8::5/64"}, ""},
		{"no IPv6 in the kernel", routeHead + route4, "-", []string{"192.0.2.1/24"}, ""},
		{"no route", routeHead + local4, local6 + reject6, []string{"10.0.2.15/24"}, "there is no default route"},
		{"half of the addresses is no default", routeHead + half4, "", []string{"10.0.2.15/24"}, "there is no default route"},
		{"a route that rejects", routeHead + reject4, reject6, []string{"10.0.2.15/24"}, "there is no default route"},
		{"no address", routeHead + route4, "", []string{"127.0.0.1/8", "169.254.3.4/16", "fe80::1/64"}, "there is a default route for IPv4, but no global address"},
		{"address of the other family", routeHead, route6, []string{"10.0.2.15/24", "fe80::1/64"}, "there is a default route for IPv6, but no global address"},
		{"nothing at all", "-", "-", nil, "there is no default route"},
	} {
		t.Run(c.name, func(t *testing.T) {
			files := map[string]string{}
			if c.v4 != "-" {
				files["proc/net/route"] = c.v4
			}
			if c.v6 != "-" {
				files["proc/net/ipv6_route"] = c.v6
			}
			h := Host{Root: place(t, files), Addresses: func() ([]net.Addr, error) {
				var all []net.Addr
				for _, a := range c.addresses {
					ip, n, err := net.ParseCIDR(a)
					if err != nil {
						t.Fatal(err)
					}
					all = append(all, &net.IPNet{IP: ip, Mask: n.Mask})
				}
				return all, nil
			}}
			if got := h.check(t.Context(), Check{Kind: Builtin, Builtin: Network}, DefaultTimeout); got.Problem != c.want {
				t.Errorf("got %q, want %q", got.Problem, c.want)
			}
		})
	}
	broken := Host{Root: place(t, nil), Addresses: func() ([]net.Addr, error) { return nil, errors.New("netlink") }}
	if got := broken.check(t.Context(), Check{Kind: Builtin, Builtin: Network}, DefaultTimeout); got.Problem != "netlink" {
		t.Errorf("got %q", got.Problem)
	}
}

func TestAgentAndServer(t *testing.T) {
	no := func(context.Context) error { return errors.New("no answer") }
	yes := func(context.Context) error { return nil }
	checks := []Check{
		{Name: "agent", Kind: Builtin, Builtin: Agent, Required: true},
		{Name: "server", Kind: Builtin, Builtin: Server, Required: true},
	}
	for _, c := range []struct {
		name    string
		host    Host
		healthy bool
		want    string
	}{
		{"both answer", Host{Agent: yes, Server: yes, ServerMode: ModeRequired}, true, "agent: , server: "},
		{"server required", Host{Agent: yes, Server: no, ServerMode: ModeRequired}, false, "agent: , server: no answer"},
		{"server advisory", Host{Agent: yes, Server: no, ServerMode: ModeAdvisory}, true, "agent: , server: no answer"},
		{"server off", Host{Agent: yes, Server: no, ServerMode: ModeOff}, true, "agent: "},
		{"no setting", Host{Agent: yes, Server: no}, true, "agent: "},
		{"no agent", Host{Agent: no, Server: yes, ServerMode: ModeRequired}, false, "agent: no answer"},
		{"nobody to ask", Host{}, false, `agent: this program cannot run the builtin check "agent"`},
	} {
		o := newClock().options()
		o.Host = c.host
		r := Run(t.Context(), checks, o)
		var got []string
		for _, one := range r.Checks {
			got = append(got, one.Name+": "+one.Problem)
		}
		if s := strings.Join(got, ", "); s != c.want || r.Healthy != c.healthy {
			t.Errorf("%s: healthy %v, %s\nwant %v, %s", c.name, r.Healthy, s, c.healthy, c.want)
		}
	}
}
