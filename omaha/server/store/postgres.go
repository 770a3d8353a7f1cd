package store

import (
	"context"
	"database/sql"
	_ "embed"
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/semper-os/semper/fault"
)

// postgresSchema is what a database has that is brought to version postgresFirst, the first that PostgreSQL was used with.
//
//go:embed postgres_7.sql
var postgresSchema string

const postgresFirst = 7

// postgresTimeout bounds a transaction: one that hangs would hang all others.
const postgresTimeout = 30 * time.Second

// postgres is a database that several servers share. The right to write is a lock on the row of the table changes: who has it finds everything as the last one left it, and
// no two servers ever decide on the same at the same time.
type postgres struct {
	db *sql.DB
}

// IsURL tells whether a database is named by its URL: it is PostgreSQL's then.
func IsURL(name string) bool {
	return strings.HasPrefix(name, "postgres://") || strings.HasPrefix(name, "postgresql://")
}

// redacted is a database's URL without its password.
func redacted(name string) string {
	u, err := url.Parse(name)
	if err != nil {
		return "postgres:" // whatever is wrong with it, it may hold a password
	}
	return u.Redacted()
}

func openPostgres(ctx context.Context, name string, make bool) (_ *postgres, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open the database %s: %w", redacted(name), err)
		}
	}()
	cfg, err := pgx.ParseConfig(name)
	if err != nil {
		return nil, fault.New(fault.Usage, "want a URL such as postgres://user@host/database: %w", errors.Unwrap(err))
	}
	cfg.RuntimeParams["application_name"] = "semper-server"
	cfg.RuntimeParams["synchronous_commit"] = "on" // whatever the server's default is: what is answered is on disk
	// All that is asked often finds its rows by an index, also while nobody has counted a table that grows quickly.
	for _, way := range []string{"enable_seqscan", "enable_hashjoin", "enable_mergejoin", "jit"} {
		cfg.RuntimeParams[way] = "off"
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = 10 * time.Second
	}
	p := &postgres{db: stdlib.OpenDB(*cfg)}
	p.db.SetMaxOpenConns(readers + 1)
	p.db.SetMaxIdleConns(readers + 1)
	if err := p.prepare(ctx, make); err != nil {
		return nil, errors.Join(err, p.db.Close())
	}
	return p, nil
}

// prepare brings the schema forward, or makes it where that is wanted.
func (p *postgres) prepare(ctx context.Context, make bool) error {
	tx, err := p.db.BeginTx(ctx, nil)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer func() { _ = tx.Rollback() }() // does nothing after the commit
	// Servers that start at the same time.
	if _, err := tx.ExecContext(ctx, "SELECT pg_advisory_xact_lock($1)", applicationID); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	var known, others bool
	if err := tx.QueryRowContext(ctx, "SELECT to_regclass('semper_schema') IS NOT NULL, EXISTS (SELECT 1 FROM pg_tables WHERE schemaname = current_schema())").Scan(&known, &others); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	switch {
	case !known && others:
		return fault.New(fault.Input, "it holds another program's tables: semper-server wants a database, or a schema, of its own")
	case !known && !make:
		return fault.New(fault.Input, "it holds no server's data (semper-server serve makes it)")
	case !known:
		if _, err := tx.ExecContext(ctx, postgresSchema+"CREATE TABLE semper_schema (version BIGINT NOT NULL); INSERT INTO semper_schema VALUES ("+strconv.Itoa(postgresFirst)+")"); err != nil {
			return fault.New(fault.IO, "make the tables: %w", err)
		}
	}
	var version int
	if err := tx.QueryRowContext(ctx, "SELECT version FROM semper_schema").Scan(&version); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if version > len(migrations) {
		return fault.New(fault.Input, "its schema has version %d and this semper-server only knows versions up to %d: use a newer semper-server", version, len(migrations))
	}
	for v := version; v < len(migrations); v++ {
		if _, err := tx.ExecContext(ctx, migrations[v].postgres+"\n;UPDATE semper_schema SET version = "+strconv.Itoa(v+1)); err != nil {
			return fault.New(fault.IO, "bring the schema from version %d to %d: %w", v, v+1, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if make {
		return p.analyze(ctx)
	}
	return nil
}

// analyze counts tables that have changed much since PostgreSQL last looked, as after a restore: it would look within minutes, and plan badly until then.
func (p *postgres) analyze(ctx context.Context) error {
	var stale []string
	rows, err := p.db.QueryContext(ctx, "SELECT relname FROM pg_stat_user_tables WHERE schemaname = current_schema() AND n_mod_since_analyze > 1000 + n_live_tup / 5")
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	err = scanAll(rows, func(row scanner) error {
		var name string
		err := row.Scan(&name)
		stale = append(stale, name)
		return err
	})
	for _, name := range stale {
		if err == nil {
			_, err = p.db.ExecContext(ctx, "ANALYZE "+pgx.Identifier{name}.Sanitize())
		}
	}
	return fault.Wrap(fault.IO, err)
}

func (p *postgres) close() error { return fault.Wrap(fault.IO, p.db.Close()) }

func (p *postgres) reader() queryer { return postgresQueryer{p.db, nil} }

func (p *postgres) transaction(ctx context.Context, do func(context.Context, queryer) error) error {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, postgresTimeout)
		defer cancel()
	}
	conn, err := p.db.Conn(ctx)
	if err != nil {
		return failed("connect", err)
	}
	defer func() { _ = conn.Close() }() // gives it back to the pool
	q := postgresQueryer{conn, conn}
	if _, err := q.exec(ctx, "BEGIN"); err != nil {
		return failed("begin", err)
	}
	var n int64
	err = q.row(ctx, "SELECT n FROM changes FOR UPDATE").Scan(&n)
	if err == nil {
		err = do(ctx, q)
	}
	if err != nil {
		undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		_, undone := q.exec(undo, "ROLLBACK")
		return fault.New(fault.IO, "database: write: %w", joinIf(err, undone))
	}
	if _, err := q.exec(ctx, "COMMIT"); err != nil {
		return failed("commit", err)
	}
	return nil
}

func (p *postgres) persist() error { return nil } // synchronous_commit is on

// postgresQueryer runs SQL that is written for SQLite.
type postgresQueryer struct {
	db interface {
		ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
		QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
	}
	conn *sql.Conn // for many
}

func (p postgresQueryer) exec(ctx context.Context, query string, args ...any) (int64, error) {
	res, err := p.db.ExecContext(ctx, translate(query), clean(args)...)
	if err != nil {
		return 0, err
	}
	return res.RowsAffected()
}

func (p postgresQueryer) query(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return p.db.QueryContext(ctx, translate(query), clean(args)...)
}

func (p postgresQueryer) row(ctx context.Context, query string, args ...any) scanner {
	return p.db.QueryRowContext(ctx, translate(query), clean(args)...)
}

// many runs one statement for all rows, which it takes as one array for each column, or else sends a statement for each before it waits for an answer.
func (p postgresQueryer) many(ctx context.Context, query string, rows [][]any) error {
	if len(rows) == 0 {
		return nil
	}
	return p.conn.Raw(func(driver any) error {
		conn := driver.(*stdlib.Conn).Conn()
		if columns, ok := columnsOf(rows); ok {
			if all := bulk(query, columns); all != "" {
				_, err := conn.Exec(ctx, all, columns...)
				return err
			}
		}
		b := &pgx.Batch{}
		for _, r := range rows {
			b.Queue(translate(query), clean(r)...)
		}
		return conn.SendBatch(ctx, b).Close()
	})
}

func (p postgresQueryer) lookup(ctx context.Context, query string, args [][]any, scan func(scanner) error) error {
	if len(args) == 0 {
		return nil
	}
	columns, ok := columnsOf(args)
	if !ok {
		return fmt.Errorf("a question for arguments that are no texts and numbers: %s", query)
	}
	rows, err := p.db.QueryContext(ctx, bulk(query, columns), columns...)
	if err != nil {
		return err
	}
	return scanAll(rows, scan)
}

// clean has what PostgreSQL's texts cannot hold replaced, as it is in what is shown: bytes that are no UTF-8, and zeros. Args is not changed.
func clean(args []any) []any {
	copied := false
	for i, a := range args {
		s, ok := a.(string)
		if !ok {
			continue
		}
		c := cleanText(s)
		if c == s {
			continue
		}
		if !copied {
			args, copied = append([]any{}, args...), true
		}
		args[i] = c
	}
	return args
}

func cleanText(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

var translations sync.Map // of queries, of which there are only so many in this package

// translate puts a query that is written for SQLite into PostgreSQL's words.
func translate(query string) string {
	if t, ok := translations.Load(query); ok {
		return t.(string)
	}
	t := listed.ReplaceAllString(indexed.ReplaceAllString(numbered(query, "$"), ""), "= ANY (ARRAY(SELECT $1 FROM json_array_elements_text(CAST($2 AS json))))")
	translations.Store(query, t)
	return t
}

// indexed is how SQLite, which has counted nothing, is told that an index holds few rows; PostgreSQL knows.
var indexed = regexp.MustCompile(` INDEXED BY \w+`)

// listed is how a query asks for what is in a list: SQLite finds each in an index, PostgreSQL does with an array.
var listed = regexp.MustCompile(`IN \(SELECT (value|CAST\(value AS BIGINT\)) FROM json_each\((\$[0-9]+)\)\)`)
