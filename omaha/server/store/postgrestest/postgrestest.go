// Package postgrestest runs a PostgreSQL server for tests: Debian's, started by the test, with its data in a temporary folder and without a network, and gone with the test's
// process, however that ends.
package postgrestest

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"syscall"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver
)

// Server is a running PostgreSQL.
type Server struct {
	dir    string
	cmd    *exec.Cmd
	stdin  io.Closer
	admin  *sql.DB
	number atomic.Int64
}

// Start makes a database cluster and starts it. Settings are of postgresql.conf, as in "fsync=off".
func Start(ctx context.Context, settings ...string) (_ *Server, err error) {
	bin, err := programs()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "semper-postgres-")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	who, name, err := unprivileged(dir)
	if err != nil {
		return nil, err
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "--pgdata", data, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync", "--username="+name)
	initdb.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	initdb.Dir = dir
	if out, err := initdb.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("initdb: %w: %s", err, out)
	}
	// The shell ends PostgreSQL when its standard input ends, which it does with this process.
	args := []string{"-c", `"$@" </dev/null & pid=$!; read -r _; kill -QUIT $pid; wait $pid`, "sh", filepath.Join(bin, "postgres"), "-D", data, "-k", dir, "-c", "listen_addresses="}
	for _, set := range settings {
		args = append(args, "-c", set)
	}
	s.cmd = exec.Command("/bin/sh", args...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: who}
	s.cmd.Dir = dir
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s.cmd.Stdout, s.cmd.Stderr = log, log
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if s.admin, err = sql.Open("pgx", s.address(name, "")); err != nil {
		return nil, err
	}
	for range 300 {
		if err = s.admin.PingContext(ctx); err == nil {
			return s, nil
		}
		time.Sleep(100 * time.Millisecond)
	}
	text, _ := os.ReadFile(log.Name())
	return nil, fmt.Errorf("postgres does not answer: %w: %s", err, text)
}

// programs is the folder of Debian's newest PostgreSQL.
func programs() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/postgres")
	if err != nil || len(found) == 0 {
		return "", errors.New("there is no PostgreSQL in /usr/lib/postgresql: make packages installs it (Debian's postgresql)")
	}
	slices.Sort(found)
	return filepath.Dir(found[len(found)-1]), nil
}

// unprivileged is who runs PostgreSQL, which refuses to be root.
func unprivileged(dir string) (*syscall.Credential, string, error) {
	if os.Getuid() != 0 {
		u, err := user.Current()
		if err != nil {
			return nil, "", err
		}
		return nil, u.Username, nil
	}
	u, err := user.Lookup("postgres")
	if err != nil {
		return nil, "", err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return nil, "", err
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return nil, "", err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}, "postgres", os.Chown(dir, uid, gid)
}

func (s *Server) address(name, schema string) string {
	q := url.Values{"host": {s.dir}, "user": {name}}
	if schema != "" {
		q.Set("search_path", schema)
	}
	return "postgres:///postgres?" + q.Encode()
}

// Schema makes an empty schema and returns the URL of a database of which that is all.
func (s *Server) Schema(ctx context.Context) (string, error) {
	name := fmt.Sprintf("test_%d", s.number.Add(1))
	if _, err := s.admin.ExecContext(ctx, "CREATE SCHEMA "+name); err != nil {
		return "", err
	}
	var who string
	if err := s.admin.QueryRowContext(ctx, "SELECT current_user").Scan(&who); err != nil {
		return "", err
	}
	return s.address(who, name), nil
}

// Stop ends the server and removes its data.
func (s *Server) Stop() error {
	var errs []error
	if s.admin != nil {
		errs = append(errs, s.admin.Close())
	}
	if s.stdin != nil {
		errs = append(errs, s.stdin.Close())
		_ = s.cmd.Wait() // it ends by a signal
	}
	return errors.Join(append(errs, os.RemoveAll(s.dir))...)
}
