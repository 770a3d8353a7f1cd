package agent

import (
	"fmt"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/freshness"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/config"
)

// Image is what the running image says of itself, and whom it trusts.
type Image struct {
	Product      string
	Architecture string
	Built        time.Time // no clock of the machine's can rightly be before that
	// Trust reads the keys; they are the read-only root's.
	Trust func() (payload.Trust, error)
}

// Freshness is what the servers' signed statements say, see package freshness.
type Freshness struct {
	Case     freshness.Case `json:"case,omitempty"`
	Sentence string         `json:"sentence,omitempty"`
	Problem  string         `json:"problem,omitempty"` // what a person should hear of; empty: nothing
	Version  string         `json:"version,omitempty"` // that the last good statement names
	Issued   time.Time      `json:"issued,omitzero"`
	Expires  time.Time      `json:"expires,omitzero"`
}

// judgeFreshness looks at the statement in an answer, remembers it, and returns why the answer's update must not be installed, or nil.
func (a *Agent) judgeFreshness(answer client.Answer) error {
	set := &a.setup.Settings
	if set.Trust.Freshness == config.FreshnessOff || a.o.Image.Trust == nil {
		a.change(func(s *State) { s.Fresh, s.Seen = Freshness{}, freshness.Memory{} })
		return nil
	}
	trust, err := a.o.Image.Trust()
	if err != nil {
		return fmt.Errorf("check the freshness of the server's answer: %w", err)
	}
	s := freshness.Situation{
		Machine: freshness.Machine{
			Product: a.o.Image.Product, Channel: set.Channel, Architecture: a.o.Image.Architecture, Now: a.now(), NotBefore: a.o.Image.Built,
		},
		Running: a.slots.Version,
	}
	if a.slots.Pending != nil && !a.slots.Pending.Back {
		s.Running = a.slots.Pending.Version
	}
	if answer.Update != nil {
		s.Offered = answer.Update.Version
	}
	v, memory := freshness.Judge(answer.Freshness, trust, s, a.state.Seen)
	f := Freshness{Case: v.Case, Sentence: v.Sentence(), Version: v.Statement.Version, Issued: v.Statement.Issued, Expires: v.Statement.Expires}
	allowed := v.Allows()
	switch age := a.now().Sub(v.Statement.Issued); {
	case v.Alarming():
		f.Problem = f.Sentence
	case allowed && age > set.Trust.MaxAge:
		f.Problem = fmt.Sprintf("the newest statement is from %s, older than trust.max_age allows", stamp(v.Statement.Issued))
		allowed = false
	}
	if f.Problem != "" && f.Problem != a.state.Fresh.Problem {
		a.o.Log.Warn("freshness", "case", f.Case, "problem", f.Problem)
	}
	a.change(func(s *State) { s.Fresh, s.Seen = f, memory })
	if set.Trust.Freshness == config.FreshnessRequire && !allowed {
		why := f.Problem
		if why == "" {
			why = f.Sentence
		}
		return fault.New(fault.Verification, "trust.freshness = \"require\": %s", why)
	}
	return nil
}
