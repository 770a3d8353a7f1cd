package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// A token is "semper_ID_SECRET": the prefix lets scanners find leaked ones, ID (8 hex digits) finds the row, SECRET is 256 random bits in
// base64url, of which only the SHA-256 is kept.
const (
	tokenPrefix = api.TokenPrefix

	tokenIDBytes     = 4
	tokenSecretBytes = 32
	maxToken         = 128
)

// NewToken makes a token with a role and returns it; it cannot be had a second time.
func NewToken(ctx context.Context, tx store.Tx, random io.Reader, role fleet.Role, label, who string, now time.Time) (string, error) {
	if !role.Valid() {
		return "", fault.New(fault.Usage, "there is no role %q", role)
	}
	bits := make([]byte, tokenIDBytes+tokenSecretBytes)
	if _, err := io.ReadFull(random, bits); err != nil {
		return "", fault.New(fault.IO, "draw a token: %w", err)
	}
	id := hex.EncodeToString(bits[:tokenIDBytes])
	secret := base64.RawURLEncoding.EncodeToString(bits[tokenIDBytes:])
	if err := tx.AddToken(ctx, store.Token{ID: id, SHA256: sha256.Sum256([]byte(secret)), Role: role, Label: label, Created: now}); err != nil {
		return "", err
	}
	err := tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "token-new", Subject: "token " + id, Detail: label, After: string(role)})
	return tokenPrefix + id + "_" + secret, err
}

// RevokeToken makes a token worthless at once. The id is the second part of a token, or all of it.
func RevokeToken(ctx context.Context, tx store.Tx, id, who string, now time.Time) error {
	if rest, whole := strings.CutPrefix(id, tokenPrefix); whole {
		id, _, _ = strings.Cut(rest, "_")
	}
	t, err := tx.Token(ctx, id)
	if err != nil {
		return err
	}
	if err := tx.DeleteToken(ctx, id); err != nil {
		return err
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "token-revoke", Subject: "token " + id, Detail: t.Label, Before: string(t.Role), After: "worthless"})
}

// errBadToken does not say what was wrong with a token.
var errBadToken = fault.New(fault.Verification, "a valid token is needed: Authorization: Bearer TOKEN")

// token returns the token of a text, or errBadToken.
func (s *Server) token(ctx context.Context, text string) (t store.Token, err error) {
	rest, ours := strings.CutPrefix(text, tokenPrefix)
	if !ours || len(text) > maxToken {
		return t, errBadToken
	}
	id, secret, _ := strings.Cut(rest, "_")
	known, err := s.store.Read().Token(ctx, id)
	if errors.Is(err, store.ErrNotFound) {
		return t, errBadToken
	}
	if err != nil {
		return t, err
	}
	if sum := sha256.Sum256([]byte(secret)); subtle.ConstantTimeCompare(sum[:], known.SHA256[:]) != 1 {
		return t, errBadToken
	}
	return known, nil
}

// caller is who asks.
type caller struct {
	name   string // for people to read
	who    string // for the audit log
	via    fleet.Via
	role   fleet.Role
	person string // the id; empty for a token
	csrf   string // of a session
}

func tokenCaller(t *store.Token) caller {
	return caller{name: cmp.Or(t.Label, "token "+t.ID), who: strings.TrimSpace("token " + t.ID + " " + t.Label), via: fleet.ViaToken, role: t.Role}
}

// caller finds out who asks: a program in this process, the bearer of a token or, without one, whose session it is.
func (s *Server) caller(r *http.Request) (caller, error) {
	if c, ok := localCaller(r.Context()); ok {
		return c, nil
	}
	if shown := r.Header.Get("Authorization"); shown != "" {
		scheme, text, _ := strings.Cut(shown, " ")
		if !strings.EqualFold(scheme, "Bearer") {
			return caller{}, errBadToken
		}
		t, err := s.token(r.Context(), text)
		return tokenCaller(&t), err
	}
	return s.sessionCaller(r)
}

// needs lets a request through of somebody who has at least the role need.
func (s *Server) needs(need fleet.Role, next func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return s.answers(func(w http.ResponseWriter, r *http.Request) error {
		c, err := s.caller(r)
		if err != nil {
			return err
		}
		if !c.role.Covers(need) {
			return httpError{http.StatusForbidden, fault.New(fault.Verification, "the role of %s is %s; this needs %s", c.name, c.role, need)}
		}
		return next(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

type callerKey struct{}

// callerOf is who asks, once needs has found out.
func callerOf(r *http.Request) caller {
	c, _ := r.Context().Value(callerKey{}).(caller)
	return c
}

// who asks, for the audit log.
func who(r *http.Request) string { return callerOf(r).who }
