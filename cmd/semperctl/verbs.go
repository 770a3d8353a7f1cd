package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/wire"
)

// say prints what was done.
func (p *program) say(text string) error {
	if p.json {
		return p.print(map[string]string{"result": text})
	}
	_, err := fmt.Fprintln(p.out, text)
	return err
}

// lines prints one line after the other.
func (p *program) lines(lines []string) error {
	for _, l := range lines {
		if _, err := fmt.Fprintln(p.out, l); err != nil {
			return fault.Wrap(fault.IO, err)
		}
	}
	return nil
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
	var downgrade string
	c := &cobra.Command{
		Use:   "update",
		Short: "Ask the update server now, and wait until its update is installed",
		Long: "Ask the update server now, and wait until its update is installed. Exits with 0 when it is, or when there is none, and with 1 when it failed. For root.\n\n" +
			"A version that is older than what runs is refused, unless --allow-downgrade names it: then that version alone may be installed, once, within the next hour.\n" +
			"The security epoch of the running version is never gone below.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if downgrade != "" {
				if err := p.installer(c.Context(), func(i *wire.Client) error { return i.Allow(downgrade) }); err != nil {
					return err
				}
				if _, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbRetry, Version: downgrade}); err != nil && !fault.Is(err, fault.Input) {
					return err // Input: it had not failed here before
				}
			}
			reply, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbUpdate, Retry: retry})
			if err != nil {
				return err
			}
			return p.say(reply.Text)
		},
	}
	c.Flags().BoolVar(&retry, "retry", false, "try versions again that failed on this machine")
	c.Flags().StringVar(&downgrade, "allow-downgrade", "", "let this older `VERSION` be installed once")
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
				text := e.Text
				if e.Times > 1 {
					text = fmt.Sprintf("%s (%d checks, the last on %s)", text, e.Times, e.Last.UTC().Format(time.DateTime))
				}
				fmt.Fprintf(p.out, "%s  %-12s %s\n", e.At.UTC().Format(time.DateTime), e.State, text)
			}
			return nil
		},
	}
}
