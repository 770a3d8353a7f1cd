package server

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/people"
	"github.com/semper-os/semper/omaha/server/store"
)

// A session's id is 256 random bits, in base64url in a cookie. The database has its SHA-256: who reads it, or a backup, has no session.
const (
	sessionBytes  = 32
	sessionCookie = "semper"
	flowCookie    = "semper-flow"

	// hostPrefix has browsers take a cookie by TLS alone, and from no other host of the domain.
	hostPrefix = "__Host-"

	seenEvery   = time.Minute // a session's last request is noted
	forgetEvery = 10 * time.Minute
	keepRefused = 30 * 24 * time.Hour // people who have no role
)

var cookieEncoding = base64.RawURLEncoding.Strict()

// secure reports whether a browser reaches this server by TLS.
func (s *Server) secure(r *http.Request) bool {
	return r.URL.Scheme == "https" || s.public != nil && s.public.Scheme == "https" && s.public.Host == r.Host
}

// cookie is one of ours, for setting.
func (s *Server) cookie(r *http.Request, name, value string, life time.Duration) *http.Cookie {
	c := &http.Cookie{Name: name, Value: value, Path: "/", MaxAge: int(life / time.Second), HttpOnly: true, SameSite: http.SameSiteLaxMode}
	if s.secure(r) {
		c.Name, c.Secure = hostPrefix+name, true
	}
	if life <= 0 {
		c.MaxAge = -1
	}
	return c
}

// shown is the value of a cookie of ours. Of two that a browser shows nobody knows which is ours: somebody else may have put one there.
func (s *Server) shown(r *http.Request, name string) string {
	if s.secure(r) {
		name = hostPrefix + name
	}
	all := r.CookiesNamed(name)
	if len(all) != 1 {
		return ""
	}
	return all[0].Value
}

// sessionID reads a session's id from a cookie's value; nil where it is none.
func sessionID(value string) []byte {
	if len(value) != cookieEncoding.EncodedLen(sessionBytes) {
		return nil
	}
	id, err := cookieEncoding.DecodeString(value)
	if err != nil || len(id) != sessionBytes {
		return nil
	}
	return id
}

// csrfOf is a session's token against requests that other sites have its browser send. Nobody can make it who does not know the id.
func csrfOf(id []byte) string {
	m := hmac.New(sha256.New, id)
	m.Write([]byte("semper-server csrf"))
	return cookieEncoding.EncodeToString(m.Sum(nil))
}

// sessionCaller finds out whose session it is. What may change something must come from a page of ours.
func (s *Server) sessionCaller(r *http.Request) (caller, error) {
	id := sessionID(s.shown(r, sessionCookie))
	if id == nil {
		return caller{}, errBadToken
	}
	session, c, err := s.session(r.Context(), sha256.Sum256(id))
	if err != nil {
		return c, err
	}
	c.csrf = csrfOf(id)
	if err := s.ours(r); err != nil {
		return c, err
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead && !hmac.Equal([]byte(r.Header.Get(api.CSRFHeader)), []byte(c.csrf)) {
		return c, httpError{http.StatusForbidden, fault.New(fault.Verification, "the header %s is missing or wrong: sign in again if it goes on", api.CSRFHeader)}
	}
	if now := s.cfg.Now(); now.Sub(session.Seen) >= seenEvery {
		// Who only looks can go on while the database cannot be written.
		ctx := context.WithoutCancel(r.Context())
		if err := s.store.Write(ctx, func(tx store.Tx) error { return tx.SeeSession(ctx, &session, now) }); err != nil {
			s.cfg.Log.Error("a session's last request could not be noted", "error", err)
		}
	}
	return c, nil
}

// ours refuses what another site has a browser send.
func (s *Server) ours(r *http.Request) error {
	if err := s.origins.Check(r); err != nil {
		return httpError{http.StatusForbidden, fault.New(fault.Verification, "the request comes from another site: %w", err)}
	}
	return nil
}

// session looks a session up, and who that is; errBadToken where it is over.
func (s *Server) session(ctx context.Context, sum [sha256.Size]byte) (fleet.Session, caller, error) {
	tx := s.store.Read()
	session, c, err := func() (session fleet.Session, c caller, err error) {
		if session, err = tx.Session(ctx, sum); err != nil {
			return session, c, err
		}
		if session.Over(s.cfg.Now()) {
			return session, c, errBadToken
		}
		if session.Token != "" {
			t, err := tx.Token(ctx, session.Token)
			return session, tokenCaller(&t), err
		}
		p, err := tx.Person(ctx, session.Person)
		if err == nil && !s.knows(&p) {
			err = errBadToken
		}
		return session, s.personCaller(&p), err
	}()
	if errors.Is(err, store.ErrNotFound) {
		err = errBadToken
	}
	return session, c, err
}

// knows reports whether a person may be here now: also a provider that is not the server's any more let people in, and groups that mean nothing any more.
func (s *Server) knows(p *fleet.Person) bool {
	if p.Via == fleet.ViaOIDC && (s.oidc == nil || p.Issuer != s.oidc.Issuer()) {
		return false
	}
	return p.Role(s.groupRoles()) != ""
}

func (s *Server) groupRoles() []fleet.GroupRole {
	if s.oidc == nil {
		return nil
	}
	return s.oidc.Roles()
}

func (s *Server) personCaller(p *fleet.Person) caller {
	return caller{name: p.Name, who: p.Who(), via: p.Via, role: p.Role(s.groupRoles()), person: p.ID}
}

// begin begins a session of a person, or of a token, in the transaction of a sign-in: with an id that was never seen before, whatever the browser showed. Where it had a
// session, that ends.
func (s *Server) begin(ctx context.Context, tx store.Tx, r *http.Request, owner fleet.Session, c caller, now time.Time) (id []byte, err error) {
	id = make([]byte, sessionBytes)
	if _, err := io.ReadFull(s.cfg.Random, id); err != nil {
		return nil, fault.New(fault.IO, "draw a session's id: %w", err)
	}
	if before := sessionID(s.shown(r, sessionCookie)); before != nil {
		if err := tx.DeleteSession(ctx, sha256.Sum256(before)); err != nil {
			return nil, err
		}
	}
	owner.SHA256, owner.Created, owner.Seen = sha256.Sum256(id), now, now
	if err := tx.AddSession(ctx, &owner); err != nil {
		return nil, err
	}
	return id, tx.AddAudit(ctx, &fleet.Audit{At: now, Who: c.who, What: "sign-in", Subject: subjectOf(owner), Detail: string(c.role)})
}

func subjectOf(owner fleet.Session) string {
	if owner.Token != "" {
		return "token " + owner.Token
	}
	return "person " + owner.Person
}

// welcome answers a sign-in.
func (s *Server) welcome(w http.ResponseWriter, r *http.Request, id []byte, c caller) error {
	http.SetCookie(w, s.cookie(r, sessionCookie, cookieEncoding.EncodeToString(id), fleet.SessionLife))
	c.csrf = csrfOf(id)
	return reply(w, describeCaller(c))
}

func describeCaller(c caller) api.Me {
	return api.Me{Name: c.name, Via: string(c.via), Role: string(c.role), CSRF: c.csrf}
}

// openPeople reads what decides how people sign in.
func (s *Server) openPeople() (err error) {
	s.origins = http.NewCrossOriginProtection()
	if s.public != nil {
		if err := s.origins.AddTrustedOrigin(s.public.Scheme + "://" + s.public.Host); err != nil {
			return fault.New(fault.Usage, "public URL %q: %w", s.cfg.PublicURL, err)
		}
	}
	s.tokenFailures = s.newFailures()
	if s.cfg.OIDC.Issuer == "" {
		if s.cfg.OIDC.ClientID != "" || s.cfg.OIDC.SecretFile != "" || len(s.cfg.OIDC.Roles) > 0 || cmp.Or(s.cfg.OIDC.Name, s.cfg.OIDC.GroupsClaim) != "" || len(s.cfg.OIDC.Scopes) > 0 {
			return fault.New(fault.Usage, "there is an OpenID client, but no provider: name its issuer")
		}
		return nil
	}
	s.oidc, err = people.New(s.cfg.OIDC, s.cfg.Now, s.cfg.Random)
	return err
}

// forgetPeople forgets sessions and links that are over, and people who were refused long ago.
func (s *Server) forgetPeople(ctx context.Context) error {
	now := s.cfg.Now()
	if now.Sub(s.forgot) < forgetEvery {
		return nil
	}
	err := s.store.Write(ctx, func(tx store.Tx) error {
		return errors.Join(tx.ForgetSessions(ctx, now), tx.ForgetRefused(ctx, now.Add(-keepRefused)))
	})
	if err == nil {
		s.forgot = now
	}
	return err
}
