package agent

import (
	"errors"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/wire"
)

const stateFile = "state.json"

// Bounds of the lists in the state file.
const (
	maxHistory = 200
	maxFailed  = 32
	maxOutbox  = omaha.MaxEvents / 2
)

// StateName is what the agent is busy with, see the package's documentation.
type StateName string

// The states.
const (
	StateIdle        StateName = "idle"
	StateTrial       StateName = "trial"
	StateChecking    StateName = "checking"
	StateDownloading StateName = "downloading"
	StateInstalling  StateName = "installing"
	StatePending     StateName = "pending"
	StateRebooting   StateName = "rebooting"
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
}

// Problem is the last thing that went wrong.
type Problem struct {
	Text    string    `json:"text"`
	Kind    string    `json:"kind,omitempty"`    // fault.Kind's word
	Version string    `json:"version,omitempty"` // the version it was about
	Code    int       `json:"code,omitempty"`    // as reported to the server
	At      time.Time `json:"at"`
}

// Failed is a version that failed here and is not tried again.
type Failed struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason"`
	Code    int       `json:"code"`
	At      time.Time `json:"at"`
	Running string    `json:"running"` // the version that ran and could not be updated
}

// blocks reports whether the failure still speaks against the version while running runs. A refusal by a version's rules ends with that version.
func (f Failed) blocks(running string) bool {
	return !omaha.ErrorCode(f.Code).ByRules() || f.Running == running
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

// Entry is a line of the history.
type Entry struct {
	At    time.Time `json:"at"`
	State StateName `json:"state"`
	Text  string    `json:"text"`
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

// fail remembers a version that is not tried again.
func (s *State) fail(f Failed) {
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

// failed returns why a version is not tried, or nil.
func (s *State) failed(version, running string) *Failed {
	for i := range s.Failed {
		if s.Failed[i].Version == version && s.Failed[i].blocks(running) {
			return &s.Failed[i]
		}
	}
	return nil
}

func (s *State) note(at time.Time, state StateName, text string) {
	s.History = append(s.History, Entry{At: at, State: state, Text: clip(text, 500)})
	if over := len(s.History) - maxHistory; over > 0 {
		s.History = s.History[over:]
	}
}

// change edits the state and makes it durable. If it cannot be written, the agent goes on in memory: a full disk must not keep a machine from the update
// that may make room.
func (a *Agent) change(edit func(*State)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	edit(&a.state)
	if err := durable.WriteJSON(a.o.State, stateFile, &a.state); err != nil {
		a.o.Log.Error("state", "error", err)
	}
}

// enter moves to a state, once.
func (a *Agent) enter(name StateName, why string) {
	if a.state.State == name {
		return
	}
	a.o.Log.Info("state", "from", a.state.State, "to", name, "why", why)
	a.change(func(s *State) {
		s.State, s.Since, s.Why = name, a.now(), why
		// A check that finds nothing is no news; it would push all that is out of the history within days.
		if name != StateChecking && name != StateIdle {
			s.note(a.now(), name, why)
		}
	})
}

// problem remembers the last error.
func (a *Agent) problem(version string, err error) {
	a.o.Log.Error("problem", "version", version, "error", err)
	p := &Problem{Text: clip(err.Error(), 2000), Kind: fault.KindOf(err).String(), Version: version, Code: int(codeOf(err)), At: a.now()}
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
