package store

import (
	"context"
	"database/sql"
	_ "embed"
	"fmt"

	"github.com/semper-os/semper/fault"
)

//go:embed schema_1.sql
var schema1 string

//go:embed schema_2.sql
var schema2 string

//go:embed schema_3.sql
var schema3 string

//go:embed schema_4.sql
var schema4 string

//go:embed schema_5.sql
var schema5 string

//go:embed schema_6.sql
var schema6 string

//go:embed schema_7.sql
var schema7 string

//go:embed schema_8.sql
var schema8 string

//go:embed postgres_8.sql
var postgres8 string

//go:embed schema_9.sql
var schema9 string

//go:embed postgres_9.sql
var postgres9 string

//go:embed schema_10.sql
var schema10 string

//go:embed postgres_10.sql
var postgres10 string

// migration brings the schema one version on, in each database's words.
type migration struct{ sqlite, postgres string }

// migrations bring the schema from version i to version i+1. They are never changed once they were released. PostgreSQL begins with postgresFirst.
var migrations = []migration{{schema1, ""}, {schema2, ""}, {schema3, ""}, {schema4, ""}, {schema5, ""}, {schema6, ""}, {schema7, ""}, {schema8, postgres8}, {schema9, postgres9}, {schema10, postgres10}}

// applicationID marks the file as ours ("SMPR"), so that no other program's database is taken for an empty one.
const applicationID = 0x534d5052

func migrateSQLite(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "BEGIN IMMEDIATE"); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	err := bringForward(ctx, conn)
	end := "COMMIT"
	if err != nil {
		end = "ROLLBACK"
	}
	if _, endErr := conn.ExecContext(ctx, end); err == nil {
		err = fault.Wrap(fault.IO, endErr)
	}
	return err
}

func bringForward(ctx context.Context, conn *sql.Conn) error {
	var version, owner, tables int
	for query, into := range map[string]*int{
		"PRAGMA user_version": &version, "PRAGMA application_id": &owner, "SELECT count(*) FROM sqlite_schema": &tables,
	} {
		if err := conn.QueryRowContext(ctx, query).Scan(into); err != nil {
			return fault.Wrap(fault.IO, err)
		}
	}
	switch {
	case owner != applicationID && tables > 0:
		return fault.New(fault.Input, "it is another program's database")
	case version > len(migrations):
		return fault.New(fault.Input, "its schema has version %d and this semper-server only knows versions up to %d: use a newer semper-server",
			version, len(migrations))
	}
	for v := version; v < len(migrations); v++ {
		step := migrations[v].sqlite + fmt.Sprintf("\n;PRAGMA user_version = %d; PRAGMA application_id = %d;", v+1, applicationID)
		if _, err := conn.ExecContext(ctx, step); err != nil {
			return fault.New(fault.IO, "bring the schema from version %d to %d: %w", v, v+1, err)
		}
	}
	return nil
}
