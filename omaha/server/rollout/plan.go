package rollout

import (
	"fmt"
	"math"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/window"
)

// Duration is a time.Duration that is written as a text ("90m") in JSON and TOML.
type Duration time.Duration

// Duration returns d as the standard library's.
func (d Duration) Duration() time.Duration { return time.Duration(d) }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%.40q is not a duration (example: \"90m\")", b)
	}
	*d = Duration(v)
	return nil
}

// Plan says how a release spreads. The zero Plan gives it to everybody at once and never halts.
type Plan struct {
	Canary CanaryPlan `json:"canary,omitzero" toml:"canary,omitempty"`

	// Either waves or a ramp; neither: everybody at once, when the canaries are through.
	Waves []Wave `json:"waves,omitempty" toml:"waves,omitempty"`
	Ramp  Ramp   `json:"ramp,omitzero" toml:"ramp,omitempty"`

	Limits  Limits  `json:"limits,omitzero" toml:"limits,omitempty"`
	Windows Windows `json:"windows,omitzero" toml:"windows,omitempty"`
	Halt    Limit   `json:"halt,omitzero" toml:"halt,omitempty"`
}

// CanaryPlan is the group that gets the release first.
type CanaryPlan struct {
	Group   string   `json:"group,omitempty" toml:"group,omitempty"`     // its name; empty: no canaries
	Need    int64    `json:"need,omitempty" toml:"need,omitempty"`       // how many must be healthy with it; 0: all
	Healthy Duration `json:"healthy,omitempty" toml:"healthy,omitempty"` // and how long the phase lasts at least
	// Failures is how many canaries may not fail; 0: 1, the first failure halts.
	Failures int64 `json:"failures,omitempty" toml:"failures,omitempty"`
}

// Wave is a share that is reached some time after the canaries are through.
type Wave struct {
	After   Duration `json:"after" toml:"after"`
	Percent float64  `json:"percent" toml:"percent"`
}

// Ramp is a share that grows evenly from Start percent to everybody.
type Ramp struct {
	Start float64  `json:"start,omitempty" toml:"start,omitempty"` // percent
	Over  Duration `json:"over,omitempty" toml:"over,omitempty"`   // 0: no ramp
}

// Limits bound how many machines update; 0: no limit.
type Limits struct {
	AtOnce    int64    `json:"at_once,omitempty" toml:"at_once,omitempty"`       // between their grant and their health
	PerPeriod int64    `json:"per_period,omitempty" toml:"per_period,omitempty"` // grants in each Period
	Period    Duration `json:"period,omitempty" toml:"period,omitempty"`
}

// Windows are when machines are given the release; none: always.
type Windows struct {
	Times []string `json:"times,omitempty" toml:"times,omitempty"` // package window's, "Mon-Fri 09:00 8h"
	Zone  string   `json:"zone,omitempty" toml:"zone,omitempty"`   // "Europe/Berlin"; empty: UTC
}

// Limit is when a rollout stops by itself. Neither Failures nor Percent: never.
type Limit struct {
	Failures    int64    `json:"failures,omitempty" toml:"failures,omitempty"`         // this many, in all
	Percent     float64  `json:"percent,omitempty" toml:"percent,omitempty"`           // this share of those whose outcome is known
	Sample      int64    `json:"sample,omitempty" toml:"sample,omitempty"`             // once so many outcomes are known; 0: 20
	SilentAfter Duration `json:"silent_after,omitempty" toml:"silent_after,omitempty"` // after its reboot a machine that says nothing for so long has failed; 0: 1 h
}

const (
	maxWaves       = 100
	maxWindows     = 50
	maxDuration    = Duration(366 * 24 * time.Hour)
	maxCount       = 1 << 40
	defaultSample  = 20
	defaultSilence = time.Hour
)

// Check refuses what makes no sense. Errors are of kind Input.
func (p *Plan) Check() error {
	if err := p.check(); err != nil {
		return fault.New(fault.Input, "plan: %w", err)
	}
	return nil
}

func (p *Plan) check() error {
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"canary.need", p.Canary.Need},
		{"canary.failures", p.Canary.Failures},
		{"limits.at_once", p.Limits.AtOnce},
		{"limits.per_period", p.Limits.PerPeriod},
		{"halt.failures", p.Halt.Failures},
		{"halt.sample", p.Halt.Sample},
	} {
		if n.value < 0 || n.value > maxCount {
			return fmt.Errorf("%s is %d, must be 0 to %d", n.name, n.value, int64(maxCount))
		}
	}
	for _, d := range []struct {
		name  string
		value Duration
	}{
		{"canary.healthy", p.Canary.Healthy},
		{"ramp.over", p.Ramp.Over},
		{"limits.period", p.Limits.Period},
		{"halt.silent_after", p.Halt.SilentAfter},
	} {
		if d.value < 0 || d.value > maxDuration {
			return fmt.Errorf("%s is %s, must be 0 to %s", d.name, d.value.Duration(), maxDuration.Duration())
		}
	}
	for _, f := range []struct {
		name  string
		value float64
	}{{"ramp.start", p.Ramp.Start}, {"halt.percent", p.Halt.Percent}} {
		if !percent(f.value) {
			return fmt.Errorf("%s is %v, must be 0 to 100", f.name, f.value)
		}
	}
	switch {
	case p.Canary.Group == "" && p.Canary != CanaryPlan{}:
		return fmt.Errorf("canary.group is missing: which machines get it first?")
	case (p.Limits.PerPeriod > 0) != (p.Limits.Period > 0):
		return fmt.Errorf("limits.per_period and limits.period belong together")
	case len(p.Waves) > 0 && p.Ramp != Ramp{}:
		return fmt.Errorf("waves or a ramp, not both")
	case p.Ramp.Start > 0 && p.Ramp.Over == 0:
		return fmt.Errorf("ramp.over is missing: how long does it take to reach everybody?")
	}
	if err := checkWaves(p.Waves); err != nil {
		return err
	}
	_, err := p.schedule()
	return err
}

func checkWaves(waves []Wave) error {
	if len(waves) > maxWaves {
		return fmt.Errorf("%d waves, at most %d are allowed", len(waves), maxWaves)
	}
	for i, w := range waves {
		switch {
		case w.After < 0 || w.After > maxDuration:
			return fmt.Errorf("wave %d comes after %s, must be 0 to %s", i+1, w.After.Duration(), maxDuration.Duration())
		case !percent(w.Percent) || w.Percent == 0:
			return fmt.Errorf("wave %d reaches %v percent, must be more than 0, and at most 100", i+1, w.Percent)
		case i > 0 && (w.After <= waves[i-1].After || w.Percent <= waves[i-1].Percent):
			return fmt.Errorf("wave %d must come later and reach more than wave %d", i+1, i)
		case i == len(waves)-1 && w.Percent != 100:
			return fmt.Errorf("the last wave reaches %v percent: who gets it after that? end with 100", w.Percent)
		}
	}
	return nil
}

func percent(v float64) bool { return v >= 0 && v <= 100 && !math.IsNaN(v) }

// schedule is the plan's windows; none: always open.
func (p *Plan) schedule() (window.Schedule, error) {
	zone := p.Windows.Zone
	if zone == "" {
		zone = "UTC"
	}
	if len(p.Windows.Times) > maxWindows {
		return window.Schedule{}, fmt.Errorf("%d windows, at most %d are allowed", len(p.Windows.Times), maxWindows)
	}
	return window.ParseSchedule(p.Windows.Times, zone)
}

// Share is which part of the places is reached when the ramp has been moving for a time: from 0 to 1, and never less than before.
func (p *Plan) Share(elapsed time.Duration) float64 {
	switch {
	case elapsed < 0:
		return 0
	case len(p.Waves) > 0:
		share := 0.0
		for _, w := range p.Waves {
			if elapsed >= w.After.Duration() {
				share = w.Percent / 100
			}
		}
		return share
	case p.Ramp.Over > 0 && elapsed < p.Ramp.Over.Duration():
		start := p.Ramp.Start / 100
		return start + (1-start)*float64(elapsed)/float64(p.Ramp.Over)
	}
	return 1
}

// when is Share's reverse: after which time of moving a place is reached.
func (p *Plan) when(place float64) time.Duration {
	if len(p.Waves) > 0 {
		for _, w := range p.Waves {
			if place < w.Percent/100 {
				return w.After.Duration()
			}
		}
	}
	start := p.Ramp.Start / 100
	if p.Ramp.Over == 0 || place < start {
		return 0
	}
	// Rounded up, so that the place is reached then and not a moment later.
	return time.Duration(math.Ceil((place-start)/(1-start)*float64(p.Ramp.Over))) + time.Second
}
