package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/semper-os/semper/fault"
)

// engine is one of the databases that hold the state. Its SQL is the same for all of them and is written for SQLite: ? and ?1 for arguments, json_each(?) for a list in one
// argument, INDEXED BY where SQLite chooses badly. What differs is in the engine: schemas, and how to write.
type engine interface {
	reader() queryer

	// transaction runs do with the right to write, which one program at a time has. What do reads is as the last one left it. What it did is on disk after the next persist.
	transaction(ctx context.Context, do func(context.Context, queryer) error) error

	// persist has on disk when it returns what transactions did that had returned before. It may be called while another one runs.
	persist() error

	// snapshot runs do with all as it is at one moment, to read.
	snapshot(ctx context.Context, do func(context.Context, queryer) error) error

	// copyTo writes all as it is at one moment into an empty file.
	copyTo(ctx context.Context, path string) error

	close() error
}

// queryer runs SQL.
type queryer interface {
	exec(ctx context.Context, query string, args ...any) (affected int64, err error)
	query(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	row(ctx context.Context, query string, args ...any) scanner

	// many runs one statement for many rows of arguments.
	many(ctx context.Context, query string, rows [][]any) error

	// lookup asks one question for many rows of arguments, and calls scan for each row of the answers.
	lookup(ctx context.Context, query string, rows [][]any, scan func(scanner) error) error
}

type scanner interface{ Scan(into ...any) error }

// noRow is the row of a query that could not be asked.
type noRow struct{ err error }

func (r noRow) Scan(...any) error { return r.err }

// failed names the step of an SQL error and gives it a kind; a missing row becomes ErrNotFound.
func failed(step string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, sql.ErrNoRows):
		return fmt.Errorf("%s: %w", step, ErrNotFound)
	}
	return fault.New(fault.IO, "database: %s: %w", step, err)
}

// list runs a query and scans each of its rows.
func list[T any](ctx context.Context, q queryer, step string, scan func(*T, func(...any) error) error, query string, args ...any) ([]T, error) {
	rows, err := q.query(ctx, query, args...)
	if err != nil {
		return nil, failed(step, err)
	}
	defer rows.Close()
	out := []T{}
	for rows.Next() {
		var v T
		if err := scan(&v, rows.Scan); err != nil {
			return nil, failed(step, err)
		}
		out = append(out, v)
	}
	return out, failed(step, rows.Err())
}

// lookUp asks one question for many rows of arguments, and scans each row of the answers.
func lookUp[T any](ctx context.Context, q queryer, step string, scan func(*T, func(...any) error) error, query string, rows [][]any) ([]T, error) {
	out := []T{}
	err := q.lookup(ctx, query, rows, func(row scanner) error {
		var v T
		err := scan(&v, row.Scan)
		out = append(out, v)
		return err
	})
	return out, failed(step, err)
}

// pairs are rows of a first column that is the same in all of them, and a second.
func pairs[F string | int64](first F, second []string) [][]any {
	rows := make([][]any, len(second))
	for i, s := range second {
		rows[i] = []any{first, s}
	}
	return rows
}

// inOne is a list as one argument, for json_each(?).
func inOne[T string | int64](all []T) string {
	if all == nil {
		return "[]"
	}
	b, err := json.Marshal(all)
	if err != nil {
		panic(err) // strings and numbers can always be written
	}
	return string(b)
}

// flag is a boolean as the databases keep it.
func flag(b bool) int64 {
	if b {
		return 1
	}
	return 0
}

func scanAll(rows *sql.Rows, scan func(scanner) error) error {
	defer rows.Close()
	for rows.Next() {
		if err := scan(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}
