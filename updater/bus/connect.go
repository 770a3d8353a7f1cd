package bus

import (
	"context"
	"errors"
	"strconv"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/semper-os/semper/fault"
)

const (
	handshakeLimit = 10 * time.Second // to connect, say hello and get the name
	firstRetry     = time.Second      // after a connection that failed or ended; doubles up to maxRetry
	maxRetry       = time.Minute
)

// face is one name and what is behind it.
type face interface {
	name() string
	// export puts the objects on a connection that does not own the name yet. ctx ends with the connection.
	export(ctx context.Context, c *dbus.Conn) error
	// begin is called when the name is owned, with what is true now.
	begin(c emitter, s Status)
	// tell emits what s changes. Progress may be held back.
	tell(c emitter, s Status)
	// due is when what is held back must go out; zero: nothing is held back.
	due() time.Time
	// flush emits what is held back.
	flush(c emitter)
}

// emitter sends signals; a *dbus.Conn is one.
type emitter interface {
	Emit(path dbus.ObjectPath, name string, values ...any) error
}

// keep has f on the bus until ctx ends.
func (s *Service) keep(ctx context.Context, f face, q *queue) {
	log := s.o.Log.With("name", f.name())
	wait, quiet := firstRetry, false
	for ctx.Err() == nil {
		var since time.Time
		err := s.session(ctx, f, q, func() {
			log.Info("on the system bus")
			since, quiet = s.o.Clock.Now(), false
		})
		if ctx.Err() != nil {
			return
		}
		if !since.IsZero() && s.o.Clock.Now().Sub(since) >= maxRetry { // not a bus that comes and goes
			wait = firstRetry
		}
		if !quiet { // once until it works again
			log.Warn("not on the system bus; trying on", "error", err)
			quiet = true
		}
		select {
		case <-ctx.Done():
		case <-s.o.Clock.After(wait):
		}
		wait = min(2*wait, maxRetry)
	}
}

// session is one connection, from dialling to its end. up is called once the name is owned and the status told.
func (s *Service) session(ctx context.Context, f face, q *queue, up func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c, err := s.connect(ctx, f)
	if err != nil {
		return fault.New(fault.IO, "connect to the system bus: %w", err)
	}
	defer func() { _ = c.Close() }()
	f.begin(c, q.restart())
	up()
	for {
		var held <-chan time.Time
		if due := f.due(); !due.IsZero() {
			held = s.o.Clock.After(due.Sub(s.o.Clock.Now()))
		}
		select {
		case <-c.Context().Done():
			return fault.New(fault.IO, "the system bus closed the connection")
		case <-q.wake:
			for _, st := range q.take() {
				f.tell(c, st)
			}
		case <-held:
			f.flush(c)
		}
	}
}

// connect returns a connection that owns f's name. It is closed when ctx ends.
func (s *Service) connect(ctx context.Context, f face) (*dbus.Conn, error) {
	raw, err := s.o.Dial(ctx)
	if err != nil {
		return nil, err
	}
	if err := raw.SetDeadline(time.Now().Add(handshakeLimit)); err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	// This transport passes no file descriptors, so nobody can fill this process's table of them.
	c, err := dbus.NewConn(newBounded(raw), dbus.WithContext(ctx))
	if err != nil {
		return nil, errors.Join(err, raw.Close())
	}
	err = func() error {
		if err := c.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(s.o.UID))}); err != nil {
			return err
		}
		if err := c.Hello(); err != nil {
			return err
		}
		if err := f.export(c.Context(), c); err != nil {
			return err
		}
		reply, err := c.RequestName(f.name(), dbus.NameFlagDoNotQueue)
		if err != nil {
			return err
		}
		if reply != dbus.RequestNameReplyPrimaryOwner {
			return errors.New("somebody else owns the name " + f.name())
		}
		return raw.SetDeadline(time.Time{})
	}()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}
