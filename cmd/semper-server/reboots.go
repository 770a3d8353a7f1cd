package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
)

func newRebootsCommand() *cobra.Command {
	return group("reboots", "Look at reboot locks, change groups, free slots", newRebootsListCommand(), newRebootsSetCommand(), newRebootsReleaseCommand())
}

// rebootGroup is a group with its machines, as --json prints it.
type rebootGroup struct {
	Name    string            `json:"name"`
	Slots   int               `json:"slots"`
	Lease   string            `json:"lease"`
	Holders []api.RebootClaim `json:"holders"`
	Waiting []api.RebootClaim `json:"waiting"`
}

func shownGroup(g *api.RebootGroup) rebootGroup {
	return rebootGroup{Name: g.Name, Slots: g.Slots, Lease: g.Lease, Holders: g.Holders, Waiting: g.Queue}
}

func newRebootsListCommand() *cobra.Command {
	return newVerb("list", "List groups, who has a slot, and who waits for one", 0,
		func(ctx context.Context, c *client.Client, _ string, _ []string) ([]rebootGroup, error) {
			all, err := c.RebootGroups(ctx)
			out := []rebootGroup{}
			for i := range all.Groups {
				out = append(out, shownGroup(&all.Groups[i]))
			}
			return out, err
		}, listReboots)
}

func listReboots(w io.Writer, groups []rebootGroup) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "GROUP\tSLOTS\tLEASE\tMACHINE\tSTATE\tSINCE")
	for _, g := range groups {
		fmt.Fprintf(t, "%s\t%d\t%s\t%d hold, %d wait\t\t\n", g.Name, g.Slots, g.Lease, len(g.Holders), len(g.Waiting))
		for _, c := range g.Holders {
			fmt.Fprintf(t, "\t\t\t%s\tholds\t%s\n", c.Machine, when(c.Since))
		}
		for _, c := range g.Waiting {
			fmt.Fprintf(t, "\t\t\t%s\twaits\t%s\n", c.Machine, when(c.Since))
		}
	}
	return t.Flush()
}

func newRebootsSetCommand() *cobra.Command {
	var slots int
	var lease time.Duration
	c := newVerb("set GROUP [--slots N] [--lease D]", "Make a group, or change how many of its machines may be down at once", 1,
		func(ctx context.Context, c *client.Client, _ string, given []string) (rebootGroup, error) {
			var set api.SetRebootGroup
			if slots >= 0 {
				set.Slots = &slots
			}
			if lease >= 0 {
				text := lease.String()
				set.Lease = &text
			}
			g, err := c.SetRebootGroup(ctx, given[0], set)
			return shownGroup(&g), err
		},
		func(w io.Writer, g rebootGroup) error {
			_, err := fmt.Fprintf(w, "reboot group %s has %d slots with a lease of %s\n", g.Name, g.Slots, g.Lease)
			return err
		})
	c.Long = "Make a group, or change how many of its machines may be down at once. Fewer slots take nobody's away; 0 lets nobody begin. A lease of 0 keeps a dead\n" +
		"machine's slot until somebody frees it."
	c.Flags().IntVar(&slots, "slots", -1, "how many machines may be down at once (default: as it is, 1 for a new group)")
	c.Flags().DurationVar(&lease, "lease", -1, "how long a silent machine keeps its slot (default: as it is, 1h for a new group)")
	return c
}

// released is a slot that a machine has no more.
type released struct {
	Group   string `json:"group"`
	Machine string `json:"machine"`
}

func newRebootsReleaseCommand() *cobra.Command {
	var why string
	c := newVerb("release GROUP MACHINE [--reason TEXT]", "Take a machine's slot away; it goes into the audit log", 2,
		func(ctx context.Context, c *client.Client, _ string, given []string) (released, error) {
			_, err := c.ReleaseReboot(ctx, given[0], given[1], api.Steer{Reason: why})
			return released{given[0], given[1]}, err
		},
		func(w io.Writer, r released) error {
			_, err := fmt.Fprintf(w, "machine %s has no slot of reboot group %s any more\n", r.Machine, r.Group)
			return err
		})
	c.Flags().StringVar(&why, "reason", "", "why, for the audit log")
	return c
}
