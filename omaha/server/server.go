// Package server is the update server of a fleet: it answers machines over Omaha, serves them payloads, and takes releases over REST.
//
// The layers, from the bottom: package store (SQLite, all SQL) and package blobs (payload files); package fleet (the model and its rules,
// pure functions); this package (HTTP). Package api holds the REST messages and a client.
//
//	POST /v1/update, /v1/update/       Omaha 3.0 (package omaha)
//	GET  /payloads/SHA256/NAME         a payload, with ranges; its content never changes
//	     /api/v1/…                     REST, see package api
//	GET  /, /machines, …               the console, see package console
//	     /auth/…                       people sign in and out, see package people and authRoutes
//	GET  /healthz                      200 while the program runs
//	GET  /readyz                       200 while it can answer machines
//	GET  /metrics                      counters, in Prometheus' text format
//
// In the data folder: semper.db (package store), payloads/ (package blobs), server.lock, and publish.token, the one token of the first
// start, which is kept there in the clear until someone takes it away.
//
// What was answered is on disk: a grant or an event is committed and synced before its answer is written. If it cannot be, the machine
// gets 503 and asks again later. The one thing that may lag by some seconds is when a machine was last seen.
//
// Omaha has no authentication. With Config.EnrolmentFile or Config.TLS.ClientCA the routes of machines (/v1/, /payloads/) need a secret or a
// client certificate; without them whoever reaches the routes can speak for any machine. Either proves that a machine is one of the fleet, not
// which one. Client addresses are those of the connection, or what a trusted proxy says (package proxies). The URL of a payload starts with Config.PublicURL or, without one, with the scheme and host under which the machine reached the server.
package server

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/blobs"
	"github.com/semper-os/semper/omaha/server/certs"
	"github.com/semper-os/semper/omaha/server/console"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/people"
	"github.com/semper-os/semper/omaha/server/proxies"
	"github.com/semper-os/semper/omaha/server/ratelimit"
	"github.com/semper-os/semper/omaha/server/store"
	"github.com/semper-os/semper/payload"
)

// Timeouts of connections. A slow machine or publisher is served as long as bytes move.
const (
	headerTimeout   = 10 * time.Second
	readTimeout     = 30 * time.Second // of a whole request, unless a handler says otherwise
	stallTimeout    = 60 * time.Second // of one read or write of a payload
	idleTimeout     = 2 * time.Minute
	shutdownTimeout = 10 * time.Second
	maxHeader       = 16 << 10
)

const (
	lookers   = 2 // how many batches of requests are decided on at the same time
	recorders = 2 // how many are recorded: one runs while another one waits for the disk
)

// TokenFile is the name of the file, in the data folder, that holds the first start's token.
const TokenFile = "publish.token"

// Config says how a server runs. Dir must be set.
type Config struct {
	Dir          string           // the data folder; made when it is missing
	Database     string           // PostgreSQL's URL; SQLite in the data folder when empty
	Payloads     blobs.Location   // where payload files are; in the data folder when empty
	PublicURL    string           // how machines reach this server, when that is not what they ask; may have a path
	PayloadURLs  []string         // where machines fetch payloads first, in this order: copies of this server's /payloads/, such as a CDN's
	Trust        payload.Trust    // who must have signed releases; nobody must when it has no keys
	RetireAfter  time.Duration    // machines that were not seen for so long do not count; 0: never
	PollInterval time.Duration    // told to machines; 0 leaves it to them
	MaxRequest   int64            // bytes of an Omaha request; omaha.MaxRequestSize when 0
	Now          func() time.Time // time.Now when nil
	Random       io.Reader        // crypto/rand when nil
	Log          *slog.Logger     // nothing is logged when nil

	TLS           certs.Files     // plain HTTP when empty
	Proxies       proxies.Trusted // whose headers tell who a client is
	EnrolmentFile string          // secrets of which machines show one, a line each; none are needed when empty
	RateLimit     float64         // requests a second of machines at one address; 0: no limit
	FailureLimit  float64         // failed authentications a minute from one address; 0: no limit
	OIDC          people.Config   // where people sign in; nowhere when it names no issuer
}

// minRetire keeps a fleet from being retired by a weekend.
const minRetire = 7 * 24 * time.Hour

// baseURL reads an address below which there are others.
func baseURL(what, text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, fault.New(fault.Usage, "%s %q: want a URL such as https://updates.example.org", what, text)
	}
	return u, nil
}

// Server is a running server's state.
type Server struct {
	cfg         Config
	local       bool     // on the database alone, see Local
	public      *url.URL // nil: as asked
	payloadURLs []*url.URL
	lock        *os.File
	store       *store.Store
	payloads    blobs.Store
	metrics     metrics
	gauges      gauges
	memo        *memo
	looks       *queue // requests that may change nothing
	records     *queue // those that do
	closing     atomic.Bool
	started     time.Time
	retired     time.Time // when machines were looked through last, by Sweep alone

	policy        atomic.Pointer[policy]
	policyLoading sync.Mutex

	feeds feeds // who listens for changes

	certs        *certs.Keeper       // nil: plain HTTP
	secrets      [][sha256.Size]byte // hashes of what machines show
	machineLimit *ratelimit.Limit
	failures     *ratelimit.Limit

	oidc          *people.Provider // nil: none
	origins       *http.CrossOriginProtection
	tokenFailures *ratelimit.Limit // of sign-ins, by the token
	forgot        time.Time        // when sessions were looked through last, by Sweep alone
}

// Open opens the data folder, and fills it at the first start.
func Open(ctx context.Context, cfg Config) (*Server, error) {
	if cfg.MaxRequest == 0 {
		cfg.MaxRequest = omaha.MaxRequestSize
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.PollInterval < 0 || cfg.PollInterval > omaha.MaxPollInterval || cfg.PollInterval%time.Second != 0 {
		return nil, fault.New(fault.Usage, "poll interval %v: want whole seconds, at most %v", cfg.PollInterval, omaha.MaxPollInterval)
	}
	s := &Server{cfg: cfg, metrics: newMetrics(), memo: newMemo(), started: cfg.Now()}
	if cfg.PublicURL != "" {
		u, err := baseURL("public URL", cfg.PublicURL)
		if err != nil {
			return nil, err
		}
		s.public = u
	}
	for _, text := range cfg.PayloadURLs {
		u, err := baseURL("payload URL", text)
		if err != nil {
			return nil, err
		}
		s.payloadURLs = append(s.payloadURLs, u)
	}
	if cfg.RetireAfter != 0 && cfg.RetireAfter < minRetire {
		return nil, fault.New(fault.Usage, "retire machines after %s: want %s at least, or 0", cfg.RetireAfter, minRetire)
	}
	if cfg.Database != "" && !store.IsURL(cfg.Database) {
		return nil, fault.New(fault.Usage, "database: want a URL such as postgres://user@host/name")
	}
	if err := s.openAccess(); err != nil {
		return nil, err
	}
	if err := s.open(ctx); err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return s, nil
}

// openAccess reads what decides who gets in.
func (s *Server) openAccess() (err error) {
	switch f := s.cfg.TLS; {
	case (f.Cert == "") != (f.Key == ""):
		return fault.New(fault.Usage, "TLS needs a certificate and its key")
	case f.Cert == "" && f.ClientCA != "":
		return fault.New(fault.Usage, "client certificates need TLS: name the server's certificate and key too")
	case f.Cert != "":
		if s.certs, err = certs.New(f, s.cfg.Now, s.cfg.Log); err != nil {
			return err
		}
	}
	if s.cfg.EnrolmentFile != "" {
		if s.secrets, err = readSecrets(s.cfg.EnrolmentFile); err != nil {
			return err
		}
	}
	s.machineLimit = ratelimit.New(s.cfg.RateLimit, s.cfg.RateLimit*rateBurst)
	s.failures = ratelimit.New(s.cfg.FailureLimit/60, failureBurst)
	return s.openPeople()
}

func (s *Server) open(ctx context.Context) (err error) {
	if err := os.MkdirAll(s.cfg.Dir, 0o700); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if s.lock, err = lock(filepath.Join(s.cfg.Dir, "server.lock")); err != nil {
		return err
	}
	if s.store, err = store.Create(ctx, cmp.Or(s.cfg.Database, s.cfg.Dir)); err != nil {
		return err
	}
	if s.payloads, err = openPayloads(ctx, s.cfg.Dir, s.cfg.Payloads, s.cfg.Now()); err != nil {
		return err
	}
	if err := s.seed(ctx); err != nil {
		return err
	}
	s.looks = newQueue(lookers, s.lookTogether)
	s.records = newQueue(recorders, s.recordTogether)
	return nil
}

func openPayloads(ctx context.Context, dir string, l blobs.Location, now time.Time) (blobs.Store, error) {
	folder := filepath.Join(dir, "payloads")
	if l.Bucket == "" {
		return blobs.Open(folder, now)
	}
	return blobs.OpenBucket(ctx, l, folder, now)
}

// lock keeps a second server out of the folder. The lock goes with the process, however it ends.
func lock(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fault.New(fault.Input, "another semper-server uses %s", filepath.Dir(path))
		}
		return nil, fault.New(fault.IO, "lock %s: %w", path, err)
	}
	return f, nil
}

// seed gives an empty database the application, its channels and the first token.
func (s *Server) seed(ctx context.Context) error {
	return s.store.Write(ctx, func(tx store.Tx) error {
		apps, err := tx.Applications(ctx)
		if err != nil || len(apps) > 0 {
			return err
		}
		now := s.cfg.Now()
		if err := tx.AddApplication(ctx, fleet.Application{ID: omaha.SemperApp, Name: "semper", Created: now}); err != nil {
			return err
		}
		for _, name := range []string{"stable", "beta", "alpha"} {
			for _, arch := range []string{"amd64", "arm64"} {
				if err := tx.AddChannel(ctx, fleet.Channel{App: omaha.SemperApp, Name: name, Arch: arch, Updated: now}); err != nil {
					return err
				}
			}
		}
		token, err := NewToken(ctx, tx, s.cfg.Random, fleet.Publisher, "first start", itself, now)
		if err != nil {
			return err
		}
		path := filepath.Join(s.cfg.Dir, TokenFile)
		if err := writeToken(path, token); err != nil { // before the commit: a token that nobody can read would be lost
			return err
		}
		s.cfg.Log.Info("first start: made the application semper, its channels and a token to publish", "token_file", path)
		return nil
	})
}

func writeToken(path, token string) error {
	temp := path + ".new"
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	_, err = f.WriteString(token + "\n")
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Rename(temp, path)
	}
	if err != nil {
		return fault.New(fault.IO, "keep the first token: %w", err)
	}
	return nil
}

// Close ends the server's use of the data folder. No request may be under way any more.
func (s *Server) Close() error {
	for _, q := range []*queue{s.looks, s.records} {
		if q != nil {
			q.end()
		}
	}
	var err error
	if s.store != nil {
		err = s.store.Close()
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// Serve answers on l until ctx ends; then it lets the requests under way finish, within ten seconds.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	hs := &http.Server{
		Handler:           s.Handler(),
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelWarn),
	}
	if s.certs != nil {
		hs.TLSConfig = s.certs.Config()
		l = tls.NewListener(l, hs.TLSConfig)
	}
	var sweeper sync.WaitGroup
	sweeping, stopSweeping := context.WithCancel(ctx)
	defer sweeper.Wait()
	defer stopSweeping()
	sweeper.Go(func() { s.Run(sweeping) })
	sweeper.Go(func() { s.runAlerts(sweeping) })
	ended := make(chan error, 1)
	go func() { ended <- hs.Serve(l) }()
	select {
	case err := <-ended:
		return fault.New(fault.Network, "serve: %w", err)
	case <-ctx.Done():
	}
	s.closing.Store(true)
	s.feeds.close()
	s.cfg.Log.Info("shutting down")
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := hs.Shutdown(grace); err != nil {
		s.cfg.Log.Warn("cut off what was still being served", "error", err)
		return fault.Wrap(fault.IO, hs.Close())
	}
	return nil
}

// Handler returns all routes.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/update", s.update)
	mux.HandleFunc("POST /v1/update/{$}", s.update)
	mux.HandleFunc("GET /payloads/{sha256}/{name}", s.payload)
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.ready)
	mux.HandleFunc("GET /metrics", s.serveMetrics)
	s.lockRoutes(mux)
	s.restRoutes(mux)
	s.authRoutes(mux)
	for _, pattern := range console.Patterns {
		mux.Handle(pattern, console.Handler())
	}
	return s.placed(s.measured(s.guarded(mux)))
}

func (s *Server) ready(w http.ResponseWriter, r *http.Request) {
	if s.closing.Load() {
		http.Error(w, "shutting down", http.StatusServiceUnavailable)
		return
	}
	if err := s.store.Ping(r.Context()); err != nil {
		s.cfg.Log.Error("not ready", "error", err)
		http.Error(w, "the database does not answer", http.StatusServiceUnavailable)
		return
	}
	fmt.Fprintln(w, "ok")
}

// base returns the URL under which the machine of a request reaches this server.
func (s *Server) base(r *http.Request) (*url.URL, error) {
	if s.public != nil {
		return s.public, nil
	}
	if r.Host == "" || len(r.Host) > 255 || strings.Trim(r.Host, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-_:[]") != "" {
		return nil, fault.New(fault.Input, "the Host header is missing or malformed")
	}
	return &url.URL{Scheme: r.URL.Scheme, Host: r.Host}, nil // both as placed found them
}
