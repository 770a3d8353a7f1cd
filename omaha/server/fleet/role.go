package fleet

import "slices"

// Role is what the bearer of a token may do.
type Role string

// The roles. An operator cannot bring code to machines, a publisher cannot move machines: whoever steals one token cannot do both.
const (
	Viewer    Role = "viewer"    // look
	Operator  Role = "operator"  // and steer: rollouts, groups, pins, reboot locks
	Publisher Role = "publisher" // or upload releases and assign them to channels
	Admin     Role = "admin"     // everything
)

// covers are the roles that a role may act as.
var covers = map[Role][]Role{
	Viewer:    {Viewer},
	Operator:  {Viewer, Operator},
	Publisher: {Viewer, Publisher},
	Admin:     {Viewer, Operator, Publisher, Admin},
}

// Valid reports whether r is one of the roles.
func (r Role) Valid() bool { return covers[r] != nil }

// Covers reports whether r may do what need may.
func (r Role) Covers(need Role) bool { return slices.Contains(covers[r], need) }
