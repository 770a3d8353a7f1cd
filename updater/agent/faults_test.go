package agent_test

import (
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/wire"
)

// sickInstaller cannot finish.
type sickInstaller struct {
	agent.Installer
	failure error
}

func (s sickInstaller) Finish() error {
	_ = s.Abort() // as the installer's side does after a failure
	return s.failure
}

// What is wrong with this machine's disk, or with Semper itself, is tried again by the agent, and reported with a code that the server does not hold against
// the version; but the payload is downloaded once for each check, not for each round.
func TestFaultsOfTheMachine(t *testing.T) {
	keys := installtest.NewKeys(t)
	for _, c := range []struct {
		name    string
		failure error
		event   string
	}{
		{"boot entry", fault.Wrap(fault.IO, &wire.Error{Failure: wire.Failure{Text: "write the new kernel", Kind: "io", Code: 6}}), "3/0 1.1.0 code 6"},
		{"slot", fault.Wrap(fault.IO, &wire.Error{Failure: wire.Failure{Text: "write the slot", Kind: "io", Code: 14}}), "3/0 1.1.0 code 14"},
		{"no code", fault.Wrap(fault.Internal, &wire.Error{Failure: wire.Failure{Text: "out of luck", Kind: "internal"}}), "3/0 1.1.0 code 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHost(t, keys, "1.0.0")
			h.wrap = func(i agent.Installer) agent.Installer { return sickInstaller{i, c.failure} }
			h.offer(keys.Release(t, "1.1.0"))
			h.step()
			equal(t, "events", h.fleet.take(), []string{"13/1 1.1.0", "14/1 1.1.0", c.event})
			r := h.agent.Report()
			if r.LastError == nil || !strings.Contains(r.LastError.Text, c.failure.Error()) || len(r.Failed) != 0 {
				t.Errorf("report %+v %+v", r, r.LastError)
			}
			equal(t, "downloads", len(h.fleet.ranges), 1)
			h.wrap = nil
			h.clock.advance(time.Hour)
			h.step()
			equal(t, "boot", h.boot().Version, "1.1.0")
		})
	}
}
