package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// who is in the audit log for what these verbs do.
const who = "semper-server"

func newRebootsCommand() *cobra.Command {
	return group("reboots", "Look at reboot locks, change groups, free slots", newRebootsListCommand(), newRebootsSetCommand(), newRebootsReleaseCommand())
}

// rebootGroup is a group with its machines, as --json prints it.
type rebootGroup struct {
	Name    string        `json:"name"`
	Slots   int           `json:"slots"`
	Lease   string        `json:"lease"`
	Holders []rebootClaim `json:"holders"`
	Waiting []rebootClaim `json:"waiting"`
}

type rebootClaim struct {
	Machine string    `json:"machine"`
	Since   time.Time `json:"since"`
	Seen    time.Time `json:"seen"`
}

func newRebootsListCommand() *cobra.Command {
	var p place
	c := &cobra.Command{
		Use:   "list --data DIR",
		Short: "List groups, who has a slot, and who waits for one",
		Args:  args(0),
		RunE: func(c *cobra.Command, _ []string) error {
			return p.open(c.Context(), func(s *store.Store, _ fleet.Application) error {
				groups, err := s.Read().RebootGroups(c.Context())
				if err != nil {
					return err
				}
				now := time.Now()
				out := []rebootGroup{}
				for _, g := range groups {
					shown := rebootGroup{Name: g.Name, Slots: g.Slots, Lease: g.Lease.String(), Holders: []rebootClaim{}, Waiting: []rebootClaim{}}
					claims, err := s.Read().RebootClaims(c.Context(), g.Name)
					if err != nil {
						return err
					}
					for i := range claims {
						one := rebootClaim{claims[i].ID, claims[i].Since, claims[i].Seen}
						switch {
						case g.Expired(&claims[i], now):
						case claims[i].Holds:
							shown.Holders = append(shown.Holders, one)
						default:
							shown.Waiting = append(shown.Waiting, one)
						}
					}
					out = append(out, shown)
				}
				return show(c, out, func(w io.Writer) error { return listReboots(w, out) })
			})
		},
	}
	p.flags(c)
	return c
}

func listReboots(w io.Writer, groups []rebootGroup) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "GROUP\tSLOTS\tLEASE\tMACHINE\tSTATE\tSINCE")
	for _, g := range groups {
		fmt.Fprintf(t, "%s\t%d\t%s\t%d hold, %d wait\t\t\n", g.Name, g.Slots, g.Lease, len(g.Holders), len(g.Waiting))
		for _, c := range g.Holders {
			fmt.Fprintf(t, "\t\t\t%s\tholds\t%s\n", c.Machine, when(c.Since))
		}
		for _, c := range g.Waiting {
			fmt.Fprintf(t, "\t\t\t%s\twaits\t%s\n", c.Machine, when(c.Since))
		}
	}
	return t.Flush()
}

func newRebootsSetCommand() *cobra.Command {
	var p place
	var slots int
	var lease time.Duration
	c := &cobra.Command{
		Use:   "set GROUP --data DIR [--slots N] [--lease D]",
		Short: "Make a group, or change how many of its machines may be down at once",
		Long: "Make a group, or change how many of its machines may be down at once. Fewer slots take nobody's away; 0 lets nobody begin. A lease of 0 keeps a dead\n" +
			"machine's slot until somebody frees it.",
		Args: args(1),
		RunE: func(c *cobra.Command, given []string) error {
			return p.open(c.Context(), func(s *store.Store, _ fleet.Application) error {
				var g fleet.RebootGroup
				err := s.Write(c.Context(), func(tx store.Tx) (err error) {
					g, err = server.SetRebootGroup(c.Context(), tx, given[0], slots, lease, who, time.Now())
					return err
				})
				if err != nil {
					return err
				}
				shown := rebootGroup{Name: g.Name, Slots: g.Slots, Lease: g.Lease.String()}
				return show(c, shown, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "reboot group %s has %d slots with a lease of %s\n", g.Name, g.Slots, g.Lease)
					return err
				})
			})
		},
	}
	p.flags(c)
	c.Flags().IntVar(&slots, "slots", -1, "how many machines may be down at once (default: as it is, 1 for a new group)")
	c.Flags().DurationVar(&lease, "lease", -1, "how long a silent machine keeps its slot (default: as it is, 1h for a new group)")
	return c
}

func newRebootsReleaseCommand() *cobra.Command {
	var p place
	var why string
	c := &cobra.Command{
		Use:   "release GROUP MACHINE --data DIR [--reason TEXT]",
		Short: "Take a machine's slot away; it goes into the audit log",
		Args:  args(2),
		RunE: func(c *cobra.Command, given []string) error {
			return p.open(c.Context(), func(s *store.Store, _ fleet.Application) error {
				err := s.Write(c.Context(), func(tx store.Tx) error {
					return server.ForceRelease(c.Context(), tx, given[0], given[1], who, why, time.Now())
				})
				if err != nil {
					return err
				}
				return show(c, struct {
					Group   string `json:"group"`
					Machine string `json:"machine"`
				}{given[0], given[1]}, func(w io.Writer) error {
					_, err := fmt.Fprintf(w, "machine %s has no slot of reboot group %s any more\n", given[1], given[0])
					return err
				})
			})
		},
	}
	p.flags(c)
	c.Flags().StringVar(&why, "reason", "", "why, for the audit log")
	return c
}
