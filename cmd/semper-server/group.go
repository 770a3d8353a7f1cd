package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

func newGroupCommand() *cobra.Command {
	return group("group", "Groups of machines: canaries, for instance",
		newGroupListCommand(), newGroupShowCommand(),
		newChangeCommand("create GROUP", "Make a group", 1, func(ctx context.Context, tx store.Tx, app string, given []string) (string, error) {
			g, err := server.AddGroup(ctx, tx, app, given[0], who, time.Now().UTC())
			return fmt.Sprintf("group %s has %d machines", g.Name, g.Members), err
		}),
		newChangeCommand("delete GROUP", "Forget a group and who belongs to it", 1, func(ctx context.Context, tx store.Tx, app string, given []string) (string, error) {
			return "group " + given[0] + " is gone", server.DeleteGroup(ctx, tx, app, given[0], who, time.Now().UTC())
		}),
		newChangeCommand("add GROUP MACHINE", "Put a machine into a group, out of the one that it was in", 2, func(ctx context.Context, tx store.Tx, app string, given []string) (string, error) {
			return "machine " + given[1] + " is in group " + given[0], server.SetMember(ctx, tx, app, given[1], given[0], who, time.Now().UTC())
		}),
		newChangeCommand("remove MACHINE", "Take a machine out of its group", 1, func(ctx context.Context, tx store.Tx, app string, given []string) (string, error) {
			return "machine " + given[0] + " is in no group", server.SetMember(ctx, tx, app, given[0], "", who, time.Now().UTC())
		}))
}

// newChangeCommand is a verb that changes something in one transaction, and says what is true then.
func newChangeCommand(use, short string, n int, do func(ctx context.Context, tx store.Tx, app string, given []string) (string, error)) *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   use + " --data DIR",
		Short: short,
		Args:  args(n),
		RunE: func(c *cobra.Command, given []string) error {
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				var said string
				err := s.Write(c.Context(), func(tx store.Tx) (err error) {
					said, err = do(c.Context(), tx, app.ID, given)
					return err
				})
				if err != nil {
					return err
				}
				return show(c, map[string]string{"done": said}, func(w io.Writer) error {
					_, err := fmt.Fprintln(w, said)
					return err
				})
			})
		},
	}
	p.flags(c)
	return c
}

func newGroupListCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "list --data DIR",
		Short: "List groups",
		Args:  args(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				all, err := s.Read().Groups(c.Context(), app.ID)
				if err != nil {
					return err
				}
				out := api.Groups{Groups: []api.Group{}}
				for _, g := range all {
					out.Groups = append(out.Groups, server.DescribeGroup(g))
				}
				return show(c, out, func(w io.Writer) error {
					t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
					fmt.Fprintln(t, "GROUP\tMACHINES\tSINCE")
					for _, g := range out.Groups {
						fmt.Fprintf(t, "%s\t%d\t%s\n", g.Name, g.Members, when(g.Created))
					}
					return t.Flush()
				})
			})
		},
	}
	p.flags(c)
	return c
}

func newGroupShowCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "show GROUP --data DIR",
		Short: "List a group's machines",
		Args:  args(1),
		RunE: func(c *cobra.Command, given []string) error {
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				g, err := s.Read().Group(c.Context(), app.ID, given[0])
				if err != nil {
					return err
				}
				out := api.Members{Group: server.DescribeGroup(g), Machines: []string{}}
				for after := ""; ; {
					page, err := s.Read().Members(c.Context(), app.ID, g.Name, after, api.MaxPage)
					if err != nil {
						return err
					}
					out.Machines = append(out.Machines, page...)
					if len(page) < api.MaxPage {
						break
					}
					after = page[len(page)-1]
				}
				return show(c, out, func(w io.Writer) error {
					for _, m := range out.Machines {
						if _, err := fmt.Fprintln(w, m); err != nil {
							return err
						}
					}
					return nil
				})
			})
		},
	}
	p.flags(c)
	return c
}
