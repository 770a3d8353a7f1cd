// Package people signs people in at an OpenID provider: OpenID Connect's authorization code flow with PKCE (RFC 7636, S256), state and nonce.
//
//	browser ── GET /auth/oidc/start ──▶ server: draws state, nonce and verifier, which the browser keeps in a cookie (Flow)
//	browser ── authorization request ──▶ provider: who is it?
//	browser ── GET /auth/oidc/callback?code&state ──▶ server: the state is the cookie's
//	           server ── code, verifier ──▶ provider: an ID token, of which signature, issuer, audience, nonce and times are verified
//
// The server keeps nothing between the two requests, so strangers cannot make it keep much, and any of several servers can answer the second. The cookie is worth nothing to
// others: without the code the verifier is noise, and the code goes to the browser that began alone.
//
// The provider is asked for its endpoints when somebody wants to sign in, not before: a server starts while its provider is down.
//
// Limits: an answer of the provider has MaxAnswer bytes at most and comes within Timeout; no redirect is followed; a Flow lives for FlowLife; a next path has MaxNext bytes.
package people

import (
	"bytes"
	"cmp"
	"net"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/fleet"
)

// Limits of what comes from the provider and the browser.
const (
	Timeout    = 10 * time.Second
	MaxAnswer  = 1 << 20
	FlowLife   = 10 * time.Minute // for a person to prove at the provider who it is
	MaxNext    = 1024
	maxSecret  = 4096
	maxSubject = 255 // as OpenID Connect has it
	maxName    = 200
	maxGroups  = 10_000 // that are looked at
	maxRoles   = 1000
)

// Config names a provider, and says what its groups may do. Without an Issuer nobody signs in by OpenID Connect.
type Config struct {
	Issuer      string
	ClientID    string
	SecretFile  string // none: a public client, which has PKCE alone
	Name        string // for people to read; the issuer's host when empty
	GroupsClaim string // "groups" when empty
	Scopes      []string
	Roles       []fleet.GroupRole
}

// ParseRole reads "GROUP=ROLE". A group's name may hold "=".
func ParseRole(text string) (fleet.GroupRole, error) {
	i := strings.LastIndexByte(text, '=')
	if i <= 0 {
		return fleet.GroupRole{}, fault.New(fault.Usage, "role of a group %q: want GROUP=ROLE", text)
	}
	r := fleet.GroupRole{Group: text[:i], Role: fleet.Role(text[i+1:])}
	if !r.Role.Valid() {
		return r, fault.New(fault.Usage, "role of a group %q: want viewer, operator, publisher or admin after the =", text)
	}
	return r, nil
}

// check returns the configuration with what was left out.
func (c Config) check() (Config, error) {
	u, err := url.Parse(c.Issuer)
	if err != nil || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Scheme != "https" && (u.Scheme != "http" || !loopback(u.Hostname())) {
		return c, fault.New(fault.Usage, "OpenID issuer %q: want its https URL, exactly as the provider writes it", c.Issuer)
	}
	if c.ClientID == "" {
		return c, fault.New(fault.Usage, "OpenID issuer %s: name the client id that the server has there", c.Issuer)
	}
	if len(c.Roles) > maxRoles {
		return c, fault.New(fault.Usage, "%d groups have roles: want at most %d", len(c.Roles), maxRoles)
	}
	for _, r := range c.Roles {
		if r.Group == "" || !r.Role.Valid() {
			return c, fault.New(fault.Usage, "group %q: there is no role %q", r.Group, r.Role)
		}
	}
	for _, s := range c.Scopes {
		if s == "" || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
			return c, fault.New(fault.Usage, "OpenID scope %q: want a word", s)
		}
	}
	c.GroupsClaim, c.Name = cmp.Or(c.GroupsClaim, "groups"), cmp.Or(c.Name, u.Host)
	return c, nil
}

// loopback reports whether a host is this machine: what goes there needs no TLS.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.IsLoopback()
}

// readSecret reads the client's secret.
func readSecret(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", fault.Wrap(fault.IO, err)
	}
	if info.Mode()&0o007 != 0 {
		return "", fault.New(fault.Input, "the OpenID client's secret %s can be read by others: chmod 600 it, and take a new one if somebody may have", path)
	}
	if info.Size() > maxSecret {
		return "", fault.New(fault.Input, "the OpenID client's secret %s has %d bytes: want at most %d", path, info.Size(), maxSecret)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fault.Wrap(fault.IO, err)
	}
	data = bytes.TrimSpace(data)
	if len(data) == 0 || bytes.ContainsFunc(data, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", fault.New(fault.Input, "the OpenID client's secret %s: want one line", path)
	}
	return string(data), nil
}

// Local returns next if it is a path of this server, and "/" if it may lead anywhere else, or in a circle.
func Local(next string) string {
	path, _, _ := strings.Cut(next, "?")
	path, _, _ = strings.Cut(path, "#")
	switch {
	case len(next) > MaxNext, !strings.HasPrefix(next, "/"):
	case strings.Contains(path, "//"), strings.Contains(next, `\`): // another host, for browsers that are kind to typing errors
	case strings.ContainsFunc(next, func(r rune) bool { return r <= ' ' || r > '~' }): // which they take out before they read
	case strings.HasPrefix(path, "/auth/"):
	default:
		if u, err := url.Parse(next); err == nil && u.Scheme == "" && u.Host == "" && u.User == nil {
			return next
		}
	}
	return "/"
}

// dialer gives up early on a provider that does not answer.
var dialer = &net.Dialer{Timeout: Timeout / 2}
