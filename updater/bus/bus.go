// Package bus is semperd on the system bus: two D-Bus services over one status.
//
//	agent ── Publish(Status) ──▶ Service ─┬─ connection 1 ── com.coreos.update1    Flatcar's interface, for the tools that know it
//	agent ◀── Agent's methods ────────────┴─ connection 2 ── org.semper.Update1    properties, reasons, and what changes something
//
// Each name has a connection of its own, because the bus applies its policy for a name to every message for the connection that owns it: on one
// connection, what everybody may ask of the one name everybody could ask of the other.
//
// Publish never blocks. A status that the bus has not been told of yet is replaced by a newer one of the same state, and kept where the state is another, or
// the download's first byte came (up to 16), so that watchers see every step of an update in its order. Progress is told each 1 %, or after 10 seconds.
//
// A bus that is not there, is restarted, or refuses a name costs one line in the log; it is tried again after a second, doubled up to a minute. The
// agent works without it.
//
// # States on com.coreos.update1
//
//	Semper                  Flatcar                              progress  new_version, new_size
//	idle, trial             UPDATE_STATUS_IDLE                   0         "0.0.0", 0
//	checking                UPDATE_STATUS_CHECKING_FOR_UPDATE    0         "0.0.0", 0
//	downloading, no byte    UPDATE_STATUS_UPDATE_AVAILABLE       0         the update's
//	downloading             UPDATE_STATUS_DOWNLOADING            0 to 1    the update's
//	installing              UPDATE_STATUS_FINALIZING             0         the update's
//	pending, rebooting      UPDATE_STATUS_UPDATED_NEED_REBOOT    0         the installed update's
//	a check or an update    UPDATE_STATUS_REPORTING_ERROR_EVENT  0         the update's; a signal only, between the
//	has failed                                                             state in which it failed and the next
//
// UPDATE_STATUS_VERIFYING is never used, as in Flatcar's. A state that is not in the table is UPDATE_STATUS_IDLE.
//
// # Who may
//
// For com.coreos.update1 the bus's policy decides: root and the user core. For org.semper.Update1 everybody may read, and polkit is asked before
// something changes. Where there is no polkit only uid 0 may; where polkit does not answer nobody may.
package bus

import (
	"cmp"
	"context"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// State is what the agent is busy with.
type State string

// The states of package agent.
const (
	Idle        State = "idle"
	Trial       State = "trial"
	Checking    State = "checking"
	Downloading State = "downloading"
	Installing  State = "installing"
	Pending     State = "pending"
	Rebooting   State = "rebooting"
)

// Status is what the bus shows. Texts are cut at 1000 bytes on their way out, lists at 32 entries.
type Status struct {
	Version string // that runs
	Slot    string // that it runs from
	Server  string // empty: none is set
	Channel string

	State      State
	Reason     string // why it is in this state, for people
	WaitingFor string // what must happen before it goes on, for people; empty: nothing

	Progress   float64 // of the download, 0 to 1
	NewVersion string  // that is being downloaded or installed; empty: none
	NewSize    int64   // bytes of its payload

	PendingVersion string // that is installed and waits for a reboot
	PendingSize    int64  // bytes of its payload; 0: not known

	RolledBackVersion string // that this machine came back from
	RolledBackReason  string
	FailedVersions    []string // that are not tried again

	LastCheck   time.Time // zero: none yet
	NextCheck   time.Time // zero: none planned
	LastError   string    // empty since the last success
	LastErrorAt time.Time

	Paused      bool
	PauseReason string
	Metered     bool
}

// Agent is what the services want of the update agent. A method returns when the agent has begun what it is asked for, or has refused it; what comes of it
// is seen in the Status. Errors have fault kinds. Methods are called from several goroutines, with at most 25 seconds of time.
type Agent interface {
	// Check asks the update server now, as a check that was due would.
	Check(ctx context.Context) error
	// Update asks the update server now and installs what it offers, because a person says so.
	Update(ctx context.Context) error
	// Cancel ends the check or download that is under way.
	Cancel(ctx context.Context) error
	// Pause keeps the agent from beginning updates, or lets it again. The reason is the caller's, at most 200 bytes, and may be empty.
	Pause(ctx context.Context, on bool, reason string) error
	// SetMetered says that the network costs money, or that it does not.
	SetMetered(ctx context.Context, on bool) error
	// Retry forgets that a version failed here.
	Retry(ctx context.Context, version string) error
	// Rollback boots the other slot's version.
	Rollback(ctx context.Context) error
	// Reset gives up the update that waits for a reboot: afterwards the machine does not boot into it, or an error says that this cannot be done.
	Reset(ctx context.Context) error
}

// Clock is the time, and waiting for it.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

// SystemClock is the real time.
type SystemClock struct{}

// Now is the time.
func (SystemClock) Now() time.Time { return time.Now() }

// After is time.After.
func (SystemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// SystemBus is where the system bus listens.
const SystemBus = "/run/dbus/system_bus_socket"

// Options are a Service's surroundings. Agent and Log are required.
type Options struct {
	Agent Agent
	Log   *slog.Logger
	// Clock is SystemClock if nil. Limits of single calls are in real time.
	Clock Clock
	// Socket is where the bus listens; empty: SystemBus.
	Socket string
	// Dial connects to the bus; nil: to Socket.
	Dial func(context.Context) (net.Conn, error)
	// UID is who Dial's connections belong to; 0 with a nil Dial: this process.
	UID int
}

// Service is semperd on the bus.
type Service struct {
	o      Options
	gate   gate
	asked  atomic.Uint64 // questions to polkit
	queues []*queue
}

// New returns a Service that is not on the bus before Run.
func New(o Options) *Service {
	if o.Clock == nil {
		o.Clock = SystemClock{}
	}
	if o.Dial == nil {
		o.UID = os.Getuid()
		o.Dial = func(ctx context.Context) (net.Conn, error) {
			return (&net.Dialer{Timeout: handshakeLimit}).DialContext(ctx, "unix", cmp.Or(o.Socket, SystemBus))
		}
	}
	return &Service{o: o, gate: make(gate, maxChanges), queues: []*queue{newQueue(), newQueue()}}
}

// Publish tells what is true now. It does not block.
func (s *Service) Publish(st Status) {
	st = st.clean()
	for _, q := range s.queues {
		q.push(st)
	}
}

// Run keeps both names on the bus until ctx ends.
func (s *Service) Run(ctx context.Context) {
	faces := []face{newFlatcar(s, s.queues[0]), newSemper(s, s.queues[1])}
	var wg sync.WaitGroup
	for i, f := range faces {
		wg.Go(func() { s.keep(ctx, f, s.queues[i]) })
	}
	wg.Wait()
}
