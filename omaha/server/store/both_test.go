package store

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/semper-os/semper/omaha/server/store/postgrestest"
)

var postgresServer *postgrestest.Server

func TestMain(m *testing.M) {
	var err error
	if postgresServer, err = postgrestest.Start(context.Background(), "fsync=off"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := postgresServer.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// onBoth runs a test on an SQLite and on a PostgreSQL database; name is the database's.
func onBoth(t *testing.T, test func(t *testing.T, name string)) {
	t.Run("sqlite", func(t *testing.T) { test(t, t.TempDir()) })
	t.Run("postgres", func(t *testing.T) { test(t, schema(t)) })
}

func schema(t *testing.T) string {
	t.Helper()
	url, err := postgresServer.Schema(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return url
}
