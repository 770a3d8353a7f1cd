// Package fleet is the update server's model and its rules: what there is, what an event changes, and who gets which release.
//
// Everything here is a pure function of its arguments: no clock, no database, no network. The rules, in short:
//
//   - A machine is offered its channel's release if that is newer than what it runs, and never a version that failed on it before.
//   - A release that reaches a channel through a rollout (package rollout) is offered to a machine when it is its turn, and becomes the channel's own when the rollout is done.
//   - Whoever is below a floor is offered that first; whoever stands at a dead end, or is pinned, is offered nothing else.
//   - A failure counts against a version unless its code is of the moment (a broken connection, see omaha.ErrorCode.Passing); a refusal
//     by the rules of the version that ran counts as long as that one runs.
//     A client that does not name the version attempted, as Flatcar's, means the one that was last granted to it.
//   - A hold is an answer with a reason, never an error.
//
// A machine's states:
//
//	unknown ─ check ─▶ granted ─ 13/1 ─▶ downloading ─ 14/1 ─▶ downloaded ─ 3/1 ─▶ installed ─ 3/2 ─▶ complete
//	                      └──────────────┴──────── 3/0 ────────┴──────────────────┴──▶ failed
//
// Any of the steps may be missing, since a client does not repeat a report that got lost: an event sets the state it stands for, whatever
// the state was before.
package fleet

import (
	"crypto/sha1"
	"crypto/sha256"
	"time"

	"github.com/semper-os/semper/omaha"
)

// Application is what machines run and releases are versions of.
type Application struct {
	ID      string // "{uuid}", lower case
	Name    string
	Created time.Time
}

// Channel is a name that machines of one architecture follow.
type Channel struct {
	App     string // the application's id
	Name    string
	Arch    string   // "amd64", "arm64"
	Release *Release // nil while nothing was assigned to the channel
	Updated time.Time
}

// Release is one published version for one architecture. It never changes once it is published.
type Release struct {
	ID      int64
	App     string
	Arch    string
	Version string
	// MinVersion is the oldest version that can be updated to this one, "" when any can.
	MinVersion string
	Road       Road
	RoadWhy    string // a sentence without a full stop
	Published  time.Time
	Payload    File     // the full payload
	URLs       []string // folders with the payload; empty: this server has it

	Withdrawn    time.Time // zero: it is not
	WithdrawnWhy string    // a sentence without a full stop
}

// Freshness is what the holders of the payload keys said last about a channel. The server cannot verify it: machines do.
type Freshness struct {
	App      string
	Channel  string
	Arch     string
	Envelope []byte // of package freshness, as it goes to machines
	Version  string // that it claims to be the newest
	Issued   time.Time
	Expires  time.Time
	Sequence uint64
	Stored   time.Time
}

// File is one file of a release.
type File struct {
	Name   string
	Size   int64
	SHA256 [sha256.Size]byte
	SHA1   [sha1.Size]byte // Omaha carries it; nothing here relies on it
}

// State is how far a machine is with an update.
type State string

// The states, see the picture in the package's documentation.
const (
	Unknown     State = "unknown" // never asked, or never got an update
	Granted     State = "granted"
	Downloading State = "downloading"
	Downloaded  State = "downloaded"
	Installed   State = "installed" // waits for the reboot, or is in it
	Complete    State = "complete"
	Failed      State = "failed"
)

// Valid reports whether there is such a state.
func (s State) Valid() bool {
	return s.updating() || s == Unknown || s == Complete || s == Failed
}

// updating reports whether an update is under way in state s.
func (s State) updating() bool {
	return s == Granted || s == Downloading || s == Downloaded || s == Installed
}

// Machine is one installation of an application, as it described itself last.
type Machine struct {
	App          string
	ID           string
	Alias        string
	Arch         string
	Version      string // that it runs
	Channel      string
	BootID       string
	Platform     string
	FirstVersion string
	Address      string // it asked from, without the port
	State        State
	StateSince   time.Time
	Target       string // the version it was last granted or attempted
	Detail       string // why State is Failed
	FirstSeen    time.Time
	LastSeen     time.Time
	Retired      time.Time // not seen for so long that it does not count; zero: it counts
	Events       int64     // how many it has reported
}

// Event is what a machine reported.
type Event struct {
	omaha.Event
	At      time.Time
	Version string // that it ran then
}

// Failure is a version that failed on a machine and is not offered to it any more.
type Failure struct {
	Version string
	At      time.Time
	Code    omaha.ErrorCode
	Reason  string
	Running string // the version that ran then
}

// counts reports whether f still speaks against version while running runs.
func (f *Failure) counts(version, running string) bool {
	return f.Version == version && (!f.Code.ByRules() || f.Running == running)
}
