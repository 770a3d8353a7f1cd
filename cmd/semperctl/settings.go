package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/config"
)

// dropInFolder is where semperctl writes settings: the administrator's.
const dropInFolder = "etc/semper/update.d"

// set writes one setting and has semperd read it. An empty value takes the setting out again.
func (p *program) set(c *cobra.Command, key, value string) error {
	var now config.Settings
	var err error
	if value == "" {
		now, err = config.RemoveKey(p.root, dropInFolder, config.DropInName, key)
	} else {
		now, err = config.WriteDropIn(p.root, dropInFolder, config.DropInName, map[string]any{key: value})
	}
	if err != nil {
		return err
	}
	if _, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbReload}); err != nil {
		return fmt.Errorf("/%s/%s is written, but semperd did not read it: %w", dropInFolder, config.DropInName, err)
	}
	if from, ok := now.Origin[key]; ok && filepath.Base(from.File) != config.DropInName {
		return fault.New(fault.Input, "/%s/%s is written, but %s overrides it", dropInFolder, config.DropInName, from)
	}
	return nil
}

func (p *program) status(c *cobra.Command) (*agent.Report, error) {
	reply, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbStatus})
	if err != nil {
		return nil, err
	}
	if reply.Status == nil {
		return nil, fault.New(fault.Input, "semperd's answer has no status")
	}
	return reply.Status, nil
}

func (p *program) channelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "channel [NAME]",
		Short: "Show the channel, or move the machine to another one",
		Long: "Show the channel that the machine follows, or move it to another one; the next check then asks for that. A channel whose newest version is older than what runs\n" +
			"brings nothing until it has a newer one. For root.",
		Args: atMostOne("channel"),
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				if err := p.set(c, "channel", args[0]); err != nil {
					return err
				}
				return p.say("the machine follows channel " + args[0])
			}
			r, err := p.status(c)
			if err != nil {
				return err
			}
			if p.json {
				return p.print(map[string]string{"channel": r.Channel})
			}
			return p.say(r.Channel)
		},
	}
}

func (p *program) pinCommand() *cobra.Command {
	var off bool
	c := &cobra.Command{
		Use:   "pin [VERSION]",
		Short: "Install no version but this one",
		Long:  "Show the version that the machine is pinned to, or pin it to one: no other is installed. --off ends that. For root.",
		Args:  atMostOne("version"),
		RunE: func(c *cobra.Command, args []string) error {
			switch {
			case off && len(args) == 1:
				return fault.New(fault.Usage, "%s: --off and a version contradict each other", c.CommandPath())
			case off:
				if err := p.set(c, "pin", ""); err != nil {
					return err
				}
				return p.say("the machine is no longer pinned by semperctl")
			case len(args) == 1:
				if err := p.set(c, "pin", args[0]); err != nil {
					return err
				}
				return p.say("the machine installs nothing but version " + args[0])
			}
			r, err := p.status(c)
			if err != nil {
				return err
			}
			if p.json {
				return p.print(map[string]string{"pin": r.Pin})
			}
			if r.Pin == "" {
				return p.say("not pinned")
			}
			return p.say(r.Pin)
		},
	}
	c.Flags().BoolVar(&off, "off", false, "end the pinning")
	return c
}

func atMostOne(what string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) > 1 || len(args) == 1 && args[0] == "" {
			return fault.New(fault.Usage, "%s takes at most one %s, got %q", c.CommandPath(), what, args)
		}
		return nil
	}
}

func (p *program) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "The agent's settings", Args: noArgs, RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(&cobra.Command{
		Use:   "show",
		Short: "Every setting, its value, and where it came from",
		Long:  "Every setting that is in force in semperd, its value, and the file and line that set it.",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			reply, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbConfig})
			if err != nil {
				return err
			}
			if p.json {
				return p.print(reply.Config)
			}
			return p.lines(strings.Split(strings.TrimSuffix(reply.Text, "\n"), "\n"))
		},
	})
	return c
}
