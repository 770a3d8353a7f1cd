package agent

import (
	"fmt"
	"slices"
	"strings"
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
	StateDraining    StateName = "draining"
	StateRebooting   StateName = "rebooting"
)

// Transition is one arrow of the state machine's picture.
type Transition struct {
	From, To StateName
	When     string // for people; docs/state-machine.md shows it
}

// Transitions are all arrows that a running agent may follow. After a start the state on disk is one of a process that is gone, perhaps of another boot:
// from any state the agent then goes to idle, trial or pending, whichever semper-installd says is true.
var Transitions = []Transition{
	{StateIdle, StateChecking, "a check is due, or a person asks for one"},
	{StateIdle, StateTrial, "the running version has a boot counter"},
	{StateIdle, StatePending, "semper-installd has an update that waits for its reboot"},
	{StateTrial, StateIdle, "blessed; or on trial for half an hour with nothing to go back to"},
	{StateTrial, StateChecking, "on trial for half an hour with nothing to go back to: an update may heal it"},
	{StateTrial, StatePending, "blessed, and an update waits"},
	{StateChecking, StateIdle, "no update, or the check failed"},
	{StateChecking, StateTrial, "no update, or the check failed, on trial"},
	{StateChecking, StatePending, "no other update than the one that waits, or the check failed"},
	{StateChecking, StateDownloading, "the server offers an update that may be installed"},
	{StateDownloading, StateInstalling, "the payload is complete"},
	{StateDownloading, StateIdle, "the download failed, was cancelled, or the payload was refused"},
	{StateDownloading, StateTrial, "the same, on trial"},
	{StateDownloading, StatePending, "the same, and an earlier update still waits"},
	{StateInstalling, StatePending, "slot and boot entry are on disk"},
	{StateInstalling, StateDownloading, "refused; another address may have better bytes"},
	{StatePending, StateChecking, "a check is due, or a person asks for one: a newer version replaces the one that waits"},
	{StatePending, StateDraining, "the strategy lets the machine reboot; drain hooks run"},
	{StatePending, StateIdle, "the update that waited is gone"},
	{StatePending, StateTrial, "the running version got a boot counter"},
	{StateDraining, StateRebooting, "hooks are through and the lock is held"},
	{StateDraining, StatePending, "a hook failed, the lock was lost, the window closed, or the reboot was called off"},
	{StateRebooting, StatePending, "the reboot was refused, or the machine is still up after ten minutes"},
	{StateRebooting, StateIdle, "the update that waited is gone"},
	{StateRebooting, StateTrial, "the running version got a boot counter"},
}

// afterStart are the states that a started agent may go to from any other.
var afterStart = []StateName{StateIdle, StateTrial, StatePending}

// Allowed reports whether the machine may go from one state to another; resumed: the first was left behind by an earlier process.
func Allowed(from, to StateName, resumed bool) bool {
	if resumed && slices.Contains(afterStart, to) {
		return true
	}
	return slices.ContainsFunc(Transitions, func(t Transition) bool { return t.From == from && t.To == to })
}

// TransitionTable is the table of docs/state-machine.md.
func TransitionTable() string {
	var b strings.Builder
	b.WriteString("| from | to | when |\n|---|---|---|\n")
	for _, t := range Transitions {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", t.From, t.To, t.When)
	}
	return b.String()
}

// enter moves to a state, once, and says why: in the log, in the state file, in the history.
func (a *Agent) enter(name StateName, why string) {
	from := a.state.State
	if from == name {
		return
	}
	if !Allowed(from, name, a.resumed) {
		// A mistake of ours. Going on is better than stopping for ever, but nobody may overlook it.
		a.o.Log.Error("impossible transition", "from", from, "to", name, "why", why)
		if a.o.Impossible != nil {
			a.o.Impossible(from, name)
		}
	}
	a.resumed = false
	a.o.Log.Info("state", "from", from, "to", name, "why", why)
	a.change(func(s *State) {
		s.State, s.Since, s.Why = name, a.now(), why
		s.record(Entry{At: a.now(), From: from, State: name, Text: why})
		if name != StateDownloading && name != StateInstalling {
			a.progress = Progress{}
		}
	})
}
