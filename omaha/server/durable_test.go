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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

// childDir and childDatabase are set in the environment of the process that TestKill kills.
const (
	childDir      = "SEMPER_TEST_SERVER_DIR"
	childDatabase = "SEMPER_TEST_SERVER_DATABASE"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		if err := serveUntilKilled(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(runTests(m))
}

// serveUntilKilled prints its address and ends only by force, or when its standard input does.
func serveUntilKilled(dir string) error {
	ctx, stop := context.WithCancel(context.Background())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop()
	}()
	s, err := Open(ctx, Config{Dir: dir, Database: os.Getenv(childDatabase)})
	if err != nil {
		return err
	}
	err = s.store.Write(ctx, func(tx store.Tx) error { return fillRollout(ctx, tx, rollout.Limits{AtOnce: 1_000_000}) })
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

// TestKill ends the server with SIGKILL while machines ask for updates and report them: every grant and every event that was answered is in the database afterwards, and the
// rollout's counters are what its machines add up to.
func TestKill(t *testing.T) {
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+dir, childDatabase+"="+databaseOf(t, dir))
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
	const clients, enough = 16, 200
	type answered struct{ granted, installed bool }
	got := make([]map[string]answered, clients)
	var grants atomic.Int64
	var group sync.WaitGroup
	for c := range clients {
		got[c] = map[string]answered{}
		group.Go(func() {
			for n := 0; ; n++ { // until the server is gone
				id := fmt.Sprintf("machine-%d-%d", c, n)
				body, err := request(address, vector(t, "1-first-check", machineID, id))
				if err != nil {
					return
				}
				if !strings.Contains(body, `version="2.0.0"`) {
					if rollout.Place(id, "2.0.0") < 0.99 {
						t.Errorf("%s is answered %s", id, body)
					}
					continue
				}
				got[c][id] = answered{granted: true}
				grants.Add(1)
				if _, err := request(address, vector(t, "4-applied", machineID, id)); err != nil {
					return
				}
				got[c][id] = answered{true, true}
			}
		})
	}
	for grants.Load() < enough {
		time.Sleep(time.Millisecond)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	group.Wait()
	s, err := Open(t.Context(), Config{Dir: dir, Database: databaseOf(t, dir)}) // the lock went with the process
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tx := s.store.Read()
	installed := 0
	for _, machines := range got {
		for id, a := range machines {
			m, err := tx.Machine(t.Context(), flatcarApp, id)
			if err != nil || m.Target != "2.0.0" || m.State != fleet.Granted && m.State != fleet.Installed {
				t.Errorf("%s was granted 2.0.0, and is %s with %q (%v)", id, m.State, m.Target, err)
			}
			if !a.installed {
				continue
			}
			installed++
			if events, err := tx.Events(t.Context(), flatcarApp, id); err != nil || len(events) != 1 || m.State != fleet.Installed {
				t.Errorf("%s was answered an event, and %d are kept; it is %s (%v)", id, len(events), m.State, err)
			}
		}
	}
	if installed < enough/4 {
		t.Errorf("%d events were answered", installed)
	}
	r, err := tx.OpenRollout(t.Context(), flatcarApp, "stable", "amd64")
	if err != nil {
		t.Fatal(err)
	}
	again, err := tx.CountSteps(t.Context(), r.ID)
	if err != nil || r.Counted.All.InFlight != again.All.InFlight || r.Counted.All.Granted < grants.Load() {
		t.Errorf("the rollout counts %+v, its machines are %+v (%v), %d grants were answered", r.Counted.All, again.All, err, grants.Load())
	}
}

func request(address, body string) (string, error) {
	res, err := http.Post("http://"+strings.TrimSpace(address)+"/v1/update", "text/xml", strings.NewReader(body))
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("status %s", res.Status)
	}
	return string(answer), err
}
