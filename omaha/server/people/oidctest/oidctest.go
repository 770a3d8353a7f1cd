// Package oidctest runs a real OpenID provider on loopback, for tests: package op of github.com/zitadel/oidc, which the OpenID Foundation has certified and which shares no
// code with the client that the server uses. What is ours is its storage, in memory, and the page on which somebody signs in.
//
// It can be told to misbehave (Faults): the library would not.
package oidctest

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"html/template"
	"io"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/zitadel/oidc/v3/pkg/op"

	"github.com/semper-os/semper/fault"
)

// ClientID and ClientSecret are those of the one client that the provider knows.
const (
	ClientID     = "semper-server"
	ClientSecret = "a secret + of/the client"
)

// User is somebody whom the provider knows.
type User struct {
	Subject, Name, Password string
	Email                   string
	Unverified              bool // the email is what the user typed
	Groups                  []string
}

// Faults are what is wrong with the provider's ID tokens.
type Faults struct {
	Nonce       string        // of every ID token
	Lifetime    time.Duration // of ID tokens; an hour when 0
	Issuer      string        // that tokens claim to come from
	OtherKey    bool          // they are signed by a key that the provider does not publish
	InUserinfo  bool          // ID tokens say nothing of the person; the userinfo endpoint does
	LongAnswers bool          // of the token endpoint
}

// Provider is a running one.
type Provider struct {
	URL string // the issuer

	storage *storage
	server  *http.Server
}

// AnyPort is an address for Start: a free port of loopback.
const AnyPort = "127.0.0.1:0"

// Start starts a provider on an address of loopback, for a client that comes back to redirects.
func Start(address string, users []User, redirects ...string) (*Provider, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fault.Wrap(fault.Network, err)
	}
	p, err := start(l, users, redirects)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return p, nil
}

func start(l net.Listener, users []User, redirects []string) (*Provider, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	other, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	p := &Provider{URL: "http://" + l.Addr().String()}
	p.storage = &storage{
		issuer: p.URL, users: users, redirects: redirects, key: key, other: other,
		requests: map[string]*request{}, codes: map[string]string{}, tokens: map[string]*accessToken{},
	}
	config := &op.Config{CryptoKey: [32]byte(randomBytes(32)), CodeMethodS256: true, AuthMethodPost: true, SupportedScopes: []string{"openid", "profile", "email", "groups"}}
	provider, err := op.NewProvider(config, p.storage, p.storage.issuerOf, op.WithAllowInsecure(), op.WithLogger(slog.New(slog.DiscardHandler)))
	if err != nil {
		return nil, fault.Wrap(fault.Internal, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /login", p.loginPage)
	mux.Handle("POST /login", op.NewIssuerInterceptor(provider.IssuerFromRequest).HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		id := r.FormValue("request")
		if !p.storage.login(id, r.FormValue("user"), r.FormValue("password")) {
			w.WriteHeader(http.StatusUnauthorized)
			showLogin(w, id, "This is not the password.")
			return
		}
		http.Redirect(w, r, op.AuthCallbackURL(provider)(r.Context(), id), http.StatusFound)
	}))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if p.storage.faultsNow().LongAnswers && r.Method == http.MethodPost {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.CopyN(w, endless{}, 8<<20) // whoever has enough leaves
			return
		}
		provider.ServeHTTP(w, r)
	})
	p.server = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)}
	go func() { _ = p.server.Serve(l) }() // until Stop
	return p, nil
}

// endless is white space.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// Stop ends the provider.
func (p *Provider) Stop() error { return fault.Wrap(fault.IO, p.server.Close()) }

// Misbehave has it do wrong from now on.
func (p *Provider) Misbehave(f Faults) {
	p.storage.mu.Lock()
	defer p.storage.mu.Unlock()
	p.storage.faults = f
}

// SetRedirects changes where the client may have browsers come back to.
func (p *Provider) SetRedirects(redirects ...string) {
	p.storage.mu.Lock()
	defer p.storage.mu.Unlock()
	p.storage.redirects = redirects
}

// SetGroups changes a user's groups.
func (p *Provider) SetGroups(subject string, groups ...string) {
	p.storage.mu.Lock()
	defer p.storage.mu.Unlock()
	for i := range p.storage.users {
		if p.storage.users[i].Subject == subject {
			p.storage.users[i].Groups = groups
		}
	}
}

var login = template.Must(template.New("login").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>Sign in at Acme</title>
<main><h1>Acme</h1>{{with .Wrong}}<p role="alert">{{.}}</p>{{end}}
<form method="post" action="/login"><input type="hidden" name="request" value="{{.Request}}">
<p><label>User <input name="user" autocomplete="username"></label></p>
<p><label>Password <input name="password" type="password" autocomplete="current-password"></label></p>
<p><button>Sign in</button></p></form></main></html>
`))

func (p *Provider) loginPage(w http.ResponseWriter, r *http.Request) {
	showLogin(w, r.FormValue("request"), "")
}

func showLogin(w http.ResponseWriter, request, wrong string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	_ = login.Execute(w, map[string]string{"Request": request, "Wrong": wrong}) // whoever left does not miss it
}
