package people

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/fleet"
)

const (
	discoverEvery = time.Hour       // what a provider says of itself is asked again
	discoverPause = 3 * time.Second // after it could not be asked
)

// Provider is an OpenID provider. Its methods may be called from several goroutines.
type Provider struct {
	cfg    Config
	secret string
	now    func() time.Time
	random io.Reader
	http   *http.Client

	mu     sync.Mutex
	found  *endpoints // nil: not yet
	failed error      // of the last try to find it
	tried  time.Time
}

// endpoints are what a provider says of itself.
type endpoints struct {
	provider *oidc.Provider
	verifier *oidc.IDTokenVerifier
	style    oauth2.AuthStyle
	scopes   []string
}

// Identity is whom a provider vouches for.
type Identity struct {
	Subject string
	Name    string   // for people to read: the provider's people may have chosen it
	Groups  []string // of those that have a role
}

// New returns the provider of a configuration, without asking it.
func New(cfg Config, now func() time.Time, random io.Reader) (*Provider, error) {
	cfg, err := cfg.check()
	if err != nil {
		return nil, err
	}
	p := &Provider{cfg: cfg, now: now, random: random}
	if cfg.SecretFile != "" {
		if p.secret, err = readSecret(cfg.SecretFile); err != nil {
			return nil, err
		}
	}
	p.http = &http.Client{
		Timeout: Timeout,
		Transport: bounded{&http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: dialer.DialContext, TLSHandshakeTimeout: Timeout / 2,
			MaxResponseHeaderBytes: 64 << 10, MaxConnsPerHost: 16, IdleConnTimeout: time.Minute,
		}},
		// A redirect would carry the client's secret to a place that nobody named.
		CheckRedirect: func(*http.Request, []*http.Request) error { return errors.New("the OpenID provider redirects") },
	}
	return p, nil
}

// bounded ends answers that are too long.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	res, err := b.next.RoundTrip(r)
	if err == nil {
		res.Body = http.MaxBytesReader(nil, res.Body, MaxAnswer)
	}
	return res, err
}

// Name is the provider's for people to read.
func (p *Provider) Name() string { return p.cfg.Name }

// Issuer is the provider's own name.
func (p *Provider) Issuer() string { return p.cfg.Issuer }

// Roles are what groups may do.
func (p *Provider) Roles() []fleet.GroupRole { return p.cfg.Roles }

// discover asks the provider for its endpoints, when that was not done lately. Errors are of kind Network.
func (p *Provider) discover(ctx context.Context) (*endpoints, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	age := now.Sub(p.tried)
	switch {
	case p.failed == nil && p.found != nil && age < discoverEvery && age >= 0:
		return p.found, nil
	case p.failed != nil && age < discoverPause && age >= 0:
		if p.found != nil {
			return p.found, nil
		}
		return nil, p.failed
	}
	// Not with the request's own context: what is found serves others too, and the key set goes on using it.
	found, err := p.ask(oidc.ClientContext(context.WithoutCancel(ctx), p.http))
	p.failed, p.tried = nil, p.now()
	if err != nil {
		p.failed = fault.New(fault.Network, "the OpenID provider %s cannot be used now: %w", p.cfg.Name, err)
		if p.found == nil {
			return nil, p.failed
		}
		return p.found, nil
	}
	p.found = found
	return found, nil
}

func (p *Provider) ask(ctx context.Context) (*endpoints, error) {
	provider, err := oidc.NewProvider(ctx, p.cfg.Issuer)
	if err != nil {
		return nil, err
	}
	var says struct {
		Scopes []string `json:"scopes_supported"`
		Auth   []string `json:"token_endpoint_auth_methods_supported"`
		PKCE   []string `json:"code_challenge_methods_supported"`
	}
	if err := provider.Claims(&says); err != nil {
		return nil, err
	}
	if says.PKCE != nil && !slices.Contains(says.PKCE, "S256") {
		return nil, errors.New("it does not know PKCE with S256")
	}
	e := &endpoints{provider: provider, style: oauth2.AuthStyleInHeader, scopes: []string{oidc.ScopeOpenID, "profile", "email"}}
	// Not to be found out by trying: a code is good for one try.
	if p.secret == "" || says.Auth != nil && !slices.Contains(says.Auth, "client_secret_basic") {
		e.style = oauth2.AuthStyleInParams
	}
	if slices.Contains(says.Scopes, "groups") {
		e.scopes = append(e.scopes, "groups")
	}
	for _, s := range p.cfg.Scopes {
		if !slices.Contains(e.scopes, s) {
			e.scopes = append(e.scopes, s)
		}
	}
	e.verifier = provider.VerifierContext(ctx, &oidc.Config{ClientID: p.cfg.ClientID, Now: p.now})
	return e, nil
}

func (p *Provider) oauth(e *endpoints, redirect string) *oauth2.Config {
	c := &oauth2.Config{ClientID: p.cfg.ClientID, ClientSecret: p.secret, Endpoint: e.provider.Endpoint(), RedirectURL: redirect, Scopes: e.scopes}
	c.Endpoint.AuthStyle = e.style
	return c
}

// Begin returns where a browser goes to sign in, and what it keeps until it comes back to redirect.
func (p *Provider) Begin(ctx context.Context, redirect, next string) (string, *Flow, error) {
	e, err := p.discover(ctx)
	if err != nil {
		return "", nil, err
	}
	f, err := newFlow(p.random, next, p.now())
	if err != nil {
		return "", nil, err
	}
	return p.oauth(e, redirect).AuthCodeURL(f.state, oidc.Nonce(f.nonce), oauth2.S256ChallengeOption(f.verifier)), f, nil
}

// errorCode is what a provider may say of a sign-in that did not happen.
var errorCode = regexp.MustCompile(`^[a-z_]{1,64}$`)

// Finish ends a sign-in with the query that the browser came back with, and says who it is. Errors that are the browser's or the person's are of kind Verification, those of
// a provider that cannot be reached of kind Network.
func (p *Provider) Finish(ctx context.Context, f *Flow, redirect string, query url.Values) (*Identity, error) {
	if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(f.state)) != 1 {
		return nil, fault.New(fault.Verification, "the sign-in did not begin in this browser, or another one began since")
	}
	if iss := query.Get("iss"); iss != "" && iss != p.cfg.Issuer { // RFC 9207
		return nil, fault.New(fault.Verification, "the answer is another provider's")
	}
	if code := query.Get("error"); code != "" {
		if !errorCode.MatchString(code) {
			code = "an error that is none"
		}
		return nil, fault.New(fault.Verification, "the OpenID provider says %s", code)
	}
	e, err := p.discover(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(oidc.ClientContext(ctx, p.http), 2*Timeout)
	defer cancel()
	token, err := p.oauth(e, redirect).Exchange(ctx, query.Get("code"), oauth2.VerifierOption(f.verifier))
	if err != nil {
		var refused *oauth2.RetrieveError
		if errors.As(err, &refused) && refused.Response != nil && refused.Response.StatusCode < 500 {
			return nil, fault.New(fault.Verification, "the OpenID provider does not accept the code: %w", err)
		}
		return nil, fault.New(fault.Network, "ask the OpenID provider for a token: %w", err)
	}
	raw, _ := token.Extra("id_token").(string)
	if raw == "" {
		return nil, fault.New(fault.Verification, "the OpenID provider gives no ID token")
	}
	id, err := e.verifier.Verify(ctx, raw)
	if err != nil {
		return nil, fault.New(fault.Verification, "the ID token is not valid: %w", err)
	}
	if subtle.ConstantTimeCompare([]byte(id.Nonce), []byte(f.nonce)) != 1 {
		return nil, fault.New(fault.Verification, "the ID token belongs to another sign-in")
	}
	return p.identity(ctx, e, id, token)
}

// claims are what is read of an ID token, and of what the provider says of its bearer beside it.
type claims struct {
	Party    string          `json:"azp"`
	Email    string          `json:"email"`
	Verified json.RawMessage `json:"email_verified"`
	Username string          `json:"preferred_username"`
	Name     string          `json:"name"`

	all map[string]json.RawMessage
}

func readClaims(from interface{ Claims(any) error }) (*claims, error) {
	c := &claims{}
	if err := errors.Join(from.Claims(c), from.Claims(&c.all)); err != nil {
		return nil, fault.New(fault.Verification, "the OpenID provider's claims: %w", err)
	}
	return c, nil
}

func (p *Provider) identity(ctx context.Context, e *endpoints, id *oidc.IDToken, token *oauth2.Token) (*Identity, error) {
	c, err := readClaims(id)
	if err != nil {
		return nil, err
	}
	if len(id.Audience) > 1 && c.Party == "" || c.Party != "" && c.Party != p.cfg.ClientID {
		return nil, fault.New(fault.Verification, "the ID token was made for another program")
	}
	if id.Subject == "" || len(id.Subject) > maxSubject || clean(id.Subject) != id.Subject {
		return nil, fault.New(fault.Verification, "the ID token names nobody")
	}
	groups, some := c.all[p.cfg.GroupsClaim]
	// Many providers put no more than they must into an ID token.
	if (!some || c.title() == "") && e.provider.UserInfoEndpoint() != "" {
		info, err := e.provider.UserInfo(ctx, oauth2.StaticTokenSource(token))
		if err != nil {
			return nil, fault.New(fault.Network, "ask the OpenID provider who it is: %w", err)
		}
		if info.Subject != id.Subject {
			return nil, fault.New(fault.Verification, "the OpenID provider speaks of another person")
		}
		more, err := readClaims(info)
		if err != nil {
			return nil, err
		}
		if !some {
			groups = more.all[p.cfg.GroupsClaim]
		}
		if c.title() == "" {
			c = more
		}
	}
	out := &Identity{Subject: id.Subject, Name: c.title()}
	if out.Name == "" {
		out.Name = id.Subject
	}
	out.Groups, err = p.groups(groups)
	return out, err
}

// title is what a person is called.
func (c *claims) title() string {
	email := ""
	if v := string(c.Verified); v == "true" || v == `"true"` { // else anybody could have written it
		email = c.Email
	}
	for _, name := range []string{email, c.Username, c.Name} {
		if name = clean(name); name != "" {
			return name
		}
	}
	return ""
}

// clean takes out what would not be seen, or seen as something else.
func clean(name string) string {
	name = strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, strings.ToValidUTF8(name, ""))
	runes := []rune(strings.TrimSpace(name))
	if len(runes) > maxName {
		runes = runes[:maxName]
	}
	return string(runes)
}

// groups are those of a claim that have a role. The claim may be a list, or one group.
func (p *Provider) groups(claim json.RawMessage) ([]string, error) {
	out := []string{}
	if len(claim) == 0 || string(claim) == "null" {
		return out, nil
	}
	var all []string
	if err := json.Unmarshal(claim, &all); err != nil {
		var one string
		if json.Unmarshal(claim, &one) != nil {
			return nil, fault.New(fault.Verification, "the OpenID provider's claim %q is no list of groups", p.cfg.GroupsClaim)
		}
		all = []string{one}
	}
	if len(all) > maxGroups {
		return nil, fault.New(fault.Verification, "the OpenID provider names %d groups: more than %d", len(all), maxGroups)
	}
	for _, m := range p.cfg.Roles {
		if slices.Contains(all, m.Group) && !slices.Contains(out, m.Group) {
			out = append(out, m.Group)
		}
	}
	return out, nil
}
