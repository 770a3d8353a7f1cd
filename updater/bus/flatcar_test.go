package bus

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/semper-os/semper/fault"
)

var noon = time.Unix(1_800_000_000, 0).UTC()

func TestFlatcarLine(t *testing.T) {
	base := Status{
		Version: "1.0.0", LastCheck: noon, Progress: 0.25, NewVersion: "1.1.0", NewSize: 1000, PendingVersion: "1.0.9", PendingSize: 900,
	}
	none := func(op string) line { return line{noon.Unix(), 0, op, "0.0.0", 0} }
	for _, c := range []struct {
		state State
		edit  func(*Status)
		want  line
	}{
		{Idle, nil, none("UPDATE_STATUS_IDLE")},
		{Trial, nil, none("UPDATE_STATUS_IDLE")},
		{"", nil, none("UPDATE_STATUS_IDLE")},
		{"dreaming", nil, none("UPDATE_STATUS_IDLE")},
		{Checking, nil, none("UPDATE_STATUS_CHECKING_FOR_UPDATE")},
		{Downloading, func(s *Status) { s.Progress = 0 }, line{noon.Unix(), 0, "UPDATE_STATUS_UPDATE_AVAILABLE", "1.1.0", 1000}},
		{Downloading, nil, line{noon.Unix(), 0.25, "UPDATE_STATUS_DOWNLOADING", "1.1.0", 1000}},
		{Installing, nil, line{noon.Unix(), 0, "UPDATE_STATUS_FINALIZING", "1.1.0", 1000}},
		{Pending, nil, line{noon.Unix(), 0, "UPDATE_STATUS_UPDATED_NEED_REBOOT", "1.0.9", 900}},
		{Rebooting, nil, line{noon.Unix(), 0, "UPDATE_STATUS_UPDATED_NEED_REBOOT", "1.0.9", 900}},
		{Pending, func(s *Status) { s.PendingVersion = "" }, none("UPDATE_STATUS_UPDATED_NEED_REBOOT")},
		{Idle, func(s *Status) { s.LastCheck = time.Time{} }, line{0, 0, "UPDATE_STATUS_IDLE", "0.0.0", 0}},
	} {
		s := base
		s.State = c.state
		if c.edit != nil {
			c.edit(&s)
		}
		if got := flatcarLine(s); got != c.want {
			t.Errorf("%q: got %v, want %v", c.state, got, c.want)
		}
	}
}

func TestFlatcarFailures(t *testing.T) {
	failed := Status{State: Idle, LastError: "no", LastErrorAt: noon}
	for _, c := range []struct {
		name string
		from Status
		to   []Status
		want []string
	}{
		{"a check", Status{State: Checking}, []Status{failed}, []string{"REPORTING_ERROR_EVENT 0.0.0", "IDLE 0.0.0"}},
		{"a download", Status{State: Downloading, Progress: 0.5, NewVersion: "1.1.0"}, []Status{failed}, []string{"REPORTING_ERROR_EVENT 1.1.0", "IDLE 0.0.0"}},
		{"an older failure", Status{State: Checking, LastError: "no", LastErrorAt: noon}, []Status{failed}, []string{"IDLE 0.0.0"}},
		{"none", Status{State: Checking}, []Status{{State: Idle}}, []string{"IDLE 0.0.0"}},
		{"nothing was under way", Status{State: Trial}, []Status{failed}, nil},
		{
			"the error is told before the state",
			Status{State: Checking},
			[]Status{{State: Checking, LastError: "no", LastErrorAt: noon}, failed},
			[]string{"REPORTING_ERROR_EVENT 0.0.0", "IDLE 0.0.0"},
		},
		{
			"one server fails, the next does not",
			Status{State: Checking},
			[]Status{{State: Checking, LastError: "no", LastErrorAt: noon}, {State: Idle}},
			[]string{"IDLE 0.0.0"},
		},
		{
			"failures of two checks", failed,
			[]Status{{State: Checking, LastError: "no", LastErrorAt: noon}, {State: Idle, LastError: "no", LastErrorAt: noon.Add(1)}},
			[]string{"CHECKING_FOR_UPDATE 0.0.0", "REPORTING_ERROR_EVENT 0.0.0", "IDLE 0.0.0"},
		},
		{
			"one update fails, another waits",
			Status{State: Installing, NewVersion: "1.2.0"},
			[]Status{{State: Pending, PendingVersion: "1.1.0", LastError: "no", LastErrorAt: noon}},
			[]string{"REPORTING_ERROR_EVENT 1.2.0", "UPDATED_NEED_REBOOT 1.1.0"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out signals
			f := newFlatcar(New(Options{Log: discard, Clock: &stopped{noon}}), newQueue())
			f.begin(&out, c.from)
			out = nil
			for _, s := range c.to {
				f.tell(&out, s)
			}
			var got []string
			for _, o := range out {
				w := strings.Fields(o) // StatusUpdate, time, progress, operation, version, size
				got = append(got, strings.TrimPrefix(w[3], "UPDATE_STATUS_")+" "+w[4])
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// What follows knows Flatcar's D-Bus calls and nothing else, as written down in the facts; it uses no name of this package but the server's.

type updateEngine struct {
	conn *dbus.Conn
	obj  dbus.BusObject
	ch   chan *dbus.Signal
}

func dialUpdateEngine(t *testing.T, conn *dbus.Conn, path dbus.ObjectPath) *updateEngine {
	t.Helper()
	// locksmith matches interface and member, not the path.
	if err := conn.AddMatchSignal(dbus.WithMatchInterface("com.coreos.update1.Manager"), dbus.WithMatchMember("StatusUpdate")); err != nil {
		t.Fatal(err)
	}
	e := &updateEngine{conn, conn.Object("com.coreos.update1", path), make(chan *dbus.Signal, 1000)}
	conn.Signal(e.ch)
	return e
}

type engineStatus struct {
	LastChecked int64
	Progress    float64
	Operation   string
	Version     string
	Size        int64
}

func (e *updateEngine) status(t *testing.T) (s engineStatus) {
	t.Helper()
	if err := e.obj.Call("com.coreos.update1.Manager.GetStatus", 0).Store(&s.LastChecked, &s.Progress, &s.Operation, &s.Version, &s.Size); err != nil {
		t.Fatal(err)
	}
	return s
}

func (e *updateEngine) next(t *testing.T) (s engineStatus) {
	t.Helper()
	for {
		sig := receive(t, e.ch, "StatusUpdate")
		if sig.Name != "com.coreos.update1.Manager.StatusUpdate" {
			continue
		}
		if sig.Path != "/com/coreos/update1" {
			t.Fatalf("a signal from %s", sig.Path)
		}
		if err := dbus.Store(sig.Body, &s.LastChecked, &s.Progress, &s.Operation, &s.Version, &s.Size); err != nil {
			t.Fatal(err)
		}
		return s
	}
}

// until reads signals up to one with the operation, and returns them in short: operations once each, with the version.
func (e *updateEngine) until(t *testing.T, operation string) []string {
	t.Helper()
	var steps []string
	progress := 0.0
	for {
		s := e.next(t)
		if s.Operation == "UPDATE_STATUS_DOWNLOADING" {
			if s.Progress < progress || s.Progress > 1 {
				t.Errorf("progress %v after %v", s.Progress, progress)
			}
			progress = s.Progress
		} else if s.Progress != 0 {
			t.Errorf("progress %v with %s", s.Progress, s.Operation)
		}
		if step := s.Operation + " " + s.Version; len(steps) == 0 || steps[len(steps)-1] != step {
			steps = append(steps, step)
		}
		if s.Operation == operation {
			return steps
		}
	}
}

func TestFlatcarClientSeesAWholeUpdate(t *testing.T) {
	b := startBroker(t, "core")
	a := newAgent()
	s := b.serve(a)
	const size = 1000
	checked := noon.Add(time.Hour)
	s.Publish(Status{Version: "1.0.0", State: Idle, LastCheck: noon})
	a.update = func() {
		s.Publish(Status{State: Checking, LastCheck: noon})
		for done := 0; done <= size; done += 5 {
			s.Publish(Status{State: Downloading, LastCheck: checked, NewVersion: "1.1.0", NewSize: size, Progress: float64(done) / size})
		}
		s.Publish(Status{State: Installing, LastCheck: checked, NewVersion: "1.1.0", NewSize: size})
		s.Publish(Status{State: Pending, LastCheck: checked, PendingVersion: "1.1.0", PendingSize: size})
	}

	for _, path := range []dbus.ObjectPath{"/com/coreos/update1", "/com/coreos/update1/Manager"} {
		if got, want := dialUpdateEngine(t, b.client("core"), path).status(t), (engineStatus{noon.Unix(), 0, "UPDATE_STATUS_IDLE", "0.0.0", 0}); got != want {
			t.Fatalf("%s: status %v, want %v", path, got, want)
		}
	}
	e := dialUpdateEngine(t, b.client("core"), "/com/coreos/update1")
	if err := e.obj.Call("com.coreos.update1.Manager.ResetStatus", 0).Err; err != nil {
		t.Fatalf("ResetStatus of an idle agent: %v", err)
	}
	if err := e.obj.Call("com.coreos.update1.Manager.AttemptUpdate", 0).Err; err != nil {
		t.Fatal(err)
	}
	if got := receive(t, a.calls, "the agent's call"); got != "update" {
		t.Fatalf("the agent was asked for %s", got)
	}
	got := e.until(t, "UPDATE_STATUS_UPDATED_NEED_REBOOT")
	if i := slices.Index(got, "UPDATE_STATUS_CHECKING_FOR_UPDATE 0.0.0"); i > 0 {
		got = got[i:] // IDLE with the new time may come before
	}
	want := []string{
		"UPDATE_STATUS_CHECKING_FOR_UPDATE 0.0.0", "UPDATE_STATUS_UPDATE_AVAILABLE 1.1.0", "UPDATE_STATUS_DOWNLOADING 1.1.0", "UPDATE_STATUS_FINALIZING 1.1.0",
		"UPDATE_STATUS_UPDATED_NEED_REBOOT 1.1.0",
	}
	if !slices.Equal(got, want) {
		t.Errorf("signals\n%q, want\n%q", got, want)
	}
	if got, want := e.status(t), (engineStatus{checked.Unix(), 0, "UPDATE_STATUS_UPDATED_NEED_REBOOT", "1.1.0", size}); got != want {
		t.Errorf("status %v, want %v", got, want)
	}

	// While an update waits nothing new is begun, and that is no error; giving it up is the agent's to say.
	if err := e.obj.Call("com.coreos.update1.Manager.AttemptUpdate", 0).Err; err != nil {
		t.Error(err)
	}
	a.none(t)
	a.mu.Lock()
	a.refuse = fault.New(fault.Verification, "no way back")
	a.mu.Unlock()
	err := e.obj.Call("com.coreos.update1.Manager.ResetStatus", 0).Err
	if errorName(err) != "org.semper.Update1.Error.Verification" || err.Error() != "no way back" {
		t.Errorf("a refused ResetStatus: %v", err)
	}
	if got := receive(t, a.calls, "the agent's call"); got != "reset" {
		t.Errorf("the agent was asked for %s", got)
	}
}

// Step by step, so that nothing can be coalesced: every state is a signal, in its order.
func TestFlatcarClientSeesEveryStep(t *testing.T) {
	b := startBroker(t, "root")
	a := newAgent()
	s := b.serve(a)
	e := dialUpdateEngine(t, b.client("root"), "/com/coreos/update1")
	update := Status{State: Downloading, NewVersion: "1.1.0", NewSize: 7}
	half := update
	half.Progress = 0.5
	for _, c := range []struct {
		publish Status
		want    []string
	}{
		{Status{State: Checking}, []string{"UPDATE_STATUS_CHECKING_FOR_UPDATE"}},
		{update, []string{"UPDATE_STATUS_UPDATE_AVAILABLE"}},
		{half, []string{"UPDATE_STATUS_DOWNLOADING"}},
		{Status{State: Installing, NewVersion: "1.1.0", NewSize: 7}, []string{"UPDATE_STATUS_FINALIZING"}},
		{Status{State: Idle, LastError: "no", LastErrorAt: noon}, []string{"UPDATE_STATUS_REPORTING_ERROR_EVENT", "UPDATE_STATUS_IDLE"}},
	} {
		s.Publish(c.publish)
		for _, want := range c.want {
			if got := e.next(t); got.Operation != want {
				t.Fatalf("%s: signal %v, want %s", c.publish.State, got, want)
			}
		}
	}
	s.Publish(Status{State: Checking})
	e.next(t)
	if err := e.obj.Call("com.coreos.update1.Manager.ResetStatus", 0).Err; errorName(err) != "org.semper.Update1.Error.Usage" {
		t.Errorf("ResetStatus during a check: %v", err)
	}
	a.none(t)
}
