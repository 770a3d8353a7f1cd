package rollout

import (
	"fmt"
	"strings"
)

// Sentence says in a line how a release spreads.
func (p *Plan) Sentence() string {
	var parts []string
	add := func(format string, args ...any) { parts = append(parts, fmt.Sprintf(format, args...)) }
	if c := &p.Canary; c.Group != "" {
		need := "each of them is"
		if c.Need > 0 {
			need = fmt.Sprintf("%d of them are", c.Need)
		}
		halts := "the first failure"
		if c.Failures > 1 {
			halts = fmt.Sprintf("%d failures", c.Failures)
		}
		add("group %s first, until %s healthy and %s have passed, halting at %s", c.Group, need, c.Healthy.Duration(), halts)
	}
	switch {
	case len(p.Waves) > 0:
		waves := make([]string, len(p.Waves))
		for i, w := range p.Waves {
			waves[i] = fmt.Sprintf("%g %% after %s", w.Percent, w.After.Duration())
		}
		add("%s", strings.Join(waves, ", "))
	case p.Ramp.Over > 0:
		add("from %g %% to everybody over %s", p.Ramp.Start, p.Ramp.Over.Duration())
	default:
		add("everybody at once")
	}
	if p.Limits.AtOnce > 0 {
		add("at most %d updating", p.Limits.AtOnce)
	}
	if p.Limits.PerPeriod > 0 {
		add("at most %d in %s", p.Limits.PerPeriod, p.Limits.Period.Duration())
	}
	if len(p.Windows.Times) > 0 {
		zone := p.Windows.Zone
		if zone == "" {
			zone = "UTC"
		}
		add("in %s (%s)", strings.Join(p.Windows.Times, ", "), zone)
	}
	return strings.Join(append(parts, p.Halt.sentence()), "; ")
}

func (l *Limit) sentence() string {
	var at []string
	if l.Failures > 0 {
		at = append(at, fmt.Sprintf("%d failures", l.Failures))
	}
	if l.Percent > 0 {
		sample := l.Sample
		if sample == 0 {
			sample = defaultSample
		}
		at = append(at, fmt.Sprintf("%g %% of at least %d failed", l.Percent, sample))
	}
	if at == nil {
		return "halts at no number of failures"
	}
	silence := l.SilentAfter.Duration()
	if silence == 0 {
		silence = defaultSilence
	}
	return fmt.Sprintf("halts at %s, silence of %s counts", strings.Join(at, " or "), silence)
}
