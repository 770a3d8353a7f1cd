// Package agent is semperd: it asks the update server, downloads, hands every byte to semper-installd, reports, and has the machine rebooted.
//
// It runs as a user without any right. What it says about an update is believed by nobody: semper-installd verifies the payload itself. All that a broken
// or hostile agent can do is to keep the machine from updating.
//
// # States
//
//	state        meaning                                          left when
//	idle         waits for the next check                         the check is due, or a person asks for one
//	trial        the running version is not blessed yet           its health checks are through
//	checking     asks the update server                           the answer is there
//	downloading  fetches a payload and passes it on               it is complete, or has failed
//	installing   semper-installd verifies the slot and flips it   done, or refused
//	pending      an update is installed                           the machine reboots (by strategy)
//	rebooting    the reboot was asked for                         the system goes down
//
// The state is in /var/lib/semper/agent/state.json, written durably at each change, and so are the version that is being installed, the events that the
// server must still get, the versions that failed here, and the history. After a crash or a power cut the agent asks semper-installd what is true and
// goes on from there: it never relies on what it meant to do.
//
// # Events
//
// Flatcar's codes, see package omaha: 13/1 download started, 14/1 download finished, 3/1 installed, 3/2 completed (after reboot and health checks), 3/0
// failed, with the code of the failure, or 44 when the machine came back from a version that it had booted. All but the first two are kept until the
// server has answered.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/wire"
)

// Times that are not settings.
const (
	trialPoll  = 15 * time.Second // how often a machine on trial looks whether it is blessed
	trialLimit = 30 * time.Minute // how long it does nothing else if there is no version to go back to
	firstRetry = time.Minute      // after a failed check or report; doubles up to maxRetry
	maxRetry   = 4 * time.Hour
	maxBlind   = 5 * time.Minute // without an answer of semper-installd
	// downloadRetry is the first wait within one attempt at a download.
	downloadRetry = 5 * time.Second
	reportLimit   = 30 * time.Second // how long a reboot is put off for the report that announces it
	rebootWait    = 10 * time.Minute // from a reboot that was asked for to asking again
	maxReboots    = 3                // for one installed update; more are a loop that leads nowhere
	minServerGap  = time.Second      // the least poll interval that a server may ask for
)

// Server is what the agent needs of the update server's client.
type Server interface {
	Check(ctx context.Context, m client.Machine, source client.Source, events ...omaha.Event) (client.Answer, error)
	Report(ctx context.Context, m client.Machine, events ...omaha.Event) error
}

// Installer is a connection to semper-installd; *wire.Client is one.
type Installer interface {
	Status() (wire.Status, error)
	Begin(wire.Begin) (int64, error)
	Data([]byte) error
	Finish() error
	Abort() error
	Discard() error
	Reboot() error
	Close() error
}

// Options are an Agent's surroundings. All are required but Server, which is nil where no server is set.
type Options struct {
	Settings config.Settings
	// Machine is who asks. Channel, Version and FirstVersion are filled in by the agent, and "/VERSION" is put behind its UserAgent.
	Machine client.Machine
	BootID  string
	Server  Server
	Dial    func(context.Context) (Installer, error)
	HTTP    *http.Client // for payloads
	State   durable.Folder
	Clock   Clock
	Rand    *rand.Rand
	Log     *slog.Logger
}

// Clock is the time, and waiting for it.
type Clock interface {
	Now() time.Time
	// Sleep returns after d, or earlier with ctx's error.
	Sleep(ctx context.Context, d time.Duration) error
}

// Agent is one running semperd.
type Agent struct {
	o        Options
	commands chan *command

	mu       sync.Mutex // of all below; only Step and what it calls change it
	state    State
	slots    *wire.Status // what semper-installd said last; nil: nothing yet
	slotsErr error        // why it did not, at the last attempt
	progress Progress

	started    time.Time
	blind      int // times in a row that semper-installd did not answer
	retries    int // failed checks in a row
	nextReport time.Time
	reports    int // failed reports in a row
}

// New loads the state and returns an agent that has done nothing yet.
func New(o Options) (*Agent, error) {
	a := &Agent{o: o, commands: make(chan *command)}
	a.started = a.now()
	if err := a.load(); err != nil {
		return nil, err
	}
	return a, nil
}

// now is the time as it survives a trip through JSON.
func (a *Agent) now() time.Time { return a.o.Clock.Now().UTC().Truncate(time.Millisecond) }

// after is the time d from now.
func (a *Agent) after(d time.Duration) time.Time { return a.now().Add(d.Truncate(time.Millisecond)) }

// Run steps until ctx ends.
func (a *Agent) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		wait := a.Step(ctx)
		timer := make(chan struct{})
		waitCtx, cancel := context.WithCancel(ctx)
		go func() {
			defer close(timer)
			_ = a.o.Clock.Sleep(waitCtx, wait)
		}()
		select {
		case <-timer:
		case c := <-a.commands:
			a.obey(ctx, c)
		}
		cancel()
		<-timer
	}
	return nil
}

// Step does what is due and returns how long there is nothing to do.
func (a *Agent) Step(ctx context.Context) time.Duration {
	if !a.look(ctx) {
		return min(a.backoff(firstRetry, a.blind), maxBlind)
	}
	if a.slots.Trial && (a.slots.WayBack || a.now().Sub(a.started) < trialLimit) {
		a.enter(StateTrial, "version "+a.slots.Version+" must pass its health checks")
		a.deliver(ctx)
		return trialPoll
	}
	if a.slots.Pending != nil {
		if !a.goingDown() {
			a.enter(StatePending, "version "+a.slots.Pending.Version+" is installed")
		}
		if wait, done := a.reboot(ctx); done {
			return wait
		}
	} else if s := a.state.State; s != StateIdle {
		a.enter(StateIdle, "version "+a.slots.Version+" runs")
	}
	if a.due() {
		_, _ = a.check(ctx, client.Scheduled, nil)
		if a.slots.Pending != nil {
			if wait, done := a.reboot(ctx); done {
				return wait
			}
		}
	}
	a.deliver(ctx)
	return a.untilNext()
}

// look asks semper-installd what is true and draws the conclusions. Without an answer nothing else makes sense.
func (a *Agent) look(ctx context.Context) bool {
	st, err := a.ask(ctx)
	a.mu.Lock()
	a.slotsErr = err
	if err == nil {
		a.slots = &st
	}
	a.mu.Unlock()
	if err != nil {
		a.blind++
		a.problem("", fmt.Errorf("ask semper-installd: %w", err))
		return false
	}
	if a.blind > 0 {
		a.blind = 0
		a.change(func(s *State) {
			if s.LastError != nil && s.LastError.Version == "" {
				s.LastError = nil
			}
		})
	}
	a.learn(st)
	return true
}

func (a *Agent) ask(ctx context.Context) (wire.Status, error) {
	inst, err := a.o.Dial(ctx)
	if err != nil {
		return wire.Status{}, err
	}
	defer func() { _ = inst.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = inst.Close() })
	defer stop()
	return inst.Status()
}

// learn turns what happened since the last look, possibly a reboot ago, into events and history. Each happening counts once.
func (a *Agent) learn(st wire.Status) {
	if a.state.FirstVersion == "" {
		a.change(func(s *State) { s.FirstVersion = st.Version })
	}
	if b := st.Blessed; b != nil && b.Version == st.Version && !b.At.Equal(a.state.SeenBlessed) {
		a.change(func(s *State) {
			s.SeenBlessed = b.At
			s.post(omaha.Completed(b.From))
			s.note(a.now(), s.State, fmt.Sprintf("version %s is healthy; it replaced %s", b.Version, b.From))
			s.LastError = nil
			s.Reboots = Reboots{}
		})
		a.o.Log.Info("update completed", "version", b.Version, "from", b.From)
	}
	if r := st.RolledBack; r != nil && !r.At.Equal(a.state.SeenRollback) {
		reason := r.Reason
		a.change(func(s *State) {
			s.SeenRollback = r.At
			s.post(omaha.RolledBack(r.Version, eventReason(*r)))
			s.fail(Failed{Version: r.Version, Reason: reason, Code: int(omaha.CodeRollback), At: r.At, Running: st.Version})
			s.note(a.now(), s.State, fmt.Sprintf("went back from %s to %s: %s", r.Version, st.Version, reason))
			s.LastError = &Problem{Text: fmt.Sprintf("rolled back from %s: %s", r.Version, reason), Version: r.Version, Code: int(omaha.CodeRollback), At: r.At}
			s.Reboots = Reboots{}
		})
		a.o.Log.Error("rolled back", "version", r.Version, "reason", reason)
	}
}

// eventReason is what the server is told of a rollback: the reason and the end of the failing check's output, on one line, since an attribute of XML
// has no line breaks.
func eventReason(r wire.RolledBack) string {
	text := r.Reason
	if out := strings.TrimSpace(r.Output); !strings.HasSuffix(text, out) { // the reason ends with the output's last line
		text += " | " + strings.ReplaceAll(out, "\n", " | ")
	}
	return clip(text, omaha.MaxReason)
}

// due reports whether the scheduled check is due. At the agent's first step there is no next check yet.
func (a *Agent) due() bool {
	if a.o.Server == nil {
		return false
	}
	if next := a.state.NextCheck; next.IsZero() || next.Sub(a.now()) > a.o.Settings.PollInterval+a.o.Settings.Jitter+maxRetry {
		// The first start, or a clock that was wrong when the time was set.
		a.schedule(a.o.Settings.InitialDelay)
		return a.o.Settings.InitialDelay == 0
	}
	return !a.now().Before(a.state.NextCheck)
}

// Start sets the first check of this run: a start is a reason to look soon, whatever was planned before, and at once where an update was under way.
func (a *Agent) Start() {
	if a.o.Server == nil {
		return
	}
	if a.state.Target != "" { // a download was interrupted
		a.change(func(s *State) { s.NextCheck = a.now() })
		return
	}
	a.schedule(a.o.Settings.InitialDelay)
}

// schedule plans the next check after d, moved by the jitter.
func (a *Agent) schedule(d time.Duration) {
	if j := int64(min(a.o.Settings.Jitter, d)); j > 0 {
		d += time.Duration(a.o.Rand.Int64N(2*j+1) - j)
	}
	a.change(func(s *State) { s.NextCheck = a.after(d) })
}

// backoff is the wait after n failures in a row: first, doubled each time, and anything between half of that and all of it.
func (a *Agent) backoff(first time.Duration, n int) time.Duration {
	d := min(first<<min(max(n-1, 0), 10), maxRetry)
	return d/2 + time.Duration(a.o.Rand.Int64N(int64(d/2)+1))
}

// untilNext is the time to the next thing to do.
func (a *Agent) untilNext() time.Duration {
	wait := time.Hour
	until := func(t time.Time) { wait = min(wait, max(0, t.Sub(a.now()))) }
	if a.o.Server != nil {
		until(a.state.NextCheck)
		if len(a.state.Outbox) > 0 {
			until(a.nextReport)
		}
	}
	return wait
}

// deliver sends what the server must still get, if it is time to try.
func (a *Agent) deliver(ctx context.Context) {
	if a.o.Server == nil || len(a.state.Outbox) == 0 || a.now().Before(a.nextReport) {
		return
	}
	events := a.state.outbox()
	if err := a.o.Server.Report(ctx, a.machine(), events...); err != nil {
		a.reports++
		a.nextReport = a.after(a.backoff(firstRetry, a.reports))
		a.o.Log.Warn("report", "events", len(events), "error", err, "next", a.nextReport)
		return
	}
	a.delivered(len(events))
}

func (a *Agent) delivered(n int) {
	a.reports, a.nextReport = 0, time.Time{}
	if n > 0 {
		a.change(func(s *State) { s.Outbox = s.Outbox[n:] })
	}
}

// machine is who the server is told it talks to.
func (a *Agent) machine() client.Machine {
	m := a.o.Machine
	m.Channel = a.o.Settings.Channel
	m.FirstVersion = a.state.FirstVersion
	if a.slots != nil {
		m.Version = a.slots.Version
		m.UserAgent += "/" + a.slots.Version
	}
	return m
}

// goingDown reports whether a reboot was asked for in this boot, not long ago.
func (a *Agent) goingDown() bool {
	r := a.state.Reboots
	return a.slots.Pending != nil && r.Update.Equal(a.slots.Pending.At) && r.Boot == a.o.BootID &&
		a.now().Sub(r.Asked) < rebootWait && !r.Asked.After(a.now())
}

// reboot has the machine rebooted into a pending update where the strategy says so. Done: there is nothing else to do for wait.
func (a *Agent) reboot(ctx context.Context) (wait time.Duration, done bool) {
	p := a.slots.Pending
	if s := a.o.Settings.Reboot; s.Strategy != config.RebootImmediate || len(s.Windows) > 0 {
		return 0, false // windows and locks are not known yet, and a reboot at the wrong time is worse than none
	}
	if a.goingDown() {
		return rebootWait, true
	}
	r := a.state.Reboots
	if !r.Update.Equal(p.At) {
		r = Reboots{Update: p.At}
	}
	if r.Count >= maxReboots {
		if !r.GaveUp {
			r.GaveUp = true
			a.change(func(s *State) { s.Reboots = r })
			a.problem(p.Version, fault.New(fault.IO, "version %s is installed, but after %d reboots the machine still runs %s: the boot loader does not choose it",
				p.Version, r.Count, a.slots.Version))
		}
		return 0, false
	}
	// The server hears of the reboot first, if it listens; the machine does not wait for it.
	if a.o.Server != nil && len(a.state.Outbox) > 0 {
		limited, cancel := context.WithTimeout(ctx, reportLimit)
		events := a.state.outbox()
		if err := a.o.Server.Report(limited, a.machine(), events...); err == nil {
			a.delivered(len(events))
		} else {
			a.o.Log.Warn("report before the reboot; it will be sent again", "error", err)
		}
		cancel()
	}
	r.Count, r.Boot, r.Asked = r.Count+1, a.o.BootID, a.now()
	a.change(func(s *State) { s.Reboots = r })
	a.enter(StateRebooting, "into version "+p.Version)
	if err := a.askReboot(ctx); err != nil {
		a.problem(p.Version, fmt.Errorf("reboot into %s: %w", p.Version, err))
		a.enter(StatePending, "the reboot was refused")
		return a.backoff(firstRetry, r.Count), true
	}
	return rebootWait, true
}

func (a *Agent) askReboot(ctx context.Context) error {
	inst, err := a.o.Dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = inst.Close() }()
	return inst.Reboot()
}

// load reads the state. A state that is damaged is set aside: an agent that starts over is better than one that never starts again.
func (a *Agent) load() error {
	_, err := durable.ReadJSON(a.o.State, stateFile, &a.state)
	if fault.Is(err, fault.Input) {
		a.o.Log.Error("the state file is damaged and set aside", "error", err)
		a.state = State{}
		if err := a.o.State.Rename(stateFile, stateFile+".damaged"); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.New(fault.IO, "set %s aside: %w", stateFile, err)
		}
		err = nil
	}
	if err != nil {
		return err
	}
	if a.state.State == "" {
		a.state.State = StateIdle
	}
	return nil
}
