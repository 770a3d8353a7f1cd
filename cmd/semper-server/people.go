package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

func newPeopleCommand() *cobra.Command {
	return group("people", "Let people sign in, list and remove them", newPeopleLinkCommand(), newPeopleListCommand(), newPeopleRemoveCommand())
}

func newPeopleLinkCommand() *cobra.Command {
	var p place
	var name, role, address string
	c := &cobra.Command{
		Use:   "link --data DIR [--name NAME --role ROLE]",
		Short: "Make a link with which somebody signs in, once, and print it",
		Long: `Prints a link that is good for one sign-in within 24 hours: hand it over to nobody else. Without a name it is for "` + server.FirstPerson + `", with the role admin.
A name that nobody has who came by a link is a new person, who needs a role. Somebody who is known keeps their role, or has the one that is named from now on.`,
		Args: args(0),
		RunE: func(c *cobra.Command, _ []string) error {
			switch r := fleet.Role(role); {
			case role != "" && !r.Valid():
				return fault.New(fault.Usage, "--role %q: want viewer, operator, publisher or admin", role)
			case role != "" && name == "":
				return fault.New(fault.Usage, "--role %s: name the person too, with --name", role)
			case name == "":
				name, role = server.FirstPerson, string(fleet.Admin)
			}
			if _, err := server.LinkURL(address, ""); err != nil {
				return err
			}
			return p.open(c.Context(), func(s *store.Store, _ fleet.Application) error {
				var secret string
				err := s.Write(c.Context(), func(tx store.Tx) (err error) {
					secret, err = server.NewLink(c.Context(), tx, rand.Reader, name, fleet.Role(role), who, time.Now().UTC())
					return err
				})
				if err != nil {
					return err
				}
				link, err := server.LinkURL(address, secret)
				if err != nil {
					return err
				}
				return show(c, map[string]string{"link": link, "name": name}, func(w io.Writer) error {
					_, err := fmt.Fprintln(w, link)
					return err
				})
			})
		},
	}
	p.flags(c)
	c.Flags().StringVar(&name, "name", "", "who it is for (default: "+server.FirstPerson+")")
	c.Flags().StringVar(&role, "role", "", "viewer, operator, publisher or admin")
	c.Flags().StringVar(&address, "public-url", "http://127.0.0.1:8080", "how browsers reach the server")
	return c
}

// person is one as the list shows them. What groups may do is in the flags of serve, so it is not known here.
type person struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Role     string    `json:"role"` // that was set; empty: by groups
	Groups   []string  `json:"groups"`
	LastSeen time.Time `json:"last_seen,omitzero"`
}

func newPeopleListCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "list --data DIR",
		Short: "List people",
		Args:  args(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.open(c.Context(), func(s *store.Store, _ fleet.Application) error {
				known, err := s.Read().People(c.Context())
				if err != nil {
					return err
				}
				out := make([]person, 0, len(known))
				for _, k := range known {
					out = append(out, person{k.ID, k.Name, string(k.Set), k.Groups, k.Seen})
				}
				return show(c, map[string][]person{"people": out}, func(w io.Writer) error {
					t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "ID\tROLE\tLAST SEEN\tNAME")
					for _, k := range out {
						seen := "never"
						if !k.LastSeen.IsZero() {
							seen = when(k.LastSeen)
						}
						fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", k.ID, cmp.Or(k.Role, "by groups: "+cmp.Or(strings.Join(k.Groups, ", "), "none")), seen, k.Name)
					}
					return t.Flush()
				})
			})
		},
	}
	p.flags(c)
	return c
}

func newPeopleRemoveCommand() *cobra.Command {
	c := newChangeCommand("remove ID", "Forget a person, and end all their sessions", 1,
		func(ctx context.Context, tx store.Tx, _ string, given []string) (string, error) {
			return "the person is removed", server.RemovePerson(ctx, tx, given[0], who, time.Now().UTC())
		})
	c.Long = "The id is in people list. Who may sign in at the OpenID provider, and is in a group that has a role, can come back: take them out of the group first."
	return c
}
