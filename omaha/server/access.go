package server

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"math"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

// EnrolmentHeader is where a machine shows the fleet's enrolment secret. The password of HTTP Basic counts too, for clients that can be given no header.
const EnrolmentHeader = "Semper-Enrolment"

const (
	minSecret  = 16
	maxSecret  = 256
	maxSecrets = 10

	rateBurst    = 10 // seconds of a rate that may come at once
	failureBurst = 20 // failed authentications
)

// readSecrets reads a file with a secret a line: a fleet moves from one to the next while both count. Only their hashes are kept in memory.
func readSecrets(path string) ([][sha256.Size]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	if info.Mode()&0o007 != 0 {
		return nil, fault.New(fault.Input, "the enrolment secret %s can be read by others: chmod 600 it, and take a new one if somebody may have", path)
	}
	if info.Size() > maxSecrets*(maxSecret+2) {
		return nil, fault.New(fault.Input, "the enrolment secret %s is too long: want at most %d lines", path, maxSecrets)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	var out [][sha256.Size]byte
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		s := strings.TrimSpace(lines.Text())
		if s == "" {
			continue
		}
		if len(s) < minSecret || len(s) > maxSecret || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
			return nil, fault.New(fault.Input, "the enrolment secret %s: want %d to %d printable ASCII characters a line", path, minSecret, maxSecret)
		}
		out = append(out, sha256.Sum256([]byte(s)))
	}
	if len(out) == 0 || len(out) > maxSecrets {
		return nil, fault.New(fault.Input, "the enrolment secret %s has %d secrets: want 1 to %d, a line each", path, len(out), maxSecrets)
	}
	return out, nil
}

// placed makes a request say where it came from: the client's address, host and scheme, whatever proxies stand between. The scheme is in URL.Scheme.
func (s *Server) placed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		o := s.cfg.Proxies.Origin(r)
		r, u := r.WithContext(r.Context()), *r.URL // as a handler may not change what it is given
		r.URL = &u
		r.Host, r.URL.Scheme = o.Host, o.Scheme
		if o.Client.IsValid() {
			r.RemoteAddr = netip.AddrPortFrom(o.Client, 0).String()
		}
		next.ServeHTTP(w, r)
	})
}

// forMachines reports whether a path is one that machines use, and not people.
func forMachines(path string) bool {
	return strings.HasPrefix(path, "/v1/") || strings.HasPrefix(path, "/payloads/")
}

// signsIn reports whether a path is one where people show who they are.
func signsIn(path string) bool {
	return strings.HasPrefix(path, "/auth/") && path != "/auth/options" && path != "/auth/sign-out"
}

// guarded bounds what an address may ask and how often it may be refused, and lets machines through that belong to the fleet.
// A refusal is counted when it is known, so requests under way at once may be a few more than the bound; secrets have too many bits for that to matter.
func (s *Server) guarded(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		machines := forMachines(r.URL.Path)
		// A browser whose session has ended, or has none yet, does not guess. Nor do ids of sessions, which have as many bits as tokens, let anybody keep others out who are
		// signed in behind the same address.
		if !machines && !signsIn(r.URL.Path) && (!strings.HasPrefix(r.URL.Path, "/api/") || r.Header.Get("Authorization") == "") {
			next.ServeHTTP(w, r)
			return
		}
		now := s.cfg.Now()
		var from netip.Addr
		if ap, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			from = ap.Addr()
		}
		wait := s.failures.Wait(from, now)
		cause := "authentication"
		if wait == 0 && machines {
			wait, cause = s.machineLimit.Take(from, now), "rate"
		}
		if wait > 0 {
			s.metrics.add("semper_server_limited_total", "cause", cause)
			w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(wait.Seconds()))))
			http.Error(w, "too many requests from your address; ask again later", http.StatusTooManyRequests)
			return
		}
		if status, why := s.enrolled(r, now); machines && status != 0 {
			s.refused(from, now)
			if status == http.StatusUnauthorized {
				w.Header().Set("WWW-Authenticate", `Basic realm="enrolment"`)
			}
			http.Error(w, why, status)
			return
		}
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(sw, r)
		if sw.status == http.StatusUnauthorized {
			s.refused(from, now)
		}
	})
}

func (s *Server) refused(from netip.Addr, now time.Time) {
	s.failures.Take(from, now)
	s.metrics.add("semper_server_refused_total")
}

// enrolled says whether a machine belongs to the fleet: 0, or the status and text of a refusal. A secret or a certificate is enough.
func (s *Server) enrolled(r *http.Request, now time.Time) (status int, why string) {
	if len(s.secrets) == 0 && s.cfg.TLS.ClientCA == "" {
		return 0, ""
	}
	status, why = http.StatusUnauthorized, "this fleet's machines show an enrolment secret (header "+EnrolmentHeader+") or a client certificate; this one shows neither"
	secret := r.Header.Get(EnrolmentHeader)
	if secret == "" {
		_, secret, _ = r.BasicAuth()
	}
	if secret != "" {
		sum, right := sha256.Sum256([]byte(secret)), 0
		for i := range s.secrets {
			right |= subtle.ConstantTimeCompare(sum[:], s.secrets[i][:])
		}
		if right == 1 {
			return 0, ""
		}
		status, why = http.StatusForbidden, "the enrolment secret is not this fleet's"
	}
	if s.certs == nil || s.certs.Clients() == nil || r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return status, why
	}
	// With each request and not only with the handshake, so that a certificate's end ends a resumed session too.
	chain := x509.NewCertPool()
	for _, c := range r.TLS.PeerCertificates[1:] {
		chain.AddCert(c)
	}
	_, err := r.TLS.PeerCertificates[0].Verify(x509.VerifyOptions{
		Roots: s.certs.Clients(), Intermediates: chain, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return http.StatusForbidden, "the client certificate is not accepted: " + err.Error()
	}
	return 0, ""
}
