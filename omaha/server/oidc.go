package server

import (
	"context"
	"errors"
	"html/template"
	"net/http"
	"net/url"
	"regexp"
	"strconv"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/people"
	"github.com/semper-os/semper/omaha/server/store"
)

// refusal is the page of a sign-in that did not work. It needs no script, and what others wrote stands in it as text.
var refusal = template.Must(template.New("refusal").Parse(`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><title>{{.Title}} – Semper</title>
<style>
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 34rem; margin: 15vh auto 0; padding: 0 1.5rem; }
h1 { font-size: 1.5rem; line-height: 1.25; }
a { color: LinkText; }
</style></head>
<body><main><h1>{{.Title}}</h1>{{range .Text}}<p>{{.}}</p>{{end}}<p><a href="{{.Again}}">Try again</a> or <a href="{{.SignIn}}">sign in another way</a>.</p></main></body></html>
`))

// refuse shows the page.
func (s *Server) refuse(w http.ResponseWriter, r *http.Request, status int, title string, text ...string) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", readerPolicy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer") // the address has a code
	again, signIn := "/auth/oidc/start", "/sign-in"
	if base, err := s.base(r); err == nil {
		again, signIn = base.JoinPath("auth/oidc/start").String(), base.JoinPath("sign-in").String()
	}
	w.WriteHeader(status)
	_ = refusal.Execute(w, map[string]any{"Title": title, "Text": text, "Again": again, "SignIn": signIn}) // whoever left does not miss it
}

// callback is where the provider sends browsers back to. The provider knows it too, and takes no other.
func (s *Server) callback(r *http.Request) (string, error) {
	base, err := s.base(r)
	if err != nil {
		return "", err
	}
	return base.JoinPath("auth/oidc/callback").String(), nil
}

func (s *Server) oidcStart(w http.ResponseWriter, r *http.Request) error {
	if s.oidc == nil {
		return errNoProvider
	}
	redirect, err := s.callback(r)
	if err != nil {
		return err
	}
	to, flow, err := s.oidc.Begin(r.Context(), redirect, r.URL.Query().Get("next"))
	if err != nil {
		s.unreachable(w, r, err)
		return nil
	}
	http.SetCookie(w, s.cookie(r, flowCookie, flow.String(), people.FlowLife))
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusFound)
	return nil
}

var errNoProvider = httpError{http.StatusNotFound, fault.New(fault.Input, "this server has no OpenID provider")}

// providerPause is when a browser may try again, in seconds.
const providerPause = 10

func (s *Server) unreachable(w http.ResponseWriter, r *http.Request, err error) {
	s.cfg.Log.Error("nobody can sign in at the OpenID provider", "error", err)
	w.Header().Set("Retry-After", strconv.Itoa(providerPause))
	s.refuse(w, r, http.StatusServiceUnavailable, s.oidc.Name()+" does not answer", "Sign-in with "+s.oidc.Name()+" does not work now. Who is signed in stays signed in.", "The server's log says what is wrong.")
}

// providerError is what a provider may say of a sign-in that it refuses.
var providerError = regexp.MustCompile(`^[a-z_]{1,64}$`)

func (s *Server) oidcCallback(w http.ResponseWriter, r *http.Request) error {
	if s.oidc == nil {
		return errNoProvider
	}
	redirect, err := s.callback(r)
	if err != nil {
		return err
	}
	http.SetCookie(w, s.cookie(r, flowCookie, "", 0)) // good for one try
	query := r.URL.Query()
	flow, identity, err := s.identify(r, redirect, query)
	switch {
	case fault.Is(err, fault.Network):
		s.unreachable(w, r, err)
		return nil
	case fault.Is(err, fault.Verification):
		s.cfg.Log.Warn("sign-in failed", "address", r.RemoteAddr, "error", err)
		text := []string{"It may have taken too long, or begun in another window. The server's log says more."}
		if code := query.Get("error"); providerError.MatchString(code) {
			text = append([]string{s.oidc.Name() + " says: " + code + "."}, text...)
		}
		s.refuse(w, r, http.StatusUnauthorized, "The sign-in did not work", text...)
		return nil
	case err != nil:
		return err
	}
	return s.admit(w, r, flow, identity)
}

func (s *Server) identify(r *http.Request, redirect string, query url.Values) (*people.Flow, *people.Identity, error) {
	flow, err := people.ParseFlow(s.shown(r, flowCookie), s.cfg.Now())
	if err != nil {
		return nil, nil, err
	}
	identity, err := s.oidc.Finish(r.Context(), flow, redirect, query)
	return flow, identity, err
}

// admit begins a session of whom the provider vouches for, if they have a role. Who has none is kept in the list, where an administrator can give one.
func (s *Server) admit(w http.ResponseWriter, r *http.Request, flow *people.Flow, who *people.Identity) error {
	ctx, now := context.WithoutCancel(r.Context()), s.cfg.Now().UTC()
	var id []byte
	var c caller
	err := s.store.Write(ctx, func(tx store.Tx) error {
		p, err := tx.Person(ctx, "oidc:"+who.Subject)
		switch {
		case errors.Is(err, store.ErrNotFound):
			p = fleet.Person{ID: "oidc:" + who.Subject, Via: fleet.ViaOIDC, Created: now}
		case err != nil:
			return err
		case p.Issuer != s.oidc.Issuer():
			// The same number at another provider is another person: nothing is left of the first one.
			if err := tx.DeletePerson(ctx, p.ID); err != nil {
				return err
			}
			p = fleet.Person{ID: p.ID, Via: fleet.ViaOIDC, Created: now}
		}
		p.Name, p.Issuer, p.Groups, p.Seen = who.Name, s.oidc.Issuer(), who.Groups, now
		if err := tx.PutPerson(ctx, &p); err != nil {
			return err
		}
		if c = s.personCaller(&p); c.role == "" {
			return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: c.who, What: "sign-in-refused", Subject: "person " + p.ID, Detail: "no role"})
		}
		id, err = s.begin(ctx, tx, r, fleet.Session{Person: p.ID}, c, now)
		return err
	})
	if err != nil {
		return err
	}
	if c.role == "" {
		s.cfg.Log.Warn("sign-in refused: no role", "who", c.who, "person", "oidc:"+who.Subject)
		s.refuse(w, r, http.StatusForbidden, "You have no role here",
			s.oidc.Name()+" knows you as "+who.Name+", but none of your groups may use this server.", "An administrator can give you a role: you are in the list of people now.")
		return nil
	}
	s.cfg.Log.Info("signed in", "who", c.who, "role", c.role)
	http.SetCookie(w, s.cookie(r, sessionCookie, cookieEncoding.EncodeToString(id), fleet.SessionLife))
	w.Header().Set("Location", flow.Next) // a local path, as it was when it was put into the cookie
	w.WriteHeader(http.StatusSeeOther)
	return nil
}
