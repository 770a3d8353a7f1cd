package api

import "time"

// Overview is the fleet of an application, what needs a person first.
type Overview struct {
	Machines  int64          `json:"machines"` // that count
	Retired   int64          `json:"retired"`
	Attention []Attention    `json:"attention"` // the most urgent first
	Rollouts  []Rollout      `json:"rollouts"`  // that are not over
	States    []StateCount   `json:"states"`
	Versions  []VersionCount `json:"versions"` // by channel, the commonest first
	Failed    []Machine      `json:"failed"`   // some of those whose last update failed
	Silent    []Machine      `json:"silent"`   // some of those that fell silent in a rollout under way
}

// Attention is something that a person should look at.
type Attention struct {
	Kind     string `json:"kind"`     // halted-rollout, paused-rollout, silent-machines, failed-machines, stale-freshness, no-release
	Severity string `json:"severity"` // high or low
	Sentence string `json:"sentence"`
	Link     string `json:"link"` // a page of the console
}

// StateCount is how many machines are in a state.
type StateCount struct {
	State    string `json:"state"`
	Machines int64  `json:"machines"`
}

// VersionCount is how many machines of a channel run a version.
type VersionCount struct {
	Channel  string `json:"channel"`
	Arch     string `json:"arch"`
	Version  string `json:"version"`
	Machines int64  `json:"machines"`
}

// Chart is how many machines ran each version, at some times.
type Chart struct {
	Times  []time.Time `json:"times"`
	Series []Series    `json:"series"` // the commonest version first; "other" is all that are not told apart
}

// Series is a line of a chart.
type Series struct {
	Version  string  `json:"version"`
	Machines []int64 `json:"machines"` // at each of the times
}

// RebootGroup is machines that share slots for their reboots, with those that have one and those that wait.
type RebootGroup struct {
	Name    string        `json:"name"`
	ETag    string        `json:"etag"`  // for If-Match
	Slots   int           `json:"slots"` // how many may be down at once
	Lease   string        `json:"lease"` // how long a slot outlives its machine's last word, such as "1h0m0s"; "0s": until it is given back
	Holders []RebootClaim `json:"holders"`
	Queue   []RebootClaim `json:"queue"`
}

// RebootClaim is a machine that has a slot, or waits for one.
type RebootClaim struct {
	Machine string    `json:"machine"`
	Alias   string    `json:"alias"` // of a machine that was seen; may be empty
	Since   time.Time `json:"since"`
	Seen    time.Time `json:"seen"` // its last word
}

// RebootGroups lists all groups.
type RebootGroups struct {
	Groups []RebootGroup `json:"groups"`
}

// SetRebootGroup makes or changes a group. What is missing stays as it is; of a new group, one slot and an hour.
type SetRebootGroup struct {
	Slots *int    `json:"slots,omitempty"`
	Lease *string `json:"lease,omitempty"`
}

// Token is a token as it is kept: without what it is.
type Token struct {
	ID      string    `json:"id"`
	Role    string    `json:"role"`
	Label   string    `json:"label"`
	Created time.Time `json:"created"`
}

// Tokens lists all tokens, the oldest first.
type Tokens struct {
	Tokens []Token `json:"tokens"`
}

// NewToken asks for a token.
type NewToken struct {
	Role  string `json:"role"`
	Label string `json:"label"`
}

// MadeToken is a new token. It is told this once.
type MadeToken struct {
	Token
	Secret string `json:"token"`
}

// NewApplication adds an application with its channels.
type NewApplication struct {
	ID       string   `json:"id"` // a UUID
	Channels []string `json:"channels"`
}

// Webhook is an address that is told of what happens.
type Webhook struct {
	ID        string    `json:"id"`
	URL       string    `json:"url"`
	Events    []string  `json:"events"` // halt, done, withdrawn, silent
	Created   time.Time `json:"created"`
	CreatedBy string    `json:"created_by"`
	Waiting   int64     `json:"waiting"` // how much was not brought yet
	Last      *Delivery `json:"last"`    // the newest that was tried; null: none was
}

// Delivery is how the last attempt went to tell a webhook something.
type Delivery struct {
	Event    string    `json:"event"`
	At       time.Time `json:"at"` // when it happened
	Attempts int       `json:"attempts"`
	Brought  bool      `json:"brought"`
	Status   int       `json:"status"` // of the answer; 0: there was none
	Error    string    `json:"error"`
}

// Webhooks lists all webhooks, the oldest first.
type Webhooks struct {
	Webhooks []Webhook `json:"webhooks"`
}

// NewWebhook asks for a webhook.
type NewWebhook struct {
	URL    string   `json:"url"`
	Events []string `json:"events"`
}

// MadeWebhook is a new webhook. The secret that signs what it is sent is told this once.
type MadeWebhook struct {
	Webhook
	Secret string `json:"secret"`
}
