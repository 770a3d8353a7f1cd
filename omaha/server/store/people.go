package store

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
)

const peopleColumns = "id, name, via, issuer, grps, role, created_at, seen_at"

func scanPerson(p *fleet.Person, scan func(...any) error) error {
	var groups string
	var created, seen int64
	if err := scan(&p.ID, &p.Name, &p.Via, &p.Issuer, &groups, &p.Set, &created, &seen); err != nil {
		return err
	}
	p.Created = fromMillis(created)
	if seen != 0 {
		p.Seen = fromMillis(seen)
	}
	return json.Unmarshal([]byte(groups), &p.Groups)
}

// Person returns the person of an id, or ErrNotFound.
func (tx Tx) Person(ctx context.Context, id string) (fleet.Person, error) {
	var p fleet.Person
	row := tx.q.row(ctx, "SELECT "+peopleColumns+" FROM people WHERE id = ?", id)
	return p, failed("person "+id, scanPerson(&p, row.Scan))
}

// PersonByLink returns the one of that name who comes by links, or ErrNotFound.
func (tx Tx) PersonByLink(ctx context.Context, name string) (fleet.Person, error) {
	var p fleet.Person
	row := tx.q.row(ctx, "SELECT "+peopleColumns+" FROM people WHERE via = 'link' AND name = ? ORDER BY created_at, id LIMIT 1", name)
	return p, failed("person "+name, scanPerson(&p, row.Scan))
}

// People lists all people, by name.
func (tx Tx) People(ctx context.Context) ([]fleet.Person, error) {
	return list(ctx, tx.q, "list people", scanPerson, "SELECT "+peopleColumns+" FROM people ORDER BY name, id")
}

// CountPeople tells how many there are, and how many of them have been here.
func (tx Tx) CountPeople(ctx context.Context) (all, seen int64, err error) {
	err = tx.q.row(ctx, "SELECT count(*), count(CASE WHEN seen_at <> 0 THEN 1 END) FROM people").Scan(&all, &seen)
	return all, seen, failed("count people", err)
}

// PutPerson keeps a person, in place of what was known before.
func (tx Tx) PutPerson(ctx context.Context, p *fleet.Person) error {
	if p.Groups == nil {
		p.Groups = []string{}
	}
	var seen int64
	if !p.Seen.IsZero() {
		seen = millis(p.Seen)
	}
	_, err := tx.q.exec(ctx, "INSERT INTO people ("+peopleColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET name = excluded.name, via = excluded.via, issuer = excluded.issuer, grps = excluded.grps, role = excluded.role,
		created_at = excluded.created_at, seen_at = excluded.seen_at`,
		p.ID, p.Name, string(p.Via), p.Issuer, inOne(p.Groups), string(p.Set), millis(p.Created), seen)
	return failed("keep a person", err)
}

// DeletePerson forgets a person, with all sessions and links; ErrNotFound where there is none of that id.
func (tx Tx) DeletePerson(ctx context.Context, id string) error {
	n, err := tx.q.exec(ctx, "DELETE FROM people WHERE id = ?", id)
	if err != nil {
		return failed("delete a person", err)
	}
	if n == 0 {
		return fmt.Errorf("person %s: %w", id, ErrNotFound)
	}
	return nil
}

// ForgetRefused forgets people who were refused, for having no role, and did not come back since.
func (tx Tx) ForgetRefused(ctx context.Context, before time.Time) error {
	_, err := tx.q.exec(ctx, "DELETE FROM people WHERE via = 'oidc' AND role = '' AND grps = '[]' AND seen_at < ?", millis(before))
	return failed("forget people", err)
}
