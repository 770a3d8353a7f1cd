package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

func newTokenCommand() *cobra.Command {
	return group("token", "Make, list and revoke tokens", newTokenNewCommand(), newTokenListCommand(), newTokenRevokeCommand())
}

func newTokenNewCommand() *cobra.Command {
	var p place
	var role, label string
	c := &cobra.Command{
		Use:   "new --role ROLE --data DIR",
		Short: "Make a token and print it, once: only its hash is kept",
		Args:  args(0),
		RunE: func(c *cobra.Command, _ []string) error {
			if r := fleet.Role(role); !r.Valid() {
				return fault.New(fault.Usage, "--role %q: want viewer, operator, publisher or admin", role)
			}
			return p.open(c.Context(), func(s *store.Store, _ fleet.Application) error {
				var token string
				err := s.Write(c.Context(), func(tx store.Tx) (err error) {
					token, err = server.NewToken(c.Context(), tx, rand.Reader, fleet.Role(role), label, who, time.Now().UTC())
					return err
				})
				if err != nil {
					return err
				}
				return show(c, map[string]string{"token": token, "role": role}, func(w io.Writer) error {
					_, err := fmt.Fprintln(w, token)
					return err
				})
			})
		},
	}
	p.flags(c)
	c.Flags().StringVar(&role, "role", string(fleet.Viewer), "viewer, operator, publisher or admin")
	c.Flags().StringVar(&label, "label", "", "what the token is for")
	return c
}

// token is one as it is shown: nobody can see its secret again.
type token struct {
	ID      string    `json:"id"`
	Role    string    `json:"role"`
	Label   string    `json:"label"`
	Created time.Time `json:"created"`
}

func newTokenListCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "list --data DIR",
		Short: "List tokens, without their secrets",
		Args:  args(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.open(c.Context(), func(s *store.Store, _ fleet.Application) error {
				known, err := s.Read().Tokens(c.Context())
				if err != nil {
					return err
				}
				out := make([]token, 0, len(known))
				for _, t := range known {
					out = append(out, token{t.ID, string(t.Role), t.Label, t.Created})
				}
				return show(c, map[string][]token{"tokens": out}, func(w io.Writer) error {
					t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "ID\tROLE\tSINCE\tLABEL")
					for _, k := range out {
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", k.ID, k.Role, when(k.Created), k.Label)
					}
					return t.Flush()
				})
			})
		},
	}
	p.flags(c)
	return c
}

func newTokenRevokeCommand() *cobra.Command {
	c := newChangeCommand("revoke ID", "Make a token worthless at once", 1,
		func(ctx context.Context, tx store.Tx, _ string, given []string) (string, error) {
			return "the token is revoked", server.RevokeToken(ctx, tx, given[0], who, time.Now().UTC())
		})
	c.Long = "The id is in token list, and between the underscores of the token; the whole token does as well."
	return c
}
