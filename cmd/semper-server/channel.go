package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

func newChannelCommand() *cobra.Command {
	return group("channel", "Look at channels and assign releases to them", newChannelListCommand(), newChannelSetCommand(), newChannelPromoteCommand())
}

func newChannelListCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "list --data DIR",
		Short: "List all channels with their releases",
		Args:  args(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				channels, err := server.Channels(c.Context(), s.Read(), app.ID)
				if err != nil {
					return err
				}
				return show(c, channels, func(w io.Writer) error {
					t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "CHANNEL\tARCH\tVERSION\tSINCE")
					for _, ch := range channels.Channels {
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", ch.Name, ch.Arch, cmp.Or(ch.Version, "-"), when(ch.Updated))
					}
					return t.Flush()
				})
			})
		},
	}
	p.flags(c)
	return c
}

func newChannelSetCommand() *cobra.Command {
	var p place
	var arch string
	c := &cobra.Command{
		Use:   "set CHANNEL VERSION --data DIR",
		Short: "Make a published release the current one of a channel",
		Args:  args(2),
		RunE: func(c *cobra.Command, given []string) error {
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				var ch api.Channel
				err := s.Write(c.Context(), func(tx store.Tx) (err error) {
					ch, err = server.SetChannel(c.Context(), tx, app.ID, given[0], arch, given[1], who, time.Now().UTC())
					return err
				})
				if err != nil {
					return err
				}
				return show(c, ch, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "channel %s (%s) now offers %s\n", ch.Name, ch.Arch, ch.Version)
					return err
				})
			})
		},
	}
	p.flags(c)
	c.Flags().StringVar(&arch, "arch", api.DefaultArch, "the architecture")
	return c
}

func newChannelPromoteCommand() *cobra.Command {
	var arch string
	c := newChangeCommand("promote FROM TO", "Give a channel the release that another one has", 2,
		func(ctx context.Context, tx store.Tx, app string, given []string) (string, error) {
			ch, err := server.PromoteRelease(ctx, tx, app, given[0], given[1], arch, who, time.Now().UTC())
			return fmt.Sprintf("channel %s (%s) now offers %s", ch.Name, ch.Arch, ch.Version), err
		})
	c.Long = "Nothing is uploaded. Everybody in the channel is offered it; where it should reach them in steps, plan a rollout instead."
	c.Flags().StringVar(&arch, "arch", api.DefaultArch, "the architecture")
	return c
}
