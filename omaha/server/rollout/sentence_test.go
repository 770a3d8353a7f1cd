package rollout

import (
	"testing"
	"time"
)

func TestSentence(t *testing.T) {
	for _, c := range []struct {
		want string
		plan Plan
	}{
		{"everybody at once; halts at no number of failures", Plan{}},
		{"group lab first, until each of them is healthy and 1h0m0s have passed, halting at the first failure; from 10 % to everybody over 24h0m0s; halts at 3 failures, silence of 1h0m0s counts", Plan{
			Canary: CanaryPlan{Group: "lab", Healthy: Duration(time.Hour)}, Ramp: Ramp{Start: 10, Over: Duration(24 * time.Hour)}, Halt: Limit{Failures: 3},
		}},
		{"group lab first, until 2 of them are healthy and 0s have passed, halting at 4 failures; 50 % after 1h0m0s, 100 % after 2h0m0s; at most 10 updating; at most 100 in 1h0m0s; in Mon-Fri 09:00 8h (UTC); halts at 5 failures or 2.5 % of at least 20 failed, silence of 30m0s counts", Plan{
			Canary: CanaryPlan{Group: "lab", Need: 2, Failures: 4}, Waves: []Wave{{Duration(time.Hour), 50}, {Duration(2 * time.Hour), 100}},
			Limits: Limits{AtOnce: 10, PerPeriod: 100, Period: Duration(time.Hour)}, Windows: Windows{Times: []string{"Mon-Fri 09:00 8h"}},
			Halt: Limit{Failures: 5, Percent: 2.5, SilentAfter: Duration(30 * time.Minute)},
		}},
		{"everybody at once; in Sat 10:00 2h (Europe/Berlin); halts at 2 % of at least 50 failed, silence of 1h0m0s counts", Plan{
			Windows: Windows{Times: []string{"Sat 10:00 2h"}, Zone: "Europe/Berlin"}, Halt: Limit{Percent: 2, Sample: 50},
		}},
	} {
		if got := c.plan.Sentence(); got != c.want {
			t.Errorf("got  %s\nwant %s", got, c.want)
		}
	}
}
