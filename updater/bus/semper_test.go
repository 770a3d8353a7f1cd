package bus

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/semper-os/semper/fault"
)

// call calls a method of org.semper.Update1. interactive: with the flag that lets polkit ask for a password, which godbus's Call leaves out.
func call(c *dbus.Conn, method string, interactive bool, args ...any) error {
	msg := &dbus.Message{
		Type: dbus.TypeMethodCall,
		Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldDestination: dbus.MakeVariant("org.semper.Update1"),
			dbus.FieldPath:        dbus.MakeVariant(dbus.ObjectPath("/org/semper/Update1")),
			dbus.FieldInterface:   dbus.MakeVariant("org.semper.Update1"),
			dbus.FieldMember:      dbus.MakeVariant(method),
		},
		Body: args,
	}
	if interactive {
		msg.Flags = dbus.FlagAllowInteractiveAuthorization
	}
	if len(args) > 0 {
		msg.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(args...))
	}
	return (<-c.Send(msg, make(chan *dbus.Call, 1)).Done).Err
}

// methods are org.semper.Update1's methods, each with polkit's action and what the agent is then asked for.
var methods = []struct {
	name   string
	args   []any
	action string
	asked  string
}{
	{"Check", nil, "org.semper.update1.check", "check"},
	{"Update", nil, "org.semper.update1.update", "update"},
	{"Cancel", nil, "org.semper.update1.update", "cancel"},
	{"Pause", []any{true, "the auditors are here"}, "org.semper.update1.pause", `pause true "the auditors are here"`},
	{"Pause", []any{false, ""}, "org.semper.update1.pause", `pause false ""`},
	{"SetMetered", []any{true}, "org.semper.update1.pause", "metered true"},
	{"Retry", []any{"1.1.0"}, "org.semper.update1.update", "retry 1.1.0"},
	{"Rollback", nil, "org.semper.update1.rollback", "rollback"},
}

// The bus's policy: who may send what to whom. There is no polkit on this bus, so the service itself lets only root change something.
func TestPolicy(t *testing.T) {
	const (
		denied  = "org.freedesktop.DBus.Error.AccessDenied"
		flatcar = "com.coreos.update1"
		semper  = "org.semper.Update1"
	)
	roles := []string{"root", "core", "other"}
	for _, role := range roles {
		t.Run(role, func(t *testing.T) {
			b := startBroker(t, role)
			a := newAgent()
			s := b.serve(a)
			conn := b.client(role)
			flatcarMay := role != "other"
			root := role == "root" && os.Getuid() == 0
			for _, c := range []struct {
				dest, path, method string
				args               []any
				may                bool
			}{
				{flatcar, "/com/coreos/update1", flatcar + ".Manager.GetStatus", nil, flatcarMay},
				{flatcar, "/com/coreos/update1", flatcar + ".Manager.ResetStatus", nil, flatcarMay},
				{flatcar, "/com/coreos/update1", flatcar + ".Manager.AttemptUpdate", nil, flatcarMay},
				{flatcar, "/com/coreos/update1/Manager", flatcar + ".Manager.GetStatus", nil, flatcarMay},
				{flatcar, "/com/coreos/update1", "org.freedesktop.DBus.Introspectable.Introspect", nil, role == "root"},
				{flatcar, "/com/coreos/update1", "org.freedesktop.DBus.Peer.Ping", nil, role == "root"},
				{semper, "/org/semper/Update1", "org.freedesktop.DBus.Introspectable.Introspect", nil, true},
				{semper, "/org/semper/Update1", "org.freedesktop.DBus.Peer.Ping", nil, true},
				{semper, "/org/semper/Update1", "org.freedesktop.DBus.Properties.Get", []any{semper, "State"}, true},
				{semper, "/org/semper/Update1", "org.freedesktop.DBus.Properties.GetAll", []any{semper}, true},
				{semper, "/org/semper/Update1", "org.freedesktop.DBus.Properties.Set", []any{semper, "Paused", dbus.MakeVariant(true)}, false},
				{semper, "/org/semper/Update1", semper + ".Update", nil, root},
				{semper, "/org/semper/Update1", semper + ".Rollback", nil, root},
				{semper, "/com/coreos/update1", flatcar + ".Manager.AttemptUpdate", nil, false}, // the one service behind the other's name
			} {
				err := conn.Object(c.dest, dbus.ObjectPath(c.path)).Call(c.method, 0, c.args...).Err
				want := denied
				if c.may {
					want = ""
				}
				if got := errorName(err); got != want {
					t.Errorf("%s: %v, want %q", c.method, err, want)
				}
			}
			for _, name := range []string{flatcar, semper} {
				// Where the test is not root its user is semperd, who may.
				if _, err := conn.RequestName(name, dbus.NameFlagDoNotQueue); errorName(err) != denied && os.Getuid() == 0 {
					t.Errorf("own %s: %v", name, err)
				}
			}
			// Signals are for everybody, as on Flatcar.
			e := dialUpdateEngine(t, conn, "/com/coreos/update1")
			s.Publish(Status{State: Checking})
			if got := e.next(t); got.Operation != "UPDATE_STATUS_CHECKING_FOR_UPDATE" {
				t.Errorf("signal %v", got)
			}
			var asked []string
			for len(a.calls) > 0 {
				asked = append(asked, <-a.calls)
			}
			var want []string
			if flatcarMay {
				want = append(want, "update")
			}
			if root {
				want = append(want, "update", "rollback")
			}
			if !slices.Equal(asked, want) {
				t.Errorf("the agent was asked for %q, want %q", asked, want)
			}
		})
	}
}

// authority is a polkit that says what it is told to say.
type authority struct {
	asked  chan question
	answer chan any // verdict, or *dbus.Error
}

type question struct {
	Kind, Name, Action string
	Flags              uint32
}

type verdict struct {
	Yes, Challenge bool
	Details        map[string]string
}

func (a *authority) serve(t *testing.T, b *broker) {
	t.Helper()
	c := b.client("polkitd")
	type subject struct {
		Kind    string
		Details map[string]dbus.Variant
	}
	methods := map[string]any{
		"CheckAuthorization": func(s subject, action string, _ map[string]string, flags uint32, _ string) (verdict, *dbus.Error) {
			name, _ := s.Details["name"].Value().(string)
			a.asked <- question{s.Kind, name, action, flags}
			switch v := (<-a.answer).(type) {
			case verdict:
				return v, nil
			case *dbus.Error:
				return verdict{}, v
			}
			return verdict{}, dbus.MakeFailedError(fmt.Errorf("the test has no answer"))
		},
	}
	if err := c.ExportMethodTable(methods, "/org/freedesktop/PolicyKit1/Authority", "org.freedesktop.PolicyKit1.Authority"); err != nil {
		t.Fatal(err)
	}
	if r, err := c.RequestName("org.freedesktop.PolicyKit1", dbus.NameFlagDoNotQueue); err != nil || r != dbus.RequestNameReplyPrimaryOwner {
		t.Fatal(r, err)
	}
}

func TestPolkitIsAsked(t *testing.T) {
	b := startBroker(t, "other")
	a := newAgent()
	b.serve(a)
	p := &authority{make(chan question, 1), make(chan any, 1)}
	p.serve(t, b)
	conn := b.client("other")
	me := conn.Names()[0]
	const (
		denied    = "org.freedesktop.DBus.Error.AccessDenied"
		challenge = "org.freedesktop.DBus.Error.InteractiveAuthorizationRequired"
	)
	for _, m := range methods {
		for _, c := range []struct {
			name        string
			interactive bool
			answer      any
			want        string
		}{
			{"yes", false, verdict{Yes: true}, ""},
			{"yes after a password", true, verdict{Yes: true}, ""},
			{"no", false, verdict{}, denied},
			{"no after a password", true, verdict{}, denied},
			{"only with a password, and it may not ask", false, verdict{Challenge: true}, challenge},
			{"only with a password, and nobody is there to ask", true, verdict{Challenge: true}, denied},
			{"polkit fails", false, dbus.NewError("org.freedesktop.PolicyKit1.Error.Failed", []any{"broken"}), denied},
			{"polkit fails", true, dbus.NewError("org.freedesktop.DBus.Error.NoReply", []any{"broken"}), denied},
			{"polkit is refused", false, dbus.NewError("org.freedesktop.DBus.Error.AccessDenied", nil), denied},
		} {
			p.answer <- c.answer
			err := call(conn, m.name, c.interactive, m.args...)
			if got := errorName(err); got != c.want {
				t.Errorf("%s, %s: %v, want %q", m.name, c.name, err, c.want)
			}
			want := question{"system-bus-name", me, m.action, 0}
			if c.interactive {
				want.Flags = 1
			}
			if got := receive(t, p.asked, "polkit's question"); got != want {
				t.Errorf("%s, %s: polkit was asked %v, want %v", m.name, c.name, got, want)
			}
			if c.want == "" {
				if got := receive(t, a.calls, "the agent's call"); got != m.asked {
					t.Errorf("%s: the agent was asked for %s, want %s", m.name, got, m.asked)
				}
			}
			a.none(t)
		}
	}
}

// With polkit there, being root is not enough where polkit does not answer.
func TestPolkitErrorFailsClosedForRoot(t *testing.T) {
	b := startBroker(t, "root")
	a := newAgent()
	b.serve(a)
	p := &authority{make(chan question, 1), make(chan any, 1)}
	p.serve(t, b)
	p.answer <- dbus.NewError("org.freedesktop.DBus.Error.TimedOut", nil)
	if err := call(b.client("root"), "Update", false); errorName(err) != "org.freedesktop.DBus.Error.AccessDenied" {
		t.Errorf("got %v", err)
	}
	a.none(t)
}

func TestArguments(t *testing.T) {
	b := startBroker(t, "other")
	a := newAgent()
	b.serve(a)
	p := &authority{make(chan question, 100), make(chan any, 100)}
	p.serve(t, b)
	conn := b.client("other")
	for _, c := range []struct {
		method string
		args   []any
		want   string
	}{
		{"Retry", []any{""}, "version has 0 bytes, 1 to 128 are allowed"},
		{"Retry", []any{strings.Repeat("1", 129)}, "version has 129 bytes, 1 to 128 are allowed"},
		{"Retry", []any{"1.0\n"}, "version has the control character U+000A"},
		{"Pause", []any{true, strings.Repeat("x", 201)}, "reason has 201 bytes, 0 to 200 are allowed"},
		{"Pause", []any{true, "\x1b[2J"}, "reason has the control character U+001B"},
	} {
		p.answer <- verdict{Yes: true}
		err := call(conn, c.method, false, c.args...)
		if errorName(err) != "org.semper.Update1.Error.Usage" || err.Error() != c.want {
			t.Errorf("%s %q: %v, want %s", c.method, c.args, err, c.want)
		}
	}
	a.none(t)
	// What the agent says comes back with its kind.
	for kind, name := range map[fault.Kind]string{
		fault.Usage: "Usage", fault.Input: "Input", fault.Network: "Network", fault.Verification: "Verification", fault.IO: "IO", fault.Internal: "Internal",
	} {
		a.refuse = fault.New(kind, "because\x00\xff%s", strings.Repeat("!", 2000))
		p.answer <- verdict{Yes: true}
		err := call(conn, "Check", false)
		if errorName(err) != "org.semper.Update1.Error."+name || !strings.HasPrefix(err.Error(), "because\uFFFD\uFFFD!") || len(err.Error()) > maxText {
			t.Errorf("%v: %v", kind, err)
		}
	}
}

// A message that is longer than any that makes sense is passed over, and the service stays.
func TestLongMessage(t *testing.T) {
	b := startBroker(t, "other")
	a := newAgent()
	b.serve(a)
	conn := b.client("other")
	long := conn.Object("org.semper.Update1", "/org/semper/Update1").Go("org.semper.Update1.Retry", 0, make(chan *dbus.Call, 1), strings.Repeat("x", 4<<20))
	for range 3 {
		if err := conn.Object("org.semper.Update1", "/org/semper/Update1").Call("org.freedesktop.DBus.Peer.Ping", 0).Err; err != nil {
			t.Fatal(err)
		}
	}
	select {
	case c := <-long.Done: // calls are answered in order, so this one's answer would be here
		t.Errorf("the long call was answered: %v", c.Err)
	default:
	}
	a.none(t)
}

func TestProperties(t *testing.T) {
	b := startBroker(t, "other")
	s := b.serve(newAgent())
	conn := b.client("other")
	ch := make(chan *dbus.Signal, 100)
	if err := conn.AddMatchSignal(dbus.WithMatchObjectPath("/org/semper/Update1")); err != nil {
		t.Fatal(err)
	}
	conn.Signal(ch)
	full := Status{
		Version: "1.0.0", Slot: "a", Server: "http://updates.example.org/v1/update", Channel: "stable",
		State: Downloading, Reason: "version 1.1.0", WaitingFor: "bytes", Progress: 0.5, NewVersion: "1.1.0", NewSize: 1000,
		PendingVersion: "1.0.9", RolledBackVersion: "1.0.5", RolledBackReason: "50-web failed", FailedVersions: []string{"1.0.5"},
		LastCheck: noon, NextCheck: noon.Add(time.Hour), LastError: "no", LastErrorAt: noon.Add(time.Minute),
		Paused: true, PauseReason: "auditors", Metered: true,
	}
	want := map[string]any{
		"Version": "1.0.0", "Slot": "a", "Server": "http://updates.example.org/v1/update", "Channel": "stable",
		"State": "downloading", "Reason": "version 1.1.0", "WaitingFor": "bytes", "Progress": 0.5, "NewVersion": "1.1.0", "NewSize": int64(1000),
		"PendingVersion": "1.0.9", "RolledBackVersion": "1.0.5", "RolledBackReason": "50-web failed", "FailedVersions": []string{"1.0.5"},
		"LastCheck": noon.Unix(), "NextCheck": noon.Unix() + 3600, "LastError": "no", "LastErrorTime": noon.Unix() + 60,
		"Paused": true, "PauseReason": "auditors", "Metered": true,
	}
	s.Publish(full)
	changed := receive(t, ch, "PropertiesChanged")
	if changed.Name != "org.freedesktop.DBus.Properties.PropertiesChanged" {
		t.Fatalf("signal %v", changed)
	}
	values := plain(changed.Body[1].(map[string]dbus.Variant))
	if fmt.Sprint(values) != fmt.Sprint(want) {
		t.Errorf("changed\n%v, want\n%v", values, want)
	}
	if sig := receive(t, ch, "StateChanged"); sig.Name != "org.semper.Update1.StateChanged" || fmt.Sprint(sig.Body) != "[idle downloading version 1.1.0]" {
		t.Errorf("signal %v", sig)
	}
	var all map[string]dbus.Variant
	obj := conn.Object("org.semper.Update1", "/org/semper/Update1")
	if err := obj.Call("org.freedesktop.DBus.Properties.GetAll", 0, "org.semper.Update1").Store(&all); err != nil {
		t.Fatal(err)
	}
	if got := plain(all); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("all\n%v, want\n%v", got, want)
	}
	for name := range want {
		v, err := obj.GetProperty("org.semper.Update1." + name)
		if err != nil || fmt.Sprint(v.Value()) != fmt.Sprint(want[name]) {
			t.Errorf("%s: %v (%v), want %v", name, v, err, want[name])
		}
	}
	// Only what changes is told, and a state once.
	done := full
	done.State, done.Reason, done.Progress = Installing, "the payload is complete", 1
	s.Publish(done)
	if got := plain(receive(t, ch, "PropertiesChanged").Body[1].(map[string]dbus.Variant)); fmt.Sprint(got) != "map[Progress:1 Reason:the payload is complete State:installing]" {
		t.Errorf("changed %v", got)
	}
	if sig := receive(t, ch, "StateChanged"); fmt.Sprint(sig.Body) != "[downloading installing the payload is complete]" {
		t.Errorf("signal %v", sig)
	}
	for _, c := range []struct{ iface, name, want string }{
		{"org.semper.Update1", "Nothing", "org.freedesktop.DBus.Error.UnknownProperty"},
		{"org.example.Nothing", "State", "org.freedesktop.DBus.Error.UnknownInterface"},
	} {
		if err := obj.Call("org.freedesktop.DBus.Properties.Get", 0, c.iface, c.name).Err; errorName(err) != c.want {
			t.Errorf("Get %s %s: %v", c.iface, c.name, err)
		}
	}
}

func plain(vs map[string]dbus.Variant) map[string]any {
	out := map[string]any{}
	for k, v := range vs {
		out[k] = v.Value()
	}
	return out
}
