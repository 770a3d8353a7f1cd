package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

func newMachinePinCommand() *cobra.Command {
	var why string
	c := newChangeCommand("pin MACHINE VERSION", "Keep a machine to a version, or with VERSION \"hold\" where it is", 2,
		func(ctx context.Context, tx store.Tx, app string, given []string) (string, error) {
			p := fleet.Pin{App: app, Machine: given[0], Version: given[1], Why: why, Who: who, At: time.Now().UTC()}
			said := "machine " + p.Machine + " is pinned to " + p.Version
			if p.Version == "hold" {
				p.Version, said = "", "machine "+p.Machine+" is held where it is"
			}
			return said, server.PinMachine(ctx, tx, p)
		})
	c.Flags().StringVar(&why, "reason", "", "why; the machine is told")
	return c
}

func newMachineUnpinCommand() *cobra.Command {
	return newChangeCommand("unpin MACHINE", "Let a machine go with its channel again", 1, func(ctx context.Context, tx store.Tx, app string, given []string) (string, error) {
		return "machine " + given[0] + " goes with its channel", server.UnpinMachine(ctx, tx, app, given[0], who, time.Now().UTC())
	})
}

func newMachineWhyCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "why MACHINE --data DIR",
		Short: "Say why a machine gets an update or none, and when it may",
		Args:  args(1),
		RunE: func(c *cobra.Command, given []string) error {
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				m, err := s.Read().Machine(c.Context(), app.ID, given[0])
				if err != nil {
					return err
				}
				out, err := server.Why(c.Context(), s.Read(), &m, time.Now().UTC())
				if err != nil {
					return err
				}
				return show(c, out, func(w io.Writer) error {
					_, err := fmt.Fprintln(w, out.Sentence)
					return err
				})
			})
		},
	}
	p.flags(c)
	return c
}
