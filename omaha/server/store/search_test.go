package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
)

// silenced has machines fall silent in a rollout under way, and in one that is over.
func silenced(t *testing.T, tx Tx, now time.Time, ids ...string) error {
	t.Helper()
	ctx := t.Context()
	r := fleet.Release{App: omaha.SemperApp, Arch: "amd64", Version: "1.1.0", Published: now, Payload: fleet.File{Name: "full.crau", Size: 7}}
	err := errors.Join(tx.AddChannel(ctx, fleet.Channel{App: r.App, Name: "stable", Arch: r.Arch, Updated: now}), tx.AddRelease(ctx, &r, []byte("m"), []byte("s")))
	for i, state := range []rollout.State{rollout.Aborted, rollout.Ramping} {
		ro := fleet.Rollout{App: r.App, Channel: "stable", Arch: r.Arch, Release: r, Created: now, CreatedBy: "me"}
		ro.Version, ro.State, ro.Since = r.Version, state, now
		err = errors.Join(err, tx.AddRollout(ctx, &ro))
		steps := []MachineStep{{ro.ID, fleet.RolloutStep{Machine: "00000011", Step: rollout.Silent, Since: now}}}
		if i == 1 {
			steps[0].Step = rollout.Failed
			for _, id := range ids {
				steps = append(steps, MachineStep{ro.ID, fleet.RolloutStep{Machine: id, Step: rollout.Silent, Since: now}})
			}
		}
		err = errors.Join(err, putSteps(ctx, tx, r.App, steps))
	}
	return err
}

// putSteps has machines come to steps that they were not at.
func putSteps(ctx context.Context, tx Tx, app string, steps []MachineStep) error {
	for _, s := range steps {
		known, err := tx.KnownMachines(ctx, app, []string{s.Machine})
		if err != nil {
			return err
		}
		after := known[0].Machine
		if err := tx.PutMachines(ctx, []Change{{Before: &known[0], After: &after, Steps: []MachineStep{s}}}); err != nil {
			return err
		}
	}
	return nil
}

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
			if err := silenced(t, tx, now, "00000003", "00000009"); err != nil {
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
			{"failed", Search{States: []fleet.State{fleet.Failed}}, 1, []string{last}, 1},
			{"failed, or with no update yet", Search{States: []fleet.State{fleet.Failed, fleet.Unknown}}, machines, nil, 120},
			{"part of a platform", Search{Platform: "EM", Channel: "beta"}, 1, []string{last}, 1},
			{"silent", Search{Silent: true}, 2, []string{"00000003", "00000009"}, 1},
			{"silent of a group", Search{Silent: true, Group: "canary"}, 1, []string{"00000003"}, 1},
			{"silent and failed", Search{Silent: true, States: []fleet.State{fleet.Failed}}, 0, nil, 1},
			{"failed with another version", Search{States: []fleet.State{fleet.Failed}, Version: "1.1.0"}, 0, nil, 1},
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
