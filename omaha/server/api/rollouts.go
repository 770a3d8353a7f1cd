package api

import (
	"time"

	"github.com/semper-os/semper/omaha/server/rollout"
)

// Rollout is a release on its way to the machines of a channel.
type Rollout struct {
	ID        int64            `json:"id"`
	ETag      string           `json:"etag"` // for If-Match: of what people change of it, and not of its counters
	Version   string           `json:"version"`
	Channel   string           `json:"channel"`
	Arch      string           `json:"arch"`
	State     string           `json:"state"` // draft, canary, ramping, paused, halted, aborted, done
	Since     time.Time        `json:"since"`
	Why       string           `json:"why"`     // of the state
	By        string           `json:"by"`      // empty: the rollout itself
	Reached   float64          `json:"reached"` // the share of the machines that may have it now, 0 to 1
	Plan      rollout.Plan     `json:"plan"`
	Counted   rollout.Counters `json:"counted"`
	Created   time.Time        `json:"created"`
	CreatedBy string           `json:"created_by"`
}

// Rollouts lists rollouts, newest first.
type Rollouts struct {
	Rollouts []Rollout `json:"rollouts"`
}

// RolloutDetail is a rollout with the machines that failed, the latest first, and the curve of its plan.
type RolloutDetail struct {
	Rollout
	Failures []RolloutFailure `json:"failures"`
	Preview  []rollout.Point  `json:"preview"`
}

// RolloutFailure is a machine that counts against a rollout.
type RolloutFailure struct {
	Machine string    `json:"machine"`
	Alias   string    `json:"alias"`
	Step    string    `json:"step"` // failed or silent
	Canary  bool      `json:"canary"`
	At      time.Time `json:"at"`
	Why     string    `json:"why"`
}

// NewRollout asks for a rollout.
type NewRollout struct {
	Version string       `json:"version"`
	Channel string       `json:"channel"`
	Arch    string       `json:"arch"` // empty: DefaultArch
	Plan    rollout.Plan `json:"plan"`
	Start   bool         `json:"start"` // at once, else it stays a draft
}

// Preview is what a rollout would do, before it is planned.
type Preview struct {
	Machines int64           `json:"machines"` // of the channel
	Canaries int64           `json:"canaries"` // of the group that is to have it first
	Points   []rollout.Point `json:"points"`
	Warnings []string        `json:"warnings"` // what stands against it now, and what is better looked at twice
}

// Progress is how far a rollout was, at some times.
type Progress struct {
	Machines int64       `json:"machines"` // of the channel, now
	Times    []time.Time `json:"times"`
	Reached  []float64   `json:"reached"` // the share of the machines that might have it, 0 to 1
	Updating []int64     `json:"updating"`
	Complete []int64     `json:"complete"`
	Failed   []int64     `json:"failed"` // and silent ones
}

// Steer says why a rollout is steered.
type Steer struct {
	Reason string `json:"reason"`
}

// Group is a name for some machines.
type Group struct {
	Name    string    `json:"name"`
	Members int64     `json:"members"`
	Created time.Time `json:"created"`
}

// Groups lists an application's groups.
type Groups struct {
	Groups []Group `json:"groups"`
}

// Members is a page of a group's machines. Next is the after of the next page, empty on the last one.
type Members struct {
	Group
	Machines []string `json:"machines"`
	Next     string   `json:"next,omitempty"`
}

// Member puts a machine into a group; an empty name takes it out of the one it is in.
type Member struct {
	Group string `json:"group"`
}

// Pin keeps a machine to a version, or where it is when that is empty.
type Pin struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason"`
	By      string    `json:"by"`          // set by the server
	At      time.Time `json:"at,omitzero"` // set by the server
}

// Road says what a release is on the way to newer ones: nothing special, floor or dead-end.
type Road struct {
	Road   string `json:"road"`
	Reason string `json:"reason"`
}

// Audit is something that a person, a program in a person's name, or a rollout changed.
type Audit struct {
	ID      int64     `json:"id"`
	At      time.Time `json:"at"`
	Who     string    `json:"who"`
	What    string    `json:"what"`
	Subject string    `json:"subject"`
	Detail  string    `json:"detail"`
	Before  string    `json:"before,omitempty"` // what it was, where that can be said in a line
	After   string    `json:"after,omitempty"`  // what it became
}

// Audits is a page of the audit log, newest first. Next is the before of the next page, missing where there is none; a page with few entries, or none, need not be the last.
type Audits struct {
	Entries []Audit `json:"entries"`
	Next    int64   `json:"next,omitempty"`
}
