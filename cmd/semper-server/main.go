// Command semper-server is the update server of a fleet, and its operator's tool: serve, machine, group, channel, release, rollout, reboots, token, people, app, backup, restore.
//
// The verbs beside serve, backup and restore are calls of the REST interface (package client): of a running server by its URL and a token or, for who has it at hand, on its
// database, whether a server runs on it or not (server.Local).
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
	"github.com/spf13/pflag"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/blobs"
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

func newRootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "semper-server",
		Short:         "Serve updates to a fleet of machines",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          args(0),
		RunE:          func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	root.PersistentFlags().Bool("json", false, "print machine-readable JSON")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fault.Wrap(fault.Usage, err) })
	root.AddCommand(newServeCommand(), newMachineCommand(), newGroupCommand(), newChannelCommand(), newReleaseCommand(), newRolloutCommand(), newRebootsCommand(), newTokenCommand(), newPeopleCommand(),
		newAppCommand(), newBackupCommand(), newRestoreCommand())
	return root
}

// report prints err for people on stderr or, with --json, as {"error": …, "kind": …} on stdout.
func report(root *cobra.Command, err error) {
	if asJSON(root) {
		_ = json.NewEncoder(os.Stdout).Encode(map[string]string{"error": err.Error(), "kind": fault.KindOf(err).String()})
		return
	}
	fmt.Fprintln(os.Stderr, "semper-server:", err)
}

func asJSON(c *cobra.Command) bool {
	on, _ := c.Root().PersistentFlags().GetBool("json")
	return on
}

// args demands a number of arguments.
func args(n int) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		return fault.Wrap(fault.Usage, cobra.ExactArgs(n)(c, given))
	}
}

// group returns a command that only holds others.
func group(use, short string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: use, Short: short, Args: args(0), RunE: func(c *cobra.Command, _ []string) error { return c.Help() }}
	c.AddCommand(verbs...)
	return c
}

// databaseFlag is where the state is, if it is not in the data folder. What others may not see of it can be in the environment.
func databaseFlag(fl *pflag.FlagSet, into *string) {
	fl.StringVar(into, "database", os.Getenv("SEMPER_DATABASE"), "a PostgreSQL database's URL, as in postgres://user@host/name (default: $SEMPER_DATABASE, else SQLite in the data folder)")
	fl.Lookup("database").DefValue = "" // help does not show it
}

// payloadFlags are where payload files are, if they are not in the data folder.
func payloadFlags(fl *pflag.FlagSet, into *blobs.Location) {
	fl.StringVar(&into.Bucket, "payload-store", "", "where payloads are kept, as in s3://BUCKET/PREFIX, with the credentials of the AWS environment variables or files (default: the data folder)")
	fl.StringVar(&into.Endpoint, "s3-endpoint", "", "the S3 service's URL (default: Amazon's)")
	fl.StringVar(&into.Region, "s3-region", "", "the bucket's region (default: asked from the service)")
}

// show prints v as JSON or, for people, what text writes.
func show(c *cobra.Command, v any, text func(io.Writer) error) error {
	out := c.OutOrStdout()
	if !asJSON(c) {
		return fault.Wrap(fault.IO, text(out))
	}
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return fault.Wrap(fault.IO, e.Encode(v))
}
