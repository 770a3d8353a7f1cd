package rollout

import (
	"fmt"
	"strings"
	"time"
)

// Failure is one machine that counts against a release.
type Failure struct {
	Machine string
	At      time.Time
	Why     string
}

// maxNamed is how many machines a halt's reason names.
const maxNamed = 20

// SilentAfter is after how much silence a machine that reboots into the release has failed.
func (r *Rollout) SilentAfter() time.Duration {
	if d := r.Plan.Halt.SilentAfter.Duration(); d > 0 {
		return d
	}
	return defaultSilence
}

// Judge says whether the rollout must stop, and why. Failures are the ones that are known, the newest first, for the sentence alone: the counters decide.
func (r *Rollout) Judge(failures []Failure) (halt bool, why string) {
	if !r.State.running() {
		return false, ""
	}
	all, canary := r.Counted.All.since(r.Base.All), r.Counted.Canary.since(r.Base.Canary)
	if limit := max(r.Plan.Canary.Failures, 1); r.Plan.Canary.Group != "" && canary.Bad() >= limit {
		return true, sentence(fmt.Sprintf("%d of %d canaries failed; it stops at %d", canary.Bad(), canary.Known(), limit), failures)
	}
	h := &r.Plan.Halt
	if h.Failures > 0 && all.Bad() >= h.Failures {
		return true, sentence(fmt.Sprintf("%d machines failed; it stops at %d", all.Bad(), h.Failures), failures)
	}
	sample := h.Sample
	if sample == 0 {
		sample = defaultSample
	}
	if h.Percent > 0 && all.Known() >= sample && float64(all.Bad())*100 >= h.Percent*float64(all.Known()) {
		return true, sentence(fmt.Sprintf("%d of %d machines failed, %.3g %%; it stops at %.3g %%", all.Bad(), all.Known(),
			float64(all.Bad())*100/float64(all.Known()), h.Percent), failures)
	}
	return false, ""
}

// since is what was counted after base. A machine that failed before and is healthy now makes no number negative.
func (c Count) since(base Count) Count {
	return Count{
		Granted: max(c.Granted-base.Granted, 0), InFlight: c.InFlight,
		Complete: max(c.Complete-base.Complete, 0), Failed: max(c.Failed-base.Failed, 0), Silent: max(c.Silent-base.Silent, 0),
	}
}

func sentence(what string, failures []Failure) string {
	var b strings.Builder
	b.WriteString(what)
	for i, f := range failures {
		if i == maxNamed {
			fmt.Fprintf(&b, "; and %d more", len(failures)-maxNamed)
			break
		}
		between := "; "
		if i == 0 {
			between = ": "
		}
		fmt.Fprintf(&b, "%s%s (%s)", between, f.Machine, f.Why)
	}
	return b.String()
}
