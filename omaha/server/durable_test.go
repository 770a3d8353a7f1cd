package server

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// childDir is set in the environment of the process that TestKill kills.
const childDir = "SEMPER_TEST_SERVER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := serveUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// serveUntilKilled prints its address and ends only by force, or when its standard input does.
func serveUntilKilled(dir string) error {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	s, err := Open(ctx, Config{Dir: dir})
	if err != nil {
		return err
	}
	err = s.store.Write(ctx, func(tx store.Tx) error {
		return tx.AddApplication(ctx, fleet.Application{ID: flatcarApp, Name: "flatcar"})
	})
	if err != nil {
		return err
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	fmt.Println(l.Addr())
	return s.Serve(ctx, l)
}

// TestKill ends the server with SIGKILL right after it answered events: every one of them is in the database afterwards.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	address, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal("the server did not start:", err)
	}
	const machines, each = 8, 5
	answered := make(chan string, machines*each)
	failed := make(chan error, machines)
	for i := range machines {
		go func() {
			id := fmt.Sprintf("machine-%d", i)
			body := vector(t, "4-applied", machineID, id)
			for range each {
				res, err := http.Post("http://"+strings.TrimSpace(address)+"/v1/update", "text/xml", strings.NewReader(body))
				if err != nil {
					failed <- err
					return
				}
				res.Body.Close()
				if res.StatusCode != http.StatusOK {
					failed <- fmt.Errorf("status %s", res.Status)
					return
				}
				answered <- id
			}
			failed <- nil
		}()
	}
	for range machines {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	close(answered)
	want := map[string]int{}
	for id := range answered {
		want[id]++
	}
	s, err := Open(t.Context(), Config{Dir: dir}) // the lock went with the process
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(want) != machines {
		t.Fatalf("%d machines were answered, want %d", len(want), machines)
	}
	for id, n := range want {
		events, err := s.store.Read().Events(t.Context(), flatcarApp, id)
		if err != nil || len(events) != n {
			t.Errorf("%s: %d events are kept (%v), %d were answered", id, len(events), err, n)
		}
		m, err := s.store.Read().Machine(t.Context(), flatcarApp, id)
		if err != nil || m.State != fleet.Installed {
			t.Errorf("%s is %s (%v), want installed", id, m.State, err)
		}
	}
}
