// Command semper is the image author's tool: keys, lock, build, payload, publish, freshness, verify, vm.
// Each verb is a file of this folder; the work is done by the packages they call.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
)

func main() {
	os.Exit(run())
}

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := newRootCommand()
	err := root.ExecuteContext(ctx)
	if err != nil {
		report(root, err)
	}
	return fault.ExitCode(err)
}

// verbs lists the commands in the order in which an author meets them.
var verbs = []func() *cobra.Command{
	newKeysCommand,
	newLockCommand,
	newBuildCommand,
	newVerifyCommand,
	newPayloadCommand,
	newPublishCommand,
	newFreshnessCommand,
	newVMCommand,
}

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "semper",
		Short:         "Turn Debian packages into a signed, immutable, self-updating Linux system",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().Bool("json", false, "print machine-readable JSON")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fault.New(fault.Usage, "%s: %w (see '%s --help')", c.CommandPath(), err, c.CommandPath())
	})
	for _, v := range verbs {
		root.AddCommand(v())
	}
	return root
}

// report prints err for people on stderr or, with --json, as {"error": …, "kind": …} on stdout.
func report(root *cobra.Command, err error) {
	if errors.As(err, new(printed)) {
		return
	}
	if asJSON, _ := root.PersistentFlags().GetBool("json"); asJSON {
		_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"error": err.Error(), "kind": fault.KindOf(err).String()})
		return
	}
	fmt.Fprintln(os.Stderr, "semper:", err)
}

// printed is an error that is part of what a verb has printed as JSON.
type printed struct{ error }

func (p printed) Unwrap() error { return p.error }

func noArgs(c *cobra.Command, args []string) error { return exactArgs(0)(c, args) }

// exactArgs is cobra.ExactArgs with an error that counts as wrong usage.
func exactArgs(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) != n {
			return fault.New(fault.Usage, "%s takes %d argument(s), got %d (see '%s --help')", c.CommandPath(), n, len(args), c.CommandPath())
		}
		return nil
	}
}
