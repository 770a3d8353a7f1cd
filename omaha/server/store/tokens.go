package store

import (
	"context"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
)

// Token is a token as it is kept: without its secret.
type Token struct {
	ID      string
	SHA256  [32]byte // of the secret
	Role    fleet.Role
	Label   string
	Created time.Time
}

// AddToken keeps a token.
func (tx Tx) AddToken(ctx context.Context, t Token) error {
	_, err := tx.q.ExecContext(ctx, "INSERT INTO tokens (id, sha256, role, label, created_at) VALUES (?, lower(hex(?)), ?, ?, ?)",
		t.ID, t.SHA256[:], string(t.Role), t.Label, millis(t.Created))
	return failed("keep a token", err)
}

// Token returns the token of an id, or ErrNotFound.
func (tx Tx) Token(ctx context.Context, id string) (Token, error) {
	t := Token{ID: id}
	var sum string
	var created int64
	err := tx.q.QueryRowContext(ctx, "SELECT sha256, role, label, created_at FROM tokens WHERE id = ?", id).Scan(&sum, &t.Role, &t.Label, &created)
	if err == nil {
		err = unhex(t.SHA256[:], sum)
	}
	t.Created = fromMillis(created)
	return t, failed("token", err)
}
