package server

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/people"
	"github.com/semper-os/semper/omaha/server/people/oidctest"
	"github.com/semper-os/semper/omaha/server/store"
)

// shifted is the real time, moved by as much as a test likes: a real provider's tokens are of now.
type shifted struct {
	mu sync.Mutex
	by time.Duration
}

func (s *shifted) read() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.by)
}

func (s *shifted) move(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by += d
}

// browser keeps cookies and follows no redirect by itself.
type browser struct {
	*fixture
	client *http.Client
	csrf   string
}

func (f *fixture) browser() *browser {
	f.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		f.Fatal(err)
	}
	return &browser{f, &http.Client{Jar: jar, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, ""}
}

// send sends a request to a path of the server, or to a URL.
func (b *browser) send(method, path, body string, header ...string) (int, http.Header, string) {
	b.Helper()
	if strings.HasPrefix(path, "/") {
		path = b.http.URL + path
	}
	req, err := http.NewRequestWithContext(b.Context(), method, path, strings.NewReader(body))
	if err != nil {
		b.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
		if header[i] == "Host" {
			req.Host = header[i+1]
		}
	}
	res, err := b.client.Do(req)
	if err != nil {
		b.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		b.Fatal(err)
	}
	return res.StatusCode, res.Header, string(data)
}

// call sends a request as the console does.
func (b *browser) call(method, path, body string) (int, string) {
	b.Helper()
	status, _, answer := b.send(method, path, body, api.CSRFHeader, b.csrf, "Origin", b.http.URL, "Sec-Fetch-Site", "same-origin")
	return status, answer
}

// me is who the browser is signed in as; empty: nobody.
func (b *browser) me() (me api.Me) {
	b.Helper()
	status, _, body := b.send("GET", "/api/v1/me", "")
	if status == http.StatusUnauthorized {
		return me
	}
	if err := json.Unmarshal([]byte(body), &me); err != nil || status != 200 || me.Role == "" {
		b.Fatalf("me: status %d: %s", status, body)
	}
	b.csrf = me.CSRF
	return me
}

func (b *browser) cookie(name string) *http.Cookie {
	u, _ := url.Parse(b.http.URL)
	for _, c := range b.client.Jar.Cookies(u) {
		if c.Name == name {
			return c
		}
	}
	return nil
}

func (b *browser) setCookie(name, value string) {
	u, _ := url.Parse(b.http.URL)
	b.client.Jar.SetCookies(u, []*http.Cookie{{Name: name, Value: value, Path: "/"}})
}

// link makes a link for a person.
func (f *fixture) link(name string, role fleet.Role) (secret string) {
	f.Helper()
	err := f.s.store.Write(f.Context(), func(tx store.Tx) (err error) {
		secret, err = NewLink(f.Context(), tx, f.s.cfg.Random, name, role, "test", f.s.cfg.Now().UTC())
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	return secret
}

// byLink is a browser of somebody who signed in with a link.
func (f *fixture) byLink(name string, role fleet.Role) *browser {
	f.Helper()
	b := f.browser()
	if status, _, body := b.send("POST", "/auth/link", `{"secret":"`+f.link(name, role)+`"}`); status != 200 {
		f.Fatalf("sign in by a link: status %d: %s", status, body)
	}
	if b.me().Name != name {
		f.Fatalf("signed in as %+v", b.me())
	}
	return b
}

// The people whom the tests' provider knows.
var provided = []oidctest.User{
	{Subject: "1|ada/x", Name: "ada", Password: "pw-ada", Email: "ada@example.org", Groups: []string{"staff", "ops"}},
	{Subject: "2", Name: "eve", Password: "pw-eve", Email: "eve@example.org", Groups: []string{"staff"}},
	{Subject: "3", Name: "root", Password: "pw-root", Email: "root@example.org", Groups: []string{"admins", "ops", "watch"}},
	{Subject: "4", Name: "mallory", Password: "pw-mallory", Email: "root@example.org", Unverified: true, Groups: []string{"watch"}},
}

var mapping = []fleet.GroupRole{{Group: "watch", Role: fleet.Viewer}, {Group: "admins", Role: fleet.Admin}, {Group: "ops", Role: fleet.Operator}}

func provider(t *testing.T, address string) *oidctest.Provider {
	t.Helper()
	p, err := oidctest.Start(address, append([]oidctest.User{}, provided...))
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

func oidcConfig(t *testing.T, issuer string) people.Config {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "client-secret")
	if err := os.WriteFile(secret, []byte(oidctest.ClientSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return people.Config{Issuer: issuer, ClientID: oidctest.ClientID, SecretFile: secret, Name: "Acme", Roles: mapping}
}

// withProvider is a server whose people sign in at a provider, and the time that it believes in.
func withProvider(t *testing.T) (*fixture, *oidctest.Provider, *shifted) {
	t.Helper()
	p, now := provider(t, oidctest.AnyPort), &shifted{}
	f := serve(t, t.TempDir(), Config{OIDC: oidcConfig(t, p.URL), Now: now.read})
	p.SetRedirects(f.http.URL + "/auth/oidc/callback")
	return f, p, now
}

// prove begins a sign-in, proves at the provider who it is, and returns the address that the provider sends the browser to then, which it does not follow.
func (b *browser) prove(user, next string) (callback string) {
	b.Helper()
	status, header, body := b.send("GET", "/auth/oidc/start?next="+url.QueryEscape(next), "")
	if status != http.StatusFound || header.Get("Cache-Control") != "no-store" {
		b.Fatalf("start: status %d, %v: %s", status, header, body)
	}
	return b.proveAt(user, header.Get("Location"))
}

// proveAt does what is to be done at the provider.
func (b *browser) proveAt(user, at string) string {
	b.Helper()
	issuer, _ := url.Parse(at)
	for range 10 {
		u, err := url.Parse(at)
		if err != nil {
			b.Fatal(err)
		}
		if u.Host != issuer.Host {
			return at
		}
		var status int
		var header http.Header
		var body string
		if u.Path == "/login" {
			form := url.Values{"request": {u.Query().Get("request")}, "user": {user}, "password": {"pw-" + user}}
			status, header, body = b.send("POST", u.String(), form.Encode(), "Content-Type", "application/x-www-form-urlencoded")
		} else {
			status, header, body = b.send("GET", at, "")
		}
		to, err := u.Parse(header.Get("Location"))
		if status != http.StatusFound || err != nil {
			b.Fatalf("the provider answers %d, %v: %s", status, header, body)
		}
		at = to.String()
	}
	b.Fatal("the provider redirects for ever")
	return ""
}

// oidc signs in at the provider.
func (b *browser) oidc(user, next string) (int, http.Header, string) {
	b.Helper()
	return b.send("GET", b.prove(user, next), "")
}

// audited demands that the last entries of the audit log of these kinds are so.
func (f *fixture) audited(kinds string, want ...string) {
	f.Helper()
	all, _, err := f.s.store.Read().Audits(f.Context(), 0, "", 100)
	if err != nil {
		f.Fatal(err)
	}
	var got []string
	for i := len(all) - 1; i >= 0; i-- {
		if a := &all[i]; strings.Contains(kinds, a.What) {
			got = append(got, strings.TrimSpace(a.Who+" "+a.What+" "+a.Subject+" "+a.Detail)+strings.TrimSuffix(" ["+a.Before+"→"+a.After+"]", " [→]"))
		}
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		f.Errorf("audit log:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
