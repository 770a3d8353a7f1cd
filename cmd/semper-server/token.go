package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/fleet"
)

func newTokenCommand() *cobra.Command {
	return group("token", "Make, list and revoke tokens", newTokenNewCommand(), newTokenListCommand(), newTokenRevokeCommand())
}

// made is a new token.
type made struct {
	Role  string `json:"role"`
	Token string `json:"token"`
}

func newTokenNewCommand() *cobra.Command {
	var n api.NewToken
	c := newVerb("new --role ROLE", "Make a token and print it, once: only its hash is kept", 0,
		func(ctx context.Context, c *client.Client, _ string, _ []string) (made, error) {
			t, err := c.NewToken(ctx, n)
			return made{t.Role, t.Secret}, err
		},
		func(w io.Writer, t made) error {
			_, err := fmt.Fprintln(w, t.Token)
			return err
		})
	c.Long = "A server's first administrator has no token yet, nor has anybody who lost it: make one with --data or --database, where the server's data is."
	c.PreRunE = func(*cobra.Command, []string) error { return checkRole(n.Role) }
	c.Flags().StringVar(&n.Role, "role", string(fleet.Viewer), "viewer, operator, publisher or admin")
	c.Flags().StringVar(&n.Label, "label", "", "what the token is for")
	return c
}

func checkRole(role string) error {
	if !fleet.Role(role).Valid() {
		return fault.New(fault.Usage, "--role %q: want viewer, operator, publisher or admin", role)
	}
	return nil
}

func newTokenListCommand() *cobra.Command {
	return newVerb("list", "List tokens, without their secrets", 0,
		func(ctx context.Context, c *client.Client, _ string, _ []string) (api.Tokens, error) {
			return c.Tokens(ctx)
		},
		func(w io.Writer, out api.Tokens) error {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "ID\tROLE\tSINCE\tLABEL")
			for _, k := range out.Tokens {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", k.ID, k.Role, when(k.Created), k.Label)
			}
			return t.Flush()
		})
}

func newTokenRevokeCommand() *cobra.Command {
	c := newChangeVerb("revoke ID", "Make a token worthless at once", 1,
		func(ctx context.Context, c *client.Client, _ string, given []string) (string, error) {
			_, err := c.RevokeToken(ctx, client.TokenID(given[0]))
			return "the token is revoked", err
		})
	c.Long = "The id is in token list, and between the underscores of the token; the whole token does as well."
	return c
}
