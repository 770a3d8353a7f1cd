package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/updater/agent"
)

// say prints what was done.
func (p *program) say(text string) error {
	if p.json {
		return p.print(map[string]string{"result": text})
	}
	_, err := fmt.Fprintln(p.out, text)
	return err
}

func (p *program) checkCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "check",
		Short: "Ask the update server now",
		Long:  "Ask the update server now and print its answer. An update that it offers is installed in the background, as after any check. For root.",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			reply, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbCheck})
			if err != nil {
				return err
			}
			return p.say(reply.Text)
		},
	}
}

func (p *program) updateCommand() *cobra.Command {
	var retry bool
	c := &cobra.Command{
		Use:   "update",
		Short: "Ask the update server now, and wait until its update is installed",
		Long:  "Ask the update server now, and wait until its update is installed. Exits with 0 when it is, or when there is none, and with 1 when it failed. For root.",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			reply, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbUpdate, Retry: retry})
			if err != nil {
				return err
			}
			return p.say(reply.Text)
		},
	}
	c.Flags().BoolVar(&retry, "retry", false, "try versions again that failed on this machine")
	return c
}

func (p *program) historyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "history",
		Short: "What the agent did, oldest first",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			reply, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbHistory})
			if err != nil {
				return err
			}
			if p.json {
				if reply.History == nil {
					reply.History = []agent.Entry{}
				}
				return p.print(reply.History)
			}
			for _, e := range reply.History {
				fmt.Fprintf(p.out, "%s  %-12s %s\n", e.At.UTC().Format("2006-01-02 15:04:05"), e.State, e.Text)
			}
			return nil
		},
	}
}
