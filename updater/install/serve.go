package install

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/wire"
)

// maxConnections bounds how many connections of root, and how many of others, are served at once. Nobody needs more than one or two, and semperd, should
// it use up its own, must not keep root from being heard.
const maxConnections = 8

// Server answers connections on the installer's socket.
type Server struct {
	Core *Core
	// Allowed are the user ids that may connect, semperd's and root's.
	Allowed []uint32
	// Idle is how long Serve waits without a connection before it returns; the service manager starts the program again when it is needed.
	Idle time.Duration
	Log  *slog.Logger
}

// Serve accepts connections until ctx ends or nobody has been connected for the idle time. It returns when all sessions have ended: a running one
// is interrupted, which leaves a checkpoint.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, stop := context.WithCancel(ctx)
	defer stop()

	var mu sync.Mutex
	open := map[net.Conn]uint32{} // by user
	context.AfterFunc(ctx, func() {
		l.Close()
		mu.Lock()
		defer mu.Unlock()
		for c := range open {
			c.Close()
		}
	})
	var idle *time.Timer
	mu.Lock()
	idle = time.AfterFunc(s.Idle, func() {
		mu.Lock()
		defer mu.Unlock()
		if len(open) > 0 {
			return // somebody came this very moment
		}
		if s.Core.remembers() {
			idle.Reset(s.Idle)
			return
		}
		stop()
	})
	mu.Unlock()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fault.New(fault.IO, "accept: %w", err)
			}
			s.Log.Warn("accept", "error", err)
			select { // out of file descriptors, for instance: not in a tight loop
			case <-ctx.Done():
			case <-time.After(time.Second):
			}
			continue
		}
		uid, err := s.admit(conn)
		if err != nil {
			s.Log.Warn("connection refused", "error", err)
			conn.Close()
			continue
		}
		mu.Lock()
		if crowd(open, uid) >= maxConnections || ctx.Err() != nil {
			mu.Unlock()
			conn.Close()
			continue
		}
		open[conn] = uid
		idle.Stop()
		mu.Unlock()
		wg.Go(func() {
			if err := wire.Serve(ctx, conn, s.Core.Handler(uid)); err != nil && ctx.Err() == nil {
				s.Log.Warn("connection", "error", err)
			}
			conn.Close()
			mu.Lock()
			defer mu.Unlock()
			delete(open, conn)
			if len(open) == 0 {
				idle.Reset(s.Idle)
			}
		})
	}
}

// crowd counts the connections of root where uid is root, and of all others where it is not.
func crowd(open map[net.Conn]uint32, uid uint32) (n int) {
	for _, other := range open {
		if (other == 0) == (uid == 0) {
			n++
		}
	}
	return n
}

// admit asks the kernel who is calling.
func (s *Server) admit(conn net.Conn) (uid uint32, err error) {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return 0, fault.New(fault.Internal, "not a Unix socket")
	}
	if uid, err = wire.Peer(c); err != nil {
		return 0, err
	}
	if !slices.Contains(s.Allowed, uid) {
		return 0, fault.New(fault.Verification, "user %d may not talk to the installer", uid)
	}
	return uid, nil
}
