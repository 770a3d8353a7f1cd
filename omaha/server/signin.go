package server

import (
	"context"
	"crypto/sha256"
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/ratelimit"
	"github.com/semper-os/semper/omaha/server/store"
)

// maxSignIn bounds the body of a sign-in.
const maxSignIn = 4096

// authRoutes are where people sign in and out. They need no role.
//
//	GET  /auth/options          how one can sign in here
//	GET  /auth/oidc/start       302 to the OpenID provider
//	GET  /auth/oidc/callback    303 back from there, with a session; a page where it did not work
//	POST /auth/link             a link's secret for a session
//	POST /auth/token            a token for a session
//	POST /auth/sign-out         the session's end
func (s *Server) authRoutes(mux *http.ServeMux) {
	for pattern, h := range s.authHandlers() {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Cache-Control", "no-store")
			s.answers(func(w http.ResponseWriter, r *http.Request) error {
				if err := s.ours(r); err != nil { // also who signs in unaware, as somebody else, is harmed
					return err
				}
				return h(w, r)
			})(w, r)
		})
	}
	mux.HandleFunc("/auth/", s.answers(func(http.ResponseWriter, *http.Request) error {
		return httpError{http.StatusNotFound, fault.New(fault.Input, "there is no such route")}
	}))
}

func (s *Server) authHandlers() map[string]handler {
	return map[string]handler{
		"GET /auth/options":       s.signInOptions,
		"GET /auth/oidc/start":    s.oidcStart,
		"GET /auth/oidc/callback": s.oidcCallback,
		"POST /auth/link":         s.signInByLink,
		"POST /auth/token":        s.signInByToken,
		"POST /auth/sign-out":     s.signOut,
	}
}

func (s *Server) newFailures() *ratelimit.Limit {
	return ratelimit.New(s.cfg.FailureLimit/60, failureBurst)
}

type signInOptions struct {
	OIDC *oidcOption `json:"oidc"` // null: there is no provider
	Link bool        `json:"link"` // nobody can sign in yet but with a token, or a link that is in the server's log
}

type oidcOption struct {
	Name string `json:"name"`
}

func (s *Server) signInOptions(w http.ResponseWriter, r *http.Request) error {
	if s.oidc != nil {
		return reply(w, signInOptions{OIDC: &oidcOption{s.oidc.Name()}})
	}
	_, seen, err := s.store.Read().CountPeople(r.Context())
	if err != nil {
		return err
	}
	return reply(w, signInOptions{Link: seen == 0})
}

// errBadLink does not say what was wrong with a link.
var errBadLink = fault.New(fault.Verification, "the link is not valid: it was used, it is too old, or a part of it is missing. A new one comes from: semper-server people link")

func (s *Server) signInByLink(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxSignIn)
	var shown struct {
		Secret string `json:"secret"`
	}
	if err := read(w, r, &shown); err != nil {
		return err
	}
	secret := sessionID(shown.Secret) // of the same form
	if secret == nil {
		return httpError{http.StatusUnauthorized, errBadLink}
	}
	ctx, now := context.WithoutCancel(r.Context()), s.cfg.Now().UTC()
	var id []byte
	var c caller
	err := s.store.Write(ctx, func(tx store.Tx) error {
		// Found by its hash, so how long it takes says nothing of the secret.
		link, err := tx.TakeLink(ctx, sha256.Sum256(secret))
		if err == nil && !now.Before(link.Expires) {
			err = store.ErrNotFound
		}
		if errors.Is(err, store.ErrNotFound) {
			return httpError{http.StatusUnauthorized, errBadLink}
		}
		if err != nil {
			return err
		}
		p, err := tx.Person(ctx, link.Person)
		if err != nil {
			return err
		}
		p.Seen = now
		if err := tx.PutPerson(ctx, &p); err != nil {
			return err
		}
		c = s.personCaller(&p)
		id, err = s.begin(ctx, tx, r, fleet.Session{Person: p.ID}, c, now)
		return err
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Info("signed in", "who", c.who, "role", c.role)
	return s.welcome(w, r, id, c)
}

func (s *Server) signInByToken(w http.ResponseWriter, r *http.Request) error {
	r.Body = http.MaxBytesReader(w, r.Body, maxSignIn)
	var shown struct {
		Token string `json:"token"`
	}
	if err := read(w, r, &shown); err != nil {
		return err
	}
	shown.Token = strings.TrimSpace(shown.Token) // as it is pasted
	// A bound for each token beside that for each address: many addresses may guess at one.
	rest, _ := strings.CutPrefix(shown.Token, tokenPrefix)
	name, _, _ := strings.Cut(rest, "_")
	key := ratelimit.Named(name)
	if wait := s.tokenFailures.Wait(key, s.cfg.Now()); wait > 0 {
		s.metrics.add("semper_server_limited_total", "cause", "authentication")
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
		return httpError{http.StatusTooManyRequests, fault.New(fault.Verification, "too many sign-ins with this token failed; try again in %s", wait.Round(time.Second))}
	}
	t, err := s.token(r.Context(), shown.Token)
	if errors.Is(err, errBadToken) {
		s.tokenFailures.Take(key, s.cfg.Now())
		return httpError{http.StatusUnauthorized, fault.New(fault.Verification, "the token is not valid: it was revoked, or a part of it is missing")}
	}
	if err != nil {
		return err
	}
	ctx, now := context.WithoutCancel(r.Context()), s.cfg.Now().UTC()
	c := tokenCaller(&t)
	var id []byte
	err = s.store.Write(ctx, func(tx store.Tx) (err error) {
		id, err = s.begin(ctx, tx, r, fleet.Session{Token: t.ID}, c, now)
		return err
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Info("signed in", "who", c.who, "role", c.role)
	return s.welcome(w, r, id, c)
}

// signOut ends a session. Whose session is over already is signed out.
func (s *Server) signOut(w http.ResponseWriter, r *http.Request) error {
	c, err := s.sessionCaller(r)
	if err != nil && !errors.Is(err, errBadToken) {
		return err
	}
	http.SetCookie(w, s.cookie(r, sessionCookie, "", 0))
	if err == nil {
		ctx, now := context.WithoutCancel(r.Context()), s.cfg.Now().UTC()
		sum := sha256.Sum256(sessionID(s.shown(r, sessionCookie)))
		err = s.store.Write(ctx, func(tx store.Tx) error {
			session, err := tx.Session(ctx, sum)
			if err != nil {
				return err
			}
			return errors.Join(tx.DeleteSession(ctx, sum), tx.AddAudit(ctx, &fleet.Audit{At: now, Who: c.who, What: "sign-out", Subject: subjectOf(session)}))
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	return reply(w, struct{}{})
}
