// Command semperctl shows and steers a machine's updates. It asks semperd over its socket; "health" runs the health checks itself.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/agent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run carries out args and returns the exit code: 0 done or nothing to do, 1 failed, 2 wrong usage.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	return runIn(ctx, "/", args, stdout, stderr)
}

// runIn is run with the settings' folders below root.
func runIn(ctx context.Context, folder string, args []string, stdout, stderr io.Writer) int {
	p := &program{out: stdout, root: folder}
	root := &cobra.Command{
		Use:           "semperctl",
		Short:         "See and steer this machine's updates",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	root.PersistentFlags().BoolVar(&p.json, "json", false, "print machine-readable JSON")
	root.PersistentFlags().StringVar(&p.socket, "socket", agent.SocketPath, "semperd's socket")
	root.PersistentFlags().StringVar(&p.installSocket, "install-socket", installSocket, "semper-installd's socket")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fault.New(fault.Usage, "%s: %w (see '%s --help')", c.CommandPath(), err, c.CommandPath())
	})
	root.AddCommand(p.statusCommand(), p.whyCommand(), p.historyCommand(), p.metricsCommand(), p.healthCommand(),
		p.checkCommand(), p.updateCommand(), p.cancelCommand(), p.pauseCommand(), p.resumeCommand(), p.meteredCommand(), p.retryCommand(), p.reloadCommand(),
		p.rollbackCommand(), p.channelCommand(), p.pinCommand(), p.configCommand(), p.etcCommand(), manCommand())
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
	case p.json && !p.printed:
		_ = p.print(map[string]string{"error": err.Error(), "kind": fault.KindOf(err).String()})
	default:
		fmt.Fprintln(stderr, "semperctl:", err)
	}
	return fault.ExitCode(err)
}

type program struct {
	out           io.Writer
	json          bool
	socket        string
	installSocket string
	root          string // where settings are written
	// printed: the verb wrote its JSON itself, and an error is not to become a second value on stdout.
	printed bool
}

func (p *program) print(v any) error {
	enc := json.NewEncoder(p.out)
	enc.SetIndent("", "  ")
	if err := enc.Encode(v); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	return nil
}

func (p *program) ask(ctx context.Context, r agent.Request) (agent.Reply, error) {
	return agent.Ask(ctx, p.socket, r)
}

func noArgs(c *cobra.Command, args []string) error {
	if len(args) != 0 {
		return fault.New(fault.Usage, "%s takes no arguments, got %q (see '%s --help')", c.CommandPath(), args, c.CommandPath())
	}
	return nil
}
