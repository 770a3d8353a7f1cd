package server

import (
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// admin is a token of an administrator, one for a fixture.
func (f *fixture) admin() string {
	f.Helper()
	if f.adminToken == "" {
		f.adminToken = f.newToken(fleet.Admin)
	}
	return f.adminToken
}

// adminWho is how the audit log calls it.
func (f *fixture) adminWho() string {
	id, _, _ := strings.Cut(strings.TrimPrefix(f.admin(), tokenPrefix), "_")
	t, err := f.s.store.Read().Token(f.Context(), id)
	if err != nil {
		f.Fatal(err)
	}
	return tokenCaller(&t).who
}

// person changes a person as an administrator does.
func (f *fixture) person(method, id, body string, want int) string {
	f.Helper()
	status, _, answer := f.do(method, "/api/v1/people/"+url.PathEscape(id), body, "Authorization", "Bearer "+f.admin())
	if status != want {
		f.Errorf("%s %s: status %d, want %d: %s", method, id, status, want, answer)
	}
	return answer
}

func TestCookieOverTLS(t *testing.T) {
	f := serve(t, t.TempDir(), Config{PublicURL: "https://updates.example.org"})
	post := func(host string) []*http.Cookie {
		_, header, _ := f.browser().send("POST", "/auth/link", `{"secret":"`+f.link("Ada", fleet.Admin)+`"}`, "Host", host)
		return (&http.Response{Header: header}).Cookies()
	}
	if c := post("updates.example.org"); len(c) != 1 || c[0].Name != "__Host-semper" || !c[0].Secure || !c[0].HttpOnly || c[0].Path != "/" || c[0].Domain != "" || c[0].SameSite != http.SameSiteLaxMode {
		t.Errorf("by TLS: %+v", c)
	}
	if c := post("127.0.0.1:8080"); len(c) != 1 || c[0].Name != "semper" || c[0].Secure {
		t.Errorf("without TLS: %+v", c)
	}
	// A cookie without the prefix counts for nothing there: another host of the domain may have set it.
	b := f.byLink("Ada", "")
	value := b.cookie("semper").Value
	for cookie, want := range map[string]int{"semper=" + value: 401, "__Host-semper=" + value: 200, "__Host-semper=" + value + "; __Host-semper=x": 401} {
		if status, _, _ := f.browser().send("GET", "/api/v1/me", "", "Cookie", cookie, "Host", "updates.example.org"); status != want {
			t.Errorf("%s: status %d, want %d", cookie, status, want)
		}
	}
}

func TestForeignCookies(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	b := f.byLink("Ada", fleet.Admin)
	good := b.cookie("semper").Value
	for _, cookie := range []string{
		"", "semper=", "semper=" + good[1:], "semper=" + good + "A", "semper=" + strings.Repeat("A", 43), "semper=" + strings.Repeat("A", 8000), "semper=" + good + "; semper=" + good[1:] + "A",
		"__Host-semper=" + good, "semper=" + base64.StdEncoding.EncodeToString(make([]byte, 32)), "semper=%00", "semper=" + good[:42] + "_",
	} {
		status, header, _ := f.do("GET", "/api/v1/me", "", "Cookie", cookie)
		if status != 401 || header.Get("Set-Cookie") != "" {
			t.Errorf("%.100s: status %d, %v", cookie, status, header)
		}
	}
	if status, _, _ := f.do("GET", "/api/v1/me", "", "Cookie", "semper="+good); status != 200 {
		t.Errorf("the right one: status %d", status)
	}
	// A token that is shown counts alone.
	if status, _, _ := b.send("GET", "/api/v1/me", "", "Authorization", "Bearer semper_x"); status != 401 {
		t.Errorf("a wrong token beside a session: status %d", status)
	}
	if status, _, _ := b.send("GET", "/api/v1/me", "", "Authorization", "Basic eDp5"); status != 401 {
		t.Errorf("a password beside a session: status %d", status)
	}
}

func FuzzSessionID(f *testing.F) {
	for _, s := range []string{"", strings.Repeat("A", 43), strings.Repeat("A", 42) + "B", strings.Repeat("=", 43), strings.Repeat("A", 44)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if id := sessionID(s); id != nil && (len(id) != sessionBytes || cookieEncoding.EncodeToString(id) != s) {
			t.Errorf("%q became %x", s, id)
		}
	})
}

// TestCSRF has another site send what a signed-in browser would.
func TestCSRF(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	b, other := f.byLink("Ada", fleet.Admin), f.byLink("Bob", fleet.Admin)
	me := b.me()
	if me.CSRF == "" || me.CSRF == other.me().CSRF || me.CSRF == b.cookie("semper").Value {
		t.Fatalf("CSRF tokens %q and %q", me.CSRF, other.csrf)
	}
	put := func(b *browser, header ...string) int {
		status, _, _ := b.send("PUT", "/api/v1/groups/lab", "", header...)
		return status
	}
	for _, c := range []struct {
		name   string
		want   int
		header []string
	}{
		{"as the console", 200, []string{api.CSRFHeader, me.CSRF, "Origin", f.http.URL, "Sec-Fetch-Site", "same-origin"}},
		{"an old browser", 200, []string{api.CSRFHeader, me.CSRF}},
		{"no header", 403, []string{"Origin", f.http.URL, "Sec-Fetch-Site", "same-origin"}},
		{"an empty header", 403, []string{api.CSRFHeader, ""}},
		{"a wrong header", 403, []string{api.CSRFHeader, me.CSRF[1:] + "A"}},
		{"another session's", 403, []string{api.CSRFHeader, other.csrf}},
		{"another site", 403, []string{api.CSRFHeader, me.CSRF, "Origin", "https://example.org", "Sec-Fetch-Site", "cross-site"}},
		{"another host of the domain", 403, []string{api.CSRFHeader, me.CSRF, "Origin", f.http.URL, "Sec-Fetch-Site", "same-site"}},
		{"another origin", 403, []string{api.CSRFHeader, me.CSRF, "Origin", "https://example.org"}},
		{"no origin that has a name", 403, []string{api.CSRFHeader, me.CSRF, "Origin", "null"}},
		{"a token needs none", 200, []string{"Authorization", "Bearer " + f.admin(), "Origin", "https://example.org", "Sec-Fetch-Site", "cross-site"}},
	} {
		if status := put(b, c.header...); status != c.want {
			t.Errorf("%s: status %d, want %d", c.name, status, c.want)
		}
	}
	if status, _, _ := b.send("GET", "/api/v1/groups", "", "Sec-Fetch-Site", "cross-site"); status != 200 {
		t.Errorf("only to look: status %d", status)
	}
	for _, path := range []string{"/auth/sign-out", "/auth/link", "/auth/token"} {
		if status, _, _ := b.send("POST", path, `{}`, "Origin", "https://example.org", api.CSRFHeader, me.CSRF); status != 403 {
			t.Errorf("%s from another site: status %d", path, status)
		}
	}
	if status, _, _ := b.send("POST", "/auth/sign-out", ""); status != 403 {
		t.Errorf("sign-out without the header: status %d", status)
	}
	if b.me().Name != "Ada" {
		t.Error("somebody signed Ada out")
	}
}

// TestFixation has a browser with an id that somebody else chose, or knows, sign in.
func TestFixation(t *testing.T) {
	f, _, _ := withProvider(t)
	mallory := f.byLink("Mallory", fleet.Viewer)
	for name, id := range map[string]string{"a session that there is": mallory.cookie("semper").Value, "one that there is not": strings.Repeat("A", 43)} {
		for way, signIn := range map[string]func(b *browser){
			"oidc":  func(b *browser) { b.oidc("root", "/") },
			"link":  func(b *browser) { b.send("POST", "/auth/link", `{"secret":"`+f.link("Ada", fleet.Admin)+`"}`) },
			"token": func(b *browser) { b.send("POST", "/auth/token", `{"token":"`+f.admin()+`"}`) },
		} {
			b := f.browser()
			b.setCookie("semper", id)
			signIn(b)
			if b.me().Role != "admin" {
				t.Fatalf("%s, %s: signed in as %+v", name, way, b.me())
			}
			if b.cookie("semper").Value == id {
				t.Errorf("%s, %s: the id is the same", name, way)
			}
			old := f.browser()
			old.setCookie("semper", id)
			if me := old.me(); me.Role != "" {
				t.Errorf("%s, %s: the old id is %+v", name, way, me)
			}
		}
	}
	// A new sign-in ends the session before it.
	b := f.byLink("Ada", fleet.Admin)
	before := b.cookie("semper").Value
	b.send("POST", "/auth/token", `{"token":"`+f.admin()+`"}`)
	old := f.browser()
	old.setCookie("semper", before)
	if me := old.me(); me.Role != "" || b.me().Via != "token" {
		t.Errorf("the session before: %+v; the new one: %+v", me, b.me())
	}
}

func TestSessionLimits(t *testing.T) {
	now := &shifted{}
	f := serve(t, t.TempDir(), Config{Now: now.read})
	seen := func(b *browser) time.Time {
		s, err := f.s.store.Read().Session(t.Context(), sumOf(b))
		if err != nil {
			t.Fatal(err)
		}
		return s.Seen
	}
	idle := f.byLink("Ada", fleet.Admin)
	first := seen(idle)
	now.move(30 * time.Second)
	idle.me()
	if !seen(idle).Equal(first) {
		t.Error("noted within a minute")
	}
	now.move(30 * time.Second)
	idle.me()
	if got := seen(idle).Sub(first); got < time.Minute || got > 2*time.Minute {
		t.Errorf("noted after %v", got)
	}
	now.move(fleet.SessionIdle - time.Minute)
	if idle.me().Name != "Ada" {
		t.Error("ended before the idle limit")
	}
	now.move(fleet.SessionIdle + time.Minute)
	if me := idle.me(); me.Role != "" {
		t.Errorf("after the idle limit: %+v", me)
	}
	busy := f.byLink("Bob", fleet.Admin)
	for range 13 {
		now.move(fleet.SessionIdle)
		now.move(-time.Minute)
		if busy.me().Name != "Bob" {
			t.Fatal("ended though it was used")
		}
	}
	now.move(fleet.SessionIdle - time.Minute)
	now.move(28 * time.Minute)
	if me := busy.me(); me.Role != "" {
		t.Errorf("after the absolute limit: %+v", me)
	}

	// What is over is swept.
	if err := f.s.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, b := range []*browser{idle, busy} {
		if _, err := f.s.store.Read().Session(t.Context(), sumOf(b)); err == nil {
			t.Error("the session is still there")
		}
	}
}

func TestSessionsEnd(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	ada, adas := f.byLink("Ada", fleet.Operator), f.byLink("Ada", "")
	var list api.People
	_, _, body := f.do("GET", "/api/v1/people", "", "Authorization", "Bearer "+f.admin())
	if err := json.Unmarshal([]byte(body), &list); err != nil || len(list.People) != 1 || list.People[0].Name != "Ada" || list.People[0].Role != "operator" || list.People[0].RoleFrom != "set" || list.People[0].LastSeen.IsZero() {
		t.Fatalf("people %s", body)
	}
	id := list.People[0].ID

	// A role counts from the next request on.
	if status, _ := ada.call("PUT", "/api/v1/groups/lab", ""); status != 200 {
		t.Errorf("an operator: status %d", status)
	}
	f.person("PUT", id, `{"role":"viewer"}`, 200)
	if status, body := ada.call("PUT", "/api/v1/groups/lab", ""); status != 403 || !strings.Contains(body, "the role of Ada is viewer; this needs operator") {
		t.Errorf("a viewer: status %d: %s", status, body)
	}
	f.person("PUT", id, `{"role":"root"}`, 400)
	f.person("PUT", id, `{"role":""}`, 409)
	f.person("PUT", "nobody", `{"role":"viewer"}`, 404)
	f.person("PUT", id, `{"role":"admin"}`, 200)
	if status, body := ada.call("DELETE", "/api/v1/people/"+id, ""); status != 409 {
		t.Errorf("oneself: status %d: %s", status, body)
	}
	if status, body := ada.call("PUT", "/api/v1/people/"+id, `{"role":"viewer"}`); status != 409 {
		t.Errorf("oneself: status %d: %s", status, body)
	}

	if status, _ := ada.call("POST", "/auth/sign-out", ""); status != 200 {
		t.Errorf("sign-out: status %d", status)
	}
	if ada.cookie("semper") != nil || ada.me().Role != "" || adas.me().Name != "Ada" {
		t.Errorf("after a sign-out: %v, %+v; in another browser: %+v", ada.cookie("semper"), ada.me(), adas.me())
	}
	if status, _ := ada.call("POST", "/auth/sign-out", ""); status != 200 {
		t.Errorf("sign-out again: status %d", status)
	}
	secret := f.link("Ada", "")
	f.person("DELETE", id, "", 200)
	f.person("DELETE", id, "", 404)
	if me := adas.me(); me.Role != "" {
		t.Errorf("removed: %+v", me)
	}
	if status, _, _ := ada.send("POST", "/auth/link", `{"secret":"`+secret+`"}`); status != 401 {
		t.Errorf("a link of one who was removed: status %d", status)
	}

	// A token's session has its role and ends with it.
	token := f.newToken(fleet.Viewer)
	b := f.browser()
	status, header, body := b.send("POST", "/auth/token", `{"token":"`+token+`\n"}`)
	if status != 200 || header.Get("Cache-Control") != "no-store" || !strings.Contains(body, `"via":"token"`) || b.me().Role != "viewer" {
		t.Fatalf("sign in with a token: status %d: %s", status, body)
	}
	tokenID := strings.Split(token, "_")[1]
	if err := f.s.store.Write(t.Context(), func(tx store.Tx) error { return RevokeToken(t.Context(), tx, token, "test", f.s.cfg.Now()) }); err != nil {
		t.Fatal(err)
	}
	if me := b.me(); me.Role != "" {
		t.Errorf("after the token's end: %+v", me)
	}
	f.audited("sign-in sign-out person-role person-remove token-revoke",
		"Ada (link) sign-in person "+id+" operator",
		"Ada (link) sign-in person "+id+" operator",
		f.adminWho()+" person-role person "+id+" Ada [operator→viewer]",
		f.adminWho()+" person-role person "+id+" Ada [viewer→admin]",
		"Ada (link) sign-out person "+id,
		f.adminWho()+" person-remove person "+id+" Ada [admin→]",
		"token "+tokenID+" test sign-in token "+tokenID+" viewer",
		"test token-revoke token "+tokenID+" test [viewer→worthless]")
}

// TestSessionAtAnotherServer signs in at one of two servers that share a database, and out at the other.
func TestSessionAtAnotherServer(t *testing.T) {
	var at [2]*fixture
	for i, server := range twins(t) {
		hs := httptest.NewServer(server.Handler())
		t.Cleanup(hs.Close)
		at[i] = &fixture{T: t, s: server, http: hs}
	}
	a, b := at[0], at[1]
	one := a.byLink("Ada", fleet.Admin)
	two := b.browser()
	two.setCookie("semper", one.cookie("semper").Value)
	if two.me().Name != "Ada" {
		t.Fatalf("at the other: %+v", two.me())
	}
	if status, _ := two.call("POST", "/auth/sign-out", ""); status != 200 {
		t.Errorf("sign-out: status %d", status)
	}
	if me := one.me(); me.Role != "" {
		t.Errorf("at the first: %+v", me)
	}
}

// TestNoSessionInCopies signs out after a backup, and tries the session on what is restored.
func TestNoSessionInCopies(t *testing.T) {
	dir := t.TempDir()
	f := serve(t, dir, Config{})
	b, secret := f.byLink("Ada", fleet.Admin), f.link("Bob", fleet.Admin)
	cookie, copied := b.cookie("semper").Value, filepath.Join(t.TempDir(), "copy")
	if _, err := Copy(t.Context(), Place{Dir: dir, Database: databaseOf(t, dir)}, Place{Dir: copied}, nil); err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Config{Dir: copied, Now: f.s.cfg.Now})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	hs := httptest.NewServer(s.Handler())
	defer hs.Close()
	restored := (&fixture{T: t, s: s, http: hs}).browser()
	restored.setCookie("semper", cookie)
	if me := restored.me(); me.Role != "" || b.me().Name != "Ada" {
		t.Errorf("on what is restored: %+v, on what it is a copy of: %+v", me, b.me())
	}
	if status, _, _ := restored.send("POST", "/auth/link", `{"secret":"`+secret+`"}`); status != 401 {
		t.Errorf("a link on what is restored: status %d", status)
	}
	if all, err := s.store.Read().People(t.Context()); err != nil || len(all) != 2 {
		t.Errorf("people %+v, %v", all, err)
	}
}
