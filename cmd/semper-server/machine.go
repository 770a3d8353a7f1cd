package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

func newMachineCommand() *cobra.Command {
	return group("machine", "Look at machines", newMachineListCommand(), newMachineShowCommand(), newMachineWhyCommand(), newMachineRetryCommand(), newMachinePinCommand(), newMachineUnpinCommand())
}

func newMachineListCommand() *cobra.Command {
	var p place
	var search store.Search
	c := &cobra.Command{
		Use:   "list --data DIR [--text TEXT] [--version V] [--channel C] [--group G] [--state S]",
		Short: "List all machines that count, or some of them, or those that were not seen for long",
		Args:  args(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				all := api.Machines{Machines: []api.Machine{}}
				search.App, search.Limit = app.ID, api.MaxPage
				for {
					page, err := server.Machines(c.Context(), s.Read(), &search)
					if err != nil {
						return err
					}
					all.Machines = append(all.Machines, page.Machines...)
					if search.After = page.Next; page.Next == "" {
						break
					}
				}
				return show(c, all, func(w io.Writer) error { return machineTable(w, all.Machines) })
			})
		},
	}
	fl := c.Flags()
	fl.BoolVar(&search.Retired, "retired", false, "those that were not seen for so long that they do not count")
	fl.StringVar(&search.Text, "text", "", "the beginning of an id, or else a part of an id, an alias or an address")
	fl.StringVar(&search.Version, "version", "", "those that run a version")
	fl.StringVar(&search.Channel, "channel", "", "those that follow a channel")
	fl.StringVar(&search.Arch, "arch", "", "those of an architecture")
	fl.StringVar(&search.Group, "group", "", "those in a group")
	fl.Func("state", "unknown, granted, downloading, downloaded, installed, complete or failed; several with commas between them", func(text string) (err error) {
		search.States, err = server.StatesOf(text)
		return err
	})
	fl.BoolVar(&search.Silent, "silent", false, "those that fell silent in a rollout under way")
	fl.StringVar(&search.Platform, "platform", "", "those on a platform: a part of its name")
	p.flags(c)
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
	var p place
	c := &cobra.Command{
		Use:   "show ID --data DIR",
		Short: "Show one machine: its events, what failed on it, and why it gets an update or none",
		Args:  args(1),
		RunE: func(c *cobra.Command, ids []string) error {
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				m, err := server.MachineDetail(c.Context(), s.Read(), app.ID, ids[0], time.Now())
				if err != nil {
					return err
				}
				return show(c, m, func(w io.Writer) error { return machinePage(w, &m) })
			})
		},
	}
	p.flags(c)
	return c
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

func newMachineRetryCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "retry ID --data DIR",
		Short: "Let a machine have the versions again that failed on it",
		Args:  args(1),
		RunE: func(c *cobra.Command, ids []string) error {
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				n, err := forget(c.Context(), s, app.ID, ids[0])
				if err != nil {
					return err
				}
				return show(c, map[string]int64{"forgotten": n}, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "forgot %d failed version(s) of machine %s\n", n, ids[0])
					return err
				})
			})
		},
	}
	p.flags(c)
	return c
}

func forget(ctx context.Context, s *store.Store, app, id string) (n int64, err error) {
	err = s.Write(ctx, func(tx store.Tx) error {
		if _, err := tx.Machine(ctx, app, id); err != nil {
			return fault.Wrap(fault.Input, err)
		}
		n, err = tx.ForgetFailures(ctx, app, id)
		return err
	})
	return n, err
}
