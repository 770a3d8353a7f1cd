package store

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/fleet"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)

const app = "{app}"

func create(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Create(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// filled is a store with an application, a channel and a machine.
func filled(t *testing.T, dir string) (*Store, fleet.Machine) {
	s := create(t, dir)
	m := fleet.Machine{
		App: app, ID: "m1", Alias: "lab", Arch: "amd64", Version: "1.0.0", Channel: "stable", BootID: "b", Platform: "qemu", FirstVersion: "0.9",
		Address: "10.0.0.1", State: fleet.Granted, StateSince: now, Target: "1.1.0", Detail: "d", FirstSeen: now, LastSeen: now,
	}
	write(t, s, func(tx Tx) error {
		return errors.Join(
			tx.AddApplication(t.Context(), fleet.Application{ID: app, Name: "semper", Created: now}),
			tx.AddChannel(t.Context(), fleet.Channel{App: app, Name: "stable", Arch: "amd64", Updated: now}),
			tx.PutMachines(t.Context(), []Change{{After: &m}}),
		)
	})
	return s, m
}

func write(t *testing.T, s *Store, do func(Tx) error) {
	t.Helper()
	if err := s.Write(t.Context(), do); err != nil {
		t.Fatal(err)
	}
}

func TestReopen(t *testing.T) { onBoth(t, testReopen) }

func testReopen(t *testing.T, name string) {
	s, m := filled(t, name)
	release := fleet.Release{
		App: app, Arch: "amd64", Version: "1.1.0", MinVersion: "1.0.0", Published: now,
		Payload: fleet.File{Name: "full.crau", Size: 7, SHA256: sha256.Sum256([]byte("x")), SHA1: [20]byte{1, 2, 3}},
	}
	event := fleet.Event{Event: omaha.Failed("1.2.0", -2147483619, "why"), At: now, Version: "1.0.0"}
	failure := fleet.Failure{Version: "1.2.0", At: now, Code: 44, Reason: "why", Running: "1.1.0"}
	token := Token{ID: "abcd", SHA256: [32]byte{9}, Role: fleet.Publisher, Label: "l", Created: now}
	write(t, s, func(tx Tx) error {
		return errors.Join(
			tx.AddBlob(t.Context(), release.Payload, now),
			tx.AddRelease(t.Context(), &release, []byte("manifest"), []byte("sig")),
			tx.SetChannel(t.Context(), app, "stable", "amd64", 1, now),
			tx.PutMachines(t.Context(), []Change{{Before: &Known{Machine: m}, After: &m, Events: []fleet.Event{event}}}),
			tx.AddFailure(t.Context(), app, "m1", &failure),
			tx.AddToken(t.Context(), token),
		)
	})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	tx, ctx := s.Read(), t.Context()
	check := func(what string, want any) func(any, error) {
		return func(got any, err error) {
			t.Helper()
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %+v (%v), want %+v", what, got, err, want)
			}
		}
	}
	gotMachine, err := tx.Machine(ctx, app, "m1")
	check("machine", m)(gotMachine, err)
	gotRelease, err := tx.Release(ctx, app, "amd64", "1.1.0")
	check("release", release)(gotRelease, err)
	channel, err := tx.Channel(ctx, app, "stable", "amd64")
	check("channel", fleet.Channel{App: app, Name: "stable", Arch: "amd64", Updated: now, Release: &release})(channel, err)
	events, err := tx.Events(ctx, app, "m1")
	check("events", []fleet.Event{event})(events, err)
	failures, err := tx.Failures(ctx, app, "m1")
	check("failures", []fleet.Failure{failure})(failures, err)
	gotToken, err := tx.Token(ctx, "abcd")
	check("token", token)(gotToken, err)
	payload, withdrawn, err := tx.Payload(ctx, release.Payload.SHA256, "full.crau")
	if withdrawn {
		t.Error("the release is withdrawn")
	}
	check("payload", release.Payload)(payload, err)
	if _, _, err := tx.Payload(ctx, release.Payload.SHA256, "other"); !errors.Is(err, ErrNotFound) {
		t.Errorf("payload under another name: %v", err)
	}
	manifest, sig, err := tx.Manifest(ctx, 1)
	if string(manifest) != "manifest" || string(sig) != "sig" || err != nil {
		t.Errorf("manifest %q, %q (%v)", manifest, sig, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Run("nothing there", func(t *testing.T) {
		dir := t.TempDir()
		_, err := Open(t.Context(), dir)
		if !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "holds no server's data") {
			t.Errorf("error %v", err)
		}
		if files, _ := os.ReadDir(dir); len(files) != 0 {
			t.Errorf("it made %v", files)
		}
	})
	for name, c := range map[string]struct{ change, want string }{
		"newer schema":    {fmt.Sprintf("PRAGMA user_version = %d", len(migrations)+1), fmt.Sprintf("its schema has version %d and this semper-server only knows versions up to %d", len(migrations)+1, len(migrations))},
		"another program": {"PRAGMA application_id = 7", "another program's database"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := create(t, dir)
			if _, err := s.db.(*sqlite).conn.ExecContext(t.Context(), c.change); err != nil {
				t.Fatal(err)
			}
			s.Close()
			_, err := Open(t.Context(), dir)
			if !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
	t.Run("not a database", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, fileName), []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), dir); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "not a database") {
			t.Errorf("error %v", err)
		}
	})
}

func TestDurabilitySettings(t *testing.T) {
	s := create(t, t.TempDir())
	for _, c := range []struct{ pragma, want string }{
		{"journal_mode", "wal"}, {"synchronous", "1"}, {"foreign_keys", "1"}, {"user_version", strconv.Itoa(len(migrations))},
	} {
		var got string
		if err := s.db.(*sqlite).conn.QueryRowContext(t.Context(), "PRAGMA "+c.pragma).Scan(&got); err != nil || got != c.want {
			t.Errorf("%s is %q (%v), want %q", c.pragma, got, err, c.want)
		}
	}
}

func TestPathWithOddCharacters(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a b?c#d%41&e=f")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	create(t, dir)
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil || info.Size() == 0 || info.Mode().Perm() != 0o600 {
		t.Errorf("database %v (%v)", info, err)
	}
}

// TestWritesShareCommits lets many writers wait at once: each sees its own result, and a failing or panicking one spoils no other.
func TestWritesShareCommits(t *testing.T) { onBoth(t, testWritesShareCommits) }

func testWritesShareCommits(t *testing.T, name string) {
	s, _ := filled(t, name)
	const n = 100
	refused := errors.New("refused")
	var wg sync.WaitGroup
	errs := make([]error, n)
	for i := range n {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = s.Write(context.Background(), func(tx Tx) error {
				m := fleet.Machine{App: app, ID: fmt.Sprintf("w%03d", i)}
				if err := tx.PutMachines(context.Background(), []Change{{After: &m}}); err != nil {
					return err
				}
				switch i % 10 {
				case 3:
					return refused
				case 7:
					panic("a bug")
				}
				return nil
			})
		}()
	}
	wg.Wait()
	for i, err := range errs {
		ok := err == nil
		switch i % 10 {
		case 3:
			ok = errors.Is(err, refused)
		case 7:
			ok = err != nil && strings.Contains(err.Error(), "a bug")
		}
		if !ok {
			t.Errorf("write %d: %v", i, err)
		}
		_, err := s.Read().Machine(t.Context(), app, fmt.Sprintf("w%03d", i))
		if kept := err == nil; kept != (i%10 != 3 && i%10 != 7) {
			t.Errorf("machine %d kept: %v (%v)", i, kept, err)
		}
	}
}

func TestWriteAfterClose(t *testing.T) { onBoth(t, testWriteAfterClose) }

func testWriteAfterClose(t *testing.T, name string) {
	s := create(t, name)
	s.Close()
	if err := s.Write(t.Context(), func(Tx) error { return nil }); !errors.Is(err, errClosed) {
		t.Errorf("error %v", err)
	}
}

func TestTouch(t *testing.T) { onBoth(t, testTouch) }

func testTouch(t *testing.T, name string) {
	s, m := filled(t, name)
	s.Touch(app, m.ID, "10.0.0.2", now.Add(time.Minute))
	s.Touch(app, "unknown machine", "10.0.0.3", now)
	s.flush()
	got, err := s.Read().Machine(t.Context(), app, m.ID)
	m.LastSeen, m.Address = now.Add(time.Minute), "10.0.0.2"
	if err != nil || got != m {
		t.Errorf("machine %+v (%v), want %+v", got, err, m)
	}
	s.Touch(app, m.ID, "10.0.0.2", now.Add(time.Second)) // an older sight that comes late
	s.flush()
	if got, _ := s.Read().Machine(t.Context(), app, m.ID); !got.LastSeen.Equal(m.LastSeen) {
		t.Errorf("last seen went back to %v", got.LastSeen)
	}
	s.Touch(app, m.ID, "10.0.0.9", now.Add(time.Hour))
	s.Close()
	s = create(t, name)
	if got, _ := s.Read().Machine(t.Context(), app, m.ID); !got.LastSeen.Equal(now.Add(time.Hour)) {
		t.Errorf("the last touch before Close is lost: %v", got.LastSeen)
	}
}

func TestBoundsPerMachine(t *testing.T) { onBoth(t, testBoundsPerMachine) }

func testBoundsPerMachine(t *testing.T, name string) {
	s, _ := filled(t, name)
	m := Known{Machine: fleet.Machine{App: app, ID: "m1"}}
	other := fleet.Machine{App: app, ID: "m2", Events: 1}
	write(t, s, func(tx Tx) error {
		if err := tx.PutMachines(t.Context(), []Change{{After: &other, Events: []fleet.Event{{Version: "mine", At: now}}}}); err != nil {
			return err
		}
		for i := range MaxEvents + 10 {
			after := m.Machine
			after.Events++
			if err := tx.PutMachines(t.Context(), []Change{{Before: &m, After: &after, Events: []fleet.Event{{Version: fmt.Sprint(i), At: now}}}}); err != nil {
				return err
			}
		}
		for i := range MaxFailures + 10 {
			f := fleet.Failure{Version: fmt.Sprintf("1.0.%d", i), At: now.Add(time.Duration(i) * time.Second)}
			if err := tx.AddFailure(t.Context(), app, "m1", &f); err != nil {
				return err
			}
		}
		return nil
	})
	events, err := s.Read().Events(t.Context(), app, "m1")
	if err != nil || len(events) != MaxEvents || events[0].Version != "10" {
		t.Errorf("%d events from %v (%v), want %d from 10", len(events), events[0].Version, err, MaxEvents)
	}
	failures, err := s.Read().Failures(t.Context(), app, "m1")
	if err != nil || len(failures) != MaxFailures || failures[0].Version != "1.0.10" {
		t.Errorf("%d failures from %v (%v), want %d from 1.0.10", len(failures), failures[0].Version, err, MaxFailures)
	}
	if events, _ := s.Read().Events(t.Context(), app, "m2"); len(events) != 1 {
		t.Errorf("the other machine has %d events, want 1", len(events))
	}
	write(t, s, func(tx Tx) error {
		n, err := tx.ForgetFailures(t.Context(), app, "m1")
		if n != MaxFailures {
			t.Errorf("forgot %d", n)
		}
		return err
	})
}

func TestPagesOfMachines(t *testing.T) { onBoth(t, testPagesOfMachines) }

func testPagesOfMachines(t *testing.T, name string) {
	s, _ := filled(t, name)
	write(t, s, func(tx Tx) error {
		for _, id := range []string{"m3", "m2", "m0"} {
			if err := tx.PutMachines(t.Context(), []Change{{After: &fleet.Machine{App: app, ID: id}}}); err != nil {
				return err
			}
		}
		return nil
	})
	var got []string
	for after := ""; ; {
		page, err := s.Read().Machines(t.Context(), app, after, false, 3)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range page {
			got = append(got, m.ID)
		}
		if len(page) < 3 {
			break
		}
		after = page[2].ID
	}
	if want := []string{"m0", "m1", "m2", "m3"}; !reflect.DeepEqual(got, want) {
		t.Errorf("machines %v, want %v", got, want)
	}
}
