// Package rollout decides how a release reaches the machines of a channel: who gets it when, how many at once, and when it stops by itself. Like package fleet it is made
// of pure functions: time comes in, nothing is remembered here.
//
//	draft ── start ──▶ canary ── passed ──▶ ramping ── everybody has it ──▶ done
//	                     │ ▲                  │ ▲
//	                pause│ │resume       pause│ │resume
//	                     ▼ │                  ▼ │
//	                   paused               paused            pause and resume are a person's acts
//	                     │ ▲                  │ ▲
//	                 halt│ │resume        halt│ │resume        a halt is the rollout's own; to go on is a person's act
//	                     ▼ │                  ▼ │
//	                   halted               halted
//	any of them but done ── abort ──▶ aborted
//
// # Places
//
// Each machine has a place in a release's rollout, a number from 0 to 1 that is a hash of both (Place). The plan says which share of the places has been reached at a
// moment; a machine whose place is below it may have the release. So the order is the same at every server, costs no memory, and is another one for each release: no
// machine is always the first to suffer. The time of a ramp stands still while a rollout is paused or halted.
//
// # Halting
//
// A failure is a machine that reported one, that came back from the version, or that was silent for Halt.SilentAfter after it had said that it reboots. Judge compares
// failures with the plan's thresholds, those of canaries apart. A resumed rollout counts anew from that moment, so that what was looked into does not stop it again.
//
// # Counters
//
// Nothing here counts machines: Counters are kept by the store, in the same transaction as what they count, by the Delta of each step that a machine makes. Limits hold
// between several servers because Admit and the counters are in that transaction.
package rollout

import (
	"crypto/sha256"
	"encoding/binary"
	"time"

	"github.com/semper-os/semper/fault"
)

// State is what a rollout is doing, see the picture in the package's documentation.
type State string

// The states.
const (
	Draft   State = "draft"
	Canary  State = "canary"
	Ramping State = "ramping"
	Paused  State = "paused"
	Halted  State = "halted"
	Aborted State = "aborted"
	Done    State = "done"
)

// Rollout is one release on its way to the machines of one channel.
type Rollout struct {
	Version string
	Plan    Plan
	State   State
	Since   time.Time // of the state
	Why     string    // of the state: a halt's reason, or what a person said
	By      string    // who brought it about; empty: the rollout itself

	Before  State         // what a paused or halted rollout goes on with
	Ramp    time.Time     // when the canaries were through; zero: they are not
	Stood   time.Duration // how long the ramp stood still until now, the present stand not counted
	Counted Counters
	Base    Counters // what Counted was when a person resumed it last
}

// Place is where a machine stands in a release's rollout, from 0 up to 1, 1 excluded.
func Place(machine, release string) float64 {
	h := sha256.New()
	var n [8]byte
	binary.BigEndian.PutUint64(n[:], uint64(len(machine))) // else two pairs could be one text
	h.Write(n[:])
	h.Write([]byte(machine))
	h.Write([]byte(release))
	var sum [sha256.Size]byte
	return float64(binary.BigEndian.Uint64(h.Sum(sum[:0]))>>11) / (1 << 53)
}

// running reports whether the state is one in which machines get the release.
func (s State) running() bool { return s == Canary || s == Ramping }

// Start begins a draft.
func (r *Rollout) Start(by string, now time.Time) error {
	if r.State != Draft {
		return r.cannot("start")
	}
	if err := r.Plan.Check(); err != nil {
		return err
	}
	if r.Plan.Canary.Group == "" {
		r.Ramp = now
		r.enter(Ramping, "started", by, now)
		return nil
	}
	r.enter(Canary, "started", by, now)
	return nil
}

// Pause stands still until Resume.
func (r *Rollout) Pause(why, by string, now time.Time) error {
	if !r.State.running() {
		return r.cannot("pause")
	}
	r.Before = r.State
	r.enter(Paused, why, by, now)
	return nil
}

// Halt is Pause by the rollout itself.
func (r *Rollout) Halt(why string, now time.Time) error {
	if !r.State.running() {
		return r.cannot("halt")
	}
	r.Before = r.State
	r.enter(Halted, why, "", now)
	return nil
}

// Resume goes on with what was paused or halted.
func (r *Rollout) Resume(why, by string, now time.Time) error {
	if r.State != Paused && r.State != Halted {
		return r.cannot("resume")
	}
	if by == "" {
		return fault.New(fault.Usage, "resume the rollout of %s: only a person can", r.Version)
	}
	r.stand(now)
	if r.State == Halted {
		r.Base = r.Counted
	}
	r.enter(r.Before, why, by, now)
	r.Before = ""
	return nil
}

// stand counts the time for which a ramp that goes on, or ends, stood still.
func (r *Rollout) stand(now time.Time) {
	if (r.State == Paused || r.State == Halted) && r.Before == Ramping && now.After(r.Since) {
		r.Stood += now.Sub(r.Since)
	}
}

// Abort ends it for good; machines that have the release keep it.
func (r *Rollout) Abort(why, by string, now time.Time) error {
	if r.State == Done || r.State == Aborted {
		return r.cannot("abort")
	}
	r.stand(now)
	r.enter(Aborted, why, by, now)
	return nil
}

// Advance does what time and counters allow: canary to ramping, ramping to done. It reports whether something changed. Canaries is how many machines the canary group
// has that could take the release, with it or without; left is how many machines of the channel do not have it yet.
func (r *Rollout) Advance(canaries, left int64, now time.Time) bool {
	switch r.State {
	case Canary:
		c := &r.Counted.Canary
		enough := c.Complete >= r.Plan.Canary.Need
		if r.Plan.Canary.Need == 0 {
			enough = c.Complete > 0 && c.Known() >= canaries // those that failed, as far as the plan lets them, are not waited for
		}
		if !enough || c.InFlight > 0 || now.Sub(r.Since) < r.Plan.Canary.Healthy.Duration() {
			return false
		}
		r.Ramp = now
		r.enter(Ramping, "the canaries are healthy", "", now)
		return true
	case Ramping:
		if left > 0 || r.Counted.All.InFlight > 0 || r.Plan.Share(now.Sub(r.Ramp)-r.Stood) < 1 {
			return false
		}
		r.enter(Done, "every machine has it", "", now)
		return true
	}
	return false
}

// Reached is the share of the places that may have the release now.
func (r *Rollout) Reached(now time.Time) float64 {
	if r.Ramp.IsZero() {
		return 0
	}
	return r.Plan.Share(r.elapsed(now))
}

// elapsed is for how long the ramp has been moving. What was aborted stays where it was.
func (r *Rollout) elapsed(now time.Time) time.Duration {
	if (r.State == Aborted || (r.State == Paused || r.State == Halted) && r.Before == Ramping) && r.Since.Before(now) {
		now = r.Since
	}
	return now.Sub(r.Ramp) - r.Stood
}

func (r *Rollout) enter(s State, why, by string, now time.Time) {
	r.State, r.Since, r.Why, r.By = s, now, why, by
}

func (r *Rollout) cannot(what string) error {
	return fault.New(fault.Usage, "%s the rollout of %s: it is %s since %s", what, r.Version, r.State, r.Since.UTC().Format(time.RFC3339))
}
