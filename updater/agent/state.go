package agent

import (
	"errors"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/freshness"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/wire"
)

const stateFile = "state.json"

// Bounds of the lists in the state file.
const (
	maxFailed = 32
	maxOutbox = omaha.MaxEvents / 2
)

// State is the content of state.json.
type State struct {
	State        StateName `json:"state"`
	Since        time.Time `json:"since"`
	Why          string    `json:"why"` // of the state, for people
	FirstVersion string    `json:"first_version"`

	LastCheck   time.Time `json:"last_check"`            // zero: none yet
	CheckResult string    `json:"check_result"`          // of the last check, for people
	NextCheck   time.Time `json:"next_check"`            // zero: none planned
	Target      string    `json:"target,omitempty"`      // the version that is being installed
	LastError   *Problem  `json:"last_error,omitempty"`  // nil since the last success
	Failed      []Failed  `json:"failed,omitempty"`      // oldest first
	Outbox      []Event   `json:"outbox,omitempty"`      // oldest first
	History     []Entry   `json:"history,omitempty"`     // oldest first
	Reboots     Reboots   `json:"reboots"`               // for the update that is pending
	SeenBlessed time.Time `json:"seen_blessed,omitzero"` // the time in semper-installd's record that was turned into an event

	SeenRollback time.Time `json:"seen_rollback,omitzero"`

	Bad         map[string]Bad `json:"bad_addresses,omitempty"`
	Paused      *Pause         `json:"paused,omitempty"` // by a person; nil: not
	Metered     bool           `json:"metered,omitempty"`
	Locked      bool           `json:"locked,omitempty"`       // the fleet's reboot lock is, or may be, held
	Drained     bool           `json:"drained,omitempty"`      // drain hooks have run, or may have
	PendingSize int64          `json:"pending_size,omitempty"` // of the payload that was installed last
	// Sick is set while the running version is unhealthy although it was blessed.
	Sick *Sickness `json:"sick,omitempty"`
	// Fresh is what the servers' signed statements say, Seen what must be remembered of them.
	Fresh Freshness        `json:"freshness"`
	Seen  freshness.Memory `json:"freshness_memory"`
}

// Problem is the last thing that went wrong.
type Problem struct {
	Of      string    `json:"of"` // "update", "server", "installer", "lock", "drain" or "settings"
	Text    string    `json:"text"`
	Kind    string    `json:"kind,omitempty"`    // fault.Kind's word
	Version string    `json:"version,omitempty"` // the version it was about
	Code    int       `json:"code,omitempty"`    // as reported to the server
	At      time.Time `json:"at"`
}

// Failed is a version that failed here. When that happened often enough it is not tried again.
type Failed struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason"` // of the last failure
	Code    int       `json:"code"`
	At      time.Time `json:"at"`
	Running string    `json:"running"`         // the version that ran and could not be updated
	Times   int       `json:"times,omitempty"` // how often
}

// blocks reports whether the failures speak against the version while running runs. A refusal by a version's rules ends with that version.
func (f Failed) blocks(running string, limit int) bool {
	return max(f.Times, 1) >= limit && (!omaha.ErrorCode(f.Code).ByRules() || f.Running == running)
}

// Event is an omaha.Event in the state file.
type Event struct {
	Type            int    `json:"type"`
	Result          int    `json:"result"`
	Code            int64  `json:"code,omitempty"`
	PreviousVersion string `json:"previous_version,omitempty"`
	NextVersion     string `json:"next_version,omitempty"`
	Reason          string `json:"reason,omitempty"`
}

// Reboots counts the reboots into one installed update.
type Reboots struct {
	Update time.Time `json:"update,omitzero"` // when it was installed, which tells updates apart
	Count  int       `json:"count"`
	Boot   string    `json:"boot,omitempty"` // the boot in which the last one was asked for
	Asked  time.Time `json:"asked,omitzero"`
	GaveUp bool      `json:"gave_up,omitempty"`
}

// post puts an event into the outbox. A full outbox loses its oldest event.
func (s *State) post(e omaha.Event) {
	s.Outbox = append(s.Outbox, Event{
		Type: int(e.Type), Result: int(e.Result), Code: int64(e.ErrorCode),
		PreviousVersion: e.PreviousVersion, NextVersion: e.NextVersion, Reason: clip(e.Reason, omaha.MaxReason),
	})
	if over := len(s.Outbox) - maxOutbox; over > 0 {
		s.Outbox = s.Outbox[over:]
	}
}

func (s *State) outbox() []omaha.Event {
	var out []omaha.Event
	for _, e := range s.Outbox {
		out = append(out, omaha.Event{
			Type: omaha.EventType(e.Type), Result: omaha.EventResult(e.Result), ErrorCode: omaha.ErrorCode(e.Code),
			PreviousVersion: e.PreviousVersion, NextVersion: e.NextVersion, Reason: e.Reason,
		})
	}
	return out
}

// fail counts a failure of a version.
func (s *State) fail(f Failed) {
	f.Times = 1
	for _, old := range s.Failed {
		if old.Version == f.Version {
			f.Times = max(old.Times, 1) + 1
		}
	}
	s.forgive(f.Version)
	s.Failed = append(s.Failed, f)
	if over := len(s.Failed) - maxFailed; over > 0 {
		s.Failed = s.Failed[over:]
	}
}

func (s *State) forgive(version string) {
	kept := s.Failed[:0:0]
	for _, f := range s.Failed {
		if f.Version != version {
			kept = append(kept, f)
		}
	}
	s.Failed = kept
}

// failed returns why a version is not tried, or nil; limit is how often a version may fail.
func (s *State) failed(version, running string, limit int) *Failed {
	for i := range s.Failed {
		if s.Failed[i].Version == version && s.Failed[i].blocks(running, limit) {
			return &s.Failed[i]
		}
	}
	return nil
}

// change edits the state and makes it durable. If it cannot be written, the agent goes on in memory: a full disk must not keep a machine from the update
// that may make room.
func (a *Agent) change(edit func(*State)) {
	a.mu.Lock()
	edit(&a.state)
	err := durable.WriteJSON(a.o.State, stateFile, &a.state)
	a.mu.Unlock()
	if err != nil {
		a.o.Log.Error("state", "error", err)
	}
	a.publish()
}

// What a problem is about.
const (
	ofUpdate    = "update"
	ofServer    = "server"
	ofInstaller = "installer"
	ofLock      = "lock"
	ofDrain     = "drain"
	ofSettings  = "settings"
)

// solved forgets the last error if it is about this.
func (a *Agent) solved(of string) {
	if e := a.state.LastError; e != nil && e.Of == of {
		a.change(func(s *State) { s.LastError = nil })
	}
}

// problem remembers the last error.
func (a *Agent) problem(of, version string, err error) {
	a.o.Log.Error("problem", "version", version, "error", err)
	p := &Problem{Of: of, Text: clip(err.Error(), 2000), Kind: fault.KindOf(err).String(), Version: version, Code: int(codeOf(err)), At: a.now()}
	a.change(func(s *State) { s.LastError = p })
}

// codeOf is the code that err is reported as.
func codeOf(err error) omaha.ErrorCode {
	var own *coded
	var theirs *wire.Error
	var status *client.StatusError
	switch {
	case errors.As(err, &own):
		return own.code
	case errors.As(err, &theirs) && theirs.Failure.Code != 0:
		return omaha.ErrorCode(theirs.Failure.Code)
	case errors.As(err, &status):
		return status.Code()
	case fault.Is(err, fault.Network), fault.Is(err, fault.IO) && !errors.As(err, &theirs):
		return omaha.CodeTransfer // a line that broke, be it the one to the server or the one to semper-installd
	default:
		return omaha.CodeError
	}
}

// coded is an error of the agent's own with the code that it is reported as.
type coded struct {
	error
	code omaha.ErrorCode
}

func (e *coded) Unwrap() error { return e.error }

// clip shortens text to n bytes, at a character's border.
func clip(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n-len("…")], "") + "…"
}
