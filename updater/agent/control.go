package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/client"
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

// The verbs. Check and Update are for root.
const (
	VerbStatus  Verb = "status"
	VerbHistory Verb = "history"
	VerbCheck   Verb = "check"  // ask the update server now; an update that it offers is installed afterwards
	VerbUpdate  Verb = "update" // the same, and answer when it is installed
)

// Request is semperctl's question.
type Request struct {
	Verb  Verb `json:"verb"`
	Retry bool `json:"retry,omitempty"` // with VerbUpdate: forget which versions failed here
}

// Reply is semperd's answer.
type Reply struct {
	Error   string  `json:"error,omitempty"`
	Kind    string  `json:"kind,omitempty"` // of the error, fault.Kind's word
	Text    string  `json:"text,omitempty"` // what was done, for people
	Status  *Report `json:"status,omitempty"`
	History []Entry `json:"history,omitempty"`
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

	Server      string    `json:"server"` // empty: none is set
	Channel     string    `json:"channel"`
	LastCheck   time.Time `json:"last_check,omitzero"`
	CheckResult string    `json:"check_result,omitempty"`
	NextCheck   time.Time `json:"next_check,omitzero"`
	Reboot      string    `json:"reboot_strategy"`
	Unreported  int       `json:"unreported_events"` // events that the server has not got yet

	Pending    *wire.Pending    `json:"pending,omitempty"`
	Partial    *wire.Partial    `json:"partial,omitempty"`
	RolledBack *wire.RolledBack `json:"rolled_back,omitempty"`
	LastError  *Problem         `json:"last_error,omitempty"`
	Failed     []Failed         `json:"failed,omitempty"`

	// InstallerError says why semper-installd did not answer; then the fields about slots are from an earlier answer, or empty.
	InstallerError string `json:"installer_error,omitempty"`
}

// Report returns the machine's state.
func (a *Agent) Report() Report {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := &a.state
	r := Report{
		State: s.State, Since: s.Since, Why: s.Why,
		Server: a.o.Settings.Server, Channel: a.o.Settings.Channel, Reboot: string(a.o.Settings.Reboot.Strategy),
		LastCheck: s.LastCheck, CheckResult: s.CheckResult, NextCheck: s.NextCheck, Unreported: len(s.Outbox),
		Failed: slices.Clone(s.Failed),
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
		r.Pending, r.Partial, r.RolledBack = a.slots.Pending, a.slots.Partial, a.slots.RolledBack
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

// command is a person's wish on its way to the loop.
type command struct {
	Request
	checked  chan Reply // buffered: the loop does not wait for whoever asked
	finished chan Reply
}

func failure(err error) Reply { return Reply{Error: err.Error(), Kind: fault.KindOf(err).String()} }

// obey carries out a command, in the loop.
func (a *Agent) obey(ctx context.Context, c *command) {
	text, err := func() (string, error) {
		if a.o.Server == nil {
			return "", errNoServer
		}
		if !a.look(ctx) {
			return "", a.slotsErr
		}
		if a.slots.Trial && a.slots.WayBack {
			return "", fault.New(fault.Verification, "version %s is on trial until its health checks are through; nothing is installed before", a.slots.Version)
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
	}()
	if err != nil {
		c.finished <- failure(err)
		return
	}
	c.finished <- Reply{Text: text}
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
	if err == nil && (r.Verb == VerbCheck || r.Verb == VerbUpdate) {
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
	case VerbStatus, VerbHistory, VerbCheck, VerbUpdate:
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
	switch r.Verb {
	case VerbStatus:
		report := a.Report()
		return Reply{Status: &report}
	case VerbHistory:
		return Reply{History: a.history()}
	}
	if s := a.Report(); r.Verb == VerbCheck && (s.State == StateDownloading || s.State == StateInstalling) {
		return Reply{Text: "an update is being installed; see semperctl status"}
	}
	// The peer may wait for as long as a download takes. When it hangs up its wish, if it was not begun, is dropped.
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	_ = conn.SetReadDeadline(time.Time{})
	go func() {
		_, _ = conn.Read(make([]byte, 1))
		cancel()
	}()
	c := &command{Request: r, checked: make(chan Reply, 1), finished: make(chan Reply, 1)}
	select {
	case a.commands <- c:
	case <-ctx.Done():
		return failure(fault.New(fault.IO, "semperd is stopping"))
	}
	done := c.finished
	if r.Verb == VerbCheck {
		select {
		case reply := <-c.checked:
			return reply
		case reply := <-c.finished:
			return reply
		case <-ctx.Done():
		}
	} else {
		select {
		case reply := <-done:
			return reply
		case <-ctx.Done():
		}
	}
	return failure(fault.New(fault.IO, "semperd is stopping"))
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
	if reply.Error != "" {
		return reply, fault.New(kindOf(reply.Kind), "%s", reply.Error)
	}
	return reply, nil
}

func kindOf(word string) fault.Kind {
	for _, k := range []fault.Kind{fault.Usage, fault.Input, fault.Network, fault.Verification, fault.IO} {
		if k.String() == word {
			return k
		}
	}
	return fault.Internal
}
