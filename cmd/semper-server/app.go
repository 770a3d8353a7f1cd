package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
)

func newAppCommand() *cobra.Command {
	return group("app", "Look at applications and add some", newAppListCommand(), newAppAddCommand())
}

func newAppListCommand() *cobra.Command {
	return newVerb("list", "List applications", 0,
		func(ctx context.Context, c *client.Client, _ string, _ []string) (api.Applications, error) {
			return c.Applications(ctx)
		},
		func(w io.Writer, out api.Applications) error {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tID\tSINCE")
			for _, a := range out.Applications {
				fmt.Fprintf(t, "%s\t%s\t%s\n", a.Name, a.ID, when(a.Created))
			}
			return t.Flush()
		})
}

func newAppAddCommand() *cobra.Command {
	var channels []string
	c := newChangeVerb("add NAME ID", "Add an application with its channels", 2,
		func(ctx context.Context, c *client.Client, _ string, given []string) (string, error) {
			_, err := c.PutApplication(ctx, given[0], api.NewApplication{ID: given[1], Channels: channels})
			return "application " + given[0] + " is there", err
		})
	c.Long = "The id is the one that its machines send: a UUID, with braces or without. Flatcar's is e96281a6-d1af-4bde-9a0a-97b76e56dc57."
	c.Flags().StringArrayVar(&channels, "channel", []string{"stable", "beta", "alpha"}, "a channel, for each architecture; repeatable")
	return c
}
