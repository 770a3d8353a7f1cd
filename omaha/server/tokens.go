package server

import (
	"context"
	"net/http"
	"strings"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// maxLabel is how long a token's label may be, in bytes.
const maxLabel = 200

// Tokens lists all tokens.
func Tokens(ctx context.Context, tx store.Tx) (api.Tokens, error) {
	all, err := tx.Tokens(ctx)
	out := api.Tokens{Tokens: []api.Token{}}
	for i := range all {
		out.Tokens = append(out.Tokens, describeToken(&all[i]))
	}
	return out, err
}

func describeToken(t *store.Token) api.Token {
	return api.Token{ID: t.ID, Role: string(t.Role), Label: t.Label, Created: t.Created}
}

func (s *Server) tokens(w http.ResponseWriter, r *http.Request) error {
	out, err := Tokens(r.Context(), s.store.Read())
	if err != nil {
		return err
	}
	return reply(w, out)
}

func (s *Server) newToken(w http.ResponseWriter, r *http.Request) error {
	var n api.NewToken
	if err := read(w, r, &n); err != nil {
		return err
	}
	if !fleet.Role(n.Role).Valid() {
		return fault.New(fault.Input, "role %.40q: want viewer, operator, publisher or admin", n.Role)
	}
	if len(n.Label) > maxLabel {
		return fault.New(fault.Input, "label: %d bytes, at most %d are kept", len(n.Label), maxLabel)
	}
	ctx := context.WithoutCancel(r.Context())
	var out api.MadeToken
	err := s.store.Write(ctx, func(tx store.Tx) (err error) {
		if err := s.once(ctx, r, tx); err != nil {
			return err
		}
		if out.Secret, err = NewToken(ctx, tx, s.cfg.Random, fleet.Role(n.Role), n.Label, who(r), s.cfg.Now().UTC()); err != nil {
			return err
		}
		id, _, _ := strings.Cut(strings.TrimPrefix(out.Secret, tokenPrefix), "_")
		t, err := tx.Token(ctx, id)
		out.Token = describeToken(&t)
		return err
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Info("token made", "token", out.ID, "role", out.Role, "by", who(r))
	return reply(w, out)
}

func (s *Server) revokeToken(w http.ResponseWriter, r *http.Request) error {
	ctx := context.WithoutCancel(r.Context())
	err := s.store.Write(ctx, func(tx store.Tx) error { return RevokeToken(ctx, tx, r.PathValue("id"), who(r), s.cfg.Now().UTC()) })
	if err != nil {
		return err
	}
	s.cfg.Log.Info("token revoked", "token", r.PathValue("id"), "by", who(r))
	return reply(w, api.Nothing{})
}

func (s *Server) putApplication(w http.ResponseWriter, r *http.Request) error {
	var n api.NewApplication
	if err := read(w, r, &n); err != nil {
		return err
	}
	name, ctx := r.PathValue("name"), context.WithoutCancel(r.Context())
	var out api.Application
	err := s.store.Write(ctx, func(tx store.Tx) error {
		if err := AddApplication(ctx, tx, name, n.ID, n.Channels, who(r), s.cfg.Now().UTC()); err != nil {
			return err
		}
		a, err := tx.Application(ctx, name)
		out = api.Application{ID: a.ID, Name: a.Name, Created: a.Created}
		return err
	})
	if err != nil {
		return err
	}
	return reply(w, out)
}
