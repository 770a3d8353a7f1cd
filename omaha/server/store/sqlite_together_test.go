package store

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/omaha/server/fleet"
)

func TestLookupTogether(t *testing.T) {
	const query = "SELECT id, alias FROM machines WHERE app = ? AND id = ? ORDER BY id"
	for _, c := range []struct {
		name, query string
		rows        [][]any
		want        string // the statement, empty: each row is asked for
	}{
		{"two", query, pairs("a", []string{"x", "y"}), "SELECT id, alias FROM (SELECT value AS wanted FROM json_each(?2)) CROSS JOIN machines WHERE app = ?1 AND id = wanted ORDER BY id"},
		{"one", query, pairs("a", []string{"x"}), ""},
		{"none", query, nil, ""},
		{"another first argument", query, [][]any{{"a", "x"}, {"b", "x"}}, ""},
		{"number first", query, pairs(int64(1), []string{"x", "y"}), "SELECT id, alias FROM (SELECT value AS wanted FROM json_each(?2)) CROSS JOIN machines WHERE app = ?1 AND id = wanted ORDER BY id"},
		{"number", query, [][]any{{"a", int64(1)}, {"a", int64(2)}}, ""},
		{"not UTF-8", query, pairs("a", []string{"x", "\xff"}), ""},
		{"with NUL", query, pairs("a", []string{"x", "a\x00b"}), ""},
		{"another kind of statement", "SELECT id FROM machines WHERE app = ? OR id = ?", pairs("a", []string{"x", "y"}), ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, args, ok := lookupTogether(c.query, c.rows)
			if ok != (c.want != "") || ok && (got != c.want || len(args) != 2 || args[0] != c.rows[0][0]) {
				t.Errorf("%q %v %v, want %q", got, args, ok, c.want)
			}
		})
	}
}

// TestLookUpOddNames finds machines whose names need care in JSON, and no others.
func TestLookUpOddNames(t *testing.T) { onBoth(t, testLookUpOddNames) }

func testLookUpOddNames(t *testing.T, name string) {
	s, m := filled(t, name)
	ids := []string{`a"b`, `a\b`, "a<b>&c", "a\u2028b", "ä", "a'b", "%", "[1]", "1"}
	err := s.Write(t.Context(), func(tx Tx) error {
		var changes []Change
		for i, id := range ids {
			after := m
			after.ID, after.Alias = id, fmt.Sprint("odd ", i)
			changes = append(changes, Change{After: &after})
		}
		return tx.PutMachines(t.Context(), changes)
	})
	if err != nil {
		t.Fatal(err)
	}
	found, err := s.Read().MachinesByID(t.Context(), app, append(slices.Clone(ids), "a", "b", `"`, "nobody"))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, f := range found {
		got[f.ID] = f.Alias
	}
	if len(found) != len(ids) || len(got) != len(ids) {
		t.Errorf("%d machines: %v", len(found), got)
	}
	for i, id := range ids {
		if got[id] != fmt.Sprint("odd ", i) {
			t.Errorf("machine %q: %q", id, got[id])
		}
	}
}

func TestInsertTogether(t *testing.T) {
	for _, c := range []struct{ query, begin, end string }{
		{"INSERT INTO t (a, b) VALUES (?, 0)", "INSERT INTO t (a, b) VALUES (?, 0), (?, 0), ", ", (?, 0)"},
		{"INSERT INTO t (a) VALUES (?) ON CONFLICT (a) DO NOTHING", "INSERT INTO t (a) VALUES (?), ", ", (?) ON CONFLICT (a) DO NOTHING"},
		{"INSERT INTO t (a, b) VALUES (?1, ?1)", "", ""},
		{"UPDATE t SET a = ? WHERE b = ?", "", ""},
	} {
		got := insertTogether(c.query)
		if (got == "") != (c.begin == "") || !strings.HasPrefix(got, c.begin) || !strings.HasSuffix(got, c.end) || got != "" && strings.Count(got, "(?") != togetherRows {
			t.Errorf("%q: %q", c.query, got)
		}
	}
}

// TestManyRows writes more rows than one statement has, new ones and ones that are there, and finds each as it was written.
func TestManyRows(t *testing.T) { onBoth(t, testManyRows) }

func testManyRows(t *testing.T, name string) {
	s, m := filled(t, name)
	const n = 2*togetherRows + 5
	for round := range 2 {
		write(t, s, func(tx Tx) error {
			var changes []Change
			for i := range n {
				after := m
				after.ID, after.Events = fmt.Sprintf("many-%02d", i), int64(round+1)
				c := Change{After: &after, Events: []fleet.Event{{At: now}}}
				c.Events[0].Reason = fmt.Sprint(round, " of ", i)
				if round > 0 {
					before, err := tx.KnownMachines(t.Context(), app, []string{after.ID})
					if err != nil {
						return err
					}
					c.Before = &before[0]
				}
				changes = append(changes, c)
			}
			return tx.PutMachines(t.Context(), changes)
		})
	}
	for i := range n {
		events, err := s.Read().Events(t.Context(), app, fmt.Sprintf("many-%02d", i))
		if err != nil || len(events) != 2 || events[0].Reason != fmt.Sprint("0 of ", i) || events[1].Reason != fmt.Sprint("1 of ", i) {
			t.Errorf("machine %d: %+v (%v)", i, events, err)
		}
	}
}
