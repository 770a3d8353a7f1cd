package server

import (
	"crypto/sha256"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/proxies"
	"github.com/semper-os/semper/omaha/server/store"
)

func sumOf(b *browser) [sha256.Size]byte {
	return sha256.Sum256(sessionID(b.cookie("semper").Value))
}

func TestFirstLink(t *testing.T) {
	now := &shifted{}
	f := serve(t, t.TempDir(), Config{Now: now.read, PublicURL: "http://updates.example.org/fleet"})
	if _, _, body := f.do("GET", "/auth/options", ""); strings.TrimSpace(body) != `{"oidc":null,"link":true}` {
		t.Errorf("options: %s", body)
	}
	link, err := f.s.FirstLink(t.Context(), "http://127.0.0.1:1")
	if err != nil || !strings.HasPrefix(link, "http://updates.example.org/fleet/sign-in#") {
		t.Fatalf("link %q, %v", link, err)
	}
	if again, err := f.s.FirstLink(t.Context(), "http://127.0.0.1:1"); again != "" || err != nil {
		t.Errorf("a second time: %q, %v", again, err)
	}
	_, secret, _ := strings.Cut(link, "#")
	b := f.browser()
	status, header, body := b.send("POST", "/auth/link", `{"secret":"`+secret+`"}`)
	if status != 200 || header.Get("Cache-Control") != "no-store" || !strings.Contains(body, `"name":"admin","via":"link","role":"admin","csrf":"`) || b.me().Role != "admin" {
		t.Errorf("status %d, %v: %s", status, header, body)
	}
	if _, _, body := f.do("GET", "/auth/options", ""); strings.TrimSpace(body) != `{"oidc":null,"link":false}` {
		t.Errorf("options: %s", body)
	}
	other := f.browser()
	if status, _, _ := other.send("POST", "/auth/link", `{"secret":"`+secret+`"}`); status != 401 || other.cookie("semper") != nil {
		t.Errorf("used twice: status %d", status)
	}
	late := f.link("Late", fleet.Viewer)
	now.move(fleet.LinkLife)
	if status, _, _ := other.send("POST", "/auth/link", `{"secret":"`+late+`"}`); status != 401 || other.cookie("semper") != nil {
		t.Errorf("too late: status %d", status)
	}
	for _, bad := range []string{"", "{}", `{"secret":""}`, `{"secret":"` + secret[1:] + `"}`, `{"secret":"` + strings.Repeat("A", 43) + `"}`, `{"secret":7}`, `{"secret":"` + strings.Repeat("A", 9000) + `"}`, `{"token":"x"}`, "[]"} {
		if status, _, _ := other.send("POST", "/auth/link", bad); status != 401 && status != 400 || other.cookie("semper") != nil {
			t.Errorf("%.50s: status %d", bad, status)
		}
	}
	// Nothing secret is in the database.
	people, err := f.s.store.Read().People(t.Context())
	if err != nil || len(people) != 2 || people[0].ID == "" {
		t.Errorf("people %+v, %v", people, err)
	}
}

// TestNoFirstLink: who has an administrator needs no link.
func TestNoFirstLink(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	f.admin()
	if link, err := f.s.FirstLink(t.Context(), f.http.URL); link != "" || err != nil {
		t.Errorf("beside an administrator's token: %q, %v", link, err)
	}
	f, _, _ = withProvider(t)
	if link, err := f.s.FirstLink(t.Context(), f.http.URL); link != "" || err != nil {
		t.Errorf("beside a provider: %q, %v", link, err)
	}
	f = serve(t, t.TempDir(), Config{})
	if link, err := f.s.FirstLink(t.Context(), "0.0.0.0:8080"); err == nil {
		t.Errorf("an address that is none: %q", link)
	}
}

func TestNewLink(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	for _, c := range []struct{ name, role, want string }{
		{"", "admin", `name ""`},
		{"a\x1b[2J", "admin", "printable"},
		{" Ada", "admin", "printable"},
		{strings.Repeat("x", 201), "admin", "printable"},
		{"Ada", "root", `there is no role "root"`},
		{"Ada", "", "name the role of a new person"},
	} {
		err := f.s.store.Write(t.Context(), func(tx store.Tx) error {
			_, err := NewLink(t.Context(), tx, f.s.cfg.Random, c.name, fleet.Role(c.role), "test", f.s.cfg.Now())
			return err
		})
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q as %q: %v", c.name, c.role, err)
		}
	}
	// A second link is the same person's, and may change the role at once.
	b := f.byLink("Ada", fleet.Viewer)
	f.link("Ada", fleet.Operator)
	if b.me().Role != "operator" {
		t.Errorf("with a link for another role: %+v", b.me())
	}
	f.link("Ada", "")
	if all, err := f.s.store.Read().People(t.Context()); err != nil || len(all) != 1 || b.me().Role != "operator" {
		t.Errorf("people %+v, %v", all, err)
	}
}

// TestSignInLimits has somebody guess.
func TestSignInLimits(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	f := serve(t, t.TempDir(), Config{FailureLimit: 60, Now: func() time.Time { return now }})
	b := f.byLink("Ada", fleet.Admin)
	for _, path := range []string{"/auth/link", "/auth/token"} {
		body := `{"token":"` + f.token[:len(f.token)-1] + `"}`
		if path == "/auth/link" {
			body = `{"secret":"` + strings.Repeat("A", 43) + `"}`
		}
		for i := range failureBurst {
			if status, _, answer := f.do("POST", path, body); status != 401 || strings.Contains(answer, "AAAA") {
				t.Fatalf("%s, guess %d: status %d: %s", path, i, status, answer)
			}
		}
		status, header, _ := f.do("POST", path, body)
		if status != 429 || header.Get("Retry-After") != "1" {
			t.Errorf("%s: status %d, %v", path, status, header)
		}
		if status, _, _ := f.do("POST", "/auth/token", `{"token":"`+f.token+`"}`); status != 429 {
			t.Errorf("%s: the right token then: status %d", path, status)
		}
		// Who is signed in, or only wants to know how to, is not kept out.
		if b.me().Name != "Ada" {
			t.Error("a session is kept out")
		}
		if status, _, _ := f.do("GET", "/auth/options", ""); status != 200 {
			t.Errorf("options: status %d", status)
		}
		now = now.Add(30 * time.Second)
	}
	if status, _, _ := f.do("POST", "/auth/token", `{"token":"`+f.token+`"}`); status != 200 {
		t.Errorf("later: status %d", status)
	}
	// A browser that is not signed in asks in vain as often as it likes.
	for range 2 * failureBurst {
		if status, _, _ := f.do("GET", "/api/v1/me", ""); status != 401 {
			t.Fatalf("status %d", status)
		}
	}
}

// TestManyAddresses has many addresses guess at one token.
func TestManyAddresses(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	trusted, err := proxies.Parse([]string{"127.0.0.0/8"})
	if err != nil {
		t.Fatal(err)
	}
	f := serve(t, t.TempDir(), Config{FailureLimit: 60, Now: func() time.Time { return now }, Proxies: trusted})
	guess := `{"token":"` + f.token[:len(f.token)-1] + `"}`
	try := func(i int, body string) int {
		status, _, _ := f.do("POST", "/auth/token", body, "X-Forwarded-For", "192.0.2."+string(rune('0'+i%10))+string(rune('0'+i/10%10)))
		return status
	}
	for i := range failureBurst {
		if status := try(i, guess); status != 401 {
			t.Fatalf("guess %d: status %d", i, status)
		}
	}
	if status := try(50, guess); status != 429 {
		t.Errorf("one more: status %d", status)
	}
	if status := try(51, `{"token":"`+f.newToken(fleet.Viewer)+`"}`); status != 200 {
		t.Errorf("another token: status %d", status)
	}
	if status, _, _ := f.do("GET", "/api/v1/channels", "", "Authorization", "Bearer "+f.token); status != 200 {
		t.Errorf("a program with that token: status %d", status)
	}
	now = now.Add(time.Second)
	if status := try(52, `{"token":"`+f.token+`"}`); status != 200 {
		t.Errorf("later: status %d", status)
	}
}
