package server

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"

	"github.com/semper-os/semper/omaha/server/store/postgrestest"
)

// databaseVariable has this package's tests run on PostgreSQL when it is "postgres"; `make test` runs them on both.
const databaseVariable = "SEMPER_TEST_DATABASE"

var postgres struct {
	mu      sync.Mutex
	server  *postgrestest.Server // nil until somebody wants it
	always  bool                 // all tests do
	schemas map[string]string    // by data folder
}

// databaseOf is the database of the servers of a data folder, for Config.Database.
func databaseOf(t testing.TB, dir string) string {
	t.Helper()
	if !postgres.always {
		return ""
	}
	return postgresOf(t, dir)
}

// postgresOf is a PostgreSQL database, one for each name.
func postgresOf(t testing.TB, name string) string {
	t.Helper()
	postgres.mu.Lock()
	defer postgres.mu.Unlock()
	if url, ok := postgres.schemas[name]; ok {
		return url
	}
	if postgres.server == nil {
		var err error
		if postgres.server, err = postgrestest.Start(context.Background(), "fsync=off", "max_connections=500"); err != nil {
			t.Fatal(err)
		}
	}
	url, err := postgres.server.Schema(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	if postgres.schemas == nil {
		postgres.schemas = map[string]string{}
	}
	postgres.schemas[name] = url
	return url
}

func runTests(m *testing.M) int {
	switch name := os.Getenv(databaseVariable); name {
	case "", "sqlite":
	case "postgres":
		postgres.always = true
	default:
		fmt.Fprintf(os.Stderr, "%s=%s: want sqlite or postgres\n", databaseVariable, name)
		return 2
	}
	code := m.Run()
	if postgres.server != nil {
		if err := postgres.server.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	return code
}

// openAt opens a server on a data folder.
func openAt(t testing.TB, dir string) (*Server, error) {
	return Open(context.Background(), Config{Dir: dir, Database: databaseOf(t, dir)})
}
