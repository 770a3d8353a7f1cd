package store

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"
)

const (
	maxBatch   = 128             // writes that share a commit
	touchEvery = 2 * time.Second // how long a last-seen time may lag
)

type job struct {
	do   func(Tx) error
	done chan error
	long time.Duration // that it may take, when it is more than is usual
}

type machineKey struct{ app, id string }

type touch struct {
	seen    time.Time
	address string
}

// Write runs do with the right to change the database and returns once its changes are on disk. An error of do undoes its own changes
// and no other's. Do must be quick and must not call Write.
func (s *Store) Write(ctx context.Context, do func(Tx) error) error {
	return s.submit(ctx, &job{do: do, done: make(chan error, 1)})
}

func (s *Store) submit(ctx context.Context, j *job) error {
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

// run runs the writes, and hands them on to be on disk.
func (s *Store) run() {
	defer s.loop.Done()
	defer close(s.committed)
	tick, look := time.NewTicker(touchEvery), time.NewTicker(lookEvery)
	defer tick.Stop()
	defer look.Stop()
	for {
		select {
		case j := <-s.jobs:
			s.commit(s.gather(j))
		case <-look.C:
			if n, err := countChanges(context.Background(), s.db.reader()); err == nil { // else it is tried again at once, and readers notice a broken database
				s.changes.Store(n)
			}
		case <-tick.C:
			s.flush()
		case <-s.stop:
			s.flush()
			return
		}
	}
}

// finished are jobs that ran, and what became of them.
type finished struct {
	jobs    []*job
	results []error
}

// persist tells what became of jobs once it is on disk. The next ones run meanwhile, and one sync is for all that were committed before it.
func (s *Store) persist() {
	defer s.loop.Done()
	for f := range s.committed {
		all := []finished{f}
		for more := true; more; {
			select {
			case f, ok := <-s.committed:
				if more = ok; ok {
					all = append(all, f)
				}
			default:
				more = false
			}
		}
		err := s.db.persist()
		if err != nil { // what is on disk now, nobody knows: later commits build on it
			s.broken.Store(&err)
		}
		for _, f := range all {
			for i, j := range f.jobs {
				j.done <- cmp.Or(f.results[i], err)
			}
		}
	}
}

// lookEvery is how soon another program's changes are noticed.
const lookEvery = 50 * time.Millisecond

// Changes is a number that is another one once something has changed that decides what machines are answered: channels, releases, rollouts' states, groups, pins, freshness.
// It is right for what this Store has written, and at most lookEvery late for what another program has. Machines and counters do not count.
func (s *Store) Changes() int64 { return s.changes.Load() }

// Changes is Store.Changes as this transaction finds it, with what was changed in it.
func (tx Tx) Changes(ctx context.Context) (int64, error) { return countChanges(ctx, tx.q) }

func countChanges(ctx context.Context, q queryer) (n int64, err error) {
	return n, failed("look for changes", q.row(ctx, "SELECT n FROM changes").Scan(&n))
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
	defer func() { s.committed <- finished{batch, results} }()
	if broken := s.broken.Load(); broken != nil {
		for i := range results {
			results[i] = *broken
		}
		return
	}
	var changes int64
	ctx := context.Background()
	for _, j := range batch {
		if j.long > 0 {
			var cancel context.CancelFunc
			ctx, cancel = context.WithTimeout(ctx, j.long)
			defer cancel()
		}
	}
	err := s.db.transaction(ctx, func(ctx context.Context, q queryer) (err error) {
		if len(batch) == 1 { // what undoes all undoes this, and nobody pays for a savepoint
			if results[0] = guarded(batch[0].do, Tx{lasting{ctx, q}}); results[0] != nil {
				return results[0]
			}
		} else {
			for i, j := range batch {
				if results[i], err = one(ctx, q, j); err != nil {
					return err
				}
			}
		}
		changes, err = countChanges(ctx, q)
		return err
	})
	if err == nil {
		s.changes.Store(changes) // before anybody hears of it
	}
	for i := range batch {
		results[i] = cmp.Or(results[i], err)
	}
}

// one runs a job so that an error of it undoes what it did and nothing else; err is one of the database.
func one(ctx context.Context, q queryer, j *job) (result, err error) {
	if _, err := q.exec(ctx, "SAVEPOINT job"); err != nil {
		return nil, err
	}
	result = guarded(j.do, Tx{lasting{ctx, q}})
	if result != nil {
		if _, err := q.exec(ctx, "ROLLBACK TO SAVEPOINT job"); err != nil {
			return result, err
		}
	}
	_, err = q.exec(ctx, "RELEASE SAVEPOINT job")
	return result, err
}

// lasting runs SQL for as long as the transaction lasts that it is part of, and not only for as long as somebody waits for one of its jobs.
type lasting struct {
	ctx context.Context
	q   queryer
}

func (l lasting) exec(_ context.Context, query string, args ...any) (int64, error) {
	return l.q.exec(l.ctx, query, args...)
}

func (l lasting) query(_ context.Context, query string, args ...any) (*sql.Rows, error) {
	return l.q.query(l.ctx, query, args...)
}

func (l lasting) row(_ context.Context, query string, args ...any) scanner {
	return l.q.row(l.ctx, query, args...)
}

func (l lasting) lookup(_ context.Context, query string, rows [][]any, scan func(scanner) error) error {
	return l.q.lookup(l.ctx, query, rows, scan)
}

func (l lasting) many(_ context.Context, query string, rows [][]any) error {
	return l.q.many(l.ctx, query, rows)
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
	_ = s.db.transaction(context.Background(), func(ctx context.Context, q queryer) error { return keepTouches(ctx, q, touches) })
	s.committed <- finished{}
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
	rows := make([][]any, 0, len(touches))
	for k, t := range touches {
		rows = append(rows, []any{millis(t.seen), millis(t.seen), t.address, k.app, k.id})
	}
	slices.SortFunc(rows, func(a, b []any) int { return cmp.Compare(a[4].(string), b[4].(string)) }) // neighbours on disk one after the other
	return q.many(ctx, "UPDATE machines SET last_seen = CASE WHEN last_seen > ? THEN last_seen ELSE ? END, address = ? WHERE app = ? AND id = ?", rows)
}
