package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/wire"
)

// installSocket is where semper-installd listens. What only a person may wish for is asked there, as root: semperd could not be believed.
const installSocket = "/run/semper/install.sock"

func (p *program) installer(ctx context.Context, do func(*wire.Client) error) error {
	conn, err := wire.Dial(ctx, p.installSocket)
	if err != nil {
		return fmt.Errorf("%w (only root may; see 'systemctl status semper-installd.socket')", err)
	}
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	return do(conn)
}

func (p *program) rollbackCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "rollback",
		Short: "Go back to the version in the other slot",
		Long: "Go back to the version in the other slot: it is what boots next, and the running version is not installed again unless a person says so. The machine reboots\n" +
			"as after an update: by its strategy, in its window, when its lock is free. 'semperctl status' shows what it waits for. For root.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var back string
			err := p.installer(c.Context(), func(i *wire.Client) error {
				st, err := i.Status()
				if err != nil {
					return err
				}
				if st.Other == nil {
					return fault.New(fault.Verification, "slot %s runs, and the other slot holds nothing to go back to", st.Slot)
				}
				back = st.Other.Version
				return i.Rollback(reason)
			})
			if err != nil {
				return err
			}
			// The agent looks by itself within the hour; a person expects it now.
			if _, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbLook}); err != nil {
				return fmt.Errorf("version %s boots next, but the agent was not told: %w", back, err)
			}
			return p.say(fmt.Sprintf("version %s boots next; see 'semperctl status'", back))
		},
	}
	c.Flags().StringVar(&reason, "reason", "asked for by a person", "why, for whoever reads the history")
	return c
}
