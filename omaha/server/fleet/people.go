package fleet

import (
	"slices"
	"time"
)

// Via is how somebody signed in.
type Via string

// The ways to sign in.
const (
	ViaOIDC  Via = "oidc"  // at an OpenID provider
	ViaLink  Via = "link"  // with a link that an administrator handed over
	ViaToken Via = "token" // with a token; no person is kept for it
	ViaLocal Via = "local" // not at all: who has the database at hand
)

// Person is somebody who may sign in.
type Person struct {
	ID      string // "oidc:SUBJECT", or "link:" and a random number
	Name    string // for people to read: two may have the same
	Via     Via
	Issuer  string   // of the provider; empty for those who came by a link
	Groups  []string // the provider's, of those that give a role, at the last sign-in
	Set     Role     // by an administrator; goes before the groups. Empty: none
	Created time.Time
	Seen    time.Time // zero: was never here
}

// GroupRole is the role that a provider's group gives.
type GroupRole struct {
	Group string
	Role  Role
}

// ranks are the roles from the lowest on. A publisher may not do all that an operator may, and still comes after it: who is in the groups of both is one of them.
var ranks = []Role{Viewer, Operator, Publisher, Admin}

// RoleOf is the highest role that groups give; empty when they give none.
func RoleOf(groups []string, mapping []GroupRole) Role {
	highest := -1
	for _, m := range mapping {
		if slices.Contains(groups, m.Group) {
			highest = max(highest, slices.Index(ranks, m.Role))
		}
	}
	if highest < 0 {
		return ""
	}
	return ranks[highest]
}

// Role is what a person may do; empty: nothing, not even look.
func (p *Person) Role(mapping []GroupRole) Role {
	if p.Set != "" {
		return p.Set
	}
	return RoleOf(p.Groups, mapping)
}

// Who names a person in the audit log. What comes last is ours, whatever the name is.
func (p *Person) Who() string { return p.Name + " (" + string(p.Via) + ")" }

// Limits of sessions and links.
const (
	SessionIdle = 12 * time.Hour     // without a request
	SessionLife = 7 * 24 * time.Hour // from the sign-in on
	MaxSessions = 20                 // of one person or token; the one that was quiet for longest ends for a new one
	LinkLife    = 24 * time.Hour
)

// Session is a browser that somebody signed in with. Its id is kept as a hash only.
type Session struct {
	SHA256  [32]byte // of the id
	Person  string   // whose it is; or
	Token   string   // the id of the token that began it
	Created time.Time
	Seen    time.Time
}

// Over reports whether a session has ended by itself.
func (s *Session) Over(now time.Time) bool {
	return now.Sub(s.Created) >= SessionLife || now.Sub(s.Seen) >= SessionIdle
}

// Link lets a person sign in once. Its secret is kept as a hash only.
type Link struct {
	SHA256  [32]byte // of the secret
	Person  string
	Created time.Time
	Expires time.Time
}
