package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
)

// Session returns the session of an id's hash, or ErrNotFound. It may be over.
func (tx Tx) Session(ctx context.Context, sum [32]byte) (fleet.Session, error) {
	s := fleet.Session{SHA256: sum}
	var person, token sql.NullString
	var created, seen int64
	err := tx.q.row(ctx, "SELECT person, token, created_at, seen_at FROM sessions WHERE sha256 = ?", hex.EncodeToString(sum[:])).Scan(&person, &token, &created, &seen)
	s.Person, s.Token, s.Created, s.Seen = person.String, token.String, fromMillis(created), fromMillis(seen)
	return s, failed("session", err)
}

// AddSession keeps a session. Of others of the same person or token the newest are left, fleet.MaxSessions in all.
func (tx Tx) AddSession(ctx context.Context, s *fleet.Session) error {
	owner, id := "person", s.Person
	var person, token any = s.Person, nil
	if s.Token != "" {
		owner, id = "token", s.Token
		person, token = nil, s.Token
	}
	if _, err := tx.q.exec(ctx, "DELETE FROM sessions WHERE "+owner+" = ?1 AND sha256 NOT IN (SELECT sha256 FROM sessions WHERE "+owner+" = ?1 ORDER BY seen_at DESC, sha256 LIMIT ?2)",
		id, int64(fleet.MaxSessions-1)); err != nil {
		return failed("end sessions", err)
	}
	_, err := tx.q.exec(ctx, "INSERT INTO sessions (sha256, person, token, created_at, seen_at) VALUES (?, ?, ?, ?, ?)",
		hex.EncodeToString(s.SHA256[:]), person, token, millis(s.Created), millis(s.Seen))
	return failed("keep a session", err)
}

// SeeSession notes that a session, and the person whose it is, were seen.
func (tx Tx) SeeSession(ctx context.Context, s *fleet.Session, now time.Time) error {
	_, err := tx.q.exec(ctx, "UPDATE sessions SET seen_at = ?1 WHERE sha256 = ?2 AND seen_at < ?1", millis(now), hex.EncodeToString(s.SHA256[:]))
	if err == nil && s.Person != "" {
		_, err = tx.q.exec(ctx, "UPDATE people SET seen_at = ?1 WHERE id = ?2 AND seen_at < ?1", millis(now), s.Person)
	}
	return failed("note a session", err)
}

// DeleteSession ends a session; there need be none.
func (tx Tx) DeleteSession(ctx context.Context, sum [32]byte) error {
	_, err := tx.q.exec(ctx, "DELETE FROM sessions WHERE sha256 = ?", hex.EncodeToString(sum[:]))
	return failed("end a session", err)
}

// EndAllSessions ends all sessions, and makes all links worthless.
func (tx Tx) EndAllSessions(ctx context.Context) error {
	if _, err := tx.q.exec(ctx, "DELETE FROM sessions"); err != nil {
		return failed("end sessions", err)
	}
	_, err := tx.q.exec(ctx, "DELETE FROM links")
	return failed("forget links", err)
}

// ForgetSessions forgets the sessions and links that are over.
func (tx Tx) ForgetSessions(ctx context.Context, now time.Time) error {
	if _, err := tx.q.exec(ctx, "DELETE FROM sessions WHERE created_at <= ? OR seen_at <= ?", millis(now.Add(-fleet.SessionLife)), millis(now.Add(-fleet.SessionIdle))); err != nil {
		return failed("forget sessions", err)
	}
	_, err := tx.q.exec(ctx, "DELETE FROM links WHERE expires_at <= ?", millis(now))
	return failed("forget links", err)
}

// AddLink keeps a link.
func (tx Tx) AddLink(ctx context.Context, l *fleet.Link) error {
	_, err := tx.q.exec(ctx, "INSERT INTO links (sha256, person, created_at, expires_at) VALUES (?, ?, ?, ?)",
		hex.EncodeToString(l.SHA256[:]), l.Person, millis(l.Created), millis(l.Expires))
	return failed("keep a link", err)
}

// TakeLink returns the link of a secret's hash, which is gone then, or ErrNotFound. It may be over.
func (tx Tx) TakeLink(ctx context.Context, sum [32]byte) (fleet.Link, error) {
	l := fleet.Link{SHA256: sum}
	var created, expires int64
	hash := hex.EncodeToString(sum[:])
	if err := tx.q.row(ctx, "SELECT person, created_at, expires_at FROM links WHERE sha256 = ?", hash).Scan(&l.Person, &created, &expires); err != nil {
		return l, failed("link", err)
	}
	l.Created, l.Expires = fromMillis(created), fromMillis(expires)
	_, err := tx.q.exec(ctx, "DELETE FROM links WHERE sha256 = ?", hash)
	return l, failed("use a link", err)
}
