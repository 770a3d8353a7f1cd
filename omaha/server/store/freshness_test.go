package store

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/fleet"
)

func TestFreshness(t *testing.T) { onBoth(t, testFreshness) }

func testFreshness(t *testing.T, name string) {
	s, _ := filled(t, name)
	ctx := t.Context()
	if _, err := s.Read().Freshness(ctx, app, "stable", "amd64"); !errors.Is(err, ErrNotFound) {
		t.Errorf("before there is one: %v", err)
	}
	f := fleet.Freshness{
		App: app, Channel: "stable", Arch: "amd64", Envelope: []byte("e1"), Version: "1.1.0", Issued: now.Truncate(time.Second),
		Expires: now.Truncate(time.Second).Add(time.Hour), Sequence: 7, Stored: now,
	}
	write(t, s, func(tx Tx) error { return tx.PutFreshness(ctx, &f) })
	f.Envelope, f.Sequence = bytes.Repeat([]byte("x"), 16384), 8
	write(t, s, func(tx Tx) error { return tx.PutFreshness(ctx, &f) })
	s.Close()
	s = create(t, name)
	got, err := s.Read().Freshness(ctx, app, "stable", "amd64")
	if err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("after reopening %+v (%v), want %+v", got, err, f)
	}
	all, err := s.Read().AllFreshness(ctx)
	if err != nil || !reflect.DeepEqual(all, []fleet.Freshness{f}) {
		t.Errorf("all %+v (%v)", all, err)
	}
	for name, change := range map[string]func(*fleet.Freshness){
		"too large":       func(f *fleet.Freshness) { f.Envelope = append(f.Envelope, 'x') },
		"unknown channel": func(f *fleet.Freshness) { f.Channel = "edge" },
		"unknown arch":    func(f *fleet.Freshness) { f.Arch = "arm64" },
	} {
		bad := got
		change(&bad)
		if err := s.Write(ctx, func(tx Tx) error { return tx.PutFreshness(ctx, &bad) }); !fault.Is(err, fault.IO) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestOldSchemas brings databases forward that older servers made.
func TestOldSchemas(t *testing.T) {
	all := migrations
	t.Cleanup(func() { migrations = all })
	for version := 2; version < len(all); version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) { fromSchema(t, all, version) })
	}
}

// oldRows are what an older server has written, in the columns that it knew.
const oldRows = `
INSERT INTO applications (id, name, created_at) VALUES ('{app}', 'semper', 1767323045006);
INSERT INTO blobs (sha256, sha1, size, added_at) VALUES (?1, ?2, 7, 1767323045006);
INSERT INTO releases (id, app, arch, version, min_version, manifest, signature, published_at) VALUES (1, '{app}', 'amd64', '1.1.0', '1.0.0', x'6d', x'73', 1767323045006);
INSERT INTO files (release, role, name, sha256) VALUES (1, 'full', 'full.crau', ?1);
INSERT INTO channels (app, name, arch, release, updated_at) VALUES ('{app}', 'stable', 'amd64', 1, 1767323045006);
INSERT INTO machines (app, id, alias, arch, version, channel, boot_id, platform, first_version, address, state, state_since, target, detail, first_seen, last_seen)
	VALUES ('{app}', 'm1', 'lab', 'amd64', '1.0.0', 'stable', 'b', 'qemu', '0.9', '10.0.0.1', 'granted', 1767323045006, '1.1.0', 'd', 1767323045006, 1767323045006);
INSERT INTO machines (app, id, alias, arch, version, channel, boot_id, platform, first_version, address, state, state_since, target, detail, first_seen, last_seen)
	VALUES ('{app}', 'm2', '', 'amd64', '1.0.0', 'stable', '', '', '', '', 'granted', 1767323045006, '', '', 1767323045006, 1767323045006);
INSERT INTO events (app, machine, at, type, result, code, version, previous_version, next_version, reason) VALUES ('{app}', 'm1', 1767323045006, 13, 1, 0, '1.0.0', '', '', '');
INSERT INTO events (app, machine, at, type, result, code, version, previous_version, next_version, reason) VALUES ('{app}', 'm2', 1767323045006, 3, 1, 0, '1.0.0', '', '', '');
INSERT INTO events (app, machine, at, type, result, code, version, previous_version, next_version, reason) VALUES ('{app}', 'm1', 1767323045006, 14, 1, 0, '1.0.0', '', '', '');
`

func fromSchema(t *testing.T, all []migration, version int) {
	dir := t.TempDir()
	migrations = all[:version]
	path := filepath.Join(dir, fileName)
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(migrateSQLite(t.Context(), conn), conn.Close()); err != nil {
		t.Fatal(err)
	}
	sum := strings.Repeat("ab", 32)
	for row := range strings.SplitSeq(strings.TrimSpace(oldRows), ";\n") {
		if strings.Contains(row, "INTO files ") && version >= 6 {
			row = strings.ReplaceAll(strings.ReplaceAll(row, "sha256)", "sha256, sha1, size)"), "?1)", "?1, ?2, 7)")
		}
		if strings.Contains(row, "INTO events ") && version >= 7 {
			row = strings.NewReplacer("machine, at", "machine, seq, at", "'m1', 1767323045006, 13", "'m1', 1, 1767323045006, 13", "'m1', 1767323045006, 14", "'m1', 2, 1767323045006, 14",
				"'m2', 1767323045006", "'m2', 1, 1767323045006").Replace(row)
		}
		row = strings.ReplaceAll(strings.ReplaceAll(row, "?1", "'"+sum+"'"), "?2", "'"+strings.Repeat("cd", 20)+"'")
		if _, err := db.ExecContext(t.Context(), row); err != nil {
			t.Fatalf("%v in %s", err, row)
		}
	}
	if version >= 7 {
		for _, row := range []string{
			"UPDATE machines SET events = (SELECT count(*) FROM events WHERE events.app = machines.app AND events.machine = machines.id)",
			"INSERT INTO machine_counts SELECT app, channel, arch, version, state, count(*) FROM machines GROUP BY app, channel, arch, version, state",
		} {
			if _, err := db.ExecContext(t.Context(), row); err != nil {
				t.Fatalf("%v in %s", err, row)
			}
		}
	}
	db.Close()
	migrations = all
	s := create(t, dir)
	m := fleet.Machine{
		App: app, ID: "m1", Alias: "lab", Arch: "amd64", Version: "1.0.0", Channel: "stable", BootID: "b", Platform: "qemu", FirstVersion: "0.9",
		Address: "10.0.0.1", State: fleet.Granted, StateSince: now, Target: "1.1.0", Detail: "d", FirstSeen: now, LastSeen: now, Events: 2,
	}
	if events, err := s.Read().Events(t.Context(), app, "m1"); err != nil || len(events) != 2 || events[0].Type != 13 || events[1].Type != 14 {
		t.Errorf("events %+v (%v)", events, err)
	}
	if counts, err := s.Read().CountFleet(t.Context(), app); err != nil || !reflect.DeepEqual(counts, []FleetCount{{"stable", "amd64", "1.0.0", fleet.Granted, 2}}) {
		t.Errorf("counts %+v (%v)", counts, err)
	}
	if got, err := s.Read().Machine(t.Context(), app, "m1"); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("machine %+v (%v), want %+v", got, err, m)
	}
	r := fleet.Release{ID: 1, App: app, Arch: "amd64", Version: "1.1.0", MinVersion: "1.0.0", Published: now, Payload: fleet.File{Name: "full.crau", Size: 7}}
	for i := range r.Payload.SHA256 {
		r.Payload.SHA256[i] = 0xab
	}
	for i := range r.Payload.SHA1 {
		r.Payload.SHA1[i] = 0xcd
	}
	want := fleet.Channel{App: app, Name: "stable", Arch: "amd64", Updated: now, Release: &r}
	if got, err := s.Read().Channel(t.Context(), app, "stable", "amd64"); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("channel %+v with %+v (%v), want %+v", got, got.Release, err, r)
	}
	if all, err := s.Read().AllFreshness(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("freshness %+v (%v)", all, err)
	}
}
