package people

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/fleet"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func TestLocal(t *testing.T) {
	for _, good := range []string{"/", "/rollouts/3", "/machines?q=a%20b&state=failed", "/machines/0123#events", "/sign-in", "/a/b?next=https://example.org//x", "/a?x=/auth/", "/%2F%2Fexample.org", "/@example.org", "/:80"} {
		if got := Local(good); got != good {
			t.Errorf("%q became %q", good, got)
		}
	}
	for _, bad := range []string{
		"", "rollouts", "//example.org", "///example.org", `/\example.org`, `\/example.org`, `\\example.org`, "/\t/example.org", "/\n/example.org", "\t//example.org", " /x", "/x y",
		"https://example.org/", "http:/example.org", "javascript:alert(1)", "data:text/html,x", "example.org", "@example.org", "?x", "#x", ".", "..//example.org",
		"/.//example.org", "/..//example.org", "/a//b", "/a\\b", "/\x00", "/a\r\nSet-Cookie: x=y", "/größe", "/\u2028", "/%zz", "/auth/oidc/start", "/auth/", "/" + strings.Repeat("a", MaxNext),
	} {
		if got := Local(bad); got != "/" {
			t.Errorf("%q became %q", bad, got)
		}
	}
}

func TestFlow(t *testing.T) {
	f, err := newFlow(rand.Reader, "/rollouts/3?x=1", now)
	if err != nil {
		t.Fatal(err)
	}
	text := f.String()
	got, err := ParseFlow(text, now)
	if err != nil || got.state != f.state || got.nonce != f.nonce || got.verifier != f.verifier || !got.expires.Equal(f.expires) || got.Next != "/rollouts/3?x=1" {
		t.Errorf("%+v became %+v, %v", f, got, err)
	}
	if len(f.verifier) != 43 || f.state == f.nonce || f.nonce == f.verifier {
		t.Errorf("flow %+v", f)
	}
	if _, err := ParseFlow(text, now.Add(FlowLife-time.Second)); err != nil {
		t.Errorf("in its last second: %v", err)
	}
	long, _ := newFlow(rand.Reader, "/"+strings.Repeat("a", MaxNext-1), now)
	if _, err := ParseFlow(long.String(), now); err != nil || len(long.String()) > 3000 {
		t.Errorf("the longest one, with %d bytes: %v", len(long.String()), err)
	}
	for name, bad := range map[string]struct {
		text string
		at   time.Time
	}{
		"empty":       {"", now},
		"too old":     {text, now.Add(FlowLife)},
		"a later one": {text, now.Add(-2 * time.Second)},
		"cut off":     {text[:len(text)-1] + "!", now},
		"short state": {text[1:], now},
		"other next":  {strings.Join(append(strings.Split(text, ".")[:4], encoding.EncodeToString([]byte("//example.org"))), "."), now},
		"no next":     {strings.Join(strings.Split(text, ".")[:4], "."), now},
		"more":        {text + ".x", now},
		"too long":    {strings.Repeat("a", 10_000), now},
	} {
		if f, err := ParseFlow(bad.text, bad.at); !fault.Is(err, fault.Verification) {
			t.Errorf("%s: %+v, %v", name, f, err)
		}
	}
}

func FuzzLocal(f *testing.F) {
	for _, s := range []string{"/", "/a?b#c", "//a", `/\a`, "/\t/a", "https://a/", "/.//a", "/%2f/a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Local(s)
		if got != s && got != "/" {
			t.Errorf("%q became %q, which is neither", s, got)
		}
		if got[0] != '/' || strings.HasPrefix(got, "//") || strings.ContainsAny(got, "\\\t\r\n\x00 ") || Local(got) != got {
			t.Errorf("%q became %q", s, got)
		}
	})
}

func FuzzParseFlow(f *testing.F) {
	good, _ := newFlow(rand.Reader, "/rollouts/3", now)
	for _, s := range []string{good.String(), "", "....", "a.b.c.d.e", strings.Repeat("A", 43)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := ParseFlow(s, now)
		if err != nil {
			return
		}
		if got.String() != s || Local(got.Next) != got.Next || got.expires.Sub(now) > FlowLife {
			t.Errorf("%q became %+v", s, got)
		}
	})
}

func FuzzGroups(f *testing.F) {
	for _, s := range []string{`["ops","x"]`, `"ops"`, "null", "", "{}", `[1]`, `[["ops"]]`} {
		f.Add([]byte(s))
	}
	p := &Provider{cfg: Config{Roles: []fleet.GroupRole{{Group: "ops", Role: fleet.Operator}, {Group: "ops", Role: fleet.Viewer}}}}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := p.groups(b)
		if err == nil && len(got) > 0 && !slices.Equal(got, []string{"ops"}) {
			t.Errorf("%q became %q", b, got)
		}
	})
}

func TestConfig(t *testing.T) {
	good := Config{Issuer: "https://id.example.org", ClientID: "semper", Roles: []fleet.GroupRole{{Group: "ops", Role: fleet.Operator}}}
	if p, err := New(good, time.Now, rand.Reader); err != nil || p.Name() != "id.example.org" || p.cfg.GroupsClaim != "groups" {
		t.Errorf("%+v, %v", p, err)
	}
	for want, change := range map[string]func(*Config){
		"want its https URL":          func(c *Config) { c.Issuer = "http://id.example.org" },
		"issuer \"id.example.org\"":   func(c *Config) { c.Issuer = "id.example.org" },
		"issuer \"https://a@b\"":      func(c *Config) { c.Issuer = "https://a@b" },
		"name the client id":          func(c *Config) { c.ClientID = "" },
		"there is no role \"root\"":   func(c *Config) { c.Roles[0].Role = "root" },
		"OpenID scope \"a b\"":        func(c *Config) { c.Scopes = []string{"a b"} },
		"can be read by others":       func(c *Config) { c.SecretFile = secretFile(t, "secret", 0o644) },
		"want one line":               func(c *Config) { c.SecretFile = secretFile(t, "a\nb", 0o600) },
		"has 5000 bytes":              func(c *Config) { c.SecretFile = secretFile(t, strings.Repeat("x", 5000), 0o600) },
		"no such file":                func(c *Config) { c.SecretFile = filepath.Join(t.TempDir(), "none") },
		"secret " + os.TempDir():      func(c *Config) { c.SecretFile = secretFile(t, "  \n", 0o600) },
		"want at most 1000":           func(c *Config) { c.Roles = make([]fleet.GroupRole, 1001) },
		"group \"\": there is no rol": func(c *Config) { c.Roles[0].Group = "" },
	} {
		bad := good
		bad.Roles = slices.Clone(good.Roles)
		change(&bad)
		if _, err := New(bad, time.Now, rand.Reader); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	if p, err := New(Config{Issuer: "http://[::1]:1", ClientID: "x", SecretFile: secretFile(t, "s3cret\n", 0o600)}, time.Now, rand.Reader); err != nil || p.secret != "s3cret" {
		t.Errorf("%v", err)
	}
}

func secretFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestParseRole(t *testing.T) {
	for text, want := range map[string]fleet.GroupRole{"ops=operator": {Group: "ops", Role: fleet.Operator}, "cn=ops,dc=x=admin": {Group: "cn=ops,dc=x", Role: fleet.Admin}} {
		if got, err := ParseRole(text); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "ops", "=admin", "ops=", "ops=root", "ops=Admin"} {
		if got, err := ParseRole(text); !fault.Is(err, fault.Usage) {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
}

func TestTitle(t *testing.T) {
	for _, c := range []struct {
		claims claims
		want   string
	}{
		{claims{Email: "ada@example.org", Username: "ada"}, "ada"},
		{claims{Email: "ada@example.org", Verified: []byte(`"true"`)}, "ada@example.org"},
		{claims{Email: "ada@example.org", Verified: []byte("true"), Username: "ada"}, "ada@example.org"},
		{claims{Email: "root@example.org", Verified: []byte("false"), Username: "mallory"}, "mallory"},
		{claims{Email: "root@example.org", Verified: []byte(`"false"`), Name: "Mallory\u202e\x1b[2J"}, "Mallory[2J"},
		{claims{Name: strings.Repeat("ö", 300)}, strings.Repeat("ö", 200)},
		{claims{Email: "\n", Username: " ", Name: "\xff"}, ""},
	} {
		if got := c.claims.title(); got != c.want {
			t.Errorf("%+v: %q, want %q", c.claims, got, c.want)
		}
	}
}
