package store

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
)

const overRollout, openRollout, otherRollout = 1, 2, 3

// stepped is a store with some machines and rollouts: the first one is over, the others are under way in two channels.
func stepped(t *testing.T, name string, machines ...string) *Store {
	s, _ := filled(t, name)
	write(t, s, func(tx Tx) error {
		ctx := t.Context()
		r := fleet.Release{App: app, Arch: "amd64", Version: "1.1.0", Published: now, Payload: fleet.File{Name: "full.crau", Size: 7}}
		err := errors.Join(tx.AddChannel(ctx, fleet.Channel{App: app, Name: "beta", Arch: r.Arch, Updated: now}), tx.AddRelease(ctx, &r, []byte("m"), []byte("s")))
		for i, state := range []rollout.State{rollout.Aborted, rollout.Ramping, rollout.Ramping} {
			ro := fleet.Rollout{App: app, Channel: []string{"stable", "stable", "beta"}[i], Arch: r.Arch, Release: r, Created: now}
			ro.Version, ro.State, ro.Since = r.Version, state, now
			err = errors.Join(err, tx.AddRollout(ctx, &ro))
		}
		for _, id := range machines {
			m := fleet.Machine{App: app, ID: id, Version: "1.1.0", FirstSeen: now, LastSeen: now}
			err = errors.Join(err, tx.PutMachines(ctx, []Change{{After: &m}}))
		}
		return err
	})
	return s
}

// where lists a machine's steps and where they are.
func where(t *testing.T, s *Store, machine string) (in, beside []string) {
	t.Helper()
	text := func(v *string, scan func(...any) error) error {
		var rollout int64
		var step string
		err := scan(&rollout, &step)
		*v = fmt.Sprint(rollout, " ", step)
		return err
	}
	in, err := list(t.Context(), s.Read().q, "steps", text, "SELECT rollout, step FROM machines WHERE rollout <> 0 AND id = ?", machine)
	if err == nil {
		beside, err = list(t.Context(), s.Read().q, "steps", text, "SELECT rollout, step FROM rollout_steps WHERE machine = ? ORDER BY rollout", machine)
	}
	if err != nil {
		t.Fatal(err)
	}
	return in, beside
}

func TestPlacesOfSteps(t *testing.T) { onBoth(t, testPlacesOfSteps) }

func testPlacesOfSteps(t *testing.T, name string) {
	s := stepped(t, name, "c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9")
	type step struct {
		rollout int64
		step    rollout.Step
	}
	for i, c := range []struct {
		name       string
		steps      []step
		in, beside []string
	}{
		{"the first", []step{{openRollout, rollout.Granted}}, []string{"2 granted"}, nil},
		{"further", []step{{openRollout, rollout.Granted}, {openRollout, rollout.Complete}}, []string{"2 complete"}, nil},
		{"one that is over makes way", []step{{overRollout, rollout.Complete}, {openRollout, rollout.Granted}}, []string{"2 granted"}, nil},
		{"its failure is kept", []step{{overRollout, rollout.Failed}, {openRollout, rollout.Granted}}, []string{"2 granted"}, []string{"1 failed"}},
		{"and so is silence", []step{{overRollout, rollout.Silent}, {openRollout, rollout.Granted}, {openRollout, rollout.Failed}}, []string{"2 failed"}, []string{"1 silent"}},
		{"one under way stays", []step{{openRollout, rollout.Complete}, {otherRollout, rollout.Granted}}, []string{"2 complete"}, []string{"3 granted"}},
		{"and the other goes on", []step{{openRollout, rollout.Complete}, {otherRollout, rollout.Granted}, {otherRollout, rollout.Complete}}, []string{"2 complete"}, []string{"3 complete"}},
		{"and so does the first", []step{{openRollout, rollout.Granted}, {otherRollout, rollout.Granted}, {openRollout, rollout.Complete}}, []string{"2 complete"}, []string{"3 granted"}},
		{"one that was left makes way", []step{{openRollout, rollout.None}, {otherRollout, rollout.Granted}}, []string{"3 granted"}, nil},
		{"not for one that is beside", []step{{openRollout, rollout.Granted}, {otherRollout, rollout.Granted}, {openRollout, rollout.None}, {otherRollout, rollout.Complete}}, []string{"2 "}, []string{"3 complete"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			id := fmt.Sprint("c", i)
			for _, st := range c.steps {
				write(t, s, func(tx Tx) error {
					return putSteps(t.Context(), tx, app, []MachineStep{{st.rollout, fleet.RolloutStep{Machine: id, Step: st.step, Since: now}}})
				})
			}
			in, beside := where(t, s, id)
			if !slices.Equal(in, c.in) || !slices.Equal(beside, c.beside) {
				t.Errorf("with the machine %q, beside %q; want %q and %q", in, beside, c.in, c.beside)
			}
		})
	}
}

// TestStepsInBothPlaces asks for steps, and moves them, wherever they are.
func TestStepsInBothPlaces(t *testing.T) { onBoth(t, testStepsInBothPlaces) }

func testStepsInBothPlaces(t *testing.T, name string) {
	s := stepped(t, name, "a", "b", "c", "d")
	ctx := t.Context()
	at := func(rollout int64, machine string, step rollout.Step, after time.Duration) MachineStep {
		return MachineStep{rollout, fleet.RolloutStep{Machine: machine, Step: step, Since: now.Add(after), Why: machine, Canary: machine == "a"}}
	}
	write(t, s, func(tx Tx) error {
		return putSteps(ctx, tx, app, []MachineStep{
			at(openRollout, "a", rollout.Complete, 0), at(otherRollout, "a", rollout.Rebooting, 2*time.Second), // beside
			at(otherRollout, "b", rollout.Rebooting, time.Second), // with the machine
			at(otherRollout, "c", rollout.Granted, 0),
		})
	})
	want := func(what string, want ...string) func([]fleet.RolloutStep, error) {
		return func(steps []fleet.RolloutStep, err error) {
			t.Helper()
			var got []string
			for _, st := range steps {
				got = append(got, st.Machine+" "+string(st.Step))
				if st.Why != st.Machine || st.Canary != (st.Machine == "a") || st.Since.Before(now) {
					t.Errorf("%s: %+v", what, st)
				}
			}
			if err != nil || !slices.Equal(got, want) {
				t.Errorf("%s: %q (%v), want %q", what, got, err, want)
			}
		}
	}
	tx := s.Read()
	want("quiet", "b rebooting", "a rebooting")(tx.QuietSteps(ctx, otherRollout, rollout.Rebooting, now.Add(time.Hour), 9))
	want("not yet quiet", "b rebooting")(tx.QuietSteps(ctx, otherRollout, rollout.Rebooting, now.Add(2*time.Second), 9))
	want("one", "b rebooting")(tx.QuietSteps(ctx, otherRollout, rollout.Rebooting, now.Add(time.Hour), 1))
	ro, err := tx.Rollout(ctx, otherRollout)
	if err != nil {
		t.Fatal(err)
	}
	want("not yet running")(tx.RunningSteps(ctx, &ro, rollout.Rebooting, time.Second, 9))
	want("running", "b rebooting", "a rebooting")(tx.RunningSteps(ctx, &ro, rollout.Rebooting, -2*time.Second, 9))
	write(t, s, func(tx Tx) error {
		return tx.MoveSteps(ctx, app, []MachineStep{
			at(otherRollout, "a", rollout.Silent, 3*time.Second), at(otherRollout, "b", rollout.Failed, 4*time.Second),
			at(otherRollout, "d", rollout.Failed, 0), // which has nothing to do with it
		})
	})
	want("failed", "b failed", "a silent")(tx.FailedSteps(ctx, otherRollout, now, 9))
	want("failed since", "b failed")(tx.FailedSteps(ctx, otherRollout, now.Add(4*time.Second), 9))
	want("failed in the first one")(tx.FailedSteps(ctx, openRollout, now, 9))
	steps, err := tx.RolloutSteps(ctx, app, otherRollout, []string{"a", "b", "c", "d", "e"})
	if err != nil || len(steps) != 3 {
		t.Errorf("steps %+v (%v)", steps, err)
	}
	counted, err := tx.CountSteps(ctx, otherRollout)
	if err != nil || counted.All.Failed != 1 || counted.All.Silent != 1 || counted.All.InFlight != 1 || counted.Canary.Silent != 1 {
		t.Errorf("counted %+v (%v)", counted, err)
	}
	found, _, err := tx.SearchMachines(ctx, &Search{App: app, Silent: true, Limit: 9})
	if err != nil || len(found) != 1 || found[0].ID != "a" {
		t.Errorf("silent: %+v (%v)", found, err)
	}
}

// TestForgetSteps forgets what stands beside of rollouts that are long over, but for failures.
func TestForgetSteps(t *testing.T) { onBoth(t, testForgetSteps) }

func testForgetSteps(t *testing.T, name string) {
	s := stepped(t, name, "a", "b", "c")
	ctx := t.Context()
	write(t, s, func(tx Tx) error {
		var steps []MachineStep
		for i, step := range []rollout.Step{rollout.Complete, rollout.Failed, rollout.Silent} {
			id := string(rune('a' + i))
			steps = append(steps, MachineStep{openRollout, fleet.RolloutStep{Machine: id, Step: rollout.Complete, Since: now}}, MachineStep{otherRollout, fleet.RolloutStep{Machine: id, Step: step, Since: now}})
		}
		return putSteps(ctx, tx, app, steps)
	})
	forget := func(want int64) {
		t.Helper()
		write(t, s, func(tx Tx) error {
			n, err := tx.ForgetSteps(ctx, now.Add(time.Hour), 9)
			if n != want {
				t.Errorf("%d are forgotten, want %d", n, want)
			}
			return err
		})
	}
	forget(0) // they are under way
	write(t, s, func(tx Tx) error {
		ro, err := tx.Rollout(ctx, otherRollout)
		ro.State = rollout.Done
		return errors.Join(err, tx.PutRollout(ctx, &ro))
	})
	forget(1)
	if _, beside := where(t, s, "b"); !slices.Equal(beside, []string{"3 failed"}) {
		t.Errorf("left: %q", beside)
	}
}

// TestStepsByIndex asks SQLite how it would look for steps: nothing may go through all machines.
func TestStepsByIndex(t *testing.T) {
	s := stepped(t, t.TempDir(), "a")
	for what, query := range map[string]string{
		"quiet":   selectSteps + " WHERE rollout = 1 AND step = 'rebooting' AND step <> 'complete' AND since < 5 AND last_seen < 5 ORDER BY since LIMIT 9",
		"running": selectSteps + " WHERE rollout = 1 AND step = 'rebooting' AND step <> 'complete' AND version = '1' AND last_seen - since >= 5 ORDER BY since LIMIT 9",
		"failed":  selectSteps + " WHERE rollout = 1 AND step IN ('failed', 'silent') AND step <> 'complete' AND since >= 5 ORDER BY since DESC, machine LIMIT 9",
		"silent":  "SELECT alias FROM machines WHERE app = 'x' AND id > 'y' AND " + silentHere,
	} {
		plan, err := list(t.Context(), s.Read().q, "explain", func(v *string, scan func(...any) error) error {
			var a, b, c any
			return scan(&a, &b, &c, v)
		}, "EXPLAIN QUERY PLAN "+strings.ReplaceAll(query, "?", "1"))
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Join(plan, "\n")
		if !strings.Contains(all, "machines_due") || strings.Contains(all, "SCAN machines") || strings.Contains(all, "SCAN rollout_steps") {
			t.Errorf("%s:\n%s", what, all)
		}
	}
}
