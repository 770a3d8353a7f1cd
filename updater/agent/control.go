package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/wire"
)

// SocketPath is where semperctl finds semperd.
const SocketPath = "/run/semper/semperd.sock"

// One connection to semperd's socket carries one Request and one Reply, each a JSON value on a line of its own.
const (
	maxRequest  = 4 << 10
	maxReply    = 1 << 20
	controlWait = 10 * time.Second // for a peer to send its request, or to take its reply
	maxClients  = 16
)

// Verb is what semperctl asks for.
type Verb string

// The verbs. All but Status, History and Config are for root.
const (
	VerbStatus  Verb = "status"
	VerbHistory Verb = "history"
	VerbConfig  Verb = "config"  // the settings in force
	VerbCheck   Verb = "check"   // ask the update server now; an update that it offers is installed afterwards
	VerbUpdate  Verb = "update"  // the same, and answer when it is installed
	VerbCancel  Verb = "cancel"  // end the check or download that is under way
	VerbPause   Verb = "pause"   // nothing more by itself: no checks, no downloads, no reboots
	VerbResume  Verb = "resume"  // the opposite
	VerbMetered Verb = "metered" // the line costs (On), or does not
	VerbRetry   Verb = "retry"   // forget that a version failed here
	VerbReload  Verb = "reload"  // read the settings again
	VerbLook    Verb = "look"    // look at the machine again: something has changed
)

// Request is semperctl's question.
type Request struct {
	Verb    Verb   `json:"verb"`
	Retry   bool   `json:"retry,omitempty"`   // with VerbUpdate: forget which versions failed here
	Reason  string `json:"reason,omitempty"`  // with VerbPause
	By      string `json:"by,omitempty"`      // with VerbPause: who
	On      bool   `json:"on,omitempty"`      // with VerbMetered
	Version string `json:"version,omitempty"` // with VerbRetry; empty: all
	Begin   bool   `json:"begin,omitempty"`   // with VerbCheck: answer when it has begun
}

// Reply is semperd's answer.
type Reply struct {
	Error   string         `json:"error,omitempty"`
	Kind    string         `json:"kind,omitempty"` // of the error, fault.Kind's word
	Text    string         `json:"text,omitempty"` // what was done, for people
	Status  *Report        `json:"status,omitempty"`
	History []Entry        `json:"history,omitempty"`
	Config  []config.Value `json:"config,omitempty"`
}

// Result is what was done, or the error.
func (r Reply) Result() (string, error) {
	if r.Error != "" {
		return "", fault.New(kindOf(r.Kind), "%s", r.Error)
	}
	return r.Text, nil
}

// Report is the machine's state as semperctl shows it.
type Report struct {
	Version  string `json:"version"` // that runs; empty while semper-installd does not answer
	Slot     string `json:"slot"`
	RootHash string `json:"root_hash"`
	Trial    bool   `json:"trial"` // not blessed yet

	State    StateName `json:"state"`
	Since    time.Time `json:"since"`
	Why      string    `json:"why"`
	Progress *Progress `json:"progress,omitempty"` // of a download

	Server       string        `json:"server"` // empty: none is set
	Channel      string        `json:"channel"`
	Servers      []string      `json:"servers,omitempty"` // all, in the order in which they are tried
	Pin          string        `json:"pin,omitempty"`
	Metered      bool          `json:"metered,omitempty"`
	Paused       *Pause        `json:"paused,omitempty"`
	PendingSize  int64         `json:"pending_size,omitempty"` // bytes of the payload that is pending; 0: not known
	Waiting      string        `json:"waiting,omitempty"`      // what a pending reboot waits for
	Locked       bool          `json:"locked,omitempty"`       // the fleet's reboot lock is, or may be, held
	Reached      bool          `json:"reached"`                // an update server has answered since the agent's start
	MaxFailures  int           `json:"max_failures"`
	HealthServer string        `json:"health_server"` // health.server and health.later of the settings, for the checks
	HealthGrace  time.Duration `json:"health_grace_ns"`
	HealthLater  string        `json:"health_later"`
	LastCheck    time.Time     `json:"last_check,omitzero"`
	CheckResult  string        `json:"check_result,omitempty"`
	NextCheck    time.Time     `json:"next_check,omitzero"`
	Reboot       string        `json:"reboot_strategy"`
	RebootBy     string        `json:"reboot_by,omitempty"` // "a soft-reboot: …" or "a full reboot: …", where reboot.soft is set and a version is pending
	Unreported   int           `json:"unreported_events"`   // events that the server has not got yet

	Soft       *wire.Soft       `json:"soft,omitempty"` // what runs was started by a soft-reboot
	Pending    *wire.Pending    `json:"pending,omitempty"`
	Other      *wire.Other      `json:"other,omitempty"` // what the other slot holds
	Partial    *wire.Partial    `json:"partial,omitempty"`
	RolledBack *wire.RolledBack `json:"rolled_back,omitempty"`
	LastError  *Problem         `json:"last_error,omitempty"`
	Failed     []Failed         `json:"failed,omitempty"`
	Bad        map[string]Bad   `json:"bad_addresses,omitempty"`
	Freshness  Freshness        `json:"freshness"`
	Sick       *Sickness        `json:"sick,omitempty"` // the running version became unhealthy after its blessing

	// InstallerError says why semper-installd did not answer; then the fields about slots are from an earlier answer, or empty.
	InstallerError string `json:"installer_error,omitempty"`
}

// Report returns the machine's state.
func (a *Agent) Report() Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	s, set := &a.state, &a.setup.Settings
	r := Report{
		State: s.State, Since: s.Since, Why: s.Why,
		Server: set.Server, Channel: set.Channel, Reboot: string(set.Reboot.Strategy), Pin: set.Pin, MaxFailures: set.MaxFailures,
		HealthServer: string(set.Health.Server), HealthGrace: set.Health.Grace, HealthLater: string(set.Health.Later),
		Metered: set.Network.Metered || s.Metered, Waiting: a.waiting, Locked: s.Locked, Reached: a.reached,
		LastCheck: s.LastCheck, CheckResult: s.CheckResult, NextCheck: s.NextCheck, Unreported: len(s.Outbox),
		Failed: slices.Clone(s.Failed), Bad: maps.Clone(s.Bad), Freshness: s.Fresh,
	}
	for _, server := range a.setup.Servers {
		r.Servers = append(r.Servers, server.URL)
	}
	if p := a.paused(); p != nil {
		c := *p
		r.Paused = &c
	}
	if s.Sick != nil {
		c := *s.Sick
		r.Sick = &c
	}
	if s.LastError != nil {
		p := *s.LastError
		r.LastError = &p
	}
	if a.progress.Total > 0 {
		p := a.progress
		r.Progress = &p
	}
	if a.slots != nil {
		r.Version, r.Slot, r.RootHash, r.Trial = a.slots.Version, a.slots.Slot, a.slots.RootHash, a.slots.Trial
		r.Pending, r.Partial, r.RolledBack, r.Other = a.slots.Pending, a.slots.Partial, a.slots.RolledBack, a.slots.Other
		r.PendingSize, r.Soft = s.PendingSize, a.slots.Soft
		if a.slots.Pending != nil && s.State != StateRebooting { // then Why says it
			_, r.RebootBy = a.byWhat(a.slots.Pending)
		}
	}
	switch {
	case a.slotsErr != nil:
		r.InstallerError = a.slotsErr.Error()
	case a.slots == nil:
		r.InstallerError = "semper-installd was not asked yet"
	}
	return r
}

func (a *Agent) history() []Entry {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.state.History)
}

// settings are those in force, as values and as TOML.
func (a *Agent) settings() Reply {
	a.mu.Lock()
	defer a.mu.Unlock()
	var text strings.Builder
	if err := a.setup.Settings.Show(&text); err != nil {
		return failure(err)
	}
	return Reply{Text: text.String(), Config: a.setup.Settings.Values()}
}

// command is a person's wish on its way to the loop.
type command struct {
	Request
	checked  chan Reply // buffered: the loop does not wait for whoever asked
	finished chan Reply
}

func failure(err error) Reply { return Reply{Error: err.Error(), Kind: fault.KindOf(err).String()} }

// obey carries out a command, in the loop.
func (a *Agent) obey(ctx context.Context, c *command) {
	text, err := a.carryOut(ctx, c)
	if err != nil {
		c.finished <- failure(err)
		return
	}
	c.finished <- Reply{Text: text}
}

func (a *Agent) carryOut(ctx context.Context, c *command) (string, error) {
	switch c.Verb {
	case VerbPause:
		return a.pause(Pause{Reason: clip(c.Reason, 200), By: clip(c.By, 64), At: a.now()}), nil
	case VerbResume:
		return a.resume()
	case VerbMetered:
		a.change(func(s *State) { s.Metered = c.On })
		a.schedule(0)
		if c.On {
			return "the line is metered: updates are not downloaded", nil
		}
		return "the line is not metered", nil
	case VerbRetry:
		return a.retry(c.Version)
	case VerbLook: // the next step does
		return "the agent looks again", nil
	case VerbReload:
		if err := a.reload(ctx); err != nil {
			return "", err
		}
		return "the settings were read again", nil
	}
	switch {
	case len(a.setup.Servers) == 0:
		return "", errNoServer
	case !a.look(ctx):
		return "", a.slotsErr
	case a.slots.Trial && a.slots.WayBack:
		return "", fault.New(fault.Verification, "version %s is on trial until its health checks are through; nothing is installed before", a.slots.Version)
	}
	if p := a.paused(); p != nil {
		return "", fault.New(fault.Verification, "the agent is paused (%s): 'semperctl resume' first", p.Reason)
	}
	if a.goingDown() {
		return "", fault.New(fault.Verification, "the machine is rebooting into version %s", a.slots.Pending.Version)
	}
	if c.Retry {
		a.change(func(s *State) { s.Failed = nil })
	}
	return a.check(ctx, client.OnDemand, func(text string, err error) {
		if err != nil {
			c.checked <- failure(err)
			return
		}
		c.checked <- Reply{Text: text}
	})
}

func (a *Agent) pause(p Pause) string {
	if p.Reason == "" {
		p.Reason = "no reason given"
	}
	a.change(func(s *State) {
		s.Paused = &p
		s.note(a.now(), fmt.Sprintf("paused by %s: %s", p.By, p.Reason))
	})
	a.o.Log.Info("paused", "by", p.By, "reason", p.Reason)
	return "paused: no checks, no downloads, no reboots until 'semperctl resume'"
}

func (a *Agent) resume() (string, error) {
	if a.setup.Settings.Paused {
		return "", fault.New(fault.Input, "paused = true is in %s: remove it there", a.from("paused"))
	}
	if a.state.Paused == nil {
		return "the agent was not paused", nil
	}
	a.change(func(s *State) {
		s.Paused = nil
		s.note(a.now(), "resumed")
	})
	a.schedule(0)
	return "resumed", nil
}

func (a *Agent) retry(version string) (string, error) {
	n := len(a.state.Failed)
	a.change(func(s *State) {
		if version == "" {
			s.Failed = nil
			return
		}
		s.forgive(version)
	})
	if n -= len(a.state.Failed); n == 0 && version != "" {
		return "", fault.New(fault.Input, "version %s has not failed here", version)
	}
	a.schedule(0)
	return fmt.Sprintf("%d failed version(s) forgiven; what the server offers next is tried again", n), nil
}

// ServeControl answers semperctl until ctx ends.
func (a *Agent) ServeControl(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	free := make(chan struct{}, maxClients)
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fault.New(fault.IO, "semperctl's socket: %w", err)
		}
		select {
		case free <- struct{}{}:
			go func() {
				defer func() { <-free }()
				a.control(ctx, conn)
			}()
		default: // a crowd is turned away, not queued
			conn.Close()
		}
	}
}

func (a *Agent) control(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	var reply Reply
	_ = conn.SetReadDeadline(time.Now().Add(controlWait))
	r, err := readRequest(conn)
	if err == nil && r.Verb != VerbStatus && r.Verb != VerbHistory && r.Verb != VerbConfig {
		err = mayChange(conn)
	}
	if err != nil {
		reply = failure(err)
	} else {
		reply = a.answer(ctx, r, conn)
	}
	data, err := json.Marshal(reply)
	if err != nil {
		a.o.Log.Error("semperctl", "error", err)
		return
	}
	_ = conn.SetWriteDeadline(time.Now().Add(controlWait))
	_, _ = conn.Write(append(data, '\n')) // whoever asked may have gone
}

// mayChange lets root alone change something.
func mayChange(conn net.Conn) error {
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return fault.New(fault.Internal, "not a Unix socket")
	}
	uid, err := wire.Peer(c)
	if err != nil {
		return err
	}
	if uid != 0 {
		return fault.New(fault.Usage, "only root may do that (use sudo)")
	}
	return nil
}

func readRequest(r io.Reader) (Request, error) {
	line, err := readLine(r, maxRequest)
	if err != nil {
		return Request{}, fault.New(fault.Input, "request: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	var q Request
	if err := dec.Decode(&q); err != nil {
		return Request{}, fault.New(fault.Input, "request: %w", err)
	}
	switch q.Verb {
	case VerbStatus, VerbHistory, VerbConfig, VerbCheck, VerbUpdate, VerbCancel, VerbPause, VerbResume, VerbMetered, VerbRetry, VerbReload, VerbLook:
		return q, nil
	}
	return Request{}, fault.New(fault.Input, "request: unknown verb %.40q", q.Verb)
}

// readLine reads to the first newline, at most limit bytes.
func readLine(r io.Reader, limit int) ([]byte, error) {
	var line []byte
	buf := make([]byte, min(limit, 4<<10))
	for {
		n, err := r.Read(buf)
		if i := bytes.IndexByte(buf[:n], '\n'); i >= 0 {
			line = append(line, buf[:i]...)
			if len(line) > limit {
				return nil, errors.New("too long")
			}
			return line, nil
		}
		line = append(line, buf[:n]...)
		if len(line) > limit {
			return nil, errors.New("too long")
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

func (a *Agent) answer(ctx context.Context, r Request, conn net.Conn) Reply {
	// The peer may wait for as long as a download takes. When it hangs up its wish, if it was not begun, is dropped.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_ = conn.SetReadDeadline(time.Time{})
	go func() {
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()
	return a.Do(ctx, r)
}

// Do carries out a request of somebody who may ask for it, semperctl's or one that came over D-Bus.
func (a *Agent) Do(ctx context.Context, r Request) Reply {
	switch r.Verb {
	case VerbStatus:
		report := a.Report()
		return Reply{Status: &report}
	case VerbHistory:
		return Reply{History: a.history()}
	case VerbConfig:
		return a.settings()
	case VerbCancel:
		if !a.Cancel(errCancelled) {
			return Reply{Text: "there was nothing to cancel"}
		}
		return Reply{Text: "cancelled; what was downloaded is kept"}
	case VerbPause:
		a.Cancel(errPaused)
	case VerbCheck:
		if s := a.Report().State; s == StateDownloading || s == StateInstalling {
			return Reply{Text: "an update is being installed; see semperctl status"}
		}
	}
	c := &command{Request: r, checked: make(chan Reply, 1), finished: make(chan Reply, 1)}
	stopping := failure(fault.New(fault.IO, "semperd is stopping"))
	select {
	case a.commands <- c:
	case <-ctx.Done():
		return stopping
	}
	if r.Begin {
		return Reply{Text: "begun"}
	}
	var checked chan Reply
	if r.Verb == VerbCheck {
		checked = c.checked
	}
	select {
	case reply := <-checked:
		return reply
	case reply := <-c.finished:
		return reply
	case <-ctx.Done():
		return stopping
	}
}

// Ask sends a request to semperd's socket at path and returns its answer; an answer that is an error becomes one.
func Ask(ctx context.Context, path string, r Request) (Reply, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		return Reply{}, fault.New(fault.IO, "semperd does not answer (see 'systemctl status semperd'): %w", err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	data, err := json.Marshal(r)
	if err != nil {
		return Reply{}, fault.New(fault.Internal, "request: %w", err)
	}
	if _, err := conn.Write(append(data, '\n')); err != nil {
		return Reply{}, fault.New(fault.IO, "ask semperd: %w", err)
	}
	line, err := readLine(conn, maxReply)
	if err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return Reply{}, fault.New(fault.IO, "semperd's answer: %w", err)
	}
	var reply Reply
	if err := json.Unmarshal(line, &reply); err != nil {
		return Reply{}, fault.New(fault.Input, "semperd's answer: %w", err)
	}
	_, err = reply.Result()
	return reply, err
}

func kindOf(word string) fault.Kind {
	for _, k := range []fault.Kind{fault.Usage, fault.Input, fault.Network, fault.Verification, fault.IO} {
		if k.String() == word {
			return k
		}
	}
	return fault.Internal
}
