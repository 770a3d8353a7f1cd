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

func newMachineCommand() *cobra.Command {
	return group("machine", "Look at machines", newMachineListCommand(), newMachineShowCommand(), newMachineWhyCommand(), newMachineRetryCommand(), newMachinePinCommand(), newMachineUnpinCommand())
}

func newMachineListCommand() *cobra.Command {
	var q client.MachinesQuery
	var retired, silent bool
	c := newVerb("list [--text TEXT] [--version V] [--channel C] [--group G] [--state S]", "List all machines that count, or some of them, or those that were not seen for long", 0,
		func(ctx context.Context, c *client.Client, app string, _ []string) (api.Machines, error) {
			q.App = app
			if retired {
				q.Retired = "1"
			}
			if silent {
				q.Silent = "1"
			}
			all, err := c.AllMachines(ctx, q)
			return api.Machines{Machines: all}, err
		},
		func(w io.Writer, out api.Machines) error { return machineTable(w, out.Machines) })
	fl := c.Flags()
	fl.BoolVar(&retired, "retired", false, "those that were not seen for so long that they do not count")
	fl.StringVar(&q.Text, "text", "", "the beginning of an id, or else a part of an id, an alias or an address")
	fl.StringVar(&q.Version, "version", "", "those that run a version")
	fl.StringVar(&q.Channel, "channel", "", "those that follow a channel")
	fl.StringVar(&q.Arch, "arch", "", "those of an architecture")
	fl.StringVar(&q.Group, "group", "", "those in a group")
	fl.StringVar(&q.State, "state", "", "unknown, granted, downloading, downloaded, installed, complete or failed; several with commas between them")
	fl.BoolVar(&silent, "silent", false, "those that fell silent in a rollout under way")
	fl.StringVar(&q.Platform, "platform", "", "those on a platform: a part of its name")
	return c
}

func machineTable(w io.Writer, machines []api.Machine) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "MACHINE\tALIAS\tARCH\tCHANNEL\tVERSION\tSTATE\tTARGET\tLAST SEEN")
	for _, m := range machines {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", m.ID, m.Alias, m.Arch, m.Channel, m.Version, m.State, m.Target, when(m.LastSeen))
	}
	return t.Flush()
}

func newMachineShowCommand() *cobra.Command {
	return newVerb("show ID", "Show one machine: its events, what failed on it, and why it gets an update or none", 1,
		func(ctx context.Context, c *client.Client, app string, ids []string) (*api.MachineDetail, error) {
			m, err := c.Machine(ctx, ids[0], client.MachineQuery{App: app})
			return &m, err
		}, machinePage)
}

func machinePage(w io.Writer, m *api.MachineDetail) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, line := range [][2]string{
		{"machine", m.ID},
		{"alias", m.Alias},
		{"runs", m.Version + " on " + m.Arch},
		{"channel", m.Channel},
		{"state", m.State + " since " + when(m.StateSince)},
		{"target", m.Target},
		{"detail", m.Detail},
		{"platform", m.Platform},
		{"first seen", when(m.FirstSeen)},
		{"last seen", when(m.LastSeen) + " at " + m.Address},
		{"why", m.Why.Sentence},
	} {
		if line[1] != "" {
			fmt.Fprintf(t, "%s\t%s\n", line[0], line[1])
		}
	}
	for i, f := range m.FailedVersions {
		fmt.Fprintf(t, "%s\t%s  %s: %s\n", first(i, "failed"), when(f.At), f.Version, f.Reason)
	}
	for i, e := range m.Events {
		fmt.Fprintf(t, "%s\t%s  %s  %s\n", first(i, "events"), when(e.At), e.Version, e.Sentence)
	}
	return t.Flush()
}

// first puts a heading on the first line of several.
func first(i int, heading string) string {
	if i > 0 {
		return ""
	}
	return heading
}

func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

func newMachineWhyCommand() *cobra.Command {
	return newVerb("why ID", "Say why a machine gets an update or none, and when it may", 1,
		func(ctx context.Context, c *client.Client, app string, ids []string) (api.Why, error) {
			return c.Why(ctx, ids[0], client.WhyQuery{App: app})
		},
		func(w io.Writer, out api.Why) error {
			_, err := fmt.Fprintln(w, out.Sentence)
			return err
		})
}

func newMachineRetryCommand() *cobra.Command {
	var id string
	return newVerb("retry ID", "Let a machine have the versions again that failed on it", 1,
		func(ctx context.Context, c *client.Client, app string, ids []string) (api.Forgotten, error) {
			id = ids[0]
			return c.ForgetFailures(ctx, id, client.ForgetFailuresQuery{App: app})
		},
		func(w io.Writer, out api.Forgotten) error {
			_, err := fmt.Fprintf(w, "forgot %d failed version(s) of machine %s\n", out.Forgotten, id)
			return err
		})
}
