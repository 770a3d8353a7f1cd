package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/client"
)

func newReleaseCommand() *cobra.Command {
	return group("release", "Look at releases, withdraw them, and mark floors and dead ends",
		newReleaseListCommand(), newReleaseMarkCommand(), newReleaseWithdrawCommand(), newReleaseRestoreCommand(), newReleaseAddCommand())
}

func newReleaseMarkCommand() *cobra.Command {
	var why, arch string
	c := newChangeVerb("mark VERSION floor|dead-end|open", "Say what a release is on the way to newer ones", 2,
		func(ctx context.Context, c *client.Client, app string, given []string) (string, error) {
			road := api.Road{Road: given[1], Reason: why}
			if road.Road == "open" {
				road.Road = ""
			}
			_, err := c.MarkRelease(ctx, given[0], client.MarkReleaseQuery{App: app, Arch: arch}, road)
			return "release " + given[0] + " (" + arch + ") is " + given[1], err
		})
	c.Long = "A floor is passed through: whoever is older gets it before anything newer (Cincinnati's barrier). A dead end leads nowhere: whoever runs it gets nothing newer by\n" +
		"itself, and is told the reason."
	c.Flags().StringVar(&why, "reason", "", "why; machines are told, and a dead end needs it")
	archFlag(c, &arch)
	return c
}

func newReleaseWithdrawCommand() *cobra.Command {
	var why, arch string
	c := newChangeVerb("withdraw VERSION --reason TEXT", "Offer and serve a release to nobody any more, at once", 1,
		func(ctx context.Context, c *client.Client, app string, given []string) (string, error) {
			_, err := c.Withdraw(ctx, given[0], client.WithdrawQuery{App: app, Arch: arch}, api.Steer{Reason: why})
			return "release " + given[0] + " (" + arch + ") is withdrawn", err
		})
	c.Long = "Its rollouts are aborted, and downloads are answered with 410. Machines that run it keep it: give them a newer one. What a CDN has cached must be purged there."
	c.Flags().StringVar(&why, "reason", "", "why; machines and people are told")
	archFlag(c, &arch)
	return c
}

func newReleaseRestoreCommand() *cobra.Command {
	var why, arch string
	c := newChangeVerb("restore VERSION", "Undo a withdrawal, but for the rollouts that it ended", 1,
		func(ctx context.Context, c *client.Client, app string, given []string) (string, error) {
			_, err := c.Restore(ctx, given[0], client.RestoreQuery{App: app, Arch: arch}, api.Steer{Reason: why})
			return "release " + given[0] + " (" + arch + ") can be offered again", err
		})
	c.Flags().StringVar(&why, "reason", "", "why, for the audit log")
	archFlag(c, &arch)
	return c
}

func newReleaseAddCommand() *cobra.Command {
	var arch string
	var e api.External
	c := newChangeVerb("add VERSION --url URL --name FILE --size N --sha256 HEX --sha1 HEX", "Add a release whose payload is somewhere else, such as Flatcar's", 1,
		func(ctx context.Context, c *client.Client, app string, given []string) (string, error) {
			_, err := c.PutRelease(ctx, given[0], client.PutReleaseQuery{App: app, Arch: arch}, api.NewRelease{External: &e})
			return "release " + given[0] + " (" + arch + ") is there", err
		})
	c.Long = "Nothing is downloaded or verified here: machines get the addresses, the size and the hashes, and verify what they get."
	fl := c.Flags()
	fl.StringArrayVar(&e.URLs, "url", nil, "a folder with the payload, with a slash at its end; repeatable, tried in this order")
	fl.StringVar(&e.Name, "name", "", "the payload's file name")
	fl.Int64Var(&e.Size, "size", 0, "the payload's size in bytes")
	fl.StringVar(&e.SHA256, "sha256", "", "the payload's SHA-256, 64 hexadecimal digits")
	fl.StringVar(&e.SHA1, "sha1", "", "the payload's SHA-1, 40 hexadecimal digits")
	fl.StringVar(&e.MinVersion, "min-version", "", "the oldest version that can be updated to it")
	archFlag(c, &arch)
	return c
}

func newReleaseListCommand() *cobra.Command {
	return newVerb("list", "List releases, in the order in which they were published", 0,
		func(ctx context.Context, c *client.Client, app string, _ []string) (api.Releases, error) {
			return c.Releases(ctx, client.ReleasesQuery{App: app})
		},
		func(w io.Writer, out api.Releases) error { return releaseTable(w, out.Releases) })
}

func releaseTable(w io.Writer, releases []api.Release) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "VERSION\tARCH\tPUBLISHED\tBYTES\tFROM\tMARK\tWITHDRAWN")
	for _, r := range releases {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\t%s\n", r.Version, r.Arch, when(r.Published), r.Payload.Size, cmp.Or(r.MinVersion, "any"), cmp.Or(r.Road, "-"),
			cmp.Or(r.WithdrawnWhy, "-"))
	}
	return t.Flush()
}
