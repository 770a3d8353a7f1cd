package wire

import (
	"context"
	"errors"
	"io"
	"net"

	"github.com/semper-os/semper/fault"
)

// Client is semperd's end of a connection.
type Client struct {
	conn net.Conn
	c    *Conn
}

// Dial connects to semper-installd's socket; systemd starts the program where it does not run.
func Dial(ctx context.Context, path string) (*Client, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, fault.New(fault.IO, "connect to semper-installd: %w", err)
	}
	return &Client{conn: conn, c: NewConn(conn)}, nil
}

// Close hangs up; a session that is open ends as by Abort.
func (c *Client) Close() error { return c.conn.Close() }

func (c *Client) reply(sendErr error) (Reply, error) {
	// The server may have sent its refusal and hung up before it read all of what we sent: its words say more than "broken pipe".
	kind, p, err := c.c.Receive()
	if err != nil {
		if sendErr != nil {
			return Reply{}, sendErr
		}
		if errors.Is(err, io.EOF) {
			return Reply{}, fault.New(fault.IO, "semper-installd hung up")
		}
		return Reply{}, err
	}
	if kind != Control {
		return Reply{}, fault.New(fault.Input, "semper-installd sent payload data")
	}
	r, err := DecodeReply(p)
	if err != nil {
		return Reply{}, err
	}
	return r, r.Err()
}

func (c *Client) do(r Request) (Reply, error) { return c.reply(c.c.SendControl(r)) }

// Status asks for the machine's slots.
func (c *Client) Status() (Status, error) {
	r, err := c.do(Request{Verb: VerbStatus})
	if err != nil {
		return Status{}, err
	}
	if r.Status == nil {
		return Status{}, fault.New(fault.Input, "semper-installd's answer has no status")
	}
	return *r.Status, nil
}

// Begin opens a session and returns the offset from which the payload must be sent.
func (c *Client) Begin(b Begin) (int64, error) {
	r, err := c.do(Request{Verb: VerbBegin, Begin: &b})
	if err != nil {
		return 0, err
	}
	if r.Offset > b.Size {
		return 0, fault.New(fault.Input, "semper-installd wants byte %d of a payload of %d bytes", r.Offset, b.Size)
	}
	return r.Offset, nil
}

// Data sends the next bytes of the payload, at most MaxFrame, and returns when they are consumed.
func (c *Client) Data(p []byte) error {
	_, err := c.reply(c.c.SendData(p))
	return err
}

// Finish verifies and activates the update; when it returns nil the next boot tries it.
func (c *Client) Finish() error { return c.simple(VerbFinish) }

// Abort ends the session and keeps what was written.
func (c *Client) Abort() error { return c.simple(VerbAbort) }

// Discard ends the session and forgets what was written.
func (c *Client) Discard() error { return c.simple(VerbDiscard) }

// Reboot restarts the machine, with soft by a soft-reboot if that will do. It is refused unless an update is pending, and on a machine that has something
// to drain unless that was done a short while ago.
func (c *Client) Reboot(soft bool) (Going, error) {
	r, err := c.do(Request{Verb: VerbReboot, Soft: soft})
	if err != nil {
		return Going{}, err
	}
	if r.Reboot == nil {
		return Going{}, fault.New(fault.Input, "semper-installd's answer does not say how the machine reboots")
	}
	return *r.Reboot, nil
}

// Drain moves the machine's work away before a reboot, and returns when that is done. It is refused unless an update is pending.
func (c *Client) Drain(reason string) error { return c.send(Request{Verb: VerbDrain, Reason: reason}) }

// Undrain lets work come back.
func (c *Client) Undrain() error { return c.simple(VerbUndrain) }

// Warn writes text to terminals. It is refused unless an update is pending.
func (c *Client) Warn(text string, ttys []string) error {
	return c.send(Request{Verb: VerbWarn, Warn: &Warn{Text: text, TTYs: ttys}})
}

// Allow lets exactly this version, which is older than what runs, be installed once within the next hour. Only root is listened to.
func (c *Client) Allow(version string) error {
	return c.send(Request{Verb: VerbAllow, Version: version})
}

// Rollback makes the other slot the one that boots next; Reboot then goes there. Only root is listened to.
func (c *Client) Rollback(reason string) error {
	return c.send(Request{Verb: VerbRollback, Reason: reason})
}

func (c *Client) simple(v Verb) error { return c.send(Request{Verb: v}) }

func (c *Client) send(r Request) error {
	_, err := c.do(r)
	return err
}
