package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
)

func newChannelCommand() *cobra.Command {
	return group("channel", "Look at channels and assign releases to them", newChannelListCommand(), newChannelSetCommand(), newChannelPromoteCommand())
}

func newChannelListCommand() *cobra.Command {
	return newVerb("list", "List all channels with their releases", 0,
		func(ctx context.Context, c *client.Client, app string, _ []string) (api.Channels, error) {
			return c.Channels(ctx, client.ChannelsQuery{App: app})
		},
		func(w io.Writer, out api.Channels) error {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "CHANNEL\tARCH\tVERSION\tSINCE")
			for _, ch := range out.Channels {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", ch.Name, ch.Arch, cmp.Or(ch.Version, "-"), when(ch.Updated))
			}
			return t.Flush()
		})
}

func newChannelSetCommand() *cobra.Command {
	var arch string
	c := newVerb("set CHANNEL VERSION", "Make a published release the current one of a channel", 2,
		func(ctx context.Context, c *client.Client, app string, given []string) (api.Channel, error) {
			return c.SetChannel(ctx, given[0], client.SetChannelQuery{App: app, Arch: arch}, api.SetChannel{Version: given[1]})
		},
		func(w io.Writer, ch api.Channel) error {
			_, err := fmt.Fprintln(w, offers(ch))
			return err
		})
	archFlag(c, &arch)
	return c
}

func newChannelPromoteCommand() *cobra.Command {
	var arch string
	c := newChangeVerb("promote FROM TO", "Give a channel the release that another one has", 2,
		func(ctx context.Context, c *client.Client, app string, given []string) (string, error) {
			ch, err := c.Promote(ctx, given[0], given[1], client.SetChannelQuery{App: app, Arch: arch})
			return offers(ch), err
		})
	c.Long = "Nothing is uploaded. Everybody in the channel is offered it; where it should reach them in steps, plan a rollout instead."
	archFlag(c, &arch)
	return c
}

func offers(ch api.Channel) string {
	return fmt.Sprintf("channel %s (%s) now offers %s", ch.Name, ch.Arch, ch.Version)
}

func archFlag(c *cobra.Command, into *string) {
	c.Flags().StringVar(into, "arch", api.DefaultArch, "the architecture")
}
