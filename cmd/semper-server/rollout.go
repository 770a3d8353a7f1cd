package main

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
)

func newRolloutCommand() *cobra.Command {
	return group("rollout", "Plan rollouts, watch, pause, resume and abort them",
		newRolloutPlanCommand(), newRolloutListCommand(), newRolloutShowCommand(),
		newRolloutSteerCommand("start", "Start a draft"),
		newRolloutSteerCommand("pause", "Give the release to no more machines until it is resumed"),
		newRolloutSteerCommand("resume", "Go on with a rollout that was paused, or that stopped by itself"),
		newRolloutSteerCommand("abort", "End a rollout for good; machines that have the release keep it"))
}

func newRolloutPlanCommand() *cobra.Command {
	var f planFlags
	var n api.NewRollout
	c := newVerb("plan VERSION --channel CHANNEL [--start]", "Plan how a published release reaches a channel's machines", 1,
		func(ctx context.Context, c *client.Client, app string, given []string) (api.Rollout, error) {
			n.Version = given[0]
			return c.PlanRollout(ctx, client.PlanRolloutQuery{App: app}, n)
		}, rolloutLine)
	c.PreRunE = func(*cobra.Command, []string) (err error) {
		n.Plan, err = f.plan()
		return err
	}
	c.Long = "Plan how a published release reaches a channel's machines: canaries first, then waves or a ramp, within limits and windows. It stops by itself when too\n" +
		"many machines fail, come back, or fall silent after their reboot. Without --start it stays a draft."
	f.flags(c)
	c.Flags().StringVar(&n.Channel, "channel", "stable", "the channel")
	c.Flags().BoolVar(&n.Start, "start", false, "start it at once")
	archFlag(c, &n.Arch)
	return c
}

func rolloutLine(w io.Writer, r api.Rollout) error {
	_, err := fmt.Fprintf(w, "rollout %d of %s in channel %s (%s) is %s\n", r.ID, r.Version, r.Channel, r.Arch, r.State)
	return err
}

func newRolloutSteerCommand(verb, short string) *cobra.Command {
	var why string
	c := newVerb(verb+" N [--reason TEXT]", short, 1,
		func(ctx context.Context, c *client.Client, _ string, given []string) (api.Rollout, error) {
			return c.SteerRollout(ctx, given[0], verb, api.Steer{Reason: why})
		}, rolloutLine)
	c.PreRunE = isRollout
	c.Flags().StringVar(&why, "reason", "", "why, for the audit log and for whoever looks at the rollout")
	return c
}

// isRollout demands a rollout's number.
func isRollout(_ *cobra.Command, given []string) error {
	if id, err := strconv.ParseInt(given[0], 10, 64); err != nil || id < 1 {
		return fault.New(fault.Usage, "%q is not a rollout's number ('semper-server rollout list' shows them)", given[0])
	}
	return nil
}

func newRolloutListCommand() *cobra.Command {
	return newVerb("list", "List rollouts, newest first", 0,
		func(ctx context.Context, c *client.Client, app string, _ []string) (api.Rollouts, error) {
			return c.Rollouts(ctx, client.RolloutsQuery{App: app})
		},
		func(w io.Writer, out api.Rollouts) error {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "N\tVERSION\tCHANNEL\tARCH\tSTATE\tSINCE\tREACHED\tUPDATING\tHEALTHY\tFAILED\tSILENT")
			for _, r := range out.Rollouts {
				n := &r.Counted.All
				fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%s\t%.3g %%\t%d\t%d\t%d\t%d\n",
					r.ID, r.Version, r.Channel, r.Arch, r.State, when(r.Since), r.Reached*100, n.InFlight, n.Complete, n.Failed, n.Silent)
			}
			return t.Flush()
		})
}

func newRolloutShowCommand() *cobra.Command {
	c := newVerb("show N", "Show a rollout: how far it is, why it stands still, and which machines failed", 1,
		func(ctx context.Context, c *client.Client, _ string, given []string) (*api.RolloutDetail, error) {
			out, err := c.Rollout(ctx, given[0])
			return &out, err
		}, rolloutPage)
	c.PreRunE = isRollout
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
