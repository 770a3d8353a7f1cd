package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/people"
	"github.com/semper-os/semper/omaha/server/proxies"
	"github.com/semper-os/semper/payload"
)

type serveFlags struct {
	listen, addressFile, logFormat string
	verbose                        bool
	trusted, trustKeys, roles      []string
	cfg                            server.Config
}

func newServeCommand() *cobra.Command {
	var f serveFlags
	c := &cobra.Command{
		Use:   "serve --listen ADDR --data DIR",
		Short: "Answer machines and take releases until told to stop",
		Long: `Answers machines over Omaha, serves them payloads, and takes releases over the REST interface.

The first start makes the data folder, the application "semper" with the channels stable, beta and alpha,
and a token to publish releases with, in the file ` + server.TokenFile + ` of the data folder. Take the token from there and delete the file.
Where nobody could sign in, it prints a link for the first administrator.

SIGTERM and Ctrl-C let the requests under way finish, for ten seconds at most.`,
		Args: args(0),
		RunE: func(c *cobra.Command, _ []string) error { return serve(c.Context(), f) },
	}
	fl := c.Flags()
	fl.StringVar(&f.listen, "listen", "127.0.0.1:8080", "the address to listen on; port 0 takes a free one")
	fl.StringVar(&f.cfg.Dir, "data", "", "the data folder")
	databaseFlag(fl, &f.cfg.Database)
	payloadFlags(fl, &f.cfg.Payloads)
	fl.StringVar(&f.addressFile, "address-file", "", "write the address that is listened on to this file")
	fl.StringVar(&f.cfg.PublicURL, "public-url", "", "how machines reach this server, for payload URLs (default: as they asked)")
	fl.StringArrayVar(&f.cfg.PayloadURLs, "payload-url", nil, "where machines fetch payloads first: a copy of this server's /payloads/, such as a CDN's, named as --public-url; repeatable")
	fl.StringArrayVar(&f.trustKeys, "trust-key", nil, "PEM file with public keys that sign releases: others are refused; repeatable")
	fl.IntVar(&f.cfg.Trust.Threshold, "trust-threshold", 1, "so many different keys must have signed a release")
	fl.DurationVar(&f.cfg.RetireAfter, "retire-after", 90*24*time.Hour, "machines not seen for so long do not count any more; 0: never")
	fl.DurationVar(&f.cfg.PollInterval, "poll-interval", 45*time.Minute, "how often machines are told to ask; 0 leaves it to them")
	fl.Int64Var(&f.cfg.MaxRequest, "max-request", 0, "bytes of a machine's request (default 65536)")
	fl.StringVar(&f.cfg.TLS.Cert, "tls-cert", "", "a PEM certificate with its chain; reread when it changes (default: plain HTTP)")
	fl.StringVar(&f.cfg.TLS.Key, "tls-key", "", "the certificate's PEM key; reread when it changes")
	fl.StringVar(&f.cfg.TLS.ClientCA, "client-ca", "", "PEM authorities of client certificates, of which machines need one, or the enrolment secret")
	fl.StringVar(&f.cfg.EnrolmentFile, "enrolment-secret-file", "", "secrets of which machines show one, a line each, or a client certificate")
	fl.StringArrayVar(&f.trusted, "trusted-proxy", nil, "network of proxies whose Forwarded and X-Forwarded-* are believed; repeatable")
	fl.Float64Var(&f.cfg.RateLimit, "rate-limit", 100, "requests a second of machines at one address, ten times as many at once; 0 for no limit")
	fl.Float64Var(&f.cfg.FailureLimit, "failure-limit", 10, "failed authentications a minute from one address, 20 at once; 0 for no limit")
	fl.StringVar(&f.cfg.OIDC.Issuer, "oidc-issuer", "", "an OpenID provider's issuer URL, where people sign in (default: none)")
	fl.StringVar(&f.cfg.OIDC.ClientID, "oidc-client-id", "", "this server's client id there; it comes back to PUBLIC-URL/auth/oidc/callback")
	fl.StringVar(&f.cfg.OIDC.SecretFile, "oidc-client-secret-file", "", "the client's secret, not readable by others (default: a public client)")
	fl.StringVar(&f.cfg.OIDC.Name, "oidc-name", "", "what people call the provider (default: its host)")
	fl.StringVar(&f.cfg.OIDC.GroupsClaim, "oidc-groups-claim", "", "the claim that has a person's groups (default \"groups\")")
	fl.StringArrayVar(&f.cfg.OIDC.Scopes, "oidc-scope", nil, "a scope to ask for beside openid, profile, email and, where the provider knows it, groups; repeatable")
	fl.StringArrayVar(&f.roles, "oidc-role", nil, "GROUP=ROLE: what a group's people may do; the highest counts; repeatable")
	fl.StringVar(&f.logFormat, "log-format", "text", "text or json")
	fl.BoolVar(&f.verbose, "verbose", false, "log every check, not only events")
	return c
}

// gcPercent spends memory, of which the server needs little, to save processor time: each request leaves garbage.
const gcPercent = 400

func serve(ctx context.Context, f serveFlags) error {
	if f.cfg.Dir == "" {
		return fault.New(fault.Usage, "name the data folder with --data DIR")
	}
	if f.cfg.MaxRequest < 0 || f.cfg.MaxRequest > 1<<20 {
		return fault.New(fault.Usage, "--max-request %d: want at most %d bytes", f.cfg.MaxRequest, 1<<20)
	}
	log, err := newLog(f.logFormat, f.verbose)
	if err != nil {
		return err
	}
	f.cfg.Log = log
	for _, name := range f.trustKeys {
		b, err := os.ReadFile(name)
		if err != nil {
			return fault.Wrap(fault.IO, err)
		}
		keys, err := payload.ParsePublicKeys(b)
		if err != nil {
			return fault.New(fault.Input, "--trust-key %s: %w", name, err)
		}
		f.cfg.Trust.Keys = append(f.cfg.Trust.Keys, keys...)
	}
	if len(f.trustKeys) == 0 {
		log.Warn("releases are not verified here, only by machines: no --trust-key")
	}
	if f.cfg.Proxies, err = proxies.Parse(f.trusted); err != nil {
		return err
	}
	for _, text := range f.roles {
		r, err := people.ParseRole(text)
		if err != nil {
			return fmt.Errorf("--oidc-role: %w", err)
		}
		f.cfg.OIDC.Roles = append(f.cfg.OIDC.Roles, r)
	}
	if !(f.cfg.RateLimit >= 0 && f.cfg.RateLimit <= 1e6 && f.cfg.FailureLimit >= 0 && f.cfg.FailureLimit <= 1e6) {
		return fault.New(fault.Usage, "--rate-limit and --failure-limit: want 0 to 1000000")
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	s, err := server.Open(ctx, f.cfg)
	if err != nil {
		return fmt.Errorf("start: %w", err)
	}
	return errors.Join(f.listenAndServe(ctx, s, log), s.Close())
}

func (f *serveFlags) listenAndServe(ctx context.Context, s *server.Server, log *slog.Logger) error {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", f.listen)
	if err != nil {
		return fault.New(fault.Network, "listen on %s: %w", f.listen, err)
	}
	defer l.Close()
	if err := f.showFirstLink(ctx, s, l.Addr()); err != nil {
		return err
	}
	address := l.Addr().String()
	if f.addressFile != "" {
		if err := writeAddress(f.addressFile, address); err != nil {
			return err
		}
	}
	log.Info("serving", "address", address, "data", f.cfg.Dir)
	return s.Serve(ctx, l)
}

// showFirstLink lets somebody in where nobody could sign in otherwise. It is printed and not logged: logs go far.
func (f *serveFlags) showFirstLink(ctx context.Context, s *server.Server, listens net.Addr) error {
	host, port, err := net.SplitHostPort(listens.String())
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	scheme := "http"
	if f.cfg.TLS.Cert != "" {
		scheme = "https"
	}
	link, err := s.FirstLink(ctx, scheme+"://"+net.JoinHostPort(host, port))
	if err != nil || link == "" {
		return err
	}
	fmt.Printf("Nobody can sign in yet. With this link an administrator can, once, within %d hours:\n%s\n", int(fleet.LinkLife.Hours()), link)
	return nil
}

// writeAddress makes the file appear with its whole content: others wait for it.
func writeAddress(path, address string) error {
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(address+"\n"), 0o644); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	return fault.Wrap(fault.IO, os.Rename(temp, path))
}

func newLog(format string, verbose bool) (*slog.Logger, error) {
	o := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		o.Level = slog.LevelDebug
	}
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, o)), nil
	}
	return nil, fault.New(fault.Usage, "--log-format %q: want text or json", format)
}
