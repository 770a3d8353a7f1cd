package main

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/rollout"
)

// planFlags are a plan as typed.
type planFlags struct {
	file    string
	group   string
	healthy time.Duration
	ramp    time.Duration
	waves   []string
	atOnce  int64
	rate    string
	windows []string
	zone    string
	halt    string
	silent  time.Duration
}

func (p *planFlags) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&p.file, "plan", "", "the plan in a TOML `FILE`; flags change it")
	f.StringVar(&p.group, "canary-group", "", "the `GROUP` that gets the release first, and must be healthy with it")
	f.DurationVar(&p.healthy, "canary-time", 0, "how long the canaries are watched at least")
	f.DurationVar(&p.ramp, "ramp", 0, "reach everybody evenly over this time")
	f.StringArrayVar(&p.waves, "wave", nil, "reach a share after a time, as `AFTER=PERCENT` such as 24h=50; the last one reaches 100 (may be given several times)")
	f.Int64Var(&p.atOnce, "at-once", 0, "at most so many machines between grant and health")
	f.StringVar(&p.rate, "rate", "", "at most so many grants in a time, as `N/TIME` such as 100/1h")
	f.StringArrayVar(&p.windows, "window", nil, "give it out in this weekly window only, such as \"Mon-Fri 09:00 8h\" (may be given several times)")
	f.StringVar(&p.zone, "zone", "", "the windows' time zone, such as Europe/Berlin (default UTC)")
	f.StringVar(&p.halt, "halt", "", "stop when so many machines failed: a number, or a share such as 2%")
	f.DurationVar(&p.silent, "silent-after", 0, "after how much silence a machine that reboots has failed (default 1h)")
}

func (p *planFlags) plan() (rollout.Plan, error) {
	var plan rollout.Plan
	if p.file != "" {
		text, err := os.ReadFile(p.file)
		if err != nil {
			return plan, fault.New(fault.Input, "--plan: %w", err)
		}
		d := toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields()
		if err := d.Decode(&plan); err != nil {
			return plan, planError(p.file, err)
		}
	}
	if p.group != "" {
		plan.Canary.Group = p.group
	}
	if p.healthy != 0 {
		plan.Canary.Healthy = rollout.Duration(p.healthy)
	}
	if p.ramp != 0 {
		plan.Ramp.Over = rollout.Duration(p.ramp)
	}
	for _, w := range p.waves {
		after, percent, _ := strings.Cut(w, "=")
		d, err := time.ParseDuration(after)
		share, err2 := strconv.ParseFloat(strings.TrimSuffix(percent, "%"), 64)
		if err != nil || err2 != nil {
			return plan, fault.New(fault.Usage, "--wave %q: want AFTER=PERCENT, such as 24h=50", w)
		}
		plan.Waves = append(plan.Waves, rollout.Wave{After: rollout.Duration(d), Percent: share})
	}
	if p.atOnce != 0 {
		plan.Limits.AtOnce = p.atOnce
	}
	if p.rate != "" {
		n, period, _ := strings.Cut(p.rate, "/")
		count, err := strconv.ParseInt(n, 10, 64)
		d, err2 := time.ParseDuration(period)
		if err != nil || err2 != nil {
			return plan, fault.New(fault.Usage, "--rate %q: want N/TIME, such as 100/1h", p.rate)
		}
		plan.Limits.PerPeriod, plan.Limits.Period = count, rollout.Duration(d)
	}
	if len(p.windows) > 0 {
		plan.Windows.Times = p.windows
	}
	if p.zone != "" {
		plan.Windows.Zone = p.zone
	}
	if p.halt != "" {
		number, share := strings.CutSuffix(p.halt, "%")
		v, err := strconv.ParseFloat(number, 64)
		if err != nil || !share && v != float64(int64(v)) {
			return plan, fault.New(fault.Usage, "--halt %q: want a number of machines, or a share such as 2%%", p.halt)
		}
		if share {
			plan.Halt.Percent = v
		} else {
			plan.Halt.Failures = int64(v)
		}
	}
	if p.silent != 0 {
		plan.Halt.SilentAfter = rollout.Duration(p.silent)
	}
	return plan, plan.Check()
}

// planError says where in its file a plan is wrong.
func planError(file string, err error) error {
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		line, _ := strict.Errors[0].Position()
		return fault.New(fault.Input, "%s:%d: unknown key %.80q (docs/rollouts.md has all of them)", file, line, strings.Join(strict.Errors[0].Key(), "."))
	}
	var de *toml.DecodeError
	if errors.As(err, &de) {
		line, _ := de.Position()
		return fault.New(fault.Input, "%s:%d: %w", file, line, err)
	}
	return fault.New(fault.Input, "%s: %w", file, err)
}
