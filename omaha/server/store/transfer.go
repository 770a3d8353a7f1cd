package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

// tables are all but changes, each after those that it refers to; serial are those whose ids the database gives.
var tables = []struct {
	name   string
	serial bool
}{
	{"applications", false},
	{"blobs", false},
	{"releases", true},
	{"files", false},
	{"channels", false},
	{"machines", false},
	{"machine_counts", false},
	{"events", false},
	{"failed_versions", false},
	{"tokens", false},
	{"freshness", false},
	{"reboot_groups", false},
	{"reboot_claims", false},
	{"audit", true},
	{"machine_groups", false},
	{"members", false},
	{"pins", false},
	{"rollouts", true},
	{"rollout_steps", false},
	{"samples", false},
	{"rollout_samples", false},
	{"release_packages", false},
	{"requests", false},
	{"webhooks", false},
	{"deliveries", true},
	{"people", false},
	{"sessions", false},
	{"links", false},
}

const transferTimeout = 2 * time.Hour

// transferRows is how many rows are read before they are written.
const transferRows = 1000

// Fill copies all of from into a database that has nothing of its own yet, whichever kinds they are. It is there whole, or not at all.
func (s *Store) Fill(ctx context.Context, from *Store) error {
	return s.submit(ctx, &job{long: transferTimeout, done: make(chan error, 1), do: func(tx Tx) error {
		var some bool
		if err := tx.q.row(ctx, "SELECT EXISTS (SELECT 1 FROM applications)").Scan(&some); err != nil {
			return failed("look", err)
		}
		if some {
			return fault.New(fault.Input, "the database is not empty: what is restored needs one of its own")
		}
		return from.db.snapshot(ctx, func(ctx context.Context, q queryer) error { return transfer(ctx, q, tx.q) })
	}})
}

// transfer copies all rows.
func transfer(ctx context.Context, from, to queryer) error {
	if _, err := to.exec(ctx, "DELETE FROM reboot_groups"); err != nil { // a new database has one
		return failed("copy reboot_groups", err)
	}
	for _, t := range tables {
		if err := transferTable(ctx, from, to, t.name); err != nil {
			return failed("copy "+t.name, err)
		}
		p, ok := to.(interface {
			restart(context.Context, string) error
		})
		if t.serial && ok {
			if err := p.restart(ctx, t.name); err != nil {
				return failed("copy "+t.name, err)
			}
		}
	}
	return nil
}

func transferTable(ctx context.Context, from, to queryer, table string) error {
	rows, err := from.query(ctx, "SELECT * FROM "+table)
	if err != nil {
		return err
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		return err
	}
	insert := fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", table, strings.Join(columns, ", "), strings.TrimSuffix(strings.Repeat("?, ", len(columns)), ", "))
	var batch [][]any
	for rows.Next() {
		values, into := make([]any, len(columns)), make([]any, len(columns))
		for i := range values {
			into[i] = &values[i]
		}
		if err := rows.Scan(into...); err != nil {
			return err
		}
		for i, v := range values {
			if b, ok := v.([]byte); ok && b == nil { // an empty one, which is not the absence of one
				values[i] = []byte{}
			}
		}
		if batch = append(batch, values); len(batch) == transferRows {
			if err := to.many(ctx, insert, batch); err != nil {
				return err
			}
			batch = batch[:0]
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	return to.many(ctx, insert, batch)
}

// snapshot runs do with all as it is at one moment.
func (s *sqlite) snapshot(ctx context.Context, do func(context.Context, queryer) error) (err error) {
	conn, err := s.read.Conn(ctx)
	if err != nil {
		return failed("connect", err)
	}
	q := &prepared{db: conn}
	defer func() { err = errors.Join(err, q.close(), conn.Close()) }()
	if _, err := q.exec(ctx, "BEGIN"); err != nil {
		return failed("begin", err)
	}
	err = do(ctx, q)
	_, end := q.exec(context.WithoutCancel(ctx), "ROLLBACK") // nothing was written
	return errors.Join(err, end)
}

func (p *postgres) snapshot(ctx context.Context, do func(context.Context, queryer) error) (err error) {
	conn, err := p.db.Conn(ctx)
	if err != nil {
		return failed("connect", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	q := postgresQueryer{conn, conn}
	if _, err := q.exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"); err != nil {
		return failed("begin", err)
	}
	err = do(ctx, q)
	_, end := q.exec(context.WithoutCancel(ctx), "ROLLBACK")
	return errors.Join(err, end)
}

// copyTo makes an SQLite database of it.
func (p *postgres) copyTo(ctx context.Context, path string) error {
	out, err := openSQLite(ctx, path)
	if err != nil {
		return err
	}
	err = out.transaction(ctx, func(ctx context.Context, to queryer) error {
		return p.snapshot(ctx, func(ctx context.Context, from queryer) error { return transfer(ctx, from, to) })
	})
	return errors.Join(err, out.close())
}

// restart has the ids that are given from now on come after those that are there.
func (p postgresQueryer) restart(ctx context.Context, table string) error {
	_, err := p.exec(ctx, "SELECT setval(pg_get_serial_sequence('"+table+"', 'id'), (SELECT coalesce(max(id), 0) + 1 FROM "+table+"), false)")
	return err
}

func (l lasting) restart(ctx context.Context, table string) error {
	if p, ok := l.q.(interface {
		restart(context.Context, string) error
	}); ok {
		return p.restart(l.ctx, table)
	}
	return nil
}
