package lock

import "strings"

// Change is a package whose version differs between two locks. From is empty where it is new, To where it is gone.
type Change struct {
	Name string `json:"package"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}

// Changes lists what a lock changes against an older one, sorted by name. Old may be nil: then everything is new.
func (l *Lock) Changes(old *Lock) []Change {
	var before []Package
	if old != nil {
		before = old.Packages
	}
	var list []Change
	after := l.Packages
	for len(before) > 0 || len(after) > 0 {
		order := 0
		switch {
		case len(after) == 0:
			order = -1
		case len(before) == 0:
			order = 1
		default:
			order = strings.Compare(before[0].Name, after[0].Name)
		}
		switch {
		case order < 0:
			list = append(list, Change{Name: before[0].Name, From: before[0].Version})
			before = before[1:]
		case order > 0:
			list = append(list, Change{Name: after[0].Name, To: after[0].Version})
			after = after[1:]
		default:
			if before[0].SHA256 != after[0].SHA256 {
				list = append(list, Change{Name: after[0].Name, From: before[0].Version, To: after[0].Version})
			}
			before, after = before[1:], after[1:]
		}
	}
	return list
}
