package logind

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/prop"

	"github.com/semper-os/semper/fault"
)

// startBus runs a private dbus-daemon on the socket until stop is called or the test ends.
func startBus(t *testing.T, socket string) (address string, stop func()) {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Fatalf("this test needs dbus-daemon, of the Debian package dbus-daemon: %v", err)
	}
	config := socket + ".conf"
	// What a system bus allows everybody towards logind; names may be owned, for the test is logind.
	err := os.WriteFile(config, fmt.Appendf(nil, `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN" "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig><listen>unix:path=%s</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/><allow send_type="signal"/>
<allow send_requested_reply="true" send_type="method_return"/><allow send_requested_reply="true" send_type="error"/>
<allow receive_type="method_call"/><allow receive_type="method_return"/><allow receive_type="error"/><allow receive_type="signal"/></policy></busconfig>`, socket), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nopidfile", "--nosyslog", "--print-address=1")
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cmd.Process.Kill()
			cmd.Wait()
		})
	}
	t.Cleanup(stop)
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		stop()
		t.Fatalf("dbus-daemon says no address: %v\n%s", err, said.String())
	}
	return strings.TrimSpace(line), stop
}

type inhibitor struct {
	What, Who, Why, Mode string
	UID, PID             uint32
}

type listed struct {
	ID     string
	UID    uint32
	User   string
	Seat   string
	Object dbus.ObjectPath
}

// fake is logind's Manager, with the signatures of org.freedesktop.login1(5).
type fake struct {
	inhibitors []inhibitor
	sessions   []listed
}

func (f *fake) ListInhibitors() ([]inhibitor, *dbus.Error) { return f.inhibitors, nil }
func (f *fake) ListSessions() ([]listed, *dbus.Error)      { return f.sessions, nil }

// goneSession answers as logind does for a session that ended.
type goneSession struct{}

func (goneSession) GetAll(string) (map[string]dbus.Variant, *dbus.Error) {
	return nil, dbus.NewError("org.freedesktop.DBus.Error.UnknownObject", []any{"Unknown object '/org/freedesktop/login1/session/_35'."})
}

// session is a session's properties as they go over the bus.
func session(class, kind, tty string, remote bool, host, state string, micros uint64) map[string]any {
	return map[string]any{
		"Class": class, "Type": kind, "TTY": tty, "Remote": remote, "RemoteHost": host, "State": state, "Timestamp": micros,
		"Active": state == "active", "Name": "x", "Seat": []any{"", dbus.ObjectPath("/")},
	}
}

// serve exports the fake on the bus, and a session object for each list of properties but nil ones, which are gone.
func (f *fake) serve(t *testing.T, address string, properties ...map[string]any) *dbus.Conn {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.Export(f, manager, name+".Manager"); err != nil {
		t.Fatal(err)
	}
	for i, p := range properties {
		path := dbus.ObjectPath(fmt.Sprintf("/org/freedesktop/login1/session/_3%d", i))
		f.sessions = append(f.sessions, listed{ID: fmt.Sprint(i), UID: uint32(1000 + i), User: fmt.Sprintf("user%d", i), Object: path})
		if p == nil {
			if err := conn.Export(goneSession{}, path, "org.freedesktop.DBus.Properties"); err != nil {
				t.Fatal(err)
			}
			continue
		}
		m := map[string]*prop.Prop{}
		for key, value := range p {
			m[key] = &prop.Prop{Value: value}
		}
		if _, err := prop.Export(conn, path, prop.Map{name + ".Session": m}); err != nil {
			t.Fatal(err)
		}
	}
	if reply, err := conn.RequestName(name, dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("own %s: %v, %v", name, reply, err)
	}
	return conn
}

func TestInhibitors(t *testing.T) {
	address, _ := startBus(t, filepath.Join(t.TempDir(), "bus"))
	f := &fake{inhibitors: []inhibitor{
		{"shutdown", "apt", "installing", "block", 0, 10},
		{"sleep:shutdown:idle", "backup", "half\x1b[2J\nway", "block-weak", 1000, 11},
		{"shutdown", "NetworkManager", "", "delay", 0, 12},
		{"sleep", "player", "", "block", 0, 13},
		{"handle-power-key:handle-reboot-key", "desktop", "", "block", 0, 14},
		{"shutdown-later", "x", "", "block", 0, 15},
		{"", "x", "", "block", 0, 16},
		{"shutdown", strings.Repeat("é", 101), "", "block", 0, 17},
	}}
	f.serve(t, address)
	c := &Client{Address: address}
	defer c.Close()
	got, err := c.Inhibitors(t.Context())
	want := []Inhibitor{
		{"apt", "installing", "block", 0, 10},
		{"backup", "half [2J way", "block-weak", 1000, 11},
		{strings.Repeat("é", 100) + "…", "", "block", 0, 17},
	}
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got  %q, %v\nwant %q", got, err, want)
	}
	if text := want[0].String(); text != "apt: installing (block, uid 0, pid 10)" {
		t.Error(text)
	}
}

func TestSessions(t *testing.T) {
	address, _ := startBus(t, filepath.Join(t.TempDir(), "bus"))
	const at = 1_795_662_000_000_000 // 2026-11-26 03:00 UTC
	f := &fake{}
	f.serve(t, address,
		session("user", "tty", "tty1", false, "", "active", at),            // 0: console
		session("user", "tty", "pts/0", true, "192.0.2.7", "online", at),   // 1: ssh
		session("user", "unspecified", "", true, "192.0.2.8", "active", 0), // 2: scp
		session("user-early", "tty", "tty2", false, "", "online", at),      // 3: root, since systemd 256
		session("user", "wayland", "", false, "", "active", at),            // 4: desktop
		nil, // 5: ended meanwhile
		session("user", "unspecified", "", false, "", "active", at),               // 6: cron, before systemd 256
		session("background", "unspecified", "", false, "", "active", at),         // 7: cron
		session("manager", "unspecified", "", false, "", "active", at),            // 8: user@.service
		session("greeter", "wayland", "tty1", false, "", "active", at),            // 9
		session("lock-screen", "tty", "tty1", false, "", "active", at),            // 10
		session("user", "tty", "pts/1", true, "192.0.2.9", "closing", at),         // 11: logged out, a process is left
		session("user", "tty", "pts/2", true, "\x1b]0;evil\a", "online", 1<<63-1), // 12
	)
	c := &Client{Address: address}
	defer c.Close()
	sessions, err := c.Sessions(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range sessions {
		got = append(got, fmt.Sprintf("%s uid %d remote %v active %v: %s", s.ID, s.UID, s.Remote, s.Active, s))
	}
	want := []string{
		"0 uid 1000 remote false active true: user0 on tty1 since 2026-11-26T03:00:00Z",
		"1 uid 1001 remote true active false: user1 on pts/0 from 192.0.2.7 since 2026-11-26T03:00:00Z",
		"2 uid 1002 remote true active true: user2 from 192.0.2.8",
		"3 uid 1003 remote false active false: user3 on tty2 since 2026-11-26T03:00:00Z",
		"4 uid 1004 remote false active true: user4 since 2026-11-26T03:00:00Z",
		"12 uid 1012 remote true active false: user12 on pts/2 from  ]0;evil ",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestOddSessions(t *testing.T) {
	for name, change := range map[string]func(map[string]any){
		"no property Class":  func(p map[string]any) { delete(p, "Class") },
		"no property State":  func(p map[string]any) { delete(p, "State") },
		"no property Remote": func(p map[string]any) { delete(p, "Remote") },
		"property TTY":       func(p map[string]any) { p["TTY"] = uint32(1) },
		"property Timestamp": func(p map[string]any) { p["Timestamp"] = "now" },
	} {
		t.Run(name, func(t *testing.T) {
			address, _ := startBus(t, filepath.Join(t.TempDir(), "bus"))
			p := session("user", "tty", "tty1", false, "", "active", 1)
			change(p)
			(&fake{}).serve(t, address, p)
			c := &Client{Address: address}
			defer c.Close()
			if s, err := c.Sessions(t.Context()); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "logind: session 0: "+name) {
				t.Errorf("%v, %v, want an io error with %q", s, err, name)
			}
		})
	}
}

// oddManager answers what logind does not.
type oddManager struct{}

func (oddManager) ListInhibitors() (string, *dbus.Error) { return "none", nil }
func (oddManager) ListSessions() ([]string, *dbus.Error) {
	return nil, dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", []any{"no"})
}

func TestReconnect(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "bus")
	c := &Client{Address: "unix:path=" + socket}
	defer c.Close()
	if _, err := c.Inhibitors(t.Context()); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "connect to the bus") {
		t.Errorf("no bus: %v", err)
	}
	address, stop := startBus(t, socket)
	if _, err := c.Inhibitors(t.Context()); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "ListInhibitors") {
		t.Errorf("no logind: %v", err)
	}
	f := &fake{inhibitors: []inhibitor{{"shutdown", "apt", "", "block", 0, 1}}}
	first := f.serve(t, address)
	ask := func(what string) {
		t.Helper()
		if got, err := c.Inhibitors(t.Context()); err != nil || len(got) != 1 {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	ask("first")
	first.Close() // logind restarts
	f.serve(t, address)
	ask("another logind")
	stop() // the bus restarts
	os.Remove(socket)
	address, _ = startBus(t, socket)
	f.serve(t, address)
	ask("another bus")
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	ask("after Close")
	ctx, cancel := context.WithTimeout(t.Context(), time.Nanosecond)
	defer cancel()
	<-ctx.Done()
	if _, err := c.Inhibitors(ctx); err == nil {
		t.Error("no error for an expired context")
	}
}

func TestOddLogind(t *testing.T) {
	address, _ := startBus(t, filepath.Join(t.TempDir(), "bus"))
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Export(oddManager{}, manager, name+".Manager"); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName(name, 0); err != nil {
		t.Fatal(err)
	}
	c := &Client{Address: address}
	defer c.Close()
	if got, err := c.Inhibitors(t.Context()); !fault.Is(err, fault.IO) {
		t.Errorf("wrong signature: %v, %v", got, err)
	}
	if got, err := c.Sessions(t.Context()); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "no") {
		t.Errorf("access denied: %v, %v", got, err)
	}
}
