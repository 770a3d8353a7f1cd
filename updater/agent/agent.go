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
//	checking     asks the update servers                          an answer is there
//	downloading  fetches a payload and passes it on               it is complete, or has failed
//	installing   semper-installd verifies the slot and flips it   done, or refused
//	pending      an update is installed                           the machine may reboot, by strategy, window, users, lock
//	draining     the reboot lock is held, drain hooks run         they are through, or one failed
//	rebooting    the reboot was asked for                         the system goes down
//
// Transitions has every arrow; docs/state-machine.md shows them.
//
// The state is in /var/lib/semper/agent/state.json, written durably at each change, and so are the version that is being installed, the events that the
// servers must still get, the versions that failed here, and the history. After a crash or a power cut the agent asks semper-installd what is true and
// goes on from there: it never relies on what it meant to do.
//
// # Events
//
// Flatcar's codes, see package omaha: 13/1 download started, 14/1 download finished, 3/1 installed, 3/2 completed (after reboot and health checks), 3/0
// failed, with the code of the failure, or 44 when the machine came back from a version that it had booted, 3/9 put off. All but the first two are kept
// until a server has answered.
package agent

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/logind"
	"github.com/semper-os/semper/updater/wire"
	"github.com/semper-os/semper/window"
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
	clockSlack    = 10 * time.Minute // a clock that goes back by less changes no plan
	minServerGap  = time.Second      // the least poll interval that a server may ask for
)

// Server is what the agent needs of an update server's client.
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
	Drain(reason string) error
	Undrain() error
	Warn(text string, ttys []string) error
	Reboot(soft bool) (wire.Going, error)
	Close() error
}

// Lock is the fleet's reboot lock, of which this machine may hold one share. Its methods ask once and do not wait.
type Lock interface {
	// Acquire is idempotent for the same machine.
	Acquire(ctx context.Context) error
	// Held proves that the share is still this machine's; an error means: ask again, do not reboot.
	Held(ctx context.Context) error
	// Release is idempotent, and works after a reboot.
	Release(ctx context.Context) error
}

// Login tells who works on the machine, and what must not be interrupted.
type Login interface {
	Inhibitors(ctx context.Context) ([]logind.Inhibitor, error)
	Sessions(ctx context.Context) ([]logind.Session, error)
}

// Setup is what follows from the settings. It is made anew when they are read again.
type Setup struct {
	Settings config.Settings
	Servers  []NamedServer // in the order in which they are tried; none where none is set
	HTTP     *http.Client  // for payloads
	Lock     Lock          // nil: the strategy has none
	// Windows bound when a reboot may begin; without any it may at all times.
	Windows window.Schedule
}

// NamedServer is an update server and the address under which people know it.
type NamedServer struct {
	URL string
	Server
}

// Options are an Agent's surroundings. All are required but those that may be nil.
type Options struct {
	// Setup reads the settings; it is called at the start and for each reload.
	Setup func() (Setup, error)
	// Machine is who asks. Channel, Version and FirstVersion are filled in by the agent, and "/VERSION" is put behind its UserAgent.
	Machine client.Machine
	BootID  string
	Image   Image // no freshness is looked at where Trust is nil
	Dial    func(context.Context) (Installer, error)
	Login   Login // nil: nobody is asked
	// Health reads what the checks said that run after the blessing; nil without an error: nothing yet. May be nil.
	Health func() (*health.Later, error)
	State  durable.Folder
	Clock  Clock
	Rand   *rand.Rand
	Log    *slog.Logger
	// Publish is told each change. It must not block, and must not call the agent. May be nil.
	Publish func(Report)
	// Impossible is told of a transition that is not in the table, for tests. May be nil.
	Impossible func(from, to StateName)
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

	mu       sync.Mutex // of all below; only Step and what it calls change it, except operation
	setup    Setup
	state    State
	slots    *wire.Status // what semper-installd said last; nil: nothing yet
	slotsErr error        // why it did not, at the last attempt
	progress Progress
	waiting  string // what a pending reboot waits for, for people
	reached  bool   // a server has answered since the agent's start
	// operation cancels the check or download that is under way; nil: none is.
	operation context.CancelCauseFunc

	resumed    bool // the state is an earlier process's
	started    time.Time
	lastStep   time.Time // when the last Step began
	news       bool      // semper-installd told something that was not published yet
	blind      int       // times in a row that semper-installd did not answer
	retries    int       // failed checks in a row
	nextReport time.Time
	reports    int // failed reports in a row
	gate       gate
}

// New loads settings and state and returns an agent that has done nothing yet.
func New(o Options) (*Agent, error) {
	setup, err := o.Setup()
	if err != nil {
		return nil, err
	}
	a := &Agent{o: o, setup: setup, commands: make(chan *command), resumed: true}
	a.gate.unsure = setup.Lock != nil
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
		case <-ctx.Done():
		}
		cancel()
		<-timer
	}
	return nil
}

// Reload reads the settings again. If they are wrong, those that are in force stay.
func (a *Agent) reload(ctx context.Context) error {
	setup, err := a.o.Setup()
	if err != nil {
		a.problem(ofSettings, "", err)
		return err
	}
	changed := config.Changed(a.setup.Settings, setup.Settings)
	if err := a.changeLock(ctx, changed, setup.Lock); err != nil {
		a.problem(ofSettings, "", err)
		return err
	}
	a.solved(ofSettings)
	a.mu.Lock()
	a.setup = setup
	a.mu.Unlock()
	a.o.Log.Info("settings were read again", "changed", changed)
	if len(changed) > 0 {
		a.retries = 0
		a.schedule(0)
	}
	a.publish()
	return nil
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

// from says where a setting comes from.
func (a *Agent) from(key string) string {
	if o, ok := a.setup.Settings.Origin[key]; ok {
		return o.String()
	}
	return "the defaults"
}

// machine is who the server is told it talks to.
func (a *Agent) machine() client.Machine {
	m := a.o.Machine
	m.Channel = a.setup.Settings.Channel
	if alias := a.setup.Settings.Alias; alias != "" {
		m.Alias = alias
	}
	m.FirstVersion = a.state.FirstVersion
	if a.slots != nil {
		m.Version = a.slots.Version
		m.UserAgent += "/" + a.slots.Version
	}
	return m
}

// interruptible runs an operation that Cancel can end.
func (a *Agent) interruptible(ctx context.Context, do func(context.Context)) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	a.mu.Lock()
	a.operation = cancel
	a.mu.Unlock()
	do(ctx)
	a.mu.Lock()
	a.operation = nil
	a.mu.Unlock()
}

// Cancel ends the check or the download that is under way, and reports whether there was one. What was downloaded is kept.
func (a *Agent) Cancel(cause error) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.operation == nil {
		return false
	}
	a.operation(cause)
	return true
}

func (a *Agent) publish() {
	a.news = false
	if a.o.Publish != nil {
		a.o.Publish(a.Report())
	}
}
