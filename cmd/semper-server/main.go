// Command semper-server is the update server of a fleet, and its operator's tool: serve, machine, group, channel, release, rollout, reboots, token, people, app, backup, restore.
//
// The verbs beside serve work on the data folder's database, whether a server runs on it or not.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/blobs"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
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

// place is where a verb works: the data folder's database and an application in it.
type place struct {
	dir, database, app string
}

// databaseFlag is where the state is, if it is not in the data folder. What others may not see of it can be in the environment.
func databaseFlag(fl *pflag.FlagSet, into *string) {
	fl.StringVar(into, "database", os.Getenv("SEMPER_DATABASE"), "a PostgreSQL database's URL, as in postgres://user@host/name (default: $SEMPER_DATABASE, else SQLite in the data folder)")
	fl.Lookup("database").DefValue = "" // help does not show it
}

func (p *place) flags(c *cobra.Command) {
	c.Flags().StringVar(&p.dir, "data", "", "the server's data folder")
	databaseFlag(c.Flags(), &p.database)
	c.Flags().StringVar(&p.app, "app", api.DefaultApp, "the application's name or id")
}

// payloadFlags are where payload files are, if they are not in the data folder.
func payloadFlags(fl *pflag.FlagSet, into *blobs.Location) {
	fl.StringVar(&into.Bucket, "payload-store", "", "where payloads are kept, as in s3://BUCKET/PREFIX, with the credentials of the AWS environment variables or files (default: the data folder)")
	fl.StringVar(&into.Endpoint, "s3-endpoint", "", "the S3 service's URL (default: Amazon's)")
	fl.StringVar(&into.Region, "s3-region", "", "the bucket's region (default: asked from the service)")
}

// store opens the database.
func (p *place) store(ctx context.Context) (*store.Store, error) {
	name := cmp.Or(p.database, p.dir)
	if name == "" {
		return nil, fault.New(fault.Usage, "name the server's data folder with --data DIR, or its database with --database URL")
	}
	if p.database != "" && !store.IsURL(p.database) {
		return nil, fault.New(fault.Usage, "--database: want a URL such as postgres://user@host/name")
	}
	return store.Open(ctx, name)
}

// open calls do with the database and the application.
func (p *place) open(ctx context.Context, do func(*store.Store, fleet.Application) error) error {
	s, err := p.store(ctx)
	if err != nil {
		return err
	}
	app, err := s.Read().Application(ctx, p.app)
	if err == nil {
		err = do(s, app)
	}
	if errors.Is(err, store.ErrNotFound) {
		err = fault.Wrap(fault.Input, err)
	}
	return errors.Join(err, s.Close())
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
