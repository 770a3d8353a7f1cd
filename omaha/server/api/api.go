// Package api holds the messages of the update server's REST interface and the list of its operations; package client calls them.
//
// Everything is under /api/v1 and needs "Authorization: Bearer TOKEN". The parameters app (an application's id or name, "semper" when it is missing) and arch ("amd64" when
// it is missing) go into the query.
// Operations lists them all; what they take and answer is described in OpenAPI (package openapi), served at /api/v1/openapi.json, and for readers at /api/v1/.
//
// An upload that broke off is continued where Blob says. A release is visible as a whole once its PUT was answered, and never changes
// after that; publishing the same bytes again is answered like the first time, other bytes under the same version with 409.
//
// Times are RFC 3339 in UTC, sizes bytes, hashes lower-case hex. An error is Error, with the HTTP status that fits and the content type ProblemType.
package api

import "time"

// Limits of the interface.
const (
	MaxPage     = 1000    // machines in one answer
	MaxManifest = 1 << 20 // bytes of a manifest, and of its signature
	MaxPackages = 1 << 20 // bytes of a packages.lock

	// Payload is the file of a release that machines download.
	Payload = "full.crau"

	MaxBody = 4 << 20 // bytes of a JSON body
)

// Defaults of the query's parameters.
const (
	DefaultApp  = "semper"
	DefaultArch = "amd64"
)

// TokenPrefix is how every token begins, so that scanners find leaked ones. The token's id follows, and after another "_" its secret.
const TokenPrefix = "semper_"

// ProblemType is the content type of Error.
const ProblemType = "application/problem+json"

// Error is the body of every answer that is not a success: a problem as in RFC 9457.
type Error struct {
	Type    string `json:"type"`   // about:blank: the status says which kind of problem it is
	Title   string `json:"title"`  // the status in words
	Status  int    `json:"status"` // that of HTTP
	Message string `json:"detail"` // what is wrong, where, and what to do
	Kind    string `json:"kind"`   // usage, input, network, verification, io or internal
}

// Application is what machines run.
type Application struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	Created time.Time `json:"created"`
}

// Applications lists all applications.
type Applications struct {
	Applications []Application `json:"applications"`
}

// Channel is a name that machines follow. Version is empty while it has no release.
type Channel struct {
	Name    string    `json:"name"`
	ETag    string    `json:"etag"` // for If-Match
	Arch    string    `json:"arch"`
	Version string    `json:"version"`
	Updated time.Time `json:"updated"`

	Freshness *Freshness `json:"freshness"` // what was stated last; null: nothing was
}

// Channels lists an application's channels.
type Channels struct {
	Channels []Channel `json:"channels"`
}

// SetChannel asks to make a release the current one of a channel.
type SetChannel struct {
	Version string `json:"version"`
}

// Freshness is what a channel's freshness statement claims; the server cannot verify it.
type Freshness struct {
	Channel  string    `json:"channel"`
	Arch     string    `json:"arch"`
	Version  string    `json:"version"`
	Issued   time.Time `json:"issued"`
	Expires  time.Time `json:"expires"`
	Sequence uint64    `json:"sequence"`
}

// File is one file of a release.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Release is a published version.
type Release struct {
	Version    string    `json:"version"`
	ETag       string    `json:"etag"` // for If-Match
	Arch       string    `json:"arch"`
	MinVersion string    `json:"min_version"`        // the oldest version that can be updated to this one; empty: any
	Road       string    `json:"road,omitempty"`     // floor or dead-end
	RoadWhy    string    `json:"road_why,omitempty"` //
	Published  time.Time `json:"published"`
	Payload    File      `json:"payload"`
	URLs       []string  `json:"urls,omitempty"` // folders with the payload, when this server has none

	Withdrawn    time.Time `json:"withdrawn,omitzero"`
	WithdrawnWhy string    `json:"withdrawn_why,omitempty"`
}

// Releases lists an application's releases, in the order in which they were published.
type Releases struct {
	Releases []Release `json:"releases"`
}

// NewRelease asks to publish a release. Manifest and Signature are manifest.json and manifest.json.sig, byte for byte; everything that
// the server knows of the release it takes from the manifest.
type NewRelease struct {
	Manifest  []byte    `json:"manifest,omitempty"` // base64 in JSON
	Packages  []byte    `json:"packages,omitempty"` // packages.lock, which the manifest names; may be missing
	Signature []byte    `json:"signature,omitempty"`
	External  *External `json:"external,omitempty"` // instead of both
}

// External is a release whose payload is somewhere else and of any kind, such as Flatcar's.
type External struct {
	URLs       []string `json:"urls"` // folders, with a slash at their end, tried in this order
	Name       string   `json:"name"` // of the file in them
	Size       int64    `json:"size"` // bytes
	SHA256     string   `json:"sha256"`
	SHA1       string   `json:"sha1"`
	MinVersion string   `json:"min_version,omitempty"`
}

// ReleaseDetail is a release with its manifest.
type ReleaseDetail struct {
	Release
	Manifest  []byte `json:"manifest"`
	Signature []byte `json:"signature"`
}

// Machine is one machine, as it described itself last.
type Machine struct {
	ID           string    `json:"id"`
	Alias        string    `json:"alias"`
	Arch         string    `json:"arch"`
	Version      string    `json:"version"` // that it runs
	Channel      string    `json:"channel"`
	State        string    `json:"state"` // unknown, granted, downloading, downloaded, installed, complete, failed
	StateSince   time.Time `json:"state_since"`
	Target       string    `json:"target"` // the version last granted or attempted; may be empty
	Detail       string    `json:"detail"` // why the state is failed
	Platform     string    `json:"platform"`
	FirstVersion string    `json:"first_version"`
	BootID       string    `json:"boot_id"`
	Address      string    `json:"address"`
	FirstSeen    time.Time `json:"first_seen"`
	LastSeen     time.Time `json:"last_seen"`
	Retired      time.Time `json:"retired,omitzero"` // since when it does not count, for not having been seen
}

// Machines is a page of machines, by id. Next is the after of the next page, missing where there is none; a page with few machines, or none, need not be the last: one search looks at so
// many machines at most.
type Machines struct {
	Machines []Machine `json:"machines"`
	Next     string    `json:"next,omitempty"`
	Total    *int64    `json:"total,omitempty"` // how many there are in all, where that is known without looking for them
}

// MachineDetail is a machine with all that is known of it.
type MachineDetail struct {
	Machine
	Group          string    `json:"group"` // empty: none
	Pin            *Pin      `json:"pin"`   // null: none
	Why            Why       `json:"why"`
	FailedVersions []Failure `json:"failed_versions"` // oldest first
	Events         []Event   `json:"events"`          // oldest first
}

// Why says what the machine would be answered if it asked now.
type Why struct {
	Offer    string `json:"offer"`    // a version, empty when there is no update for it
	Cause    string `json:"cause"`    // a word for programs, see package fleet
	Sentence string `json:"sentence"` // for people

	Next    time.Time `json:"next,omitzero"`     // when it may get an update; missing where that is not known, or a person decides
	Rollout int64     `json:"rollout,omitempty"` // the one under way in its channel
}

// Failure is a version that failed on the machine and is not offered to it again.
type Failure struct {
	Version string    `json:"version"`
	At      time.Time `json:"at"`
	Code    int64     `json:"code"`
	Reason  string    `json:"reason"`
}

// Forgotten is how many versions had failed on a machine, and are offered to it again.
type Forgotten struct {
	Forgotten int64 `json:"forgotten"`
}

// Event is what a machine reported.
type Event struct {
	At              time.Time `json:"at"`
	Type            int       `json:"type"`
	Result          int       `json:"result"`
	Code            int64     `json:"code"`
	Version         string    `json:"version"` // that it ran then
	PreviousVersion string    `json:"previous_version"`
	NextVersion     string    `json:"next_version"`
	Reason          string    `json:"reason"`
	Sentence        string    `json:"sentence"` // for people
}

// Packages is what a release is made of, and what is other in it than in another release.
type Packages struct {
	Packages []Package       `json:"packages"`
	Against  string          `json:"against,omitempty"` // the other release; missing where there is none to compare with
	Changes  []PackageChange `json:"changes"`
}

// Package is a Debian package of a release.
type Package struct {
	Name    string `json:"name"`
	Version string `json:"version"`
	Size    int64  `json:"size"` // of its .deb
}

// PackageChange is a package whose version differs. From is empty where it is new, To where it is gone.
type PackageChange struct {
	Name string `json:"name"`
	From string `json:"from"`
	To   string `json:"to"`
}

// Blob is how much of a file has arrived.
type Blob struct {
	SHA256   string `json:"sha256"`
	Offset   int64  `json:"offset"` // bytes that have arrived
	Complete bool   `json:"complete"`
}
