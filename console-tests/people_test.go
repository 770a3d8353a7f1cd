package consoletests

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/client"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/people/oidctest"
	"github.com/semper-os/semper/omaha/server/store"
)

// staff are who works with the simulated fleet, and what they may do by their groups.
var staff = []oidctest.User{
	{Subject: "1", Name: "Ada Lovelace", Password: "lovelace", Email: "ada@example.org", Groups: []string{"root"}},
	{Subject: "2", Name: "Grace Hopper", Password: "hopper", Email: "grace@example.org", Groups: []string{"ops"}},
	{Subject: "3", Name: "Katherine Johnson", Password: "johnson", Email: "katherine@example.org", Groups: []string{"ops"}},
	{Subject: "4", Name: "Dennis Ritchie", Password: "ritchie", Email: "dennis@example.org", Groups: []string{"all"}},
}

// provider starts where people sign in.
func provider(t testing.TB, users []oidctest.User) *oidctest.Provider {
	t.Helper()
	p, err := oidctest.Start(oidctest.AnyPort, users)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Stop(); err != nil {
			t.Error(err)
		}
	})
	return p
}

// knows has the server know the staff, as if each had signed in some time ago.
func (r *running) knows(tx store.Tx, issuer string, ago ...time.Duration) error {
	for i, u := range staff {
		p := fleet.Person{ID: "oidc:" + u.Subject, Name: u.Name, Via: fleet.ViaOIDC, Issuer: issuer, Groups: u.Groups, Created: r.now(), Seen: r.now().Add(-ago[i])}
		if err := tx.PutPerson(r.t.Context(), &p); err != nil {
			return err
		}
	}
	return nil
}

// session begins one of a person of the staff, and returns its cookie.
func (r *running) session(name string) *http.Cookie {
	r.t.Helper()
	var id [32]byte
	_, _ = rand.Read(id[:]) // never fails
	for _, u := range staff {
		if u.Name != name {
			continue
		}
		r.write(func(tx store.Tx) error {
			return tx.AddSession(r.t.Context(), &fleet.Session{SHA256: sha256.Sum256(id[:]), Person: "oidc:" + u.Subject, Created: r.now(), Seen: r.now()})
		})
	}
	return &http.Cookie{Name: "semper", Value: base64.RawURLEncoding.EncodeToString(id[:])}
}

// as is a client for what a person does in a browser.
func (r *running) as(name string) *client.Client {
	r.t.Helper()
	cookie := r.session(name)
	req, err := http.NewRequestWithContext(r.t.Context(), http.MethodGet, r.url+"/api/v1/me", http.NoBody)
	if err != nil {
		r.t.Fatal(err)
	}
	req.AddCookie(cookie)
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		r.t.Fatal(err)
	}
	defer res.Body.Close()
	var me struct {
		CSRF string `json:"csrf"`
	}
	if err := json.NewDecoder(res.Body).Decode(&me); err != nil || me.CSRF == "" {
		r.t.Fatalf("the session of %s: status %d (%v)", name, res.StatusCode, err)
	}
	target, err := url.Parse(r.url)
	if err != nil {
		r.t.Fatal(err)
	}
	proxy := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(p *httputil.ProxyRequest) {
		p.SetURL(target)
		p.Out.Header.Del("Authorization")
		p.Out.Header.Set("Semper-CSRF", me.CSRF)
		p.Out.AddCookie(cookie)
	}})
	r.t.Cleanup(proxy.Close)
	c, err := client.NewClient(proxy.URL, "none")
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}
