package daemon_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	goomaha "github.com/flatcar/go-omaha/omaha"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/install/installtest"
)

// trivial serves a release by go-omaha's TrivialServer and returns the machines' server address.
func trivial(t *testing.T, address string, r installtest.Release) (url string) {
	t.Helper()
	s, err := goomaha.NewTrivialServer(address)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(file, r.Payload, 0o600); err != nil {
		t.Fatal(err)
	}
	s.SetVersion(r.Version)
	if err := s.AddPackage(file, "full.crau"); err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	t.Cleanup(func() {
		if err := s.Destroy(); err != nil {
			t.Error(err)
		}
		<-served
	})
	return "http://" + s.Addr().String() + "/v1/update/"
}

// quiet are settings with which a machine does what it is told, and nothing else.
func quiet(server string, more ...string) string {
	return fmt.Sprintf("server = %q\npoll_interval = \"6h\"\ninitial_delay = \"3h\"\njitter = \"0s\"\n%s\n", server, strings.Join(more, "\n"))
}

// TestTrivialServer takes a machine through a whole update that go-omaha's TrivialServer offers, and looks at what semperd shows others meanwhile.
func TestTrivialServer(t *testing.T) {
	t.Parallel()
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, keys.Release(t, "1.0.0"), 1)
	h.settings(quiet(trivial(t, "127.0.0.1:0", keys.Release(t, "1.1.0")), "[reboot]", `strategy = "off"`))
	h.on()
	h.shows("motd", "Semper 1.0.0, channel stable")
	h.shows("metrics.prom", `version="1.0.0"`, `semper_state{state="idle"} 1`)

	if text := h.must(agent.Request{Verb: agent.VerbUpdate}).Text; !strings.Contains(text, "1.1.0") {
		t.Errorf("update: %q", text)
	}
	if r := h.status(); r.Version != "1.0.0" || r.Pending == nil || r.Pending.Version != "1.1.0" || r.State != agent.StatePending {
		t.Fatalf("%+v", r)
	}
	h.shows("motd", "1.1.0 is installed")
	h.shows("metrics.prom", `semper_state{state="pending"} 1`)

	// The strategy changes, without a restart, and the machine goes.
	h.settings(quiet("http://127.0.0.1:1/v1/update/", "[reboot]", `strategy = "immediate"`, "[health]", `server = "off"`))
	h.must(agent.Request{Verb: agent.VerbReload})
	h.reboot()
	h.onTrial("1.1.0")
	h.healthy()
	eventually(t, "1.1.0 is not on trial any more", func() (*agent.Report, bool) { r := h.status(); return r, r.State == agent.StateIdle })
	h.shows("motd", "Semper 1.1.0, channel stable")
}

// onTrial waits until semperd knows that it runs a version whose health is not proved.
func (h *host) onTrial(version string) *agent.Report {
	h.t.Helper()
	return eventually(h.t, "on trial", func() (*agent.Report, bool) {
		r := h.status()
		return r, r.Version == version && r.Trial && r.State == agent.StateTrial
	})
}

// shows waits for texts in one of the files that semperd keeps for others.
func (h *host) shows(name string, want ...string) {
	h.t.Helper()
	eventually(h.t, name, func() (string, bool) {
		b, err := os.ReadFile(filepath.Join(h.paths.Runtime, name))
		return string(b), err == nil && !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(string(b), w) })
	})
}

// TestReload: settings that are wrong change nothing, whichever way they are read.
func TestReload(t *testing.T) {
	keys := installtest.NewKeys(t)
	h := newHost(t, keys, keys.Release(t, "1.0.0"), 1)
	h.settings(quiet("http://127.0.0.1:1/v1/update/"))
	h.on()
	h.settings("chanel = \"beta\"\n")
	if _, err := h.ask(agent.Request{Verb: agent.VerbReload}); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "50-test.toml:1") || !strings.Contains(err.Error(), `"channel"`) {
		t.Errorf("reload: %v", err)
	}
	if r := h.status(); r.Channel != "stable" || r.LastError == nil {
		t.Errorf("%+v", r)
	}
	h.settings(quiet("http://127.0.0.1:1/v1/update/", `channel = "beta"`))
	// As "systemctl reload" does. All semperds of this process hear it; no other test that does not run in parallel has one.
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the channel is beta", func() (*agent.Report, bool) { r := h.status(); return r, r.Channel == "beta" })
}

// lockServer is a FleetLock server with one slot, by the text of the protocol.
type lockServer struct {
	*httptest.Server
	calls chan string // "pre-reboot ID", "steady-state ID"
	do    chan func(holder *string)
}

func newLockServer(t *testing.T) *lockServer {
	s := &lockServer{calls: make(chan string, 1000), do: make(chan func(*string))}
	done := make(chan struct{})
	go func() {
		holder := ""
		for {
			select {
			case f := <-s.do:
				f(&holder)
			case <-done:
				return
			}
		}
	}()
	s.Server = httptest.NewServer(http.HandlerFunc(s.serve))
	t.Cleanup(func() { s.Close(); close(done) })
	return s
}

// with runs f alone.
func (s *lockServer) with(f func(holder *string)) {
	done := make(chan struct{})
	s.do <- func(holder *string) { f(holder); close(done) }
	<-done
}

func (s *lockServer) serve(w http.ResponseWriter, r *http.Request) {
	var body struct {
		Params struct{ ID, Group string } `json:"client_params"`
	}
	refuse := func(kind, value string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusConflict)
		fmt.Fprintf(w, `{"kind":%q,"value":%q}`, kind, value)
	}
	if err := decodeJSON(r, &body); err != nil || r.Method != http.MethodPost || r.Header.Get("fleet-lock-protocol") != "true" || body.Params.Group != "rack" {
		refuse("bad_request", fmt.Sprint("this is not FleetLock: ", err))
		return
	}
	what, id := filepath.Base(r.URL.Path), body.Params.ID
	s.calls <- what + " " + id
	s.with(func(holder *string) {
		switch {
		case what == "steady-state":
			if *holder == id {
				*holder = ""
			}
		case what == "pre-reboot" && (*holder == "" || *holder == id):
			*holder = id
		default:
			refuse("failed_lock_semaphore_full", "semaphore currently full, all slots are locked already")
		}
	})
}

// TestFleetLock: two machines share a slot. The second goes down only when the first is back and healthy, and a reload in between loses no lock.
func TestFleetLock(t *testing.T) {
	t.Parallel()
	locks := newLockServer(t)
	keys := installtest.NewKeys(t)
	from, to := keys.Release(t, "1.0.0"), keys.Release(t, "1.1.0")
	server := trivial(t, "127.0.0.1:0", to)
	strategy := []string{"[reboot]", `strategy = "fleetlock"`, "[reboot.fleetlock]", fmt.Sprintf("url = %q", locks.URL), `group = "rack"`, "[health]", `server = "off"`}
	hosts := []*host{newHost(t, keys, from, 1), newHost(t, keys, from, 2)}
	for _, h := range hosts {
		h.paths.Clock = fast{time.Now(), 30}
		h.settings(quiet(server, strategy...))
		h.on()
		h.must(agent.Request{Verb: agent.VerbUpdate})
	}
	var a, b *host
	select {
	case <-hosts[0].asked:
		a, b = hosts[0], hosts[1]
	case <-hosts[1].asked:
		a, b = hosts[1], hosts[0]
	case <-time.After(patience):
		t.Fatalf("nobody reboots: %+v %+v", hosts[0].status(), hosts[1].status())
	}
	a.asked <- struct{}{} // for reboot
	eventually(t, "the other waits", func() (string, bool) {
		r := b.status()
		return r.Waiting, strings.Contains(r.Waiting, "semaphore currently full")
	})
	if _, err := a.ask(agent.Request{Verb: agent.VerbReload}); err != nil {
		t.Errorf("a reload of settings that stay the same: %v", err)
	}
	a.settings(quiet(server, "[reboot]", `strategy = "immediate"`))
	if _, err := a.ask(agent.Request{Verb: agent.VerbReload}); !fault.Is(err, fault.Usage) || !strings.Contains(err.Error(), "reboot.strategy") {
		t.Errorf("another strategy while the machine goes down: %v", err)
	}
	a.settings(quiet(server, strategy...))
	a.reboot()
	if r := a.onTrial("1.1.0"); !r.Locked {
		t.Errorf("on trial without the lock: %+v", r)
	}
	for range 5 { // many of b's questions
		time.Sleep(100 * time.Millisecond)
		select {
		case <-b.asked:
			t.Fatal("both are down")
		default:
		}
	}
	a.healthy()
	b.reboot()
	b.healthy()
	eventually(t, "the slot is free", func() (holder string, ok bool) {
		locks.with(func(h *string) { holder = *h })
		return holder, holder == ""
	})
}
