package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pelletier/go-toml/v2"
	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

func newRolloutCommand() *cobra.Command {
	return group("rollout", "Plan rollouts, watch, pause, resume and abort them",
		newRolloutPlanCommand(), newRolloutListCommand(), newRolloutShowCommand(),
		newRolloutSteerCommand("start", "Start a draft"),
		newRolloutSteerCommand("pause", "Give the release to no more machines until it is resumed"),
		newRolloutSteerCommand("resume", "Go on with a rollout that was paused, or that stopped by itself"),
		newRolloutSteerCommand("abort", "End a rollout for good; machines that have the release keep it"))
}

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

func newRolloutPlanCommand() *cobra.Command {
	var p place
	var f planFlags
	var channel, arch string
	var start bool
	c := &cobra.Command{
		Use:   "plan VERSION --channel CHANNEL --data DIR [--start]",
		Short: "Plan how a published release reaches a channel's machines",
		Long: "Plan how a published release reaches a channel's machines: canaries first, then waves or a ramp, within limits and windows. It stops by itself when too\n" +
			"many machines fail, come back, or fall silent after their reboot. Without --start it stays a draft.",
		Args: args(1),
		RunE: func(c *cobra.Command, given []string) error {
			plan, err := f.plan()
			if err != nil {
				return err
			}
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				r := fleet.Rollout{App: app.ID, Channel: channel, Arch: arch}
				r.Plan = plan
				now := time.Now().UTC()
				err := s.Write(c.Context(), func(tx store.Tx) error {
					if err := server.PlanRollout(c.Context(), tx, &r, given[0], who, now); err != nil || !start {
						return err
					}
					var err error
					r, err = server.SteerRollout(c.Context(), tx, r.ID, "start", "", who, now)
					return err
				})
				if err != nil {
					return err
				}
				return showRollout(c, &r)
			})
		},
	}
	p.flags(c)
	f.flags(c)
	c.Flags().StringVar(&channel, "channel", "stable", "the channel")
	c.Flags().StringVar(&arch, "arch", api.DefaultArch, "the architecture")
	c.Flags().BoolVar(&start, "start", false, "start it at once")
	return c
}

func showRollout(c *cobra.Command, r *fleet.Rollout) error {
	shown := server.DescribeRollout(r, r.Reached(time.Now()))
	return show(c, shown, func(w io.Writer) error {
		_, err := fmt.Fprintf(w, "rollout %d of %s in channel %s (%s) is %s\n", shown.ID, shown.Version, shown.Channel, shown.Arch, shown.State)
		return err
	})
}

func newRolloutSteerCommand(verb, short string) *cobra.Command {
	var p place
	var why string
	c := &cobra.Command{
		Use:   verb + " N --data DIR [--reason TEXT]",
		Short: short,
		Args:  args(1),
		RunE: func(c *cobra.Command, given []string) error {
			id, err := rolloutNumber(given[0])
			if err != nil {
				return err
			}
			return p.open(c.Context(), func(s *store.Store, _ fleet.Application) error {
				var r fleet.Rollout
				err := s.Write(c.Context(), func(tx store.Tx) (err error) {
					r, err = server.SteerRollout(c.Context(), tx, id, verb, why, who, time.Now().UTC())
					return err
				})
				if err != nil {
					return err
				}
				return showRollout(c, &r)
			})
		},
	}
	p.flags(c)
	c.Flags().StringVar(&why, "reason", "", "why, for the audit log and for whoever looks at the rollout")
	return c
}

func rolloutNumber(text string) (int64, error) {
	id, err := strconv.ParseInt(text, 10, 64)
	if err != nil || id < 1 {
		return 0, fault.New(fault.Usage, "%q is not a rollout's number ('semper-server rollout list' shows them)", text)
	}
	return id, nil
}

func newRolloutListCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "list --data DIR",
		Short: "List rollouts, newest first",
		Args:  args(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				all, err := s.Read().Rollouts(c.Context(), app.ID, false, api.MaxPage)
				if err != nil {
					return err
				}
				out := api.Rollouts{Rollouts: []api.Rollout{}}
				for i := range all {
					out.Rollouts = append(out.Rollouts, server.DescribeRollout(&all[i], all[i].Reached(time.Now())))
				}
				return show(c, out, func(w io.Writer) error {
					t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "N\tVERSION\tCHANNEL\tARCH\tSTATE\tSINCE\tREACHED\tUPDATING\tHEALTHY\tFAILED\tSILENT")
					for _, r := range out.Rollouts {
						n := &r.Counted.All
						fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%.3g %%\t%d\t%d\t%d\t%d\n",
							r.ID, r.Version, r.Channel, r.Arch, r.State, when(r.Since), r.Reached*100, n.InFlight, n.Complete, n.Failed, n.Silent)
					}
					return t.Flush()
				})
			})
		},
	}
	p.flags(c)
	return c
}

func newRolloutShowCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "show N --data DIR",
		Short: "Show a rollout: how far it is, why it stands still, and which machines failed",
		Args:  args(1),
		RunE: func(c *cobra.Command, given []string) error {
			id, err := rolloutNumber(given[0])
			if err != nil {
				return err
			}
			return p.open(c.Context(), func(s *store.Store, _ fleet.Application) error {
				r, err := s.Read().Rollout(c.Context(), id)
				if err != nil {
					return err
				}
				out, err := server.RolloutDetail(c.Context(), s.Read(), &r, r.Reached(time.Now()))
				if err != nil {
					return err
				}
				return show(c, out, func(w io.Writer) error { return rolloutPage(w, &out) })
			})
		},
	}
	p.flags(c)
	return c
}

func rolloutPage(w io.Writer, r *api.RolloutDetail) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	state := r.State + " since " + when(r.Since)
	if r.By != "" {
		state += " by " + r.By
	}
	n := &r.Counted.All
	for _, line := range [][2]string{
		{"rollout", fmt.Sprintf("%d: %s in channel %s for %s", r.ID, r.Version, r.Channel, r.Arch)},
		{"state", state},
		{"why", r.Why},
		{"reached", fmt.Sprintf("%.3g %% of the machines", r.Reached*100)},
		{"machines", fmt.Sprintf("%d updating, %d healthy, %d failed, %d silent", n.InFlight, n.Complete, n.Failed, n.Silent)},
		{"planned", when(r.Created) + " by " + r.CreatedBy},
	} {
		if line[1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", line[0], line[1])
		}
	}
	for i, f := range r.Failures {
		fmt.Fprintf(t, "%s\t%s  %s  %s: %s\n", first(i, "failures"), when(f.At), f.Machine, f.Step, f.Why)
	}
	return t.Flush()
}
