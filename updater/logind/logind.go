// Package logind asks systemd-logind what speaks against a reboot: programs that block a shutdown, and people who are logged in.
//
// It only reads, over D-Bus, what org.freedesktop.login1(5) says that everybody may:
//
//	org.freedesktop.login1.Manager  ListInhibitors() → a(ssssuu)     what, who, why, mode, uid, pid
//	                                ListSessions()   → a(susso)      id, uid, user, seat, object
//	org.freedesktop.login1.Session  properties       Class s, Type s, TTY s, Remote b, RemoteHost s, Timestamp t (µs since 1970), Active b, State s
//
// ListSessionsEx, of systemd 256, has no remote host and no time, so it would save nothing.
//
// The connection is made with the first question and made anew when it broke. A logind that restarts is found again by the bus.
//
// Errors are of kind IO: there is no bus, logind does not answer, or answers something else. Who asks must take an error for a no.
//
// Limits: 10 s a question; 10,000 inhibitors and sessions, more than logind has; texts are cut to 200 bytes and cleaned of control characters.
package logind

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/semper-os/semper/fault"
)

const (
	name    = "org.freedesktop.login1"
	manager = dbus.ObjectPath("/org/freedesktop/login1")

	timeout  = 10 * time.Second
	maxItems = 10_000
	maxText  = 200
)

// Inhibitor blocks a shutdown, and with it a reboot.
type Inhibitor struct {
	Who  string // a program's name for people, "apt"
	Why  string // its reason, "installing packages"
	Mode string // "block", or "block-weak" (since systemd 257), which logind itself would not enforce on root
	UID  uint32
	PID  uint32
}

// String is for a status line.
func (i Inhibitor) String() string {
	return fmt.Sprintf("%s: %s (%s, uid %d, pid %d)", i.Who, i.Why, i.Mode, i.UID, i.PID)
}

// Session is somebody logged in, on a console, a desktop or from another machine.
type Session struct {
	ID     string
	User   string
	UID    uint32
	TTY    string    // "tty1", "pts/0"; empty: none, as with scp
	Host   string    // where it comes from; empty: here, or not known
	Remote bool      // it comes from another machine
	Since  time.Time // by the clock of then; zero: not known
	Active bool      // it is in the foreground of its seat, or has none
}

// String is for a status line.
func (s Session) String() string {
	text := s.User
	if s.TTY != "" {
		text += " on " + s.TTY
	}
	if s.Host != "" {
		text += " from " + s.Host
	}
	if !s.Since.IsZero() {
		text += " since " + s.Since.UTC().Format(time.RFC3339)
	}
	return text
}

// Client asks logind. The zero Client asks on the system bus. Its methods may be called from several goroutines.
type Client struct {
	Address string // of the bus, "unix:path=…"; empty: the system bus

	mu   sync.Mutex
	conn *dbus.Conn
}

// Inhibitors returns what blocks a shutdown; inhibitors that only delay one, or are about sleep and keys, are left out.
func (c *Client) Inhibitors(ctx context.Context) ([]Inhibitor, error) {
	var all []struct {
		What, Who, Why, Mode string
		UID, PID             uint32
	}
	if err := c.ask(ctx, "ListInhibitors", &all); err != nil {
		return nil, err
	}
	if len(all) > maxItems {
		return nil, fault.New(fault.IO, "logind: %d inhibitors, at most %d are expected", len(all), maxItems)
	}
	blocking := []Inhibitor{}
	for _, i := range all {
		if !blocksShutdown(i.What, i.Mode) {
			continue
		}
		blocking = append(blocking, Inhibitor{Who: clean(i.Who), Why: clean(i.Why), Mode: i.Mode, UID: i.UID, PID: i.PID})
	}
	return blocking, nil
}

// blocksShutdown reads an inhibitor's what, a list separated by colons, and its mode.
func blocksShutdown(what, mode string) bool {
	if mode != "block" && mode != "block-weak" {
		return false
	}
	for w := range strings.SplitSeq(what, ":") {
		if w == "shutdown" {
			return true
		}
	}
	return false
}

// Sessions returns the people who are logged in. Left out are sessions that are no person's: greeters, lock screens, managers, background jobs, those without terminal,
// desktop or remote side (cron), and those that are closing.
func (c *Client) Sessions(ctx context.Context) ([]Session, error) {
	var all []struct {
		ID     string
		UID    uint32
		User   string
		Seat   string
		Object dbus.ObjectPath
	}
	if err := c.ask(ctx, "ListSessions", &all); err != nil {
		return nil, err
	}
	if len(all) > maxItems {
		return nil, fault.New(fault.IO, "logind: %d sessions, at most %d are expected", len(all), maxItems)
	}
	sessions := []Session{}
	for _, s := range all {
		var p map[string]dbus.Variant
		err := c.call(ctx, s.Object, "org.freedesktop.DBus.Properties.GetAll", &p, name+".Session")
		if gone(err) { // it ended after we had the list
			continue
		}
		if err != nil {
			return nil, fault.New(fault.IO, "logind: session %s: %w", clean(s.ID), err)
		}
		d, err := decodeSession(p)
		if err != nil {
			return nil, fault.New(fault.IO, "logind: session %s: %w", clean(s.ID), err)
		}
		if d.interactive() {
			sessions = append(sessions, Session{
				ID: clean(s.ID), User: clean(s.User), UID: s.UID,
				TTY: clean(d.tty), Host: clean(d.host), Remote: d.remote, Since: d.since, Active: d.active,
			})
		}
	}
	return sessions, nil
}

// details are a session's properties.
type details struct {
	class, kind, tty, host, state string
	remote, active                bool
	since                         time.Time
}

// decodeSession reads the properties. Those that decide whether it is a person's must be there.
func decodeSession(p map[string]dbus.Variant) (details, error) {
	var d details
	var micros uint64
	for _, err := range []error{
		property(p, "Class", &d.class, true), property(p, "State", &d.state, true), property(p, "Type", &d.kind, true),
		property(p, "TTY", &d.tty, true), property(p, "Remote", &d.remote, true), property(p, "RemoteHost", &d.host, false),
		property(p, "Active", &d.active, false), property(p, "Timestamp", &micros, false),
	} {
		if err != nil {
			return details{}, err
		}
	}
	const year9999 = 253_402_300_799_000_000
	if micros > 0 && micros <= year9999 {
		d.since = time.UnixMicro(int64(micros)).UTC()
	}
	return d, nil
}

// property stores one of exactly the type that it should have; godbus itself would make a text of a number.
func property[T any](p map[string]dbus.Variant, key string, to *T, must bool) error {
	v, ok := p[key]
	if !ok {
		if must {
			return fmt.Errorf("no property %s", key)
		}
		return nil
	}
	value, ok := v.Value().(T)
	if !ok {
		return fmt.Errorf("property %s has type %s", key, v.Signature())
	}
	*to = value
	return nil
}

// interactive reports whether a person sits behind the session. The classes of people are user, and since systemd 256 user-early (root) and its like.
func (d details) interactive() bool {
	if d.class != "user" && !strings.HasPrefix(d.class, "user-") {
		return false
	}
	if d.state == "closing" {
		return false
	}
	return d.remote || d.tty != "" || (d.kind != "unspecified" && d.kind != "")
}

// gone reports whether logind says that the object is not there any more.
func gone(err error) bool {
	var e dbus.Error
	if !errors.As(err, &e) {
		return false
	}
	switch e.Name {
	case "org.freedesktop.DBus.Error.UnknownObject", name + ".NoSuchSession":
		return true
	}
	return false
}

func (c *Client) ask(ctx context.Context, method string, to any) error {
	if err := c.call(ctx, manager, name+".Manager."+method, to); err != nil {
		return fault.New(fault.IO, "logind: %s: %w", method, err)
	}
	return nil
}

// call asks, and asks once more on a new connection where the old one turns out to be broken.
func (c *Client) call(ctx context.Context, object dbus.ObjectPath, method string, to any, args ...any) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	for again := true; ; again = false {
		conn, err := c.connect(ctx)
		if err != nil {
			return err
		}
		err = conn.Object(name, object).CallWithContext(ctx, method, 0, args...).Store(to)
		if err == nil || ctx.Err() != nil || conn.Connected() || !again {
			return err
		}
	}
}

// connect returns the connection, a new one where there is none that lives.
func (c *Client) connect(ctx context.Context) (*dbus.Conn, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn != nil && c.conn.Connected() {
		return c.conn, nil
	}
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
	var conn *dbus.Conn
	var err error
	// The connection outlives the question, so it is made without its context; a bus is local and answers or is not there.
	if c.Address == "" {
		conn, err = dbus.ConnectSystemBus()
	} else {
		conn, err = dbus.Connect(c.Address)
	}
	if err != nil {
		return nil, fmt.Errorf("connect to the bus: %w", err)
	}
	if err := ctx.Err(); err != nil {
		_ = conn.Close()
		return nil, err
	}
	c.conn = conn
	return conn, nil
}

// Close hangs up. A later question connects anew.
func (c *Client) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.conn == nil {
		return nil
	}
	err := c.conn.Close()
	c.conn = nil
	if err != nil {
		return fault.New(fault.IO, "logind: close the bus: %w", err)
	}
	return nil
}

// clean makes foreign text fit for a line.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) || (r >= '\u2028' && r <= '\u202e') || (r >= '\u2066' && r <= '\u2069') {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) > maxText {
		s = strings.ToValidUTF8(s[:maxText], "") + "…"
	}
	return s
}
