package drain

import (
	"context"
	"encoding/json"
	"net"

	"github.com/semper-os/semper/fault"
)

// Client asks the drain service, which systemd starts where it does not run.
type Client struct {
	Path string // of the socket; "": SocketPath
}

// Drain calls every drain hook. Nil means that all succeeded and that the machine may reboot; after an error nothing is drained any more, as far as the hooks
// could be called back. A hook that failed is a *HookError. When ctx ends the wish is taken back.
func (c Client) Drain(ctx context.Context, r Request) error {
	return c.ask(ctx, request{Verb: verbDrain, Reason: r.Reason, From: r.From, To: r.To, Limit: r.Limit})
}

// Undrain calls back what was drained, before a reboot that did not come or after the one that did. Nothing drained is success.
func (c Client) Undrain(ctx context.Context) error { return c.ask(ctx, request{Verb: verbUndrain}) }

// Warn writes text to terminals, named as logind names a session's ("pts/0", "tty1"). Control characters are replaced. Without ttys it does nothing.
func (c Client) Warn(ctx context.Context, text string, ttys []string) error {
	if len(ttys) == 0 {
		return nil
	}
	return c.ask(ctx, request{Verb: verbWarn, Text: clip(text, maxText-len("…")), TTYs: ttys})
}

func (c Client) ask(ctx context.Context, r request) error {
	if err := r.check(); err != nil {
		return inputf("%w", err)
	}
	path := c.Path
	if path == "" {
		path = SocketPath
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return fault.New(fault.IO, "connect to the drain service: %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	data, err := json.Marshal(r)
	if err != nil {
		return fault.New(fault.Internal, "request: %w", err)
	}
	if _, err := conn.Write(append(data, '\n')); err != nil {
		return fault.New(fault.IO, "%s: ask the drain service: %w", r.Verb, err)
	}
	line, err := readLine(conn)
	if ctx.Err() != nil {
		return fault.New(fault.IO, "%s: %w", r.Verb, context.Cause(ctx))
	}
	if err != nil {
		return fault.New(fault.KindOf(err), "%s: answer of the drain service: %w", r.Verb, err)
	}
	return decodeReply(line)
}
