package agent_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/logind"
	"github.com/semper-os/semper/updater/powercut"
	"github.com/semper-os/semper/updater/wire"
	"github.com/semper-os/semper/window"
)

const application = "{5e3e2f0a-9d1b-4c58-8f53-7d1f0c6b7a11}"

var discard = slog.New(slog.DiscardHandler)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func equal[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %+v\nwant %+v", what, got, want)
	}
}

// fleet is an update server that offers one release and writes down what it is told.
type fleet struct {
	*httptest.Server
	mu      sync.Mutex
	offer   *installtest.Release
	urls    []string // instead of its own; "%s" is its address
	poll    time.Duration
	reason  string
	down    bool     // answers 503
	checks  int      // update checks
	events  []string // "13/1 1.1.0"
	reasons []string // of failures
	ranges  []string // Range headers of downloads
	machine omaha.AppRequest
	agents  map[string]bool // User-Agent headers
	// serve may take over a download; false lets the fleet do it.
	serve func(w http.ResponseWriter, r *http.Request, data []byte) bool
}

func newFleet(t *testing.T) *fleet {
	f := &fleet{agents: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/update", f.update)
	mux.HandleFunc("GET /{mirror}/full.crau", f.download)
	f.Server = httptest.NewServer(mux)
	t.Cleanup(f.Close)
	return f
}

func (f *fleet) update(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.down {
		http.Error(w, "out for lunch", http.StatusServiceUnavailable)
		return
	}
	body, _ := io.ReadAll(r.Body)
	req, err := omaha.DecodeRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	app := req.Apps[0]
	f.machine = app
	f.agents[r.UserAgent()] = true
	for _, e := range app.Events {
		text := fmt.Sprintf("%d/%d %s", e.Type, e.Result, e.NextVersion)
		if e.PreviousVersion != "" {
			text += "from " + e.PreviousVersion
		}
		if e.ErrorCode != 0 {
			text += fmt.Sprintf(" code %d", e.ErrorCode)
			f.reasons = append(f.reasons, e.Reason)
		}
		f.events = append(f.events, text)
	}
	res := omaha.AppResponse{ID: app.ID, Status: omaha.AppOK, Ping: app.Ping, Events: len(app.Events)}
	if app.UpdateCheck {
		f.checks++
		res.UpdateCheck = &omaha.UpdateResponse{Status: omaha.NoUpdate, PollInterval: f.poll, Reason: f.reason}
		if o := f.offer; o != nil {
			urls := []string{"%s/main/"}
			if f.urls != nil {
				urls = f.urls
			}
			for i, u := range urls {
				urls[i] = strings.ReplaceAll(u, "%s", f.URL)
			}
			res.UpdateCheck = &omaha.UpdateResponse{Status: omaha.UpdateAvailable, PollInterval: f.poll, URLs: urls, Manifest: &omaha.Manifest{
				Version:  o.Version,
				Packages: []omaha.Package{{Name: "full.crau", Size: int64(len(o.Payload)), Required: true}},
				Actions:  []omaha.Action{{Event: omaha.PostInstall, SHA256: base64.StdEncoding.EncodeToString(o.SHA256[:])}},
			}}
		}
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	_, _ = w.Write((&omaha.Response{Server: "test", Apps: []omaha.AppResponse{res}}).Encode())
}

func (f *fleet) download(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	data, hook := f.offer.Payload, f.serve
	f.agents[r.UserAgent()] = true
	f.ranges = append(f.ranges, r.PathValue("mirror")+" "+r.Header.Get("Range"))
	f.mu.Unlock()
	if hook != nil && hook(w, r, data) {
		return
	}
	http.ServeContent(w, r, "full.crau", time.Time{}, bytes.NewReader(data))
}

// take returns the events since the last call.
func (f *fleet) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	e := f.events
	f.events = nil
	return e
}

func (f *fleet) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// clock stands still except when somebody sleeps.
type clock struct {
	mu    sync.Mutex
	now   time.Time
	slept []time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *clock) Sleep(ctx context.Context, d time.Duration) error {
	c.mu.Lock()
	c.now, c.slept = c.now.Add(d), append(c.slept, d)
	c.mu.Unlock()
	return ctx.Err()
}

// host is a machine with installer and agent.
type host struct {
	*installtest.Machine
	t        *testing.T
	fleet    *fleet
	clock    *clock
	settings config.Settings
	lock     agent.Lock
	login    *login
	windows  window.Schedule
	later    *health.Later
	more     []agent.NamedServer // behind the fleet
	drain    func() error        // what the drain hooks do
	drained  int                 // how often they were undone
	warned   []string            // terminals and texts
	sleeper  agent.Clock         // instead of clock, for the agent
	wrap     func(agent.Installer) agent.Installer
	publish  func(agent.Report)
	state    *powercut.Folder // the agent's

	agent *agent.Agent
	stop  func() // the installer
	path  string // its socket
}

func newHost(t *testing.T, keys installtest.Keys, version string) *host {
	t.Helper()
	f := newFleet(t)
	h := &host{t: t, fleet: f, clock: &clock{now: installtest.Start}, Machine: installtest.NewMachine(t, keys, keys.Release(t, version))}
	h.state = h.World.NewFolder(1 << 20)
	h.settings = config.Defaults()
	h.settings.Server, h.settings.InitialDelay, h.settings.MaxFailures = f.URL+"/v1/update", 0, 1
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

// boot restarts the machine: boot loader, installer, agent.
func (h *host) boot() installtest.Booted {
	h.t.Helper()
	h.stop()
	b := h.Boot(h.t)
	h.start()
	return b
}

// start starts installer and agent, as after a boot or a crash.
func (h *host) start() {
	h.t.Helper()
	dir, err := os.MkdirTemp("", "semper")
	must(h.t, err)
	h.path = filepath.Join(dir, "install.sock")
	l, err := net.Listen("unix", h.path)
	must(h.t, err)
	ctx, cancel := context.WithCancel(context.Background())
	h.Now = h.clock.Now()
	s := install.Server{Core: h.Core(), Allowed: []uint32{uint32(os.Getuid())}, Idle: time.Hour, Log: discard}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ctx, l)
	}()
	h.stop = func() {
		cancel()
		<-done
		os.RemoveAll(dir)
	}
	h.newAgent()
}

func (h *host) newAgent() {
	h.t.Helper()
	path := h.path
	o := agent.Options{
		Setup:   h.setup,
		Machine: client.Machine{App: application, ID: strings.Repeat("ab", 16), Board: "amd64-usr", UserAgent: "semperd-test"},
		BootID:  h.BootID(),
		Dial: func(ctx context.Context) (agent.Installer, error) {
			c, err := wire.Dial(ctx, path)
			if err != nil {
				return nil, err
			}
			var i agent.Installer = &hooks{Client: c, h: h}
			if h.wrap != nil {
				i = h.wrap(i)
			}
			return i, nil
		},
		Health:     func() (*health.Later, error) { return h.later, nil },
		State:      h.state,
		Clock:      h.clock,
		Rand:       rand.New(rand.NewPCG(1, 2)),
		Log:        discard,
		Publish:    h.publish,
		Impossible: func(from, to agent.StateName) { h.t.Errorf("transition from %s to %s", from, to) },
	}
	if h.login != nil {
		o.Login = h.login
	}
	if h.sleeper != nil {
		o.Clock = h.sleeper
	}
	a, err := agent.New(o)
	must(h.t, err)
	a.Start()
	h.agent = a
}

func (h *host) setup() (agent.Setup, error) {
	s := agent.Setup{Settings: h.settings, HTTP: http.DefaultClient, Lock: h.lock, Windows: h.windows}
	if url := h.settings.Server; url != "" {
		c, err := client.New(url, client.Options{})
		if err != nil {
			return s, err
		}
		s.Servers = append(s.Servers, agent.NamedServer{URL: url, Server: c})
	}
	s.Servers = append(s.Servers, h.more...)
	return s, nil
}

// hooks is a connection to a real installer whose drain hooks and terminals are the test's.
type hooks struct {
	*wire.Client
	h *host
}

func (c *hooks) Drain(string) error {
	if c.h.drain != nil {
		return c.h.drain()
	}
	return nil
}

func (c *hooks) Undrain() error {
	c.h.drained++
	return nil
}

func (c *hooks) Warn(text string, ttys []string) error {
	c.h.warned = append(c.h.warned, strings.Join(ttys, ",")+": "+text)
	return nil
}

// login is who is logged in and what inhibits.
type login struct {
	inhibitors []logind.Inhibitor
	sessions   []logind.Session
	err        error
}

func (l *login) Inhibitors(context.Context) ([]logind.Inhibitor, error) { return l.inhibitors, l.err }
func (l *login) Sessions(context.Context) ([]logind.Session, error)     { return l.sessions, l.err }

// lock is a fleet's lock that writes down what it is asked.
type lock struct {
	calls   []string
	refused error // by Acquire
	lost    error // by Held
	away    error // by Release
}

func (l *lock) Acquire(context.Context) error { l.calls = append(l.calls, "acquire"); return l.refused }
func (l *lock) Held(context.Context) error    { l.calls = append(l.calls, "held"); return l.lost }
func (l *lock) Release(context.Context) error { l.calls = append(l.calls, "release"); return l.away }

func (l *lock) take() []string {
	c := l.calls
	l.calls = nil
	return c
}

func (h *host) step() time.Duration { return h.agent.Step(h.t.Context()) }

// offer makes the fleet offer r.
func (h *host) offer(r installtest.Release) {
	h.fleet.set(func() { h.fleet.offer = &r })
}
