package main

import (
	"crypto/rand"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

func newTokenCommand() *cobra.Command { return group("token", "Make tokens", newTokenNewCommand()) }

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
					token, err = server.NewToken(c.Context(), tx, rand.Reader, fleet.Role(role), label, time.Now())
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
