package wire

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/semper-os/semper/fault"
)

// Handler is what semper-installd does for one connection. Its methods are called one after the other.
type Handler interface {
	Status() (Status, error)
	// Begin returns the offset from which the payload must follow. ErrBusy: somebody else's session is open.
	Begin(Begin) (int64, error)
	// Data consumes the next bytes of the payload and returns the offset of the byte after them.
	Data([]byte) (int64, error)
	Finish() error
	Abort() error
	Discard() error
	// Reboot goes down by a soft-reboot if soft is wished for and will do.
	Reboot(soft bool) (Going, error)
	// What Drain, Undrain and Warn do ends early when ctx does.
	Drain(ctx context.Context, reason string) error
	Undrain(ctx context.Context) error
	Warn(ctx context.Context, w Warn) error
	// Allow and Rollback are root's: a Handler knows whose connection it serves, and refuses others with ErrNotRoot.
	Allow(version string) error
	Rollback(reason string) error
}

// ErrBusy is a Handler's answer to Begin while another connection's session is open.
var ErrBusy = fault.New(fault.IO, "another installation is running")

// ErrNotRoot is a Handler's answer to what semperd may not ask for.
var ErrNotRoot = fault.New(fault.Verification, "only root may ask for this")

// Coded is an error that knows the error code for the update server.
type Coded interface{ OmahaCode() int }

// Serve answers rw's frames with h until the peer hangs up, or breaks the protocol, which is an error. An open session is aborted at the end. What takes
// long ends with ctx.
func Serve(ctx context.Context, rw io.ReadWriter, h Handler) error {
	s := server{ctx: ctx, rw: rw, c: NewConn(rw), h: h}
	err := s.run()
	if s.open {
		err = errors.Join(err, h.Abort())
	}
	return err
}

type server struct {
	ctx  context.Context
	rw   io.ReadWriter
	c    *Conn
	h    Handler
	open bool
}

// How long a peer may take. A session waits for the network behind semperd, which breaks a transfer off long before that.
const (
	quietLimit = 30 * time.Minute // between two frames
	frameLimit = time.Minute      // from a frame's first byte to its last, and for the answer to be taken
)

// deadlines is a net.Conn, of which a test may not have one.
type deadlines interface {
	SetReadDeadline(time.Time) error
	SetWriteDeadline(time.Time) error
}

// receive reads a frame, and does not wait for ever where the stream knows deadlines: a peer that hangs must not keep the installer from everybody else.
func (s *server) receive() (Kind, []byte, error) {
	d, ok := s.rw.(deadlines)
	if !ok {
		return s.c.Receive()
	}
	if err := d.SetReadDeadline(time.Now().Add(quietLimit)); err != nil {
		return 0, nil, fault.New(fault.IO, "limit the wait for a frame: %w", err)
	}
	return s.c.receive(func() error { return d.SetReadDeadline(time.Now().Add(frameLimit)) })
}

func (s *server) run() error {
	for {
		kind, p, err := s.receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			if fault.Is(err, fault.Input) {
				_ = s.answer(Reply{Failure: failure(err)})
			}
			return err
		}
		var reply Reply
		if kind == Data {
			reply, err = s.data(p)
		} else {
			var r Request
			r, err = DecodeRequest(p)
			if err != nil { // a peer that does not speak the protocol is not listened to any longer
				_ = s.answer(Reply{Failure: failure(err)})
				return err
			}
			reply, err = s.control(r)
		}
		if err != nil {
			reply = Reply{Failure: failure(err)}
		}
		if err := s.answer(reply); err != nil {
			return err
		}
	}
}

func (s *server) answer(reply Reply) error {
	if d, ok := s.rw.(deadlines); ok { // what the answer is to may have taken long
		if err := d.SetWriteDeadline(time.Now().Add(frameLimit)); err != nil {
			return fault.New(fault.IO, "limit the wait for the peer: %w", err)
		}
	}
	return s.c.SendControl(reply)
}

var (
	errNoSession = fault.New(fault.Input, "no installation was begun")
	errSession   = fault.New(fault.Input, "an installation was begun already")
)

func (s *server) data(p []byte) (Reply, error) {
	if !s.open {
		return Reply{}, errNoSession
	}
	offset, err := s.h.Data(p)
	if err != nil {
		return Reply{}, s.end(err)
	}
	return Reply{Offset: offset}, nil
}

// end closes the session after a failure.
func (s *server) end(err error) error {
	s.open = false
	return errors.Join(err, s.h.Abort())
}

func (s *server) control(r Request) (Reply, error) {
	switch r.Verb {
	case VerbStatus:
		st, err := s.h.Status()
		if err != nil {
			return Reply{}, err
		}
		return Reply{Status: &st}, nil
	case VerbReboot:
		going, err := s.h.Reboot(r.Soft)
		if err != nil {
			return Reply{}, err
		}
		return Reply{Reboot: &going}, nil
	case VerbDrain:
		return Reply{}, s.h.Drain(s.ctx, r.Reason)
	case VerbUndrain:
		return Reply{}, s.h.Undrain(s.ctx)
	case VerbWarn:
		return Reply{}, s.h.Warn(s.ctx, *r.Warn)
	case VerbAllow:
		return Reply{}, s.h.Allow(r.Version)
	case VerbRollback:
		return Reply{}, s.h.Rollback(r.Reason)
	case VerbBegin:
		if s.open {
			return Reply{}, errSession
		}
		offset, err := s.h.Begin(*r.Begin)
		if err != nil {
			return Reply{}, err
		}
		s.open = true
		return Reply{Offset: offset}, nil
	}
	if !s.open {
		return Reply{}, errNoSession
	}
	switch r.Verb {
	case VerbFinish:
		if err := s.h.Finish(); err != nil {
			return Reply{}, s.end(err)
		}
		s.open = false
		return Reply{}, nil
	case VerbDiscard:
		s.open = false
		return Reply{}, s.h.Discard()
	default: // VerbAbort; DecodeRequest let no other through
		s.open = false
		return Reply{}, s.h.Abort()
	}
}

// maxFailureText keeps a failure far below MaxFrame.
const maxFailureText = 8 << 10

func failure(err error) *Failure {
	f := &Failure{Text: err.Error(), Kind: fault.KindOf(err).String(), Busy: errors.Is(err, ErrBusy)}
	if len(f.Text) > maxFailureText {
		f.Text = f.Text[:maxFailureText] + "…"
	}
	var c Coded
	if errors.As(err, &c) {
		f.Code = c.OmahaCode()
	}
	return f
}
