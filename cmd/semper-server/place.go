package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/store"
)

// who is in the audit log for what verbs do on a database. What they do at a running server is there under the token's name.
const who = "semper-server"

// place is where a verb works: a running server, or a database at hand.
type place struct {
	server, tokenFile string
	data              server.Place
}

// dataFlags name a database at hand.
func (p *place) dataFlags(fl *pflag.FlagSet) {
	fl.StringVar(&p.data.Dir, "data", "", "the server's data folder")
	databaseFlag(fl, &p.data.Database)
}

func (p *place) flags(fl *pflag.FlagSet) {
	p.dataFlags(fl)
	fl.StringVar(&p.server, "server", "", "a running server's URL, in place of its data")
	fl.StringVar(&p.tokenFile, "token-file", "", "file that holds a token of that server")
}

// check refuses what names no database.
func (p *place) check() error {
	if p.data.Dir == "" && p.data.Database == "" {
		return fault.New(fault.Usage, "name the server's data folder with --data DIR, or its database with --database URL")
	}
	if p.data.Database != "" && !store.IsURL(p.data.Database) {
		return fault.New(fault.Usage, "--database: want a URL such as postgres://user@host/name")
	}
	return nil
}

// call calls do with a client of the server, or of the database.
func (p *place) call(ctx context.Context, fl *pflag.FlagSet, do func(*client.Client) error) error {
	switch {
	case p.server == "" && p.tokenFile != "":
		return fault.New(fault.Usage, "--token-file is for a running server: name it with --server URL")
	case p.server == "":
		return p.callLocal(ctx, do)
	case p.data.Dir != "" || fl.Changed("database"): // the environment may name one all the time
		return fault.New(fault.Usage, "name a running server with --server URL, or its data with --data DIR or --database URL: not both")
	case p.tokenFile == "":
		return fault.New(fault.Usage, "--server needs --token-file FILE, with a token of that server")
	}
	token, err := client.ReadToken(p.tokenFile)
	if err != nil {
		return err
	}
	c, err := client.NewClient(p.server, token)
	if err != nil {
		return err
	}
	if err = do(c); errors.As(err, new(*client.StatusError)) {
		return fmt.Errorf("%s: %w", p.server, err)
	}
	return err
}

func (p *place) callLocal(ctx context.Context, do func(*client.Client) error) error {
	if err := p.check(); err != nil {
		return err
	}
	l, err := server.OpenLocal(ctx, p.data, who)
	if err != nil {
		return err
	}
	return errors.Join(do(client.NewLocalClient(l)), l.Close())
}

// newVerb is a verb that asks a server something, or has it do something, and shows the answer.
func newVerb[T any](use, short string, n int, ask func(ctx context.Context, c *client.Client, app string, given []string) (T, error), text func(io.Writer, T) error) *cobra.Command {
	var p place
	var app string
	c := &cobra.Command{
		Use:   use + " (--data DIR | --server URL --token-file FILE)",
		Short: short,
		Args:  args(n),
		RunE: func(c *cobra.Command, given []string) error {
			return p.call(c.Context(), c.Flags(), func(s *client.Client) error {
				out, err := ask(c.Context(), s, app, given)
				if err != nil {
					return err
				}
				return show(c, out, func(w io.Writer) error { return text(w, out) })
			})
		},
	}
	p.flags(c.Flags())
	c.Flags().StringVar(&app, "app", api.DefaultApp, "the application's name or id")
	return c
}

// done is what is true after a change.
type done struct {
	Done string `json:"done"`
}

// newChangeVerb is a verb that changes something, and says what is true then.
func newChangeVerb(use, short string, n int, do func(ctx context.Context, c *client.Client, app string, given []string) (string, error)) *cobra.Command {
	return newVerb(use, short, n, func(ctx context.Context, c *client.Client, app string, given []string) (done, error) {
		said, err := do(ctx, c, app, given)
		return done{said}, err
	}, func(w io.Writer, d done) error {
		_, err := fmt.Fprintln(w, d.Done)
		return err
	})
}
