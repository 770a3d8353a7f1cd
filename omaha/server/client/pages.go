package client

import (
	"context"
	"strconv"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
)

// maxPages bounds what a server can have a caller keep and ask for: a search that finds little has pages with little on them.
const maxPages = 100_000

// AllMachines are all pages of a search.
func (c *Client) AllMachines(ctx context.Context, q MachinesQuery) ([]api.Machine, error) {
	all := []api.Machine{}
	q.Limit = strconv.Itoa(api.MaxPage)
	err := pages(q.After, func(after string) (string, error) {
		q.After = after
		page, err := c.Machines(ctx, q)
		all = append(all, page.Machines...)
		return page.Next, err
	})
	return all, err
}

// AllMembers are a group and all its machines.
func (c *Client) AllMembers(ctx context.Context, group string, q GroupQuery) (api.Members, error) {
	all := api.Members{Machines: []string{}}
	q.Limit = strconv.Itoa(api.MaxPage)
	err := pages(q.After, func(after string) (string, error) {
		q.After = after
		page, err := c.Group(ctx, group, q)
		all.Group, all.Machines = page.Group, append(all.Machines, page.Machines...)
		return page.Next, err
	})
	return all, err
}

// pages asks for one page after the other, until there is no next one.
func pages(after string, ask func(after string) (next string, err error)) error {
	for range maxPages {
		next, err := ask(after)
		if err != nil || next == "" {
			return err
		}
		if next == after {
			break
		}
		after = next
	}
	return fault.New(fault.Input, "the server's pages come to no end after %q", after)
}
