package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

const (
	maxPersonName = 200
	linkIDBytes   = 4

	// FirstPerson is the name of who signs in with the first link.
	FirstPerson = "admin"
)

// NewLink makes a link for a person, who is made where there is none of that name who comes by links, and returns its secret; it cannot be had a second time. A role that is
// not empty is the person's from now on; a new person needs one.
func NewLink(ctx context.Context, tx store.Tx, random io.Reader, name string, role fleet.Role, who string, now time.Time) (string, error) {
	if role != "" && !role.Valid() {
		return "", fault.New(fault.Usage, "there is no role %q", role)
	}
	if name == "" || utf8.RuneCountInString(name) > maxPersonName || strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }) || strings.TrimSpace(name) != name {
		return "", fault.New(fault.Usage, "name %q: want 1 to %d printable characters", name, maxPersonName)
	}
	bits := make([]byte, linkIDBytes+sessionBytes)
	if _, err := io.ReadFull(random, bits); err != nil {
		return "", fault.New(fault.IO, "draw a link: %w", err)
	}
	p, err := tx.PersonByLink(ctx, name)
	switch {
	case errors.Is(err, store.ErrNotFound) && role == "":
		return "", fault.New(fault.Usage, "nobody who comes by links is called %s: name the role of a new person", name)
	case errors.Is(err, store.ErrNotFound):
		p = fleet.Person{ID: "link:" + hex.EncodeToString(bits[:linkIDBytes]), Name: name, Via: fleet.ViaLink, Set: role, Created: now}
		if err := errors.Join(tx.PutPerson(ctx, &p), tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "person-new", Subject: "person " + p.ID, Detail: name, After: string(role)})); err != nil {
			return "", err
		}
	case err != nil:
		return "", err
	case role != "" && role != p.Set:
		if _, err := SetRole(ctx, tx, p.ID, role, who, now); err != nil {
			return "", err
		}
	}
	secret := bits[linkIDBytes:]
	if err := tx.AddLink(ctx, &fleet.Link{SHA256: sha256.Sum256(secret), Person: p.ID, Created: now, Expires: now.Add(fleet.LinkLife)}); err != nil {
		return "", err
	}
	return cookieEncoding.EncodeToString(secret), tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "link-new", Subject: "person " + p.ID, Detail: name})
}

// SetRole gives a person a role, which counts from the next request on; an empty one leaves it to the groups.
func SetRole(ctx context.Context, tx store.Tx, id string, role fleet.Role, who string, now time.Time) (fleet.Person, error) {
	p, err := tx.Person(ctx, id)
	if err != nil {
		return p, err
	}
	if role != "" && !role.Valid() {
		return p, fault.New(fault.Input, "role %q: want viewer, operator, publisher or admin", role)
	}
	if role == "" && p.Via != fleet.ViaOIDC {
		return p, conflict("%s came by a link and is in no groups: give another role, or remove them", p.Name)
	}
	before := p.Set
	p.Set = role
	return p, errors.Join(tx.PutPerson(ctx, &p),
		tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "person-role", Subject: "person " + p.ID, Detail: p.Name, Before: roleGiven(before), After: roleGiven(role)}))
}

// roleGiven says in the audit log which role somebody was given.
func roleGiven(r fleet.Role) string { return cmp.Or(string(r), "by groups") }

// RemovePerson forgets a person and ends all their sessions. Who may sign in at a provider comes back as new.
func RemovePerson(ctx context.Context, tx store.Tx, id, who string, now time.Time) error {
	p, err := tx.Person(ctx, id)
	if err != nil {
		return err
	}
	if err := tx.DeletePerson(ctx, id); err != nil {
		return err
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "person-remove", Subject: "person " + id, Detail: p.Name, Before: roleGiven(p.Set)})
}

// FirstLink makes a link for the first administrator, where there is nobody who could be one: no OpenID provider, no token with that role, no person. It is empty otherwise.
// The address is how the server is reached if the configuration does not say.
func (s *Server) FirstLink(ctx context.Context, address string) (string, error) {
	if s.oidc != nil {
		return "", nil
	}
	now, secret := s.cfg.Now().UTC(), ""
	err := s.store.Write(ctx, func(tx store.Tx) error {
		all, _, err := tx.CountPeople(ctx)
		if err != nil || all > 0 {
			return err
		}
		tokens, err := tx.Tokens(ctx)
		if err != nil {
			return err
		}
		for i := range tokens {
			if tokens[i].Role == fleet.Admin {
				return nil
			}
		}
		secret, err = NewLink(ctx, tx, s.cfg.Random, FirstPerson, fleet.Admin, itself, now)
		return err
	})
	if err != nil || secret == "" {
		return "", err
	}
	if s.cfg.PublicURL != "" {
		address = s.cfg.PublicURL
	}
	return LinkURL(address, secret)
}

// LinkURL is a link to hand over. The secret is in the fragment, which browsers send to nobody.
func LinkURL(address, secret string) (string, error) {
	u, err := baseURL("address", address)
	if err != nil {
		return "", err
	}
	return u.JoinPath("sign-in").String() + "#" + secret, nil
}

func (s *Server) me(w http.ResponseWriter, r *http.Request) error {
	return reply(w, describeCaller(callerOf(r)))
}

func (s *Server) people(w http.ResponseWriter, r *http.Request) error {
	all, err := s.store.Read().People(r.Context())
	if err != nil {
		return err
	}
	out := api.People{People: []api.Person{}}
	for i := range all {
		out.People = append(out.People, s.describePerson(&all[i]))
	}
	return reply(w, out)
}

func (s *Server) describePerson(p *fleet.Person) api.Person {
	out := api.Person{ID: p.ID, Name: p.Name, RoleFrom: "groups", Groups: append([]string{}, p.Groups...), LastSeen: p.Seen}
	if p.Set != "" {
		out.RoleFrom = "set"
	}
	if s.local || s.knows(p) { // which provider there is, and what its groups may do, is in the flags of the server
		out.Role = string(p.Role(s.groupRoles()))
	}
	return out
}

// notSelf keeps a person from locking themselves out by accident.
func notSelf(r *http.Request) error {
	if c := callerOf(r); c.person != "" && c.person == r.PathValue("id") {
		return conflict("that is you: another administrator, or semper-server people, can do it")
	}
	return nil
}

func (s *Server) putPerson(w http.ResponseWriter, r *http.Request) error {
	var set api.SetRole
	if err := errors.Join(read(w, r, &set), notSelf(r)); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	var p fleet.Person
	err := s.store.Write(ctx, func(tx store.Tx) (err error) {
		p, err = SetRole(ctx, tx, r.PathValue("id"), fleet.Role(set.Role), who(r), s.cfg.Now().UTC())
		return err
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Info("role set", "person", p.ID, "role", set.Role, "by", who(r))
	return reply(w, s.describePerson(&p))
}

func (s *Server) deletePerson(w http.ResponseWriter, r *http.Request) error {
	if err := notSelf(r); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	err := s.store.Write(ctx, func(tx store.Tx) error {
		return RemovePerson(ctx, tx, r.PathValue("id"), who(r), s.cfg.Now().UTC())
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Info("person removed", "person", r.PathValue("id"), "by", who(r))
	return reply(w, api.Nothing{})
}
