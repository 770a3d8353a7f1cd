package agent_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/updater/agent"
)

// The table in the documentation is the code's.
func TestTransitionTableIsDocumented(t *testing.T) {
	doc, err := os.ReadFile("../../docs/state-machine.md")
	must(t, err)
	if !strings.Contains(string(doc), agent.TransitionTable()) {
		t.Errorf("docs/state-machine.md does not have this table:\n%s", agent.TransitionTable())
	}
}

// Every state can be left, and reached; no arrow is there twice; from the idle state every other one can be reached by arrows alone.
func TestTransitions(t *testing.T) {
	states := []agent.StateName{
		agent.StateIdle, agent.StateTrial, agent.StateChecking, agent.StateDownloading, agent.StateInstalling,
		agent.StatePending, agent.StateDraining, agent.StateRebooting,
	}
	seen := map[[2]agent.StateName]bool{}
	for _, tr := range agent.Transitions {
		key := [2]agent.StateName{tr.From, tr.To}
		if seen[key] || tr.From == tr.To || tr.When == "" || !slices.Contains(states, tr.From) || !slices.Contains(states, tr.To) {
			t.Errorf("transition %+v", tr)
		}
		seen[key] = true
	}
	reached := []agent.StateName{agent.StateIdle}
	for i := 0; i < len(reached); i++ {
		for _, tr := range agent.Transitions {
			if tr.From == reached[i] && !slices.Contains(reached, tr.To) {
				reached = append(reached, tr.To)
			}
		}
	}
	equal(t, "states that can be reached", len(reached), len(states))
	for _, s := range states {
		equal(t, "after a start, from "+string(s), []bool{agent.Allowed(s, agent.StateIdle, true), agent.Allowed(s, agent.StateDownloading, true) && s != agent.StateChecking},
			[]bool{true, s == agent.StateInstalling})
	}
}
