package fleet

// Role is what the bearer of a token may do. Each role may do what the ones before it may.
type Role string

// The roles, from the least to the most.
const (
	Viewer    Role = "viewer"    // look
	Publisher Role = "publisher" // upload releases and assign them to channels
	Admin     Role = "admin"     // everything
)

var ranks = map[Role]int{Viewer: 1, Publisher: 2, Admin: 3}

// Valid reports whether r is one of the roles.
func (r Role) Valid() bool { return ranks[r] > 0 }

// Covers reports whether r may do what need may.
func (r Role) Covers(need Role) bool { return r.Valid() && need.Valid() && ranks[r] >= ranks[need] }
