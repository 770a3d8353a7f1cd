package store

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/fleet"
)

// TestSearchMachines has more machines than one search looks at, so that what is rare is found by going on.
func TestSearchMachines(t *testing.T) {
	onBoth(t, func(t *testing.T, name string) {
		ctx, now := t.Context(), time.Unix(1_800_000_000, 0).UTC()
		s, err := Create(ctx, name)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		const machines = searchRows + searchRows/2
		app := omaha.SemperApp
		err = s.Write(ctx, func(tx Tx) error {
			if err := tx.AddApplication(ctx, fleet.Application{ID: app, Name: "semper", Created: now}); err != nil {
				return err
			}
			if err := tx.AddGroup(ctx, app, "canary", now); err != nil {
				return err
			}
			changes := make([]Change, machines)
			for i := range changes {
				m := &fleet.Machine{
					App: app, ID: fmt.Sprintf("%08x", i), Alias: fmt.Sprintf("Web_%d", i), Arch: "amd64", Version: "1.0.0", Channel: "stable", State: fleet.Unknown,
					Platform: "qemu", Address: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), FirstSeen: now, LastSeen: now,
				}
				switch {
				case i%1000 == 7:
					m.Version = "1.1.0"
				case i == machines-1:
					m.State, m.LastSeen, m.Channel = fleet.Failed, now.Add(-time.Hour), "beta"
				}
				changes[i].After = m
			}
			if err := tx.PutMachines(ctx, changes); err != nil {
				return err
			}
			for _, id := range []string{"00000003", "00000001", "0000ffff"} {
				if err := tx.SetMember(ctx, app, id, "canary"); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		last := fmt.Sprintf("%08x", machines-1)
		for _, c := range []struct {
			name   string
			search Search
			want   int
			ids    []string // when they are few
			pages  int      // at most
		}{
			{"all", Search{}, machines, nil, 120},
			{"version", Search{Version: "1.1.0"}, machines / 1000, nil, 2},
			{"channel and version", Search{Channel: "stable", Version: "1.1.0"}, machines / 1000, nil, 2},
			{"another channel", Search{Channel: "beta"}, 1, []string{last}, 1},
			{"no such version", Search{Version: "9.9.9"}, 0, nil, 1},
			{"failed", Search{State: fleet.Failed}, 1, []string{last}, 1},
			{"failed with another version", Search{State: fleet.Failed, Version: "1.1.0"}, 0, nil, 1},
			{"group with one that was never seen", Search{Group: "canary"}, 2, []string{"00000001", "00000003"}, 1},
			{"beginning of an id", Search{Text: "000000ff"}, 1, []string{"000000ff"}, 1},
			{"part of an alias", Search{Text: "web_59999"}, 1, []string{last}, 3},
			{"underscore is no pattern", Search{Text: "web%5"}, 0, nil, 3},
			{"address", Search{Text: "10.0.1.2"}, 67, nil, 3}, // and 10.0.1.20 to 29, and 200 to 255
			{"platform", Search{Platform: "azure"}, 0, nil, 3},
			{"not seen", Search{SeenBefore: now.Add(-time.Minute)}, 1, []string{last}, 3},
			{"seen", Search{Channel: "beta", SeenSince: now.Add(-time.Minute)}, 0, nil, 1},
			{"retired", Search{Retired: true}, 0, nil, 1},
			{"another application", Search{App: "{none}"}, 0, nil, 1},
		} {
			t.Run(c.name, func(t *testing.T) {
				if c.search.App == "" {
					c.search.App = app
				}
				c.search.Limit = 1000
				var ids []string
				pages := 0
				for {
					found, next, err := s.Read().SearchMachines(ctx, &c.search)
					if err != nil {
						t.Fatal(err)
					}
					pages++
					for _, m := range found {
						ids = append(ids, m.ID)
					}
					if next == "" {
						break
					}
					if next <= c.search.After || pages > c.pages {
						t.Fatalf("page %d goes on from %q behind %q", pages, next, c.search.After)
					}
					c.search.After = next
				}
				if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
					t.Error("machines are out of order, or twice in the list")
				}
				if len(ids) != c.want {
					t.Errorf("%d machines, want %d", len(ids), c.want)
				}
				for _, id := range c.ids {
					if !slices.Contains(ids, id) {
						t.Errorf("%s is missing", id)
					}
				}
			})
		}
	})
}
