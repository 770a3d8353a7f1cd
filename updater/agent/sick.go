package agent

import (
	"strings"
	"time"

	"github.com/semper-os/semper/omaha"
)

// Sickness is a version that became unhealthy after its blessing.
type Sickness struct {
	Version string    `json:"version"`
	Since   time.Time `json:"since"`
	Why     string    `json:"why"`
}

// examine learns what the health checks said that run after the blessing. What follows from it beside the report is not the agent's: a semperd that was
// taken over must not be able to put a machine back.
func (a *Agent) examine() {
	if a.o.Health == nil {
		return
	}
	later, err := a.o.Health()
	if err != nil {
		a.o.Log.Warn("the later health checks' result", "error", err)
		return
	}
	var now *Sickness
	if later != nil && later.Verdict.Sick && later.Verdict.Version == a.slots.Version {
		why := strings.Join(later.Verdict.Checks, ", ") + " failed again and again"
		if err := later.Err(); err != nil {
			why = err.Error()
		}
		now = &Sickness{Version: later.Verdict.Version, Since: later.Verdict.Since, Why: clip(why, 1000)}
	}
	before := a.state.Sick
	switch {
	case now == nil && before == nil, now != nil && before != nil && now.Version == before.Version && now.Since.Equal(before.Since):
		return
	case now == nil:
		a.o.Log.Info("healthy again", "version", before.Version)
		a.change(func(s *State) {
			s.Sick = nil
			s.note(a.now(), "version "+before.Version+" is healthy again")
		})
	default:
		a.o.Log.Error("unhealthy", "version", now.Version, "why", now.Why)
		a.change(func(s *State) {
			s.Sick = now
			s.post(omaha.Sick(now.Version, now.Why))
			s.note(a.now(), "version "+now.Version+" became unhealthy: "+now.Why)
		})
	}
}
