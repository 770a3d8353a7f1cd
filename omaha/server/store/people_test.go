package store

import (
	"errors"
	"reflect"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
)

func TestPeopleAndSessions(t *testing.T) {
	onBoth(t, func(t *testing.T, name string) {
		s, ctx := create(t, name), t.Context()
		ada := fleet.Person{ID: "oidc:ada/1", Name: "ada@example.org", Via: fleet.ViaOIDC, Issuer: "https://id.example.org", Groups: []string{"ops"}, Created: now}
		bob := fleet.Person{ID: "link:1", Name: "Bob", Via: fleet.ViaLink, Groups: []string{}, Set: fleet.Admin, Created: now, Seen: now}
		session := func(n int, person, token string, seen time.Time) fleet.Session {
			return fleet.Session{SHA256: [32]byte{byte(n), byte(n >> 8), 1}, Person: person, Token: token, Created: now, Seen: seen}
		}
		mine := session(0, ada.ID, "", now)
		byToken := session(1, "", "t1", now)
		write(t, s, func(tx Tx) error {
			return errors.Join(tx.PutPerson(ctx, &ada), tx.PutPerson(ctx, &bob), tx.AddToken(ctx, Token{ID: "t1", Role: fleet.Viewer, Created: now}),
				tx.AddSession(ctx, &mine), tx.AddSession(ctx, &byToken))
		})
		if all, err := s.Read().People(ctx); err != nil || !reflect.DeepEqual(all, []fleet.Person{bob, ada}) {
			t.Errorf("people %+v, %v", all, err)
		}
		if all, seen, err := s.Read().CountPeople(ctx); all != 2 || seen != 1 || err != nil {
			t.Errorf("%d people, %d were here, %v", all, seen, err)
		}
		for _, want := range []fleet.Session{mine, byToken} {
			if got, err := s.Read().Session(ctx, want.SHA256); err != nil || got != want {
				t.Errorf("session %+v, %v", got, err)
			}
		}
		later := now.Add(time.Minute)
		write(t, s, func(tx Tx) error { return tx.SeeSession(ctx, &mine, later) })
		if got, _ := s.Read().Session(ctx, mine.SHA256); got.Seen != later {
			t.Errorf("the session was seen at %v", got.Seen)
		}
		if got, _ := s.Read().Person(ctx, ada.ID); got.Seen != later {
			t.Errorf("ada was seen at %v", got.Seen)
		}

		// A person has so many sessions; the one that was quiet for longest ends.
		write(t, s, func(tx Tx) error {
			for i := range fleet.MaxSessions {
				one := session(i+100, ada.ID, "", now.Add(time.Hour+time.Duration(i)*time.Second))
				if err := tx.AddSession(ctx, &one); err != nil {
					return err
				}
			}
			return nil
		})
		if _, err := s.Read().Session(ctx, mine.SHA256); !errors.Is(err, ErrNotFound) {
			t.Errorf("the oldest session: %v", err)
		}
		if _, err := s.Read().Session(ctx, session(101, "", "", now).SHA256); err != nil {
			t.Errorf("the second session: %v", err)
		}

		// Who is removed has no session, and no link.
		link := fleet.Link{SHA256: [32]byte{7}, Person: bob.ID, Created: now, Expires: later}
		write(t, s, func(tx Tx) error {
			return errors.Join(tx.AddLink(ctx, &link), tx.DeletePerson(ctx, ada.ID), tx.DeleteToken(ctx, "t1"))
		})
		for _, id := range [][32]byte{session(101, "", "", now).SHA256, byToken.SHA256} {
			if _, err := s.Read().Session(ctx, id); !errors.Is(err, ErrNotFound) {
				t.Errorf("a session whose owner is gone: %v", err)
			}
		}
		write(t, s, func(tx Tx) error {
			if got, err := tx.TakeLink(ctx, link.SHA256); err != nil || got != link {
				t.Errorf("link %+v, %v", got, err)
			}
			if _, err := tx.TakeLink(ctx, link.SHA256); !errors.Is(err, ErrNotFound) {
				t.Errorf("a link a second time: %v", err)
			}
			return tx.AddLink(ctx, &link)
		})
		old, quiet, good := session(1, bob.ID, "", now), session(2, bob.ID, "", now), session(3, bob.ID, "", now)
		end := now.Add(fleet.SessionLife)
		quiet.Created, good.Created = end.Add(-time.Hour), end.Add(-time.Hour)
		old.Seen, quiet.Seen, good.Seen = end, end.Add(-fleet.SessionIdle), end
		write(t, s, func(tx Tx) error {
			return errors.Join(tx.AddSession(ctx, &old), tx.AddSession(ctx, &quiet), tx.AddSession(ctx, &good), tx.ForgetSessions(ctx, end))
		})
		for want, one := range map[*fleet.Session]bool{&old: false, &quiet: false, &good: true} {
			if _, err := s.Read().Session(ctx, want.SHA256); (err == nil) != one || want.Over(end) == one {
				t.Errorf("session %+v is there: %v, over: %v", want, err, want.Over(end))
			}
		}
		write(t, s, func(tx Tx) error {
			if _, err := tx.TakeLink(ctx, link.SHA256); !errors.Is(err, ErrNotFound) {
				t.Errorf("a link that is over: %v", err)
			}
			nobody := fleet.Person{ID: "oidc:nobody", Via: fleet.ViaOIDC, Created: now, Seen: now}
			return errors.Join(tx.PutPerson(ctx, &nobody), tx.ForgetRefused(ctx, now.Add(time.Second)), tx.PutPerson(ctx, &ada), tx.DeletePerson(ctx, bob.ID))
		})
		if all, err := s.Read().People(ctx); err != nil || len(all) != 1 || all[0].ID != ada.ID {
			t.Errorf("people at the end: %+v, %v", all, err)
		}
	})
}

// TestPostgresForward brings a database forward that an older server made.
func TestPostgresForward(t *testing.T) {
	all := migrations
	t.Cleanup(func() { migrations = all })
	url := schema(t)
	migrations = all[:postgresFirst]
	create(t, url).Close()
	migrations = all
	s := create(t, url)
	write(t, s, func(tx Tx) error {
		return tx.PutPerson(t.Context(), &fleet.Person{ID: "oidc:x", Via: fleet.ViaOIDC, Created: now})
	})
	if got, err := s.Read().Person(t.Context(), "oidc:x"); err != nil || !got.Seen.IsZero() {
		t.Errorf("person %+v, %v", got, err)
	}
}
