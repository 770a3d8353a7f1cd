package bus

import (
	"context"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/semper-os/semper/fault"
)

// Flatcar's names.
const (
	flatcarName      = "com.coreos.update1"
	flatcarInterface = "com.coreos.update1.Manager"
	flatcarPath      = dbus.ObjectPath("/com/coreos/update1")         // where update_engine is, and where the signals come from
	flatcarAlias     = dbus.ObjectPath("/com/coreos/update1/Manager") // where its XML says it is
)

// Flatcar's words for what goes on.
const (
	opIdle        = "UPDATE_STATUS_IDLE"
	opChecking    = "UPDATE_STATUS_CHECKING_FOR_UPDATE"
	opAvailable   = "UPDATE_STATUS_UPDATE_AVAILABLE"
	opDownloading = "UPDATE_STATUS_DOWNLOADING"
	opFinalizing  = "UPDATE_STATUS_FINALIZING"
	opNeedReboot  = "UPDATE_STATUS_UPDATED_NEED_REBOOT"
	opReporting   = "UPDATE_STATUS_REPORTING_ERROR_EVENT"
)

// noVersion is update_engine's word for no version.
const noVersion = "0.0.0"

// line is what GetStatus answers and StatusUpdate carries.
type line struct {
	lastChecked int64
	progress    float64
	operation   string
	version     string
	size        int64
}

// flatcarLine is s in Flatcar's words, see the table in the package's documentation.
func flatcarLine(s Status) line {
	l := line{lastChecked: seconds(s.LastCheck), operation: opIdle, version: noVersion}
	update := func(version string, size int64) {
		if version != "" {
			l.version, l.size = version, size
		}
	}
	switch s.State {
	case Checking:
		l.operation = opChecking
	case Downloading:
		l.operation, l.progress = opDownloading, s.Progress
		if s.Progress == 0 {
			l.operation = opAvailable
		}
		update(s.NewVersion, s.NewSize)
	case Installing:
		l.operation = opFinalizing
		update(s.NewVersion, s.NewSize)
	case Pending, Rebooting:
		l.operation = opNeedReboot
		update(s.PendingVersion, s.PendingSize)
	}
	return l
}

func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func busy(s State) bool { return s == Checking || s == Downloading || s == Installing }

type flatcar struct {
	s *Service
	q *queue

	before Status    // the last status that was told
	known  time.Time // of the last error that has nothing to do with what is under way
	sent   line      // the last line that was emitted
	pace   pace
}

func newFlatcar(s *Service, q *queue) *flatcar {
	return &flatcar{s: s, q: q, pace: pace{clock: s.o.Clock}}
}

func (f *flatcar) name() string { return flatcarName }

// begin emits the status once, as update_engine does when it starts, so that nobody goes on believing what was before.
func (f *flatcar) begin(c emitter, s Status) {
	f.before, f.known = s, s.LastErrorAt
	f.emit(c, flatcarLine(s))
}

func (f *flatcar) tell(c emitter, s Status) {
	l := flatcarLine(s)
	if f.failed(s) {
		failed := flatcarLine(f.before)
		failed.lastChecked, failed.progress, failed.operation = l.lastChecked, 0, opReporting
		f.emit(c, failed)
	}
	if f.before = s; !busy(s.State) {
		f.known = s.LastErrorAt
	}
	same := l
	same.progress = f.sent.progress
	switch {
	case l == f.sent:
		f.pace.held = false
	case same != f.sent || f.pace.far(f.sent.progress, l.progress):
		f.emit(c, l)
	default:
		f.pace.held = true
	}
}

// failed reports whether what was under way has failed when it is now s. The agent may tell the error while it is still in the state in which it failed.
func (f *flatcar) failed(s Status) bool {
	return busy(f.before.State) && !busy(s.State) && s.LastError != "" && !s.LastErrorAt.Equal(f.known)
}

func (f *flatcar) due() time.Time  { return f.pace.due() }
func (f *flatcar) flush(c emitter) { f.emit(c, flatcarLine(f.before)) }

func (f *flatcar) emit(c emitter, l line) {
	f.sent = l
	f.pace.sent()
	// A connection that has ended is noticed elsewhere.
	_ = c.Emit(flatcarPath, flatcarInterface+".StatusUpdate", l.lastChecked, l.progress, l.operation, l.version, l.size)
}

// export serves the three methods at both paths.
func (f *flatcar) export(ctx context.Context, c *dbus.Conn) error {
	methods := map[string]any{
		"GetStatus": func() (int64, float64, string, string, int64, *dbus.Error) {
			l := flatcarLine(f.q.latest())
			return l.lastChecked, l.progress, l.operation, l.version, l.size, nil
		},
		"AttemptUpdate": func() *dbus.Error { return f.s.bounded(func() *dbus.Error { return f.attempt(ctx) }) },
		"ResetStatus":   func() *dbus.Error { return f.s.bounded(func() *dbus.Error { return f.reset(ctx) }) },
	}
	for _, path := range []dbus.ObjectPath{flatcarPath, flatcarAlias} {
		if err := c.ExportMethodTable(methods, path, flatcarInterface); err != nil {
			return err
		}
		node := &introspect.Node{Name: string(path), Interfaces: []introspect.Interface{flatcarXML()}}
		if path == flatcarPath {
			node.Children = []introspect.Node{{Name: "Manager"}}
		}
		if err := c.Export(introspect.NewIntrospectable(node), path, introspectable); err != nil {
			return err
		}
	}
	return nil
}

// attempt begins an update. As with update_engine, doing nothing because something is under way is a success.
func (f *flatcar) attempt(ctx context.Context) *dbus.Error {
	if op := flatcarLine(f.q.latest()).operation; op != opIdle {
		f.s.o.Log.Info("AttemptUpdate passed over", "operation", op)
		return nil
	}
	return f.s.change(ctx, "AttemptUpdate", f.s.o.Agent.Update)
}

// reset gives up an update that waits for a reboot. update_engine only forgets that it waits; here it is taken back, or the caller hears that it cannot be.
func (f *flatcar) reset(ctx context.Context) *dbus.Error {
	switch op := flatcarLine(f.q.latest()).operation; op {
	case opIdle:
		return nil
	case opNeedReboot:
		return f.s.change(ctx, "ResetStatus", f.s.o.Agent.Reset)
	default:
		return failure(fault.New(fault.Usage, "ResetStatus is not possible in %s", op))
	}
}

// flatcarXML has update_engine's names of arguments; there are clients that go by them.
func flatcarXML() introspect.Interface {
	status := func(direction string) []introspect.Arg {
		return []introspect.Arg{
			{Name: "last_checked_time", Type: "x", Direction: direction},
			{Name: "progress", Type: "d", Direction: direction},
			{Name: "current_operation", Type: "s", Direction: direction},
			{Name: "new_version", Type: "s", Direction: direction},
			{Name: "new_size", Type: "x", Direction: direction},
		}
	}
	return introspect.Interface{
		Name:    flatcarInterface,
		Methods: []introspect.Method{{Name: "AttemptUpdate"}, {Name: "ResetStatus"}, {Name: "GetStatus", Args: status("out")}},
		Signals: []introspect.Signal{{Name: "StatusUpdate", Args: status("")}},
	}
}
