// Package store keeps the update server's state in an SQLite or a PostgreSQL database; it holds all of the server's SQL and none of its rules.
//
// SQLite, on disk: semper.db with its -wal and -shm files. The schema's version is the database's user_version. Other programs may open the same database at the same time
// (semper-server's own verbs do). The journal is a write-ahead log, which the Store syncs itself: see persist.
//
// PostgreSQL: the tables are in the first schema of the connection's search path, which is for nothing else; the schema's version is in the table semper_schema. Several
// servers may share them. A transaction that writes holds the lock on the row of the table changes: there is one at a time, as with SQLite.
//
// Older schemas are brought forward when the database is opened, newer ones are refused.
//
// Durability: Write returns once its commit has been synced to the disk. Writes that wait at the same time share one commit and one sync, and the next ones run during it; when a
// sync fails, nothing is written any more. The one exception is Touch, which notes that a machine was seen and reaches the disk within seconds.
//
// Limits: of each machine the newest MaxEvents events and MaxFailures failed versions are kept.
package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semper-os/semper/fault"
)

// Bounds on what one machine can make the server keep.
const (
	MaxEvents   = 256
	MaxFailures = 64
)

// fileName is the database's name in the data folder.
const fileName = "semper.db"

// ErrNotFound is returned for what is not in the database.
var ErrNotFound = errors.New("not found")

var errClosed = errors.New("the database is closed")

// Store is an open database. Its methods may be called from several goroutines.
type Store struct {
	db   engine
	jobs chan *job
	stop chan struct{}

	committed chan finished         // that is not on disk yet
	broken    atomic.Pointer[error] // why nothing can be written any more
	closing   sync.Once
	loop      sync.WaitGroup

	changes atomic.Int64 // as Changes tells it
	guest   bool         // beside a server that may run on the same database
	before  int64        // changes when a guest came

	mu      sync.Mutex
	touches map[machineKey]touch
}

// Tx reads and, inside Write, changes the database.
type Tx struct{ q queryer }

// Create opens a database, and makes it when there is none: the one in the folder that is named, or PostgreSQL's where name is a URL.
func Create(ctx context.Context, name string) (*Store, error) {
	if IsURL(name) {
		db, err := openPostgres(ctx, name, true)
		if err != nil {
			return nil, err
		}
		return begin(ctx, db)
	}
	path := filepath.Join(name, fileName)
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) // SQLite would make it readable for all
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	if err := f.Close(); err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	return open(ctx, name)
}

// Open opens a database that a server made, in a folder or at a URL, whether it runs or not. Close then takes a moment after a change that decides what machines are answered,
// in which a running server notices it.
func Open(ctx context.Context, name string) (*Store, error) {
	s, err := open(ctx, name)
	if err == nil {
		s.guest, s.before = true, s.Changes()
	}
	return s, err
}

func open(ctx context.Context, name string) (*Store, error) {
	if IsURL(name) {
		db, err := openPostgres(ctx, name, false)
		if err != nil {
			return nil, err
		}
		return begin(ctx, db)
	}
	path := filepath.Join(name, fileName)
	switch _, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fault.New(fault.Input, "%s holds no server's data: there is no %s (semper-server serve makes it)", name, fileName)
	case err != nil:
		return nil, fault.Wrap(fault.IO, err)
	}
	db, err := openSQLite(ctx, path)
	if err != nil {
		return nil, err
	}
	return begin(ctx, db)
}

// begin starts to write what comes.
func begin(ctx context.Context, db engine) (*Store, error) {
	s := &Store{db: db, jobs: make(chan *job), stop: make(chan struct{}), committed: make(chan finished), touches: map[machineKey]touch{}}
	n, err := countChanges(ctx, db.reader())
	if err != nil {
		return nil, errors.Join(err, db.close())
	}
	s.changes.Store(n)
	s.loop.Add(2)
	go s.run()
	go s.persist()
	return s, nil
}

// Close waits for the writes under way, writes what Touch noted, and closes the database. To close it again does nothing.
func (s *Store) Close() (err error) {
	s.closing.Do(func() {
		close(s.stop)
		s.loop.Wait()
		if s.guest && s.Changes() != s.before {
			time.Sleep(3 * lookEvery) // who closes has a server answer by what was changed
		}
		err = s.db.close()
	})
	return err
}

// Read returns a transaction-less reader: each of its calls sees what is committed at that moment.
func (s *Store) Read() Tx { return Tx{s.db.reader()} }

// Ping reports whether the database answers, and nothing is known that keeps it from being written.
func (s *Store) Ping(ctx context.Context) error {
	if broken := s.broken.Load(); broken != nil {
		return *broken
	}
	var one int
	return fault.Wrap(fault.IO, s.db.reader().row(ctx, "SELECT 1 FROM changes").Scan(&one))
}

func millis(t time.Time) int64 { return t.UnixMilli() }

func fromMillis(ms int64) time.Time { return time.UnixMilli(ms).UTC() }
