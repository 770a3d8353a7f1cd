package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // the driver

	"github.com/semper-os/semper/fault"
)

const (
	readers = 4

	busyTimeout = "PRAGMA busy_timeout = 10000" // what another program may take to write, in milliseconds

	// writeCache is how much memory the writer takes for pages. What readers remember is worth nothing after each write, so they get no more than SQLite's usual. More is slower:
	// a commit in which a page was split has SQLite go through all of them.
	writeCache = 24 << 20
)

// sqlite is a database in a file. Its right to write is SQLite's own lock, which other programs respect.
type sqlite struct {
	read, write *sql.DB
	conn        *sql.Conn // the only one of write
	readQ       *prepared
	writeQ      *prepared
	log         *os.File    // the write-ahead log, to sync it
	long        atomic.Bool // the log has become too long

	stop       chan struct{}
	background sync.WaitGroup
}

func openSQLite(ctx context.Context, path string) (*sqlite, error) {
	pragmas := url.Values{"_pragma": {
		"busy_timeout(10000)", "journal_mode(WAL)", "synchronous(NORMAL)", "foreign_keys(ON)", "trusted_schema(OFF)",
		"wal_autocheckpoint(0)", // see checkpoints; and for what NORMAL leaves undone, persist
	}}
	dsn := (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: pragmas.Encode()}).String()
	s := &sqlite{stop: make(chan struct{})}
	err := s.open(ctx, dsn)
	if err == nil {
		err = s.openLog(path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the database %s: %w", path, err), s.close())
	}
	s.background.Go(s.checkpoints)
	return s, nil
}

func (s *sqlite) open(ctx context.Context, dsn string) (err error) {
	if s.write, err = sql.Open("sqlite", dsn); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	s.write.SetMaxOpenConns(1)
	if s.conn, err = s.write.Conn(ctx); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if _, err := s.conn.ExecContext(ctx, fmt.Sprintf("PRAGMA cache_size = -%d", writeCache>>10)); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if err := migrateSQLite(ctx, s.conn); err != nil {
		return err
	}
	if s.read, err = sql.Open("sqlite", dsn); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	s.read.SetMaxOpenConns(readers)
	s.read.SetMaxIdleConns(readers)
	s.readQ, s.writeQ = &prepared{db: s.read}, &prepared{db: s.conn}
	return nil
}

// openLog opens the write-ahead log, which is there as long as a connection is.
func (s *sqlite) openLog(path string) (err error) {
	if s.log, err = os.Open(path + "-wal"); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	return fault.Wrap(fault.IO, errors.Join(dir.Sync(), dir.Close()))
}

// persist has on disk what was committed before it was called. SQLite itself (synchronous=NORMAL) syncs its log no more often than a database needs that must not break; what
// is lost by a power cut is the end of the log. So commits need not wait for the disk one after the other.
func (s *sqlite) persist() error {
	return failed("sync the log", unix.Fdatasync(int(s.log.Fd())))
}

func (s *sqlite) close() error {
	close(s.stop)
	s.background.Wait()
	var errs []error
	for _, q := range []*prepared{s.readQ, s.writeQ} {
		if q != nil {
			errs = append(errs, q.close())
		}
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	for _, db := range []*sql.DB{s.read, s.write} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if s.log != nil {
		errs = append(errs, s.log.Close())
	}
	return fault.Wrap(fault.IO, errors.Join(errs...))
}

func (s *sqlite) reader() queryer { return s.readQ }

func (s *sqlite) transaction(ctx context.Context, do func(context.Context, queryer) error) error {
	if _, err := s.writeQ.exec(ctx, "BEGIN IMMEDIATE"); err != nil {
		return failed("begin", err)
	}
	if err := do(ctx, s.writeQ); err != nil {
		_, undo := s.writeQ.exec(ctx, "ROLLBACK")
		return fault.New(fault.IO, "database: write: %w", joinIf(err, undo))
	}
	if _, err := s.writeQ.exec(ctx, "COMMIT"); err != nil {
		_, _ = s.writeQ.exec(ctx, "ROLLBACK") // a failed commit may leave the transaction open
		return failed("commit", err)
	}
	s.shorten(ctx)
	return nil
}

// prepared keeps statements: SQLite takes longer to read one than to run it.
type prepared struct {
	db interface {
		PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	}

	mu         sync.Mutex
	statements map[string]*sql.Stmt // by their text, of which there is only so much in this package
}

func (p *prepared) statement(ctx context.Context, query string) (*sql.Stmt, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.statements[query]; s != nil {
		return s, nil
	}
	s, err := p.db.PrepareContext(ctx, query) //nolint:sqlclosecheck // close does
	if err != nil {
		return nil, err
	}
	if p.statements == nil {
		p.statements = map[string]*sql.Stmt{}
	}
	p.statements[query] = s
	return s, nil
}

func (p *prepared) close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	var errs []error
	for _, s := range p.statements {
		errs = append(errs, s.Close())
	}
	p.statements = nil
	return errors.Join(errs...)
}

func (p *prepared) exec(ctx context.Context, query string, args ...any) (int64, error) {
	s, err := p.statement(ctx, query) //nolint:sqlclosecheck // it is kept; close does
	if err != nil {
		return 0, err
	}
	res, err := s.ExecContext(ctx, args...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (p *prepared) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	s, err := p.statement(ctx, query) //nolint:sqlclosecheck // it is kept; close does
	if err != nil {
		return nil, err
	}
	return s.QueryContext(ctx, args...)
}

func (p *prepared) row(ctx context.Context, query string, args ...any) scanner {
	s, err := p.statement(ctx, query) //nolint:sqlclosecheck // it is kept; close does
	if err != nil {
		return noRow{err}
	}
	return s.QueryRowContext(ctx, args...)
}

func (p *prepared) many(ctx context.Context, query string, rows [][]any) error {
	if together := insertTogether(query); together != "" {
		for ; len(rows) >= togetherRows; rows = rows[togetherRows:] {
			if _, err := p.exec(ctx, together, slices.Concat(rows[:togetherRows]...)...); err != nil {
				return err
			}
		}
	}
	if len(rows) == 0 {
		return nil
	}
	s, err := p.statement(ctx, query) //nolint:sqlclosecheck // it is kept; close does
	for i := 0; i < len(rows) && err == nil; i++ {
		_, err = s.ExecContext(ctx, rows[i]...)
	}
	return err
}

func (p *prepared) lookup(ctx context.Context, query string, args [][]any, scan func(scanner) error) error {
	if together, list, ok := lookupTogether(query, args); ok {
		return p.each(ctx, together, list, scan)
	}
	for _, a := range args {
		if err := p.each(ctx, query, a, scan); err != nil {
			return err
		}
	}
	return nil
}

func (p *prepared) each(ctx context.Context, query string, args []any, scan func(scanner) error) error {
	rows, err := p.query(ctx, query, args...)
	if err != nil {
		return err
	}
	return scanAll(rows, scan)
}
