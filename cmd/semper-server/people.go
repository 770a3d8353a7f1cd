package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
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
				return checkRole(role)
			case role != "" && name == "":
				return fault.New(fault.Usage, "--role %s: name the person too, with --name", role)
			case name == "":
				name, role = server.FirstPerson, string(fleet.Admin)
			}
			if _, err := server.LinkURL(address, ""); err != nil {
				return err
			}
			secret, err := p.newLink(c.Context(), name, fleet.Role(role))
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
		},
	}
	p.dataFlags(c.Flags())
	c.Flags().StringVar(&name, "name", "", "who it is for (default: "+server.FirstPerson+")")
	c.Flags().StringVar(&role, "role", "", "viewer, operator, publisher or admin")
	c.Flags().StringVar(&address, "public-url", "http://127.0.0.1:8080", "how browsers reach the server")
	return c
}

// newLink makes a link in the database.
func (p *place) newLink(ctx context.Context, name string, role fleet.Role) (secret string, err error) {
	if err := p.check(); err != nil {
		return "", err
	}
	s, err := store.Open(ctx, cmp.Or(p.data.Database, p.data.Dir))
	if err != nil {
		return "", err
	}
	err = s.Write(ctx, func(tx store.Tx) (err error) {
		secret, err = server.NewLink(ctx, tx, rand.Reader, name, role, who, time.Now().UTC())
		return err
	})
	return secret, errors.Join(err, s.Close())
}

func newPeopleListCommand() *cobra.Command {
	return newVerb("list", "List people", 0,
		func(ctx context.Context, c *client.Client, _ string, _ []string) (api.People, error) {
			return c.People(ctx)
		},
		func(w io.Writer, out api.People) error {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "ID\tROLE\tLAST SEEN\tNAME")
			for i := range out.People {
				k := &out.People[i]
				seen := "never"
				if !k.LastSeen.IsZero() {
					seen = when(k.LastSeen)
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", k.ID, roleOf(k), seen, k.Name)
			}
			return t.Flush()
		})
}

// roleOf says what a person may do. What groups give is in the flags of serve, so it is not known from the database alone.
func roleOf(p *api.Person) string {
	if p.RoleFrom == "set" {
		return cmp.Or(p.Role, "none")
	}
	return strings.TrimSpace(p.Role + " by groups: " + cmp.Or(strings.Join(p.Groups, ", "), "none"))
}

func newPeopleRemoveCommand() *cobra.Command {
	c := newChangeVerb("remove ID", "Forget a person, and end all their sessions", 1,
		func(ctx context.Context, c *client.Client, _ string, given []string) (string, error) {
			_, err := c.DeletePerson(ctx, given[0])
			return "the person is removed", err
		})
	c.Long = "The id is in people list. Who may sign in at the OpenID provider, and is in a group that has a role, can come back: take them out of the group first."
	return c
}
