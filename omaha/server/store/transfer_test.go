package store

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
)

// dump is all that a database holds, as text.
func dump(t *testing.T, s *Store) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	for _, table := range tables {
		rows, err := s.db.reader().query(t.Context(), "SELECT * FROM "+table.name+" ORDER BY 1, 2")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		columns, err := rows.Columns()
		if err != nil {
			t.Fatal(err)
		}
		for rows.Next() {
			values, into := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				into[i] = &values[i]
			}
			if err := rows.Scan(into...); err != nil {
				t.Fatal(err)
			}
			row := map[string]any{}
			for i, c := range columns {
				row[c] = values[i]
			}
			out[table.name] = append(out[table.name], fmt.Sprint(row))
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// fillAll has a row in each table.
func fillAll(t *testing.T, name string) *Store {
	t.Helper()
	s, m := filled(t, name)
	ctx := t.Context()
	write(t, s, func(tx Tx) error {
		r := fleet.Release{App: app, Arch: "amd64", Version: "1.1.0", Published: now, Payload: fleet.File{Name: "full.crau", Size: 7}, URLs: []string{"http://127.0.0.1/"}}
		if err := tx.AddRelease(ctx, &r, []byte{0, 1, 0xff}, nil); err != nil {
			return err
		}
		ro := fleet.Rollout{App: app, Channel: "stable", Arch: "amd64", Release: r, Created: now, CreatedBy: "me"}
		ro.Version, ro.State, ro.Since = r.Version, rollout.Ramping, now
		if err := tx.AddRollout(ctx, &ro); err != nil {
			return err
		}
		over := ro
		over.State = rollout.Aborted
		if err := tx.AddRollout(ctx, &over); err != nil {
			return err
		}
		failed := MachineStep{over.ID, fleet.RolloutStep{Machine: m.ID, Step: rollout.Failed, Canary: true, Since: now}}
		granted := MachineStep{ro.ID, fleet.RolloutStep{Machine: m.ID, Step: rollout.Granted, Canary: true, Since: now}}
		return errors.Join(
			putSteps(ctx, tx, app, []MachineStep{failed, granted}),
			tx.AddBlob(ctx, r.Payload, now),
			tx.PutFreshness(ctx, &fleet.Freshness{App: app, Channel: "stable", Arch: "amd64", Envelope: []byte("e"), Version: "1.1.0", Issued: now, Expires: now, Stored: now}),
			tx.PutMachines(ctx, []Change{{
				Before: &Known{Machine: m},
				After:  &m,
				Events: []fleet.Event{{Event: omaha.Failed("1.1.0", 44, "größer\x00\xff"), At: now, Version: "1.0.0"}},
			}}),
			tx.AddFailure(ctx, app, m.ID, &fleet.Failure{Version: "1.1.0", At: now, Reason: "r"}),
			tx.AddToken(ctx, Token{ID: "t", Role: fleet.Viewer, Created: now}),
			tx.PutRebootClaim(ctx, &fleet.RebootClaim{Group: "default", ID: "x", Holds: true, Since: now, Seen: now}),
			tx.AddAudit(ctx, &fleet.Audit{At: now, Who: "me", What: "w"}),
			tx.AddGroup(ctx, app, "g", now),
			tx.SetMember(ctx, app, m.ID, "g"),
			tx.PutPin(ctx, &fleet.Pin{App: app, Machine: m.ID, At: now}),
			tx.AddSample(ctx, app, now),
			tx.AddRolloutSample(ctx, ro.ID, &RolloutSample{At: now, Reached: 0.125, Updating: 1}),
			tx.PutPackages(ctx, r.ID, []byte("[]")),
			tx.PutRequest(ctx, &Request{At: now, Answer: []byte("{}")}),
			tx.AddWebhook(ctx, &Webhook{ID: "w", URL: "https://x", Secret: "s", Events: []string{"halt"}, Created: now}),
			tx.AddDelivery(ctx, &Delivery{Webhook: "w", Event: "halt", Body: []byte("b"), At: now}),
			tx.PutPerson(ctx, &fleet.Person{ID: "oidc:x", Name: "Ada", Via: fleet.ViaOIDC, Groups: []string{"g"}, Created: now}),
			tx.AddSession(ctx, &fleet.Session{SHA256: [32]byte{1}, Person: "oidc:x", Created: now, Seen: now}),
			tx.AddSession(ctx, &fleet.Session{SHA256: [32]byte{2}, Token: "t", Created: now, Seen: now}),
			tx.AddLink(ctx, &fleet.Link{SHA256: [32]byte{3}, Person: "oidc:x", Created: now, Expires: now}),
		)
	})
	return s
}

// TestFill moves a whole state from one database to another of each kind and back, and goes on there.
func TestFill(t *testing.T) {
	onBoth(t, func(t *testing.T, name string) {
		from := fillAll(t, name)
		want := dump(t, from)
		for _, table := range tables {
			if len(want[table.name]) == 0 {
				t.Errorf("the test has nothing in %s", table.name)
			}
		}
		onBoth(t, func(t *testing.T, name string) {
			to := create(t, name)
			if err := to.Fill(t.Context(), from); err != nil {
				t.Fatal(err)
			}
			if got := dump(t, to); !equalButForText(got, want) {
				t.Errorf("copied:\n%v\nwant:\n%v", got, want)
			}
			if err := to.Fill(t.Context(), from); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "not empty") {
				t.Errorf("a second time: %v", err)
			}
			write(t, to, func(tx Tx) error { // ids go on
				r := fleet.Release{App: app, Arch: "amd64", Version: "1.2.0", Published: now, Payload: fleet.File{Name: "x", Size: 1}}
				err := tx.AddRelease(t.Context(), &r, nil, nil)
				if r.ID != 2 {
					t.Errorf("the next release is %d", r.ID)
				}
				return err
			})
		})
	})
}

// equalButForText compares what PostgreSQL cannot hold as what it holds instead.
func equalButForText(a, b map[string][]string) bool {
	plain := func(m map[string][]string) map[string][]string {
		out := map[string][]string{}
		for k, rows := range m {
			for _, r := range rows {
				out[k] = append(out[k], strings.NewReplacer("\x00", "\uFFFD", "\xff", "\uFFFD").Replace(r))
			}
		}
		return out
	}
	return reflect.DeepEqual(plain(a), plain(b))
}

func TestCopyTo(t *testing.T) {
	onBoth(t, func(t *testing.T, name string) {
		s := fillAll(t, name)
		dir := t.TempDir()
		if err := s.CopyTo(t.Context(), dir); err != nil {
			t.Fatal(err)
		}
		copied, err := Open(t.Context(), dir)
		if err != nil {
			t.Fatal(err)
		}
		defer copied.Close()
		if got, want := dump(t, copied), dump(t, s); !reflect.DeepEqual(got, want) {
			t.Errorf("copied:\n%v\nwant:\n%v", got, want)
		}
		if err := s.CopyTo(t.Context(), dir); err == nil {
			t.Error("a copy over another")
		}
	})
}

// TestCounts changes machines in all ways, and compares what is kept with what there is.
func TestCounts(t *testing.T) {
	onBoth(t, func(t *testing.T, name string) {
		s, m := filled(t, name)
		ctx := t.Context()
		check := func(step string, want []FleetCount) {
			t.Helper()
			got, err := s.Read().CountFleet(ctx, app)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v (%v), want %+v", step, got, err, want)
			}
			if afresh, err := s.Read().CountAfresh(ctx, app); err != nil || !reflect.DeepEqual(afresh, want) {
				t.Errorf("%s: counted afresh %+v (%v), want %+v", step, afresh, err, want)
			}
		}
		check("one", []FleetCount{{"stable", "amd64", "1.0.0", fleet.Granted, 1}})
		after, other := m, m
		after.Version, after.State = "1.1.0", fleet.Complete
		other.ID = "m2"
		write(t, s, func(tx Tx) error {
			return tx.PutMachines(ctx, []Change{{Before: &Known{Machine: m}, After: &after}, {After: &other}})
		})
		check("moved, and another", []FleetCount{{"stable", "amd64", "1.0.0", fleet.Granted, 1}, {"stable", "amd64", "1.1.0", fleet.Complete, 1}})
		write(t, s, func(tx Tx) error {
			quiet, err := tx.Quiet(ctx, now.Add(time.Hour), 10)
			if err != nil || len(quiet) != 2 {
				return fmt.Errorf("quiet machines %+v: %w", quiet, err)
			}
			asked := quiet[0] // it asks between the look and the mark
			asked.LastSeen = asked.LastSeen.Add(time.Hour)
			for _, c := range []struct {
				machines []fleet.Machine
				want     int64
			}{{[]fleet.Machine{asked}, 0}, {quiet, 2}, {quiet, 0}} {
				if n, err := tx.Retire(ctx, c.machines, now.Add(2*time.Hour)); err != nil || n != c.want {
					t.Errorf("%d retired (%v), want %d", n, err, c.want)
				}
			}
			return nil
		})
		check("retired", []FleetCount{})
		back, err := s.Read().Machine(ctx, app, "m2")
		if err != nil || back.Retired.IsZero() {
			t.Errorf("machine %+v (%v)", back, err)
		}
		write(t, s, func(tx Tx) error { return tx.PutMachines(ctx, []Change{{Before: &Known{Machine: back}, After: &back}}) })
		check("back", []FleetCount{{"stable", "amd64", "1.0.0", fleet.Granted, 1}})
		got, err := s.Read().Machines(ctx, app, "", false, 10)
		if err != nil || len(got) != 1 || got[0].ID != "m2" {
			t.Errorf("machines that count: %+v (%v)", got, err)
		}
		if got, err = s.Read().Machines(ctx, app, "", true, 10); err != nil || len(got) != 1 || got[0].ID != "m1" {
			t.Errorf("retired machines: %+v (%v)", got, err)
		}
	})
}

func TestPostgresRefuses(t *testing.T) {
	for _, c := range []struct {
		name, change, want string
		kind               fault.Kind
	}{
		{"newer schema", fmt.Sprintf("UPDATE semper_schema SET version = %d", len(migrations)+1), fmt.Sprintf("its schema has version %d and this semper-server only knows versions up to %d", len(migrations)+1, len(migrations)), fault.Input},
		{"another program", "DROP TABLE semper_schema", "another program's tables", fault.Input},
		{"broken", "DELETE FROM semper_schema", "no rows", fault.IO},
	} {
		t.Run(c.name, func(t *testing.T) {
			url := schema(t)
			create(t, url).Close()
			db, err := sql.Open("pgx", url)
			if err != nil {
				t.Fatal(err)
			}
			defer db.Close()
			if _, err := db.ExecContext(t.Context(), c.change); err != nil {
				t.Fatal(err)
			}
			if _, err := Create(t.Context(), url); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	t.Run("nothing there", func(t *testing.T) {
		if _, err := Open(t.Context(), schema(t)); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "holds no server's data") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("nobody answers", func(t *testing.T) {
		_, err := Create(t.Context(), "postgres://u:secret@/db?host="+filepath.Join(t.TempDir(), "nobody"))
		if !fault.Is(err, fault.IO) || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v", err)
		}
	})
	t.Run("no URL", func(t *testing.T) {
		_, err := Create(t.Context(), "postgres://u:secret@host:port/db")
		if !fault.Is(err, fault.Usage) || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v", err)
		}
	})
}

func TestTranslate(t *testing.T) {
	for query, want := range map[string]string{
		"SELECT a WHERE b = ? AND c = ?":                                 "SELECT a WHERE b = $1 AND c = $2",
		"SELECT a WHERE b = ?2 OR b = ?1 OR c = ?2":                      "SELECT a WHERE b = $2 OR b = $1 OR c = $2",
		"SELECT a WHERE b = ? AND c IN (SELECT value FROM json_each(?))": "SELECT a WHERE b = $1 AND c = ANY (ARRAY(SELECT value FROM json_array_elements_text(CAST($2 AS json))))",
	} {
		for range 2 { // the second time from memory
			if got := translate(query); got != want {
				t.Errorf("%s becomes %s, want %s", query, got, want)
			}
		}
	}
}

func TestBulk(t *testing.T) {
	columns := []any{[]string{"a"}, []int64{1}, []string{"b"}}
	const rows = "unnest($1::text[], $2::bigint[], $3::text[]) AS r (c1, c2, c3)"
	for query, want := range map[string]string{
		"INSERT INTO t (a, b, c, d) VALUES (?, ?, ?, 0) ON CONFLICT (a) DO UPDATE SET b = excluded.b": "INSERT INTO t (a, b, c, d) SELECT r.c1, r.c2, r.c3, 0 FROM " + rows +
			" ON CONFLICT (a) DO UPDATE SET b = excluded.b",
		"UPDATE t SET a = ?1, b = CASE WHEN b > ?2 THEN b ELSE ?2 END WHERE c = ?3": "UPDATE t SET a = r.c1, b = CASE WHEN b > r.c2 THEN b ELSE r.c2 END FROM " + rows + " WHERE c = r.c3",
		"DELETE FROM t WHERE a = ? AND b = ? AND c = ?":                             "DELETE FROM t USING " + rows + " WHERE a = r.c1 AND b = r.c2 AND c = r.c3",
		"SELECT a FROM t WHERE a = ? AND b = ?":                                     "SELECT q.* FROM " + rows + ", LATERAL (SELECT a FROM t WHERE a = r.c1 AND b = r.c2 OFFSET 0) AS q",
		"VACUUM":                                                                    "",
	} {
		if got := bulk(query, columns); got != want {
			t.Errorf("%s becomes\n%s, want\n%s", query, got, want)
		}
	}
}

// TestOldPostgres brings forward what the first server made that knew PostgreSQL.
func TestOldPostgres(t *testing.T) {
	url := schema(t)
	all := migrations
	migrations = all[:postgresFirst]
	func() {
		defer func() { migrations = all }()
		create(t, url).Close()
	}()
	s := fillAll(t, url)
	if got := dump(t, s); len(got["samples"]) != 1 || len(got["audit"]) != 1 {
		t.Errorf("brought forward: %v", got)
	}
}
