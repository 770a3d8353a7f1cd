package agent_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/install/installtest"
)

func minVersion(v string) func(*payload.Image) {
	return func(i *payload.Image) { i.MinVersion = v }
}

// control serves semperctl and returns the socket's path.
func control(t *testing.T, h *host) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.agent.ServeControl(ctx, l) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func history(t *testing.T, h *host) []agent.Entry {
	t.Helper()
	r, err := agent.Ask(t.Context(), control(t, h), agent.Request{Verb: agent.VerbHistory})
	must(t, err)
	return r.History
}

// parked is a clock on which nobody's sleep ends, so that only commands move the loop.
type parked struct{ *clock }

func (parked) Sleep(ctx context.Context, _ time.Duration) error {
	<-ctx.Done()
	return ctx.Err()
}

func TestControl(t *testing.T) {
	if os.Getuid() != 0 {
		t.Fatal("check and update are for root: run this test as root")
	}
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, "1.0.0")
	h.settings.InitialDelay = time.Hour
	h.sleeper = parked{h.clock}
	h.newAgent()
	path := control(t, h)
	ask := func(r agent.Request) (agent.Reply, error) { return agent.Ask(t.Context(), path, r) }

	r, err := ask(agent.Request{Verb: agent.VerbStatus})
	must(t, err)
	equal(t, "before the first step", r.Status.InstallerError, "semper-installd was not asked yet")

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.agent.Run(ctx) }()
	r, err = ask(agent.Request{Verb: agent.VerbCheck})
	must(t, err)
	equal(t, "check", r.Text, "no update")

	h.fleet.set(func() { h.fleet.reason = "held by policy" })
	r, err = ask(agent.Request{Verb: agent.VerbUpdate})
	must(t, err)
	equal(t, "update without one", r.Text, "no update: held by policy")

	bad := installtest.NewKeys(t).Release(t, "1.1.0")
	h.offer(bad)
	_, err = ask(agent.Request{Verb: agent.VerbUpdate})
	if !fault.Is(err, fault.Verification) || !strings.Contains(err.Error(), "update to 1.1.0") || !strings.Contains(err.Error(), "trusted keys") {
		t.Errorf("update to a bad one: %v", err)
	}
	for range 2 {
		if _, err = ask(agent.Request{Verb: agent.VerbUpdate}); !fault.Is(err, fault.Verification) || !strings.Contains(err.Error(), "which failed here") {
			t.Errorf("again: %v", err)
		}
	}
	r, err = ask(agent.Request{Verb: agent.VerbCheck})
	must(t, err)
	if !strings.Contains(r.Text, "which failed here") {
		t.Errorf("check: %q", r.Text)
	}
	h.fleet.set(func() { h.fleet.down = true })
	if _, err = ask(agent.Request{Verb: agent.VerbCheck}); !fault.Is(err, fault.Network) {
		t.Errorf("server away: %v", err)
	}
	h.fleet.set(func() { h.fleet.down = false })
	h.offer(keys.Release(t, "1.1.0"))
	r, err = ask(agent.Request{Verb: agent.VerbUpdate, Retry: true})
	must(t, err)
	equal(t, "retry", r.Text, "version 1.1.0 is installed and waits for a reboot")

	if _, err = ask(agent.Request{Verb: agent.VerbCheck}); err == nil || !strings.Contains(err.Error(), "the machine is rebooting into version 1.1.0") {
		t.Errorf("on the way down: %v", err)
	}
	cancel()
	must(t, <-done)
	r, err = ask(agent.Request{Verb: agent.VerbStatus})
	must(t, err)
	equal(t, "pending", r.Status.Pending.Version, "1.1.0")
	if _, err := agent.Ask(t.Context(), path+"x", agent.Request{Verb: agent.VerbStatus}); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "systemctl status semperd") {
		t.Errorf("no socket: %v", err)
	}
}

func TestControlRefusesNonsense(t *testing.T) {
	keys := installtest.NewKeys(t)
	path := control(t, newHost(t, keys, "1.0.0"))
	for _, c := range []struct{ send, want string }{
		{"{\"verb\":\"format\"}\n", "unknown verb"},
		{"{\"verb\":\"status\",\"x\":1}\n", "unknown field"},
		{"hello\n", "invalid character"},
		{"\n", "EOF"},
		{strings.Repeat(" ", 5000) + "\n", "too long"},
	} {
		conn, err := net.Dial("unix", path)
		must(t, err)
		_, err = conn.Write([]byte(c.send))
		must(t, err)
		reply := make([]byte, 64<<10)
		n, _ := conn.Read(reply)
		if !strings.Contains(string(reply[:n]), c.want) || !strings.Contains(string(reply[:n]), `"error"`) {
			t.Errorf("%.30q: answer %q, want %q", c.send, reply[:n], c.want)
		}
		conn.Close()
	}
}
