package main

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
)

func newMachinePinCommand() *cobra.Command {
	var why string
	c := newChangeVerb("pin MACHINE VERSION", "Keep a machine to a version, or with VERSION \"hold\" where it is", 2,
		func(ctx context.Context, c *client.Client, app string, given []string) (string, error) {
			pin, said := api.Pin{Version: given[1], Reason: why}, "machine "+given[0]+" is pinned to "+given[1]
			if pin.Version == "hold" {
				pin.Version, said = "", "machine "+given[0]+" is held where it is"
			}
			_, err := c.PutPin(ctx, given[0], client.PutPinQuery{App: app}, pin)
			return said, err
		})
	c.Flags().StringVar(&why, "reason", "", "why; the machine is told")
	return c
}

func newMachineUnpinCommand() *cobra.Command {
	return newChangeVerb("unpin MACHINE", "Let a machine go with its channel again", 1, func(ctx context.Context, c *client.Client, app string, given []string) (string, error) {
		_, err := c.DeletePin(ctx, given[0], client.DeletePinQuery{App: app})
		return "machine " + given[0] + " goes with its channel", err
	})
}
