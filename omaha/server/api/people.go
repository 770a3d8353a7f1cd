package api

import "time"

// Me is who asks.
type Me struct {
	Name string `json:"name"`
	Via  string `json:"via"` // how they signed in: token, oidc or link; local for who has the database at hand
	Role string `json:"role"`
	CSRF string `json:"csrf,omitempty"` // what requests by cookie that change something show in the header CSRFHeader
}

// CSRFHeader is where requests that are authenticated by a session's cookie, and may change something, show Me.CSRF.
const CSRFHeader = "Semper-CSRF"

// Person is somebody who may sign in, or wanted to.
type Person struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Role     string    `json:"role"`               // empty: they are refused
	RoleFrom string    `json:"role_from"`          // groups, or set for one that an administrator gave
	Groups   []string  `json:"groups"`             // the provider's, of those that give a role, at the last sign-in
	LastSeen time.Time `json:"last_seen,omitzero"` // missing: never
}

// People lists all people.
type People struct {
	People []Person `json:"people"`
}

// SetRole gives a person a role, whatever the groups say. An empty one leaves it to the groups again.
type SetRole struct {
	Role string `json:"role"`
}
