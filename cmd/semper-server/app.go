package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

func newAppCommand() *cobra.Command {
	return group("app", "Look at applications and add some", newAppListCommand(), newAppAddCommand())
}

func newAppListCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "list --data DIR",
		Short: "List applications",
		Args:  args(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.open(c.Context(), func(s *store.Store, _ fleet.Application) error {
				out, err := server.Applications(c.Context(), s.Read())
				if err != nil {
					return err
				}
				return show(c, out, func(w io.Writer) error {
					t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "NAME\tID\tSINCE")
					for _, a := range out.Applications {
						fmt.Fprintf(t, "%s\t%s\t%s\n", a.Name, a.ID, when(a.Created))
					}
					return t.Flush()
				})
			})
		},
	}
	p.flags(c)
	return c
}

func newAppAddCommand() *cobra.Command {
	var channels []string
	c := newChangeCommand("add NAME ID", "Add an application with its channels", 2,
		func(ctx context.Context, tx store.Tx, _ string, given []string) (string, error) {
			err := server.AddApplication(ctx, tx, given[0], given[1], channels, who, time.Now().UTC())
			return "application " + given[0] + " is there", err
		})
	c.Long = "The id is the one that its machines send: a UUID, with braces or without. Flatcar's is e96281a6-d1af-4bde-9a0a-97b76e56dc57."
	c.Flags().StringArrayVar(&channels, "channel", []string{"stable", "beta", "alpha"}, "a channel, for each architecture; repeatable")
	return c
}
