package drain

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/wire"
)

const (
	maxConnections = 8
	peerWait       = 10 * time.Second // for a peer to send its request, or to take its reply
)

// Options are for Serve.
type Options struct {
	Root  string         // where the folders of hooks are, "/" on a machine
	State durable.Folder // for the record
	// Allowed are the user ids that may connect: root's.
	Allowed []uint32
	// Limit is the time for all hooks together where the request does not say; 0: DefaultLimit.
	Limit time.Duration
	// Idle is how long Serve waits without a connection before it returns; the service manager starts the program again when it is needed.
	Idle time.Duration
	Now  func() time.Time
	Log  *slog.Logger
}

// server answers requests. Drain and undrain never run at the same time.
type server struct {
	hooks
	turn  chan struct{}
	write func(name, text string) error // to a terminal
}

func newServer(o Options) *server {
	if o.Limit == 0 {
		o.Limit = DefaultLimit
	}
	return &server{
		hooks: hooks{root: o.Root, state: o.State, limit: o.Limit, now: o.Now, log: o.Log},
		turn:  make(chan struct{}, 1), write: writeTTY,
	}
}

// Serve answers requests until ctx ends or nobody has been connected for the idle time.
func Serve(ctx context.Context, l net.Listener, o Options) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	context.AfterFunc(ctx, func() { l.Close() })

	s := newServer(o)
	var mu sync.Mutex
	open := 0
	idle := time.AfterFunc(o.Idle, stop)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fault.New(fault.IO, "accept: %w", err)
			}
			o.Log.Warn("accept", "error", err)
			select { // out of file descriptors, for instance: not in a tight loop
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		if err := admit(conn, o.Allowed); err != nil {
			o.Log.Warn("connection refused", "error", err)
			conn.Close()
			continue
		}
		mu.Lock()
		if open >= maxConnections || ctx.Err() != nil {
			mu.Unlock()
			conn.Close()
			continue
		}
		open++
		idle.Stop()
		mu.Unlock()
		wg.Go(func() {
			if err := s.handle(ctx, conn); err != nil {
				o.Log.Warn("request", "error", err)
			}
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			if open--; open == 0 {
				idle.Reset(o.Idle)
			}
		})
	}
}

// admit asks the kernel who is calling.
func admit(conn net.Conn, allowed []uint32) error {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return fault.New(fault.Internal, "not a Unix socket")
	}
	uid, err := wire.Peer(c)
	if err != nil {
		return err
	}
	if !slices.Contains(allowed, uid) {
		return fault.New(fault.Verification, "user %d may not talk to the drain service", uid)
	}
	return nil
}

// handle answers one connection.
func (s *server) handle(alive context.Context, conn net.Conn) error {
	_ = conn.SetReadDeadline(time.Now().Add(peerWait))
	line, err := readLine(conn)
	var q request
	if err == nil {
		q, err = decodeRequest(line)
	}
	if err == nil {
		_ = conn.SetReadDeadline(time.Time{})
		ctx, cancel := context.WithCancel(alive)
		defer cancel()
		go func() { // a peer that hangs up, or says more than it may, takes its wish back
			_, _ = conn.Read(make([]byte, 1))
			cancel()
		}()
		err = s.do(ctx, alive, q)
	}
	data, encodeErr := json.Marshal(newReply(err))
	if encodeErr != nil {
		return fault.Wrap(fault.Internal, encodeErr)
	}
	_ = conn.SetWriteDeadline(time.Now().Add(peerWait))
	_, _ = conn.Write(append(data, '\n')) // whoever asked may have gone
	return err
}

func (s *server) do(ctx, alive context.Context, q request) error {
	if q.Verb == verbWarn {
		return warn(q.Text, q.TTYs, s.now(), s.write)
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return fault.New(fault.IO, "%s: given up while another request was served", q.Verb)
	}
	if q.Verb == verbUndrain {
		return s.undrain(alive) // half of it helps nobody: it is not taken back
	}
	return s.drain(ctx, alive, Request{Reason: q.Reason, From: q.From, To: q.To, Limit: q.Limit})
}
