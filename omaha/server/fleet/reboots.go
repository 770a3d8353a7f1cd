package fleet

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

// RebootGroup is machines that share slots for their reboots.
type RebootGroup struct {
	Name    string
	Slots   int           // how many may be down at once; 0: none
	Lease   time.Duration // how long a slot outlives its machine's last word; 0: until it is given back
	Updated time.Time
}

// RebootClaim is a machine that has a slot, or asked for one.
type RebootClaim struct {
	Group string
	ID    string
	Holds bool
	Since time.Time // when it got the slot, or asked for one first
	Seen  time.Time // its last word
}

const (
	maxSlots = 1_000_000
	maxLease = 7 * 24 * time.Hour
	minLease = time.Minute

	// waits is how long a machine that asked in vain is shown as waiting.
	waits = 30 * time.Minute
)

var (
	groupName = regexp.MustCompile(`^[a-zA-Z0-9.-]{1,64}$`) // as FleetLock's protocol has it
	claimID   = regexp.MustCompile(`^[!-~]{1,128}$`)
)

// Check refuses what cannot be a group. Errors are of kind Input.
func (g *RebootGroup) Check() error {
	switch {
	case !groupName.MatchString(g.Name):
		return fault.New(fault.Input, "reboot group %.100q: want 1 to 64 letters, digits, '.' and '-'", g.Name)
	case g.Slots < 0 || g.Slots > maxSlots:
		return fault.New(fault.Input, "reboot group %s: %d slots, 0 to %d are allowed", g.Name, g.Slots, maxSlots)
	case g.Lease != 0 && (g.Lease < minLease || g.Lease > maxLease):
		return fault.New(fault.Input, "reboot group %s: a lease of %s, 0 or %s to %s are allowed", g.Name, g.Lease, minLease, maxLease)
	}
	return nil
}

// CheckClaim refuses what cannot be a machine's id or its group's name. Errors are of kind Input.
func CheckClaim(group, id string) error {
	if !groupName.MatchString(group) {
		return fault.New(fault.Input, "group %.100q: want 1 to 64 letters, digits, '.' and '-'", group)
	}
	if !claimID.MatchString(id) {
		return fault.New(fault.Input, "id %.200q: want 1 to 128 printable ASCII characters", id)
	}
	return nil
}

// Expired reports whether a claim counts no more at now: a slot whose lease is over, a question that was not repeated.
func (g *RebootGroup) Expired(c *RebootClaim, now time.Time) bool {
	age := now.Sub(c.Seen)
	if c.Holds {
		return g.Lease > 0 && age >= g.Lease
	}
	return age >= waits
}

// Claim answers a machine that asks for a slot, or for its own again. Claims are the group's, all of them. The result is to be kept; held says whether it is a slot.
// Fewer slots than holders take nobody's away.
func (g *RebootGroup) Claim(claims []RebootClaim, id string, now time.Time) (mine RebootClaim, held bool, why string) {
	mine = RebootClaim{Group: g.Name, ID: id, Since: now, Seen: now}
	var holders []string
	for i := range claims {
		c := &claims[i]
		if g.Expired(c, now) {
			continue
		}
		if c.ID == id {
			if mine.Since, mine.Holds = c.Since, c.Holds; c.Holds {
				return mine, true, ""
			}
			continue
		}
		if c.Holds {
			holders = append(holders, fmt.Sprintf("%s since %s", c.ID, c.Since.UTC().Format(time.RFC3339)))
		}
	}
	if len(holders) < g.Slots {
		mine.Holds, mine.Since = true, now
		return mine, true, ""
	}
	if g.Slots == 0 {
		return mine, false, fmt.Sprintf("group %s has no slots: nobody may reboot", g.Name)
	}
	const some = 3
	more := ""
	if len(holders) > some {
		more = fmt.Sprintf(" and %d more", len(holders)-some)
		holders = holders[:some]
	}
	return mine, false, fmt.Sprintf("all %d slots of group %s are taken: by %s%s", g.Slots, g.Name, strings.Join(holders, ", "), more)
}

// Audit is something that a person, or a program in a person's name, changed.
type Audit struct {
	ID      int64 // given when it is kept
	At      time.Time
	Who     string // "token LABEL", or "semper-server" for its verbs
	What    string // a word for programs: "reboot-release"
	Subject string
	Detail  string

	Before, After string // what was changed, for people; empty where there is nothing to compare
}
