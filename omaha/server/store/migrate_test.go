package store

import (
	"slices"
	"testing"

	"github.com/semper-os/semper/omaha/server/fleet"
)

// rowsOf9 are what a server with schema 9 has written: m1 is in a rollout under way and failed in one that is over, m2 is in two under way, m3 has done one that is over; and
// events of two machines, in the order in which they came.
var rowsOf9 = []string{
	"INSERT INTO applications (id, name, created_at) VALUES ('{app}', 'semper', 1)",
	"INSERT INTO channels (app, name, arch, release, updated_at) VALUES ('{app}', 'stable', 'amd64', NULL, 1)",
	"INSERT INTO channels (app, name, arch, release, updated_at) VALUES ('{app}', 'beta', 'amd64', NULL, 1)",
	machineOf9("m1", "3"), machineOf9("m2", "1"), machineOf9("m3", "0"),
	rolloutOf9("1", "stable", "aborted"), rolloutOf9("2", "stable", "ramping"), rolloutOf9("3", "beta", "ramping"),
	stepOf9("1", "m1", "failed"), stepOf9("2", "m1", "granted"), stepOf9("2", "m2", "complete"), stepOf9("3", "m2", "rebooting"), stepOf9("1", "m3", "complete"),
	eventOf9("m1", "1", "13"), eventOf9("m2", "1", "3"), eventOf9("m1", "2", "14"), eventOf9("m1", "3", "800"),
}

func machineOf9(id, events string) string {
	return `INSERT INTO machines (app, id, alias, arch, version, channel, boot_id, platform, first_version, address, state, state_since, target, detail, first_seen, last_seen, events)
		VALUES ('{app}', '` + id + `', '', 'amd64', '1.0.0', 'stable', '', '', '', '', 'granted', 1, '', '', 1, 1, ` + events + ")"
}

func rolloutOf9(id, channel, state string) string {
	return `INSERT INTO rollouts (id, app, channel, arch, release, plan, state, since, why, who, goes_on, ramp, stood, counted, base, created_at, created_by)
		VALUES (` + id + ", '{app}', '" + channel + "', 'amd64', 1, '{}', '" + state + "', 1, '', '', '', 0, 0, '{}', '{}', 1, '')"
}

func stepOf9(rollout, machine, step string) string {
	return "INSERT INTO rollout_steps (rollout, machine, step, canary, since, why) VALUES (" + rollout + ", '" + machine + "', '" + step + "', 1, 5, 'why')"
}

func eventOf9(machine, seq, kind string) string {
	return `INSERT INTO events (app, machine, seq, at, type, result, code, version, previous_version, next_version, reason) VALUES ('{app}', '` +
		machine + "', " + seq + ", 1, " + kind + ", 1, 0, '1.0.0', '', '', '')"
}

func TestSchema10(t *testing.T) { onBoth(t, testSchema10) }

func testSchema10(t *testing.T, name string) {
	all := migrations
	t.Cleanup(func() { migrations = all })
	migrations = all[:9]
	s := create(t, name)
	write(t, s, func(tx Tx) error {
		r := fleet.Release{App: app, Arch: "amd64", Version: "1.1.0", Published: now, Payload: fleet.File{Name: "full.crau", Size: 7}}
		for i, row := range rowsOf9 {
			if i == 3 { // channels and machines refer to none
				if err := tx.AddRelease(t.Context(), &r, nil, nil); err != nil {
					return err
				}
			}
			if _, err := tx.q.exec(t.Context(), row); err != nil {
				return failed(row, err)
			}
		}
		return nil
	})
	s.Close()
	migrations = all
	s = create(t, name)
	for _, want := range []struct {
		machine string
		steps   []string // wherever they are
		in      int      // how many of them with the machine
		events  []int
	}{
		{"m1", []string{"1 failed", "2 granted"}, 1, []int{13, 14, 800}},
		{"m2", []string{"2 complete", "3 rebooting"}, 1, []int{3}},
		{"m3", []string{"1 complete"}, 0, nil},
	} {
		in, beside := where(t, s, want.machine)
		steps := slices.Sorted(slices.Values(append(slices.Clone(in), beside...)))
		if len(in) != want.in || !slices.Equal(steps, want.steps) {
			t.Errorf("%s: with the machine %q, beside %q", want.machine, in, beside)
		}
		var types []int
		events, err := s.Read().Events(t.Context(), app, want.machine)
		for _, e := range events {
			types = append(types, int(e.Type))
		}
		if err != nil || !slices.Equal(types, want.events) {
			t.Errorf("%s: events %v (%v), want %v", want.machine, types, err, want.events)
		}
	}
	known, err := s.Read().KnownMachines(t.Context(), app, []string{"m1"})
	if err != nil || len(known) != 1 || !known[0].Step.Canary || known[0].Step.Why != "why" || known[0].Step.Since.UnixMilli() != 5 {
		t.Fatalf("%+v (%v)", known, err)
	}
	write(t, s, func(tx Tx) error { // it goes on
		after := known[0].Machine
		after.Events++
		return tx.PutMachines(t.Context(), []Change{{Before: &known[0], After: &after, Events: []fleet.Event{{At: now}}}})
	})
	if events, err := s.Read().Events(t.Context(), app, "m1"); err != nil || len(events) != 4 || !events[3].At.Equal(now) {
		t.Errorf("%+v (%v)", events, err)
	}
}
