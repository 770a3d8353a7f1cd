package bus

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/godbus/dbus/v5"
	"github.com/godbus/dbus/v5/introspect"

	"github.com/semper-os/semper/fault"
)

// Semper's names.
const (
	semperName      = "org.semper.Update1"
	semperInterface = "org.semper.Update1"
	semperPath      = dbus.ObjectPath("/org/semper/Update1")

	introspectable      = "org.freedesktop.DBus.Introspectable"
	propertiesInterface = "org.freedesktop.DBus.Properties"
)

// Bounds of what callers send.
const (
	maxReason  = 200
	maxVersion = 128
)

// property is one of org.semper.Update1's, all of them read-only.
type property struct {
	name string
	of   func(Status) any
}

var properties = []property{
	{"Version", func(s Status) any { return s.Version }},
	{"Slot", func(s Status) any { return s.Slot }},
	{"Server", func(s Status) any { return s.Server }},
	{"Channel", func(s Status) any { return s.Channel }},
	{"State", func(s Status) any { return string(s.State) }},
	{"Reason", func(s Status) any { return s.Reason }},
	{"WaitingFor", func(s Status) any { return s.WaitingFor }},
	{"Progress", func(s Status) any { return s.Progress }},
	{"NewVersion", func(s Status) any { return s.NewVersion }},
	{"NewSize", func(s Status) any { return s.NewSize }},
	{"PendingVersion", func(s Status) any { return s.PendingVersion }},
	{"RolledBackVersion", func(s Status) any { return s.RolledBackVersion }},
	{"RolledBackReason", func(s Status) any { return s.RolledBackReason }},
	{"FailedVersions", func(s Status) any { return slices.Clip(append([]string{}, s.FailedVersions...)) }},
	{"LastCheck", func(s Status) any { return seconds(s.LastCheck) }},
	{"NextCheck", func(s Status) any { return seconds(s.NextCheck) }},
	{"LastError", func(s Status) any { return s.LastError }},
	{"LastErrorTime", func(s Status) any { return seconds(s.LastErrorAt) }},
	{"Paused", func(s Status) any { return s.Paused }},
	{"PauseReason", func(s Status) any { return s.PauseReason }},
	{"Metered", func(s Status) any { return s.Metered }},
}

// values are the properties of s.
func values(s Status) map[string]dbus.Variant {
	m := make(map[string]dbus.Variant, len(properties))
	for _, p := range properties {
		m[p.name] = dbus.MakeVariant(p.of(s))
	}
	return m
}

type semper struct {
	s *Service
	q *queue

	before Status // the last status that was told
	sent   map[string]dbus.Variant
	pace   pace
}

func newSemper(s *Service, q *queue) *semper {
	return &semper{s: s, q: q, pace: pace{clock: s.o.Clock}}
}

func (m *semper) name() string { return semperName }

// begin emits nothing: a client that sees the name's new owner reads the properties anew.
func (m *semper) begin(_ emitter, s Status) {
	m.before, m.sent = s, values(s)
	m.pace.sent()
}

func (m *semper) tell(c emitter, s Status) {
	old := m.before
	m.before = s
	changed := m.changed(s)
	_, progress := changed["Progress"]
	switch {
	case len(changed) == 0:
		m.pace.held = false
	case len(changed) == 1 && progress && !m.pace.far(m.sent["Progress"].Value().(float64), s.Progress):
		m.pace.held = true
	default:
		m.emit(c, changed)
	}
	if old.State != s.State {
		_ = c.Emit(semperPath, semperInterface+".StateChanged", string(old.State), string(s.State), s.Reason)
	}
}

func (m *semper) due() time.Time  { return m.pace.due() }
func (m *semper) flush(c emitter) { m.emit(c, m.changed(m.before)) }

// changed are the properties of s that are not what watchers know.
func (m *semper) changed(s Status) map[string]dbus.Variant {
	now := values(s)
	maps.DeleteFunc(now, func(name string, v dbus.Variant) bool { return m.sent[name].String() == v.String() })
	return now
}

func (m *semper) emit(c emitter, changed map[string]dbus.Variant) {
	maps.Copy(m.sent, changed)
	m.pace.sent()
	_ = c.Emit(semperPath, propertiesInterface+".PropertiesChanged", semperInterface, changed, []string{})
}

func (m *semper) export(ctx context.Context, c *dbus.Conn) error {
	agent := m.s.o.Agent
	// do asks who calls, checks what they say, and does it.
	do := func(msg dbus.Message, action, method string, check error, f func(context.Context) error) *dbus.Error {
		return m.s.bounded(func() *dbus.Error {
			return m.s.guarded(ctx, c, msg, action, func() *dbus.Error {
				if check != nil {
					return failure(check)
				}
				return m.s.change(ctx, method, f)
			})
		})
	}
	methods := map[string]any{
		"Check":  func(msg dbus.Message) *dbus.Error { return do(msg, actionCheck, "Check", nil, agent.Check) },
		"Update": func(msg dbus.Message) *dbus.Error { return do(msg, actionUpdate, "Update", nil, agent.Update) },
		"Cancel": func(msg dbus.Message) *dbus.Error { return do(msg, actionUpdate, "Cancel", nil, agent.Cancel) },
		"Pause": func(msg dbus.Message, on bool, reason string) *dbus.Error {
			return do(msg, actionPause, "Pause", checkText("reason", reason, 0, maxReason), func(ctx context.Context) error { return agent.Pause(ctx, on, reason) })
		},
		"SetMetered": func(msg dbus.Message, on bool) *dbus.Error {
			return do(msg, actionPause, "SetMetered", nil, func(ctx context.Context) error { return agent.SetMetered(ctx, on) })
		},
		"Retry": func(msg dbus.Message, version string) *dbus.Error {
			return do(msg, actionUpdate, "Retry", checkText("version", version, 1, maxVersion), func(ctx context.Context) error { return agent.Retry(ctx, version) })
		},
		"Rollback": func(msg dbus.Message) *dbus.Error {
			return do(msg, actionRollback, "Rollback", nil, agent.Rollback)
		},
	}
	node := &introspect.Node{Name: string(semperPath), Interfaces: []introspect.Interface{semperXML(), propertiesXML}}
	for _, e := range []struct {
		iface   string
		methods map[string]any
	}{
		{semperInterface, methods},
		{propertiesInterface, m.properties()},
		{introspectable, map[string]any{"Introspect": introspect.NewIntrospectable(node).Introspect}},
	} {
		if err := c.ExportMethodTable(e.methods, semperPath, e.iface); err != nil {
			return err
		}
	}
	return nil
}

// properties is org.freedesktop.DBus.Properties.
func (m *semper) properties() map[string]any {
	unknown := func(iface string) *dbus.Error {
		return dbus.NewError("org.freedesktop.DBus.Error.UnknownInterface", []any{"no such interface: " + clean(iface)})
	}
	return map[string]any{
		"Get": func(iface, name string) (dbus.Variant, *dbus.Error) {
			if iface != semperInterface {
				return dbus.Variant{}, unknown(iface)
			}
			i := slices.IndexFunc(properties, func(p property) bool { return p.name == name })
			if i < 0 {
				return dbus.Variant{}, dbus.NewError("org.freedesktop.DBus.Error.UnknownProperty", []any{"no such property: " + clean(name)})
			}
			return dbus.MakeVariant(properties[i].of(m.q.latest())), nil
		},
		"GetAll": func(iface string) (map[string]dbus.Variant, *dbus.Error) {
			if iface != semperInterface {
				return nil, unknown(iface)
			}
			return values(m.q.latest()), nil
		},
		"Set": func(_, _ string, _ dbus.Variant) *dbus.Error {
			return dbus.NewError("org.freedesktop.DBus.Error.PropertyReadOnly", []any{"properties are read-only; there are methods"})
		},
	}
}

// checkText refuses a text that is too short or too long, or has control characters.
func checkText(what, text string, least, most int) error {
	if len(text) < least || len(text) > most {
		return fault.New(fault.Usage, "%s has %d bytes, %d to %d are allowed", what, len(text), least, most)
	}
	for _, r := range text {
		if r < ' ' || r == 0x7f {
			return fault.New(fault.Usage, "%s has the control character %U", what, r)
		}
	}
	return nil
}
