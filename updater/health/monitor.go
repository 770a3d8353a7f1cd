package health

import (
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/durable"
)

// InARow is how many runs one after the other it takes to change the word on a version, either way: one bad run may be chance, or somebody at work.
const InARow = 3

// Change is what a run changed.
type Change string

// The changes.
const (
	BecameSick    Change = "sick"
	BecameHealthy Change = "healthy"
)

// Verdict is the word on the running version after a run.
type Verdict struct {
	Version string    `json:"version"`
	Sick    bool      `json:"sick"`
	Since   time.Time `json:"since,omitzero"`    // of a sick version: when it became so
	Checks  []string  `json:"checks,omitempty"`  // the required checks that made it sick, by name
	Changed Change    `json:"changed,omitempty"` // by this run; empty: nothing
}

// Later is the JSON of a run after the blessing, /run/semper/health-later.json.
type Later struct {
	Result
	Verdict Verdict `json:"verdict"`
}

// Monitor keeps count of the runs after the blessing, in one small file that survives reboots. A version becomes sick when one required check failed in
// InARow runs in a row, and healthy again after as many runs in which no required check failed. What to do about it is for the caller.
type Monitor struct {
	Folder durable.Folder
	File   string
	Log    *slog.Logger
}

// count is the file.
type count struct {
	Version string         `json:"version"`
	Failed  map[string]int `json:"failed,omitempty"` // runs in a row in which the required check failed, at most InARow
	Sick    bool           `json:"sick,omitempty"`
	Since   time.Time      `json:"since,omitzero"`
	Checks  []string       `json:"checks,omitempty"`
	Good    int            `json:"good,omitempty"` // of a sick version: runs in a row without a required failure
}

// Observe takes the result of one more run on version. A run that was interrupted is not for it. The file is written only where something changed: a
// healthy machine writes nothing.
func (m *Monitor) Observe(version string, r *Result) (Verdict, error) {
	var c count
	found, err := durable.ReadJSON(m.Folder, m.File, &c)
	over := found && c.Version != version // the file is of another version, or of no use
	if fault.Is(err, fault.Input) {
		m.Log.Warn("the count of health checks starts over", "error", err)
		over = true
	} else if err != nil {
		return Verdict{}, err
	}
	if over || !found {
		c = count{Version: version}
	}
	before := c
	before.Failed = maps.Clone(c.Failed)
	changed := c.add(r)
	v := Verdict{Version: version, Sick: c.Sick, Since: c.Since, Checks: c.Checks, Changed: changed}
	if !over && c.same(before) {
		return v, nil
	}
	return v, durable.WriteJSON(m.Folder, m.File, c)
}

func (c *count) same(o count) bool {
	return c.Sick == o.Sick && c.Good == o.Good && maps.Equal(c.Failed, o.Failed)
}

func (c *count) add(r *Result) Change {
	failed := map[string]int{}
	for _, one := range r.Checks {
		if one.Required && !one.OK {
			failed[one.Name] = min(c.Failed[one.Name]+1, InARow)
		}
	}
	c.Failed = failed
	if c.Sick {
		if len(failed) > 0 {
			c.Good = 0
			return ""
		}
		c.Good++
		if c.Good < InARow {
			return ""
		}
		c.Sick, c.Since, c.Checks, c.Good = false, time.Time{}, nil, 0
		return BecameHealthy
	}
	for _, name := range slices.Sorted(maps.Keys(failed)) {
		if failed[name] == InARow {
			c.Checks = append(c.Checks, name)
		}
	}
	if len(c.Checks) == 0 {
		return ""
	}
	c.Sick, c.Since, c.Good = true, r.At, 0
	return BecameSick
}
