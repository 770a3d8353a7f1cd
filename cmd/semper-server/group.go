package main

import (
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
)

func newGroupCommand() *cobra.Command {
	return group("group", "Groups of machines: canaries, for instance",
		newGroupListCommand(), newGroupShowCommand(),
		newChangeVerb("create GROUP", "Make a group", 1, func(ctx context.Context, c *client.Client, app string, given []string) (string, error) {
			g, err := c.PutGroup(ctx, given[0], client.PutGroupQuery{App: app})
			return fmt.Sprintf("group %s has %d machines", g.Name, g.Members), err
		}),
		newChangeVerb("delete GROUP", "Forget a group and who belongs to it", 1, func(ctx context.Context, c *client.Client, app string, given []string) (string, error) {
			_, err := c.DeleteGroup(ctx, given[0], client.DeleteGroupQuery{App: app})
			return "group " + given[0] + " is gone", err
		}),
		newChangeVerb("add GROUP MACHINE", "Put a machine into a group, out of the one that it was in", 2, func(ctx context.Context, c *client.Client, app string, given []string) (string, error) {
			_, err := c.PutMember(ctx, given[1], client.PutMemberQuery{App: app}, api.Member{Group: given[0]})
			return "machine " + given[1] + " is in group " + given[0], err
		}),
		newChangeVerb("remove MACHINE", "Take a machine out of its group", 1, func(ctx context.Context, c *client.Client, app string, given []string) (string, error) {
			_, err := c.PutMember(ctx, given[0], client.PutMemberQuery{App: app}, api.Member{})
			return "machine " + given[0] + " is in no group", err
		}))
}

func newGroupListCommand() *cobra.Command {
	return newVerb("list", "List groups", 0,
		func(ctx context.Context, c *client.Client, app string, _ []string) (api.Groups, error) {
			return c.Groups(ctx, client.GroupsQuery{App: app})
		},
		func(w io.Writer, out api.Groups) error {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "GROUP\tMACHINES\tSINCE")
			for _, g := range out.Groups {
				fmt.Fprintf(t, "%s\t%d\t%s\n", g.Name, g.Members, when(g.Created))
			}
			return t.Flush()
		})
}

func newGroupShowCommand() *cobra.Command {
	return newVerb("show GROUP", "List a group's machines", 1,
		func(ctx context.Context, c *client.Client, app string, given []string) (api.Members, error) {
			return c.AllMembers(ctx, given[0], client.GroupQuery{App: app})
		},
		func(w io.Writer, out api.Members) error {
			for _, m := range out.Machines {
				if _, err := fmt.Fprintln(w, m); err != nil {
					return err
				}
			}
			return nil
		})
}
