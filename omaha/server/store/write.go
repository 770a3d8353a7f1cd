package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/semper-os/semper/fault"
)

const (
	maxBatch   = 128             // writes that share a commit
	touchEvery = 2 * time.Second // how long a last-seen time may lag
)

type job struct {
	do   func(Tx) error
	done chan error
}

type machineKey struct{ app, id string }

type touch struct {
	seen    time.Time
	address string
}

// Write runs do with the right to change the database and returns once its changes are on disk. An error of do undoes its own changes
// and no other's. Do must be quick and must not call Write.
func (s *Store) Write(ctx context.Context, do func(Tx) error) error {
	j := &job{do: do, done: make(chan error, 1)}
	select {
	case s.jobs <- j:
		return <-j.done // it runs now, whatever becomes of ctx
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return errClosed
	}
}

// Touch notes that a machine that is in the database was seen, and returns at once; the disk follows within seconds.
func (s *Store) Touch(app, id, address string, seen time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.touches[machineKey{app, id}] = touch{seen, address}
}

func (s *Store) run() {
	defer s.loop.Done()
	tick, look := time.NewTicker(touchEvery), time.NewTicker(lookEvery)
	defer tick.Stop()
	defer look.Stop()
	for {
		select {
		case j := <-s.jobs:
			s.commit(s.gather(j))
		case <-look.C:
			_ = s.lookForChanges(context.Background(), s.read) // it is tried again at once, and readers notice a broken database
		case <-tick.C:
			s.flush()
		case <-s.stop:
			s.flush()
			return
		}
	}
}

// lookEvery is how soon another program's changes are noticed.
const lookEvery = 50 * time.Millisecond

// Changes is a number that is another one once something has changed that decides what machines are answered: channels, releases, rollouts' states, groups, pins, freshness.
// It is right for what this Store has written, and at most lookEvery late for what another program has. Machines and counters do not count.
func (s *Store) Changes() int64 { return s.changes.Load() }

func (s *Store) lookForChanges(ctx context.Context, db *sql.DB) error {
	var n int64
	if err := db.QueryRowContext(ctx, "SELECT n FROM changes").Scan(&n); err != nil {
		return failed("look for changes", err)
	}
	s.changes.Store(n)
	return nil
}

// gather takes what waits beside j without waiting for more.
func (s *Store) gather(j *job) []*job {
	batch := []*job{j}
	for len(batch) < maxBatch {
		select {
		case j := <-s.jobs:
			batch = append(batch, j)
		default:
			return batch
		}
	}
	return batch
}

// commit runs a batch in one transaction, each job in a savepoint of its own.
func (s *Store) commit(batch []*job) {
	results := make([]error, len(batch))
	err := s.transaction(func(ctx context.Context, conn *sql.Conn) error {
		for i, j := range batch {
			if _, err := conn.ExecContext(ctx, "SAVEPOINT job"); err != nil {
				return err
			}
			if results[i] = guarded(j.do, Tx{conn}); results[i] != nil {
				if _, err := conn.ExecContext(ctx, "ROLLBACK TO job"); err != nil {
					return err
				}
			}
			if _, err := conn.ExecContext(ctx, "RELEASE job"); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil { // before anybody hears of it
		err = s.lookForChanges(context.Background(), s.write)
	}
	for i, j := range batch {
		if results[i] == nil {
			results[i] = err
		}
		j.done <- results[i]
	}
}

// guarded turns a panic into an error: one request's bug must not end the writer that all others wait for.
func guarded(do func(Tx) error, tx Tx) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic in a database write: %v", p)
		}
	}()
	return do(tx)
}

func (s *Store) transaction(do func(context.Context, *sql.Conn) error) error {
	ctx := context.Background()
	conn, err := s.write.Conn(ctx)
	if err != nil {
		return failed("begin", err)
	}
	defer func() { _ = conn.Close() }() // gives it back to the pool
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return failed("begin", err)
	}
	if err := do(ctx, conn); err != nil {
		_, undo := conn.ExecContext(ctx, "ROLLBACK")
		return fault.New(fault.IO, "database: write: %w", joinIf(err, undo))
	}
	if _, err := conn.ExecContext(ctx, "COMMIT"); err != nil {
		_, _ = conn.ExecContext(ctx, "ROLLBACK") // a failed commit may leave the transaction open
		return failed("commit", err)
	}
	return nil
}

func joinIf(err, second error) error {
	if second != nil {
		return fmt.Errorf("%w (and to undo it: %w)", err, second)
	}
	return err
}

// flush writes the touches. A failure costs nothing but freshness: the machines will be seen again.
func (s *Store) flush() {
	touches := s.takeTouches()
	if len(touches) == 0 {
		return
	}
	_ = s.transaction(func(ctx context.Context, conn *sql.Conn) error { return keepTouches(ctx, conn, touches) })
}

// Settle has on disk when it returns what Touch was told before.
func (s *Store) Settle(ctx context.Context) error {
	touches := s.takeTouches()
	if len(touches) == 0 {
		return nil
	}
	return s.Write(ctx, func(tx Tx) error { return failed("keep when machines were seen", keepTouches(ctx, tx.q, touches)) })
}

func (s *Store) takeTouches() map[machineKey]touch {
	s.mu.Lock()
	defer s.mu.Unlock()
	touches := s.touches
	s.touches = map[machineKey]touch{}
	return touches
}

func keepTouches(ctx context.Context, q queryer, touches map[machineKey]touch) error {
	for k, t := range touches {
		if _, err := q.ExecContext(ctx, "UPDATE machines SET last_seen = max(last_seen, ?), address = ? WHERE app = ? AND id = ?",
			millis(t.seen), t.address, k.app, k.id); err != nil {
			return err
		}
	}
	return nil
}
