package fleet

import (
	"fmt"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/partitions/bootentry"
)

// Rollout is a release on its way to the machines of one channel. When it is done, the release is the channel's.
type Rollout struct {
	rollout.Rollout

	ID        int64
	App       string
	Channel   string
	Arch      string
	Release   Release
	Created   time.Time
	CreatedBy string
}

// RolloutStep is how far a machine is with a rollout.
type RolloutStep struct {
	Machine string
	Step    rollout.Step
	Canary  bool // when it was given the release
	Since   time.Time
	Why     string // of a failure
}

// Group is a name for some machines.
type Group struct {
	App     string
	Name    string
	Created time.Time
	Members int64 // how many machines it has
}

// Pin keeps a machine to one version, or where it is.
type Pin struct {
	App     string
	Machine string
	Version string // empty: no updates at all
	Why     string
	Who     string
	At      time.Time
}

// Road is what a release is on the way to newer ones.
type Road string

// The marks. What Cincinnati and Fedora CoreOS call a barrier is a floor here.
const (
	Open    Road = ""         // nothing special
	Floor   Road = "floor"    // whoever is older gets it before anything newer
	DeadEnd Road = "dead-end" // whoever runs it gets nothing newer by itself
)

// Valid reports whether r is one of the marks.
func (r Road) Valid() bool { return r == Open || r == Floor || r == DeadEnd }

// CheckGroup refuses what cannot be a group's name. Errors are of kind Input.
func CheckGroup(name string) error {
	if !groupName.MatchString(name) {
		return fault.New(fault.Input, "group %.100q: want 1 to 64 letters, digits, '.' and '-'", name)
	}
	return nil
}

// StepAfter is how far a machine is with a version after it reported something. M is what it is since then, failed what the report said of a version, before what it
// was until then.
func (m *Machine) StepAfter(before rollout.Step, version string, failed []Failure) (rollout.Step, string) {
	for _, f := range failed {
		if f.Version == version {
			return rollout.Failed, f.Reason
		}
	}
	if m.Target != version {
		return before, ""
	}
	switch m.State {
	case Downloading, Downloaded:
		return rollout.Granted, ""
	case Installed:
		return rollout.Rebooting, ""
	case Complete:
		if m.Version == version {
			return rollout.Complete, ""
		}
	}
	return before, ""
}

// CameBack reports that a machine which was to boot a version, or did, has booted again and runs an older one: it went back, whether it says so or not. Before is the
// machine as it was known until it asked.
func (m *Machine) CameBack(before *Machine, step rollout.Step, version string, now time.Time) *Failure {
	switch {
	case step != rollout.Rebooting && step != rollout.Silent && step != rollout.Complete,
		omaha.CheckVersion(m.Version) != nil || bootentry.Compare(m.Version, version) >= 0,
		step == rollout.Complete && before.Version != version, // seen before
		m.BootID == "" || before.BootID == "" || m.BootID == before.BootID:
		return nil
	}
	f := &Failure{
		Version: version, At: now, Code: omaha.CodeRollback, Running: m.Version,
		Reason: fmt.Sprintf("the machine booted again and runs %s, and not %s", m.Version, version),
	}
	m.State, m.StateSince, m.Target, m.Detail = Failed, now, version, f.Reason
	return f
}
