package store

import (
	"context"
	"encoding/hex"
	"fmt"
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
	_, err := tx.q.exec(ctx, "INSERT INTO tokens (id, sha256, role, label, created_at) VALUES (?, ?, ?, ?, ?)",
		t.ID, hex.EncodeToString(t.SHA256[:]), string(t.Role), t.Label, millis(t.Created))
	return failed("keep a token", err)
}

func scanToken(t *Token, scan func(...any) error) error {
	var sum string
	var created int64
	if err := scan(&t.ID, &sum, &t.Role, &t.Label, &created); err != nil {
		return err
	}
	t.Created = fromMillis(created)
	return unhex(t.SHA256[:], sum)
}

// Tokens lists all tokens, the oldest first.
func (tx Tx) Tokens(ctx context.Context) ([]Token, error) {
	return list(ctx, tx.q, "list tokens", scanToken, "SELECT id, sha256, role, label, created_at FROM tokens ORDER BY created_at, id")
}

// DeleteToken makes a token worthless; ErrNotFound where there is none of that id.
func (tx Tx) DeleteToken(ctx context.Context, id string) error {
	n, err := tx.q.exec(ctx, "DELETE FROM tokens WHERE id = ?", id)
	if err != nil {
		return failed("delete a token", err)
	}
	if n == 0 {
		return fmt.Errorf("token %s: %w", id, ErrNotFound)
	}
	return nil
}

// Token returns the token of an id, or ErrNotFound.
func (tx Tx) Token(ctx context.Context, id string) (Token, error) {
	var t Token
	row := tx.q.row(ctx, "SELECT id, sha256, role, label, created_at FROM tokens WHERE id = ?", id)
	return t, failed("token", scanToken(&t, row.Scan))
}
