// Package s3test runs an S3 server for tests: versitygw with its files in a temporary folder, built from tools/s3, on loopback, and gone with the test's process, however that
// ends.
package s3test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// The credentials that the server knows.
const (
	AccessKey = "semper-test"
	SecretKey = "semper-test-secret"
)

// Server is an S3 server. Its methods are for one goroutine.
type Server struct {
	Endpoint string // its URL

	program, dir, address string
	cmd                   *exec.Cmd
	stdin                 io.Closer
}

// New builds the server's program, which takes minutes the first time, and gives it an address. It has no buckets, and does not run yet.
func New(ctx context.Context) (*Server, error) {
	mod, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("find the module: %w", err)
	}
	build := exec.CommandContext(ctx, "go", "tool", "-n", "versitygw") // which builds it
	build.Dir = filepath.Join(filepath.Dir(strings.TrimSpace(string(mod))), "tools", "s3")
	build.Stderr = os.Stderr
	program, err := build.Output()
	if err != nil {
		return nil, fmt.Errorf("build versitygw: %w", err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "semper-s3-")
	if err != nil {
		return nil, err
	}
	return &Server{Endpoint: "http://" + address, program: strings.TrimSpace(string(program)), dir: dir, address: address}, nil
}

// MakeBucket makes a bucket.
func (s *Server) MakeBucket(name string) error { return os.Mkdir(s.Path(name), 0o755) }

// Path is where a bucket or an object is on disk.
func (s *Server) Path(name string) string { return filepath.Join(s.dir, name) }

// Start starts the server.
func (s *Server) Start(ctx context.Context) (err error) {
	// The shell ends the server when its standard input ends, which it does with this process.
	s.cmd = exec.Command("/bin/sh", "-c", `"$@" </dev/null & pid=$!; read -r _; kill -KILL $pid; wait $pid`, "sh",
		s.program, "--port", s.address, "--access", AccessKey, "--secret", SecretKey, "--quiet", "posix", s.dir)
	if s.stdin, err = s.cmd.StdinPipe(); err != nil {
		return err
	}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	for range 300 {
		var d net.Dialer
		c, err := d.DialContext(ctx, "tcp", s.address)
		if err == nil {
			return c.Close()
		}
		time.Sleep(50 * time.Millisecond)
	}
	return fmt.Errorf("versitygw does not answer at %s", s.address)
}

// Kill ends the server at once, as a power cut would. Start starts it again with what it has on disk.
func (s *Server) Kill() error {
	if s.cmd == nil {
		return nil
	}
	err := s.stdin.Close()
	_ = s.cmd.Wait() // it ends by a signal
	s.cmd = nil
	return err
}

// Stop ends the server and removes its files.
func (s *Server) Stop() error { return errors.Join(s.Kill(), os.RemoveAll(s.dir)) }
