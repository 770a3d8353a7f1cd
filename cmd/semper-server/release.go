package main

import (
	"cmp"
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

func newReleaseCommand() *cobra.Command {
	return group("release", "Look at releases, and mark floors and dead ends", newReleaseListCommand(), newReleaseMarkCommand())
}

func newReleaseMarkCommand() *cobra.Command {
	var why, arch string
	c := newChangeCommand("mark VERSION floor|dead-end|open", "Say what a release is on the way to newer ones", 2,
		func(ctx context.Context, tx store.Tx, app string, given []string) (string, error) {
			road := fleet.Road(given[1])
			if given[1] == "open" {
				road = fleet.Open
			}
			_, err := server.MarkRelease(ctx, tx, app, arch, given[0], road, why, who, time.Now().UTC())
			return "release " + given[0] + " (" + arch + ") is " + given[1], err
		})
	c.Long = "A floor is passed through: whoever is older gets it before anything newer (Cincinnati's barrier). A dead end leads nowhere: whoever runs it gets nothing newer by\n" +
		"itself, and is told the reason."
	c.Flags().StringVar(&why, "reason", "", "why; machines are told, and a dead end needs it")
	c.Flags().StringVar(&arch, "arch", api.DefaultArch, "the architecture")
	return c
}

func newReleaseListCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "list --data DIR",
		Short: "List releases, in the order in which they were published",
		Args:  args(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.open(c.Context(), func(s *store.Store, app fleet.Application) error {
				out, err := server.Releases(c.Context(), s.Read(), app.ID)
				if err != nil {
					return err
				}
				return show(c, out, func(w io.Writer) error { return releaseTable(w, out.Releases) })
			})
		},
	}
	p.flags(c)
	return c
}

func releaseTable(w io.Writer, releases []api.Release) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "VERSION\tARCH\tPUBLISHED\tBYTES\tFROM\tMARK")
	for _, r := range releases {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t%s\n", r.Version, r.Arch, when(r.Published), r.Payload.Size, cmp.Or(r.MinVersion, "any"), cmp.Or(r.Road, "-"))
	}
	return t.Flush()
}
