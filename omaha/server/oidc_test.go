package server

import (
	"crypto/sha256"
	"encoding/base64"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/people"
	"github.com/semper-os/semper/omaha/server/people/oidctest"
)

func TestSignInAtProvider(t *testing.T) {
	f, p, _ := withProvider(t)
	if status, _, body := f.do("GET", "/auth/options", ""); status != 200 || strings.TrimSpace(body) != `{"oidc":{"name":"Acme"},"link":false}` {
		t.Errorf("options: %d %s", status, body)
	}
	b := f.browser()
	if me := b.me(); me.Role != "" {
		t.Fatalf("before the sign-in: %+v", me)
	}
	status, header, body := b.oidc("ada", "/rollouts/3?tab=machines")
	if status != http.StatusSeeOther || header.Get("Location") != "/rollouts/3?tab=machines" || header.Get("Cache-Control") != "no-store" {
		t.Fatalf("status %d, %v: %s", status, header, body)
	}
	if me := b.me(); me.Name != "ada@example.org" || me.Via != "oidc" || me.Role != "operator" || len(me.CSRF) != 43 {
		t.Errorf("signed in as %+v", me)
	}
	var cookie *http.Cookie
	for _, c := range (&http.Response{Header: header}).Cookies() {
		if c.Name == "semper" {
			cookie = c
		}
	}
	if cookie == nil || !cookie.HttpOnly || cookie.Secure || cookie.SameSite != http.SameSiteLaxMode || cookie.Path != "/" || cookie.Domain != "" || cookie.MaxAge != 7*24*3600 {
		t.Errorf("cookie %+v in %v", cookie, header)
	}
	if b.cookie("semper-flow") != nil {
		t.Error("the flow's cookie is left")
	}

	// The highest role counts; an email that nobody verified is no name.
	if b := f.browser(); true {
		b.oidc("root", "/")
		if me := b.me(); me.Name != "root@example.org" || me.Role != "admin" {
			t.Errorf("signed in as %+v", me)
		}
		b = f.browser()
		b.oidc("mallory", "/")
		if me := b.me(); me.Name != "mallory" || me.Role != "viewer" {
			t.Errorf("signed in as %+v", me)
		}
	}

	// No group, no entry; but an administrator can let them in.
	eve := f.browser()
	status, header, body = eve.oidc("eve", "/")
	if status != 403 || !strings.Contains(body, "Acme knows you as eve@example.org, but none of your groups") || header.Get("Content-Security-Policy") != readerPolicy || eve.cookie("semper") != nil {
		t.Errorf("without a group: status %d, %v: %s", status, header, body)
	}
	if me := eve.me(); me.Role != "" {
		t.Errorf("without a group: %+v", me)
	}
	f.person("PUT", "oidc:2", `{"role":"viewer"}`, 200)
	if status, _, body := eve.oidc("eve", "/"); status != 303 || eve.me().Role != "viewer" {
		t.Errorf("with a role that was set: %d %s", status, body)
	}

	// Groups count as they were at the last sign-in.
	p.SetGroups("1|ada/x", "watch")
	if b.me().Role != "operator" {
		t.Errorf("before the next sign-in: %+v", b.me())
	}
	b.oidc("ada", "/")
	if b.me().Role != "viewer" {
		t.Errorf("after it: %+v", b.me())
	}
	p.SetGroups("1|ada/x")
	other := f.browser()
	if status, _, _ := other.oidc("ada", "/"); status != 403 {
		t.Errorf("in no group any more: status %d", status)
	}
	if me := b.me(); me.Role != "" {
		t.Errorf("in another browser: %+v", me)
	}
	f.audited("sign-in sign-in-refused person-role",
		"ada@example.org (oidc) sign-in person oidc:1|ada/x operator",
		"root@example.org (oidc) sign-in person oidc:3 admin",
		"mallory (oidc) sign-in person oidc:4 viewer",
		"eve@example.org (oidc) sign-in-refused person oidc:2 no role",
		f.adminWho()+" person-role person oidc:2 eve@example.org [by groups→viewer]",
		"eve@example.org (oidc) sign-in person oidc:2 viewer",
		"ada@example.org (oidc) sign-in person oidc:1|ada/x viewer",
		"ada@example.org (oidc) sign-in-refused person oidc:1|ada/x no role")
}

// TestBadSignIn has each step of a sign-in go wrong.
func TestBadSignIn(t *testing.T) {
	f, p, now := withProvider(t)
	for _, c := range []struct {
		name  string
		fault oidctest.Faults
		after time.Duration
		turn  func(b *browser, callback *url.URL)
		log   string
	}{
		{name: "another state", turn: func(_ *browser, u *url.URL) { edit(u, "state", "x") }, log: "did not begin in this browser"},
		{name: "no state", turn: func(_ *browser, u *url.URL) { edit(u, "state", "") }, log: "did not begin in this browser"},
		{name: "another browser's", turn: func(b *browser, _ *url.URL) { *b = *b.browser() }, log: "did not begin in this browser"},
		{name: "begun again since", turn: func(b *browser, _ *url.URL) { b.send("GET", "/auth/oidc/start", "") }, log: "another one began since"},
		{name: "another code", turn: func(_ *browser, u *url.URL) { edit(u, "code", "x") }, log: "does not accept the code"},
		{name: "no code", turn: func(_ *browser, u *url.URL) { edit(u, "code", "") }, log: "does not accept the code"},
		{name: "another verifier", turn: func(b *browser, _ *url.URL) { b.editFlow(2) }, log: "does not accept the code"},
		{name: "another nonce in the cookie", turn: func(b *browser, _ *url.URL) { b.editFlow(1) }, log: "belongs to another sign-in"},
		{name: "another issuer in the query", turn: func(_ *browser, u *url.URL) { edit(u, "iss", "https://example.org") }, log: "another provider's"},
		{name: "refused by the provider", turn: func(_ *browser, u *url.URL) { edit(u, "error", "access_denied") }, log: "the OpenID provider says access_denied"},
		{name: "refused with much", turn: func(_ *browser, u *url.URL) { edit(u, "error", "<script>alert(1)</script>") }, log: "the OpenID provider says an error that is none"},
		{name: "a code used twice", turn: func(b *browser, u *url.URL) {
			flow := b.cookie("semper-flow")
			if status, _, _ := b.send("GET", u.String(), ""); status != 303 {
				t.Errorf("the first time: status %d", status)
			}
			b.setCookie("semper-flow", flow.Value)
			b.setCookie("semper", "")
		}, log: "does not accept the code"},
		{name: "another nonce in the token", fault: oidctest.Faults{Nonce: "x"}, log: "belongs to another sign-in"},
		{name: "an expired token", fault: oidctest.Faults{Lifetime: -time.Minute}, log: "token is expired"},
		{name: "another issuer", fault: oidctest.Faults{Issuer: "https://example.org"}, log: "issued by a different provider"},
		{name: "another key", fault: oidctest.Faults{OtherKey: true}, log: "failed to verify signature"},
		{name: "too late", after: people.FlowLife + time.Second, log: "too long ago"},
	} {
		t.Run(c.name, func(t *testing.T) {
			parent := f.T
			f.T = t
			defer func() { f.T = parent }()
			b := f.browser()
			callback, err := url.Parse(b.prove("ada", "/"))
			if err != nil {
				t.Fatal(err)
			}
			p.Misbehave(c.fault)
			defer p.Misbehave(oidctest.Faults{})
			now.move(c.after)
			defer now.move(-c.after)
			if c.turn != nil {
				c.turn(b, callback)
			}
			status, header, body := b.send("GET", callback.String(), "")
			if status != 401 || !strings.Contains(body, "The sign-in did not work") || header.Get("Content-Security-Policy") != readerPolicy || strings.Contains(body, "<script") {
				t.Errorf("status %d, %v: %s", status, header, body)
			}
			if c := b.cookie("semper"); c != nil && c.Value != "" {
				t.Errorf("there is a session: %v", c)
			}
			log := strings.Split(strings.TrimSpace(f.log.String()), "\n")
			if last := log[len(log)-1]; !strings.Contains(last, c.log) || strings.Contains(last, oidctest.ClientSecret) {
				t.Errorf("the log says %s, want %q", last, c.log)
			}
		})
	}
	b := f.browser()
	if status, _, _ := b.oidc("ada", "/"); status != 303 {
		t.Errorf("at the end: status %d", status)
	}
}

// edit changes a parameter of an address.
func edit(u *url.URL, name, value string) {
	q := u.Query()
	q.Set(name, value)
	u.RawQuery = q.Encode()
}

// editFlow changes a part of the flow's cookie.
func (b *browser) editFlow(part int) {
	b.Helper()
	parts := strings.Split(b.cookie("semper-flow").Value, ".")
	parts[part] = strings.Repeat("A", len(parts[part]))
	b.setCookie("semper-flow", strings.Join(parts, "."))
}

// TestProofKey looks at what is asked of the provider, and tries a stolen code there.
func TestProofKey(t *testing.T) {
	f, p, _ := withProvider(t)
	b := f.browser()
	_, header, _ := b.send("GET", "/auth/oidc/start", "")
	at := header.Get("Location")
	u, _ := url.Parse(at)
	q := u.Query()
	verifier := strings.Split(b.cookie("semper-flow").Value, ".")[2]
	sum := sha256.Sum256([]byte(verifier))
	if q.Get("code_challenge_method") != "S256" || q.Get("code_challenge") != base64.RawURLEncoding.EncodeToString(sum[:]) || q.Get("response_type") != "code" ||
		q.Get("redirect_uri") != f.http.URL+"/auth/oidc/callback" || q.Get("scope") != "openid profile email groups" || len(q.Get("state")) != 43 || len(q.Get("nonce")) != 43 || q.Get("nonce") == q.Get("state") {
		t.Errorf("asked: %v", q)
	}
	callback, _ := url.Parse(b.proveAt("ada", at))
	for name, verifier := range map[string]string{"none": "", "another": strings.Repeat("x", 43)} {
		form := url.Values{"grant_type": {"authorization_code"}, "code": {callback.Query().Get("code")}, "redirect_uri": {q.Get("redirect_uri")}}
		if verifier != "" {
			form.Set("code_verifier", verifier)
		}
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+"/oauth/token", strings.NewReader(form.Encode()))
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.SetBasicAuth(oidctest.ClientID, url.QueryEscape(oidctest.ClientSecret))
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(res.Body)
		res.Body.Close()
		if res.StatusCode != http.StatusBadRequest || strings.Contains(string(body), "id_token") {
			t.Errorf("verifier %s: the provider answers %d %s", name, res.StatusCode, body)
		}
	}
	// A provider takes no address to come back to that it was not told before.
	if status, header, body := b.send("GET", "/auth/oidc/start", "", "Host", "example.org"); status != 302 {
		t.Errorf("start: %d %s", status, body)
	} else if status, header, _ := b.send("GET", header.Get("Location"), ""); status != 400 || header.Get("Location") != "" {
		t.Errorf("another address to come back to: status %d, %v", status, header)
	}
}

func TestUserinfo(t *testing.T) {
	f, p, _ := withProvider(t)
	p.Misbehave(oidctest.Faults{InUserinfo: true})
	b := f.browser()
	if status, _, body := b.oidc("ada", "/"); status != 303 || b.me().Name != "ada@example.org" || b.me().Role != "operator" {
		t.Errorf("status %d, %+v: %s", status, b.me(), body)
	}
	p.Misbehave(oidctest.Faults{LongAnswers: true})
	if status, _, _ := f.browser().oidc("ada", "/"); status != 503 {
		t.Errorf("an answer without an end: status %d", status)
	}
}

// TestProviderDown starts a server while its provider is down.
func TestProviderDown(t *testing.T) {
	l, err := net.Listen("tcp", oidctest.AnyPort)
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	l.Close()
	now := &shifted{}
	f := serve(t, t.TempDir(), Config{OIDC: oidcConfig(t, "http://"+address), Now: now.read})
	b := f.browser()
	for range 2 {
		status, header, body := b.send("GET", "/auth/oidc/start", "")
		if status != 503 || header.Get("Retry-After") == "" || !strings.Contains(body, "Acme does not answer") {
			t.Errorf("while it is down: status %d, %v: %s", status, header, body)
		}
	}
	if status, _, _ := b.send("GET", "/readyz", ""); status != 200 {
		t.Errorf("ready: status %d", status)
	}
	p := provider(t, address)
	p.SetRedirects(f.http.URL + "/auth/oidc/callback")
	now.move(time.Minute)
	if status, _, body := b.oidc("ada", "/"); status != 303 {
		t.Errorf("once it is up: status %d: %s", status, body)
	}
}

// TestOpenRedirect has a sign-in end on this server, whatever was asked for.
func TestOpenRedirect(t *testing.T) {
	f, _, _ := withProvider(t)
	for next, want := range map[string]string{
		"/machines?state=failed": "/machines?state=failed", "": "/", "https://example.org/": "/", "//example.org": "/", `/\example.org`: "/", "/\t/example.org": "/",
		"javascript:alert(1)": "/", "machines": "/", "/a\r\nSet-Cookie: semper=x": "/", "/auth/oidc/start": "/", "/.//example.org": "/", "/%0d%0aSet-Cookie:x": "/%0d%0aSet-Cookie:x",
	} {
		b := f.browser()
		if status, header, _ := b.oidc("ada", next); status != 303 || header.Get("Location") != want {
			t.Errorf("%q: status %d to %q, want %q", next, status, header.Get("Location"), want)
		}
	}
	// Nor does the cookie help.
	b := f.browser()
	callback := b.prove("ada", "/")
	parts := strings.Split(b.cookie("semper-flow").Value, ".")
	parts[4] = base64.RawURLEncoding.EncodeToString([]byte("//example.org"))
	b.setCookie("semper-flow", strings.Join(parts, "."))
	if status, header, _ := b.send("GET", callback, ""); status != 401 || header.Get("Location") != "" {
		t.Errorf("another place in the cookie: status %d, %v", status, header)
	}
}

// TestAnotherProvider has a server change its provider: whom the first one vouched for is nobody to the second.
func TestAnotherProvider(t *testing.T) {
	f, _, _ := withProvider(t)
	b := f.browser()
	b.oidc("mallory", "/")
	f.person("PUT", "oidc:4", `{"role":"admin"}`, 200)
	if b.me().Role != "admin" {
		t.Fatalf("signed in as %+v", b.me())
	}
	old := f.s.oidc
	second := provider(t, oidctest.AnyPort)
	second.SetRedirects(f.http.URL + "/auth/oidc/callback")
	var err error
	if f.s.oidc, err = people.New(oidcConfig(t, second.URL), f.s.cfg.Now, f.s.cfg.Random); err != nil {
		t.Fatal(err)
	}
	if me := b.me(); me.Role != "" {
		t.Errorf("with the first one's session: %+v", me)
	}
	other := f.browser()
	if other.oidc("mallory", "/"); other.me().Role != "viewer" {
		t.Errorf("the second one's: %+v", other.me())
	}
	f.s.oidc = old
	if me := b.me(); me.Role != "" {
		t.Errorf("back at the first one: %+v", me)
	}
	f.s.oidc = nil
	if me := other.me(); me.Role != "" {
		t.Errorf("without a provider: %+v", me)
	}
	for _, path := range []string{"/auth/oidc/start", "/auth/oidc/callback"} {
		if status, _, _ := b.send("GET", path, ""); status != 404 {
			t.Errorf("%s without a provider: status %d", path, status)
		}
	}
	f.s.oidc = old
}
