package main

import (
	"os/user"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/agent"
)

// simple is a verb that sends one request and prints the answer.
func (p *program) simple(use, short, long string, r agent.Request) *cobra.Command {
	return &cobra.Command{
		Use: use, Short: short, Long: long, Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			reply, err := p.ask(c.Context(), r)
			if err != nil {
				return err
			}
			return p.say(reply.Text)
		},
	}
}

func (p *program) cancelCommand() *cobra.Command {
	return p.simple("cancel", "End the check or download that is under way",
		"End the check or download that is under way. What was downloaded is kept; the next check, as planned, goes on from there. To stop for longer, pause. For root.",
		agent.Request{Verb: agent.VerbCancel})
}

func (p *program) resumeCommand() *cobra.Command {
	return p.simple("resume", "End a pause", "End a pause, and check soon. For root.", agent.Request{Verb: agent.VerbResume})
}

func (p *program) reloadCommand() *cobra.Command {
	return p.simple("reload", "Have semperd read its settings again",
		"Have semperd read its settings again. If a file is wrong, the settings in force stay, and the error says what is wrong. For root.", agent.Request{Verb: agent.VerbReload})
}

func (p *program) pauseCommand() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use:   "pause",
		Short: "No checks, no downloads, no reboots until 'semperctl resume'",
		Long: "No checks, no downloads, no reboots until 'semperctl resume'. A download that is under way ends; what was downloaded is kept. The pause survives reboots,\n" +
			"and everybody who looks at the machine sees it and its reason. For root.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			reply, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbPause, Reason: reason, By: whoAmI()})
			if err != nil {
				return err
			}
			return p.say(reply.Text)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, for whoever finds the machine paused")
	return c
}

// whoAmI is the user who typed the command, also below sudo.
func whoAmI() string {
	u, err := user.Current()
	if err != nil {
		return "root"
	}
	return u.Username
}

func (p *program) meteredCommand() *cobra.Command {
	return &cobra.Command{
		Use:       "metered on|off",
		Short:     "On a metered line nothing is downloaded",
		Long:      "On a metered line nothing is downloaded; checks go on. It survives reboots. For root.",
		ValidArgs: []string{"on", "off"},
		Args:      oneOf("on", "off"),
		RunE: func(c *cobra.Command, args []string) error {
			reply, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbMetered, On: args[0] == "on"})
			if err != nil {
				return err
			}
			return p.say(reply.Text)
		},
	}
}

func (p *program) retryCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "retry [VERSION]",
		Short: "Forget that versions failed here",
		Long:  "Forget that a version, or any, failed here: when a server offers it again, it is tried again. For root.",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return fault.New(fault.Usage, "%s takes at most one version, got %q", c.CommandPath(), args)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			r := agent.Request{Verb: agent.VerbRetry}
			if len(args) == 1 {
				r.Version = args[0]
			}
			reply, err := p.ask(c.Context(), r)
			if err != nil {
				return err
			}
			return p.say(reply.Text)
		},
	}
}

func oneOf(words ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == 1 {
			for _, w := range words {
				if args[0] == w {
					return nil
				}
			}
		}
		return fault.New(fault.Usage, "%s wants one of %s, got %q", c.CommandPath(), strings.Join(words, ", "), args)
	}
}

func (p *program) whyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "why",
		Short: "Why this machine runs what it runs, in sentences",
		Long:  "Why this machine runs what it runs, why it has no update or does not reboot into the one it has, and what happens next.",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			reply, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbStatus})
			if err != nil {
				return err
			}
			if reply.Status == nil {
				return fault.New(fault.Input, "semperd's answer has no status")
			}
			sentences := reply.Status.Explain(time.Now())
			if p.json {
				return p.print(map[string][]string{"why": sentences})
			}
			return p.lines(sentences)
		},
	}
}

func (p *program) metricsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "The machine's state in Prometheus' text format",
		Long:  "The machine's state in Prometheus' text format. semperd keeps the same in /run/semper/agent/metrics.prom, for node_exporter's textfile collector.",
		Args:  noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			reply, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbStatus})
			if err != nil {
				return err
			}
			if reply.Status == nil {
				return fault.New(fault.Input, "semperd's answer has no status")
			}
			if p.json {
				return p.print(reply.Status)
			}
			return p.lines(strings.Split(strings.TrimSuffix(reply.Status.Metrics(), "\n"), "\n"))
		},
	}
}
