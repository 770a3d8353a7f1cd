package server

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/certs"
	"github.com/semper-os/semper/omaha/server/proxies"
)

const enrolmentSecret = "correct-horse-battery"

func secretFile(t *testing.T, text string, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestSecretFile(t *testing.T) {
	for _, c := range []struct {
		name, text, want string
		mode             os.FileMode
	}{
		{"others read it", enrolmentSecret, "can be read by others", 0o644},
		{"empty", "\n\n", "has 0 secrets", 0o600},
		{"short", "hunter2", "want 16 to 256", 0o600},
		{"a space", "correct horse battery", "want 16 to 256", 0o600},
		{"many", strings.Repeat(enrolmentSecret+"\n", 11), "has 11 secrets", 0o600},
		{"huge", strings.Repeat("x", 10_000), "too long", 0o600},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Open(t.Context(), Config{Dir: t.TempDir(), EnrolmentFile: secretFile(t, c.text, c.mode)})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

func TestEnrolment(t *testing.T) {
	f := serve(t, t.TempDir(), Config{EnrolmentFile: secretFile(t, "the-one-before-this\n"+enrolmentSecret+"\n", 0o600)})
	check := vector(t, "1-first-check")
	for _, c := range []struct {
		name, method, path string
		header             []string
		status             int
		want               string
	}{
		{"a machine without", "POST", "/v1/update", nil, 401, "this one shows neither"},
		{"another's secret", "POST", "/v1/update", []string{EnrolmentHeader, enrolmentSecret + "x"}, 403, "not this fleet's"},
		{"the secret", "POST", "/v1/update", []string{EnrolmentHeader, enrolmentSecret}, 200, "<response"},
		{"the one before", "POST", "/v1/update/", []string{EnrolmentHeader, "the-one-before-this"}, 200, "<response"},
		{"as a password", "POST", "/v1/update", []string{"Authorization", "Basic Ong6Y29ycmVjdA=="}, 403, "not this fleet's"},
		{"reboot lock", "POST", "/v1/pre-reboot", nil, 401, "this one shows neither"},
		{"reboot given back", "POST", "/v1/steady-state", nil, 401, "this one shows neither"},
		{"payload", "GET", "/payloads/" + strings.Repeat("0", 64) + "/full.crau", nil, 401, "this one shows neither"},
		{"payload with the secret", "GET", "/payloads/" + strings.Repeat("0", 64) + "/full.crau", []string{EnrolmentHeader, enrolmentSecret}, 404, ""},
		{"people have tokens", "GET", "/api/v1/channels", []string{"Authorization", "Bearer " + f.token}, 200, "stable"},
		{"health", "GET", "/healthz", nil, 200, "ok"},
	} {
		t.Run(c.name, func(t *testing.T) {
			status, _, body := f.do(c.method, c.path, check, c.header...)
			if status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("status %d, want %d with %q: %s", status, c.status, c.want, body)
			}
		})
	}
	if strings.Contains(f.log.String(), enrolmentSecret) {
		t.Error("the secret is in the log")
	}
}

func TestProxyIsTrustedOnlyByName(t *testing.T) {
	for _, c := range []struct {
		trusted       []string
		address, base string
	}{
		{nil, "127.0.0.1", "http://127.0.0.1"},
		{[]string{"127.0.0.0/8"}, "192.0.2.9", "https://u.example"},
		{[]string{"10.0.0.0/8"}, "127.0.0.1", "http://127.0.0.1"},
	} {
		trusted, err := proxies.Parse(c.trusted)
		if err != nil {
			t.Fatal(err)
		}
		f := serve(t, t.TempDir(), Config{Proxies: trusted})
		f.publish("flatcar", "9999.0.0", "stable")
		status, _, body := f.do("POST", "/v1/update", vector(t, "1-first-check"),
			"X-Forwarded-For", "192.0.2.9", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "u.example")
		if status != 200 || !strings.Contains(body, `codebase="`+c.base) {
			t.Errorf("trusted %v: want a payload from %s: %s", c.trusted, c.base, body)
		}
		ms, err := f.s.store.Read().Machines(t.Context(), flatcarApp, "", false, 10)
		if err != nil || len(ms) != 1 || ms[0].Address != c.address {
			t.Errorf("trusted %v: %+v (%v), want the address %s", c.trusted, ms, err, c.address)
		}
	}
}

func TestLimits(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	f := serve(t, t.TempDir(), Config{Now: func() time.Time { return now }, RateLimit: 0.5, FailureLimit: 60})
	ask := func(path, auth string) (int, string) {
		t.Helper()
		status, header, _ := f.do("GET", path, "", "Authorization", auth)
		return status, header.Get("Retry-After")
	}
	for i := range 5 { // a burst of ten seconds
		if status, _ := ask("/payloads/x/y", ""); status != 404 {
			t.Fatalf("request %d: status %d", i, status)
		}
	}
	if status, after := ask("/payloads/x/y", ""); status != 429 || after != "2" {
		t.Errorf("after the burst: status %d, Retry-After %q", status, after)
	}
	if status, _ := ask("/healthz", ""); status != 200 {
		t.Errorf("health: status %d", status)
	}
	for i := range failureBurst {
		if status, _ := ask("/api/v1/channels", "Bearer semper_guess"); status != 401 {
			t.Fatalf("guess %d: status %d", i, status)
		}
	}
	if status, after := ask("/api/v1/channels", "Bearer "+f.token); status != 429 || after != "1" {
		t.Errorf("after the guesses: status %d, Retry-After %q", status, after)
	}
	now = now.Add(2 * time.Second)
	if status, _ := ask("/api/v1/channels", "Bearer "+f.token); status != 200 {
		t.Errorf("later: status %d", status)
	}
	if status, _ := ask("/payloads/x/y", ""); status != 404 {
		t.Errorf("later: status %d", status)
	}
	_, _, metrics := f.do("GET", "/metrics", "")
	for _, want := range []string{`semper_server_limited_total{cause="rate"} 1`, `semper_server_limited_total{cause="authentication"} 1`, `semper_server_refused_total{} 20`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in\n%s", want, metrics)
		}
	}
}

// authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func issue(t *testing.T, by *authority, usage x509.ExtKeyUsage, until time.Time) (*authority, []byte, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"example.com"},
		NotBefore: time.Unix(0, 0), NotAfter: until, ExtKeyUsage: []x509.ExtKeyUsage{usage}, IsCA: by == nil, BasicConstraintsValid: true,
	}
	parent, signer := c, key
	if by != nil {
		parent, signer = by.cert, by.key
	} else {
		c.ExtKeyUsage = nil
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, signer)
	if err != nil {
		t.Fatal(err)
	}
	if c, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{c, key}, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

func TestClientCertificates(t *testing.T) {
	later := time.Now().Add(time.Hour)
	ca, caPEM, _ := issue(t, nil, 0, later)
	other, _, _ := issue(t, nil, 0, later)
	_, certPEM, keyPEM := issue(t, ca, x509.ExtKeyUsageServerAuth, later)
	dir := t.TempDir()
	files := certs.Files{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key"), ClientCA: filepath.Join(dir, "ca")}
	for path, data := range map[string][]byte{files.Cert: certPEM, files.Key: keyPEM, files.ClientCA: caPEM} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := serve(t, t.TempDir(), Config{TLS: files, Now: time.Now, EnrolmentFile: secretFile(t, enrolmentSecret, 0o600)})
	hs := httptest.NewUnstartedServer(f.s.Handler())
	hs.Listener = tls.NewListener(hs.Listener, f.s.certs.Config())
	hs.Start()
	defer hs.Close()
	roots := x509.NewCertPool()
	roots.AddCert(ca.cert)
	for _, c := range []struct {
		name   string
		by     *authority
		usage  x509.ExtKeyUsage
		until  time.Time
		secret string
		status int
	}{
		{"none", nil, 0, later, "", 401},
		{"the fleet's", ca, x509.ExtKeyUsageClientAuth, later, "", 404},
		{"a secret instead", nil, 0, later, enrolmentSecret, 404},
		{"a wrong secret beside a good certificate", ca, x509.ExtKeyUsageClientAuth, later, "wrong", 404},
		{"another authority's", other, x509.ExtKeyUsageClientAuth, later, "", 403},
		{"expired", ca, x509.ExtKeyUsageClientAuth, time.Now().Add(-time.Hour), "", 403},
		{"a server's", ca, x509.ExtKeyUsageServerAuth, later, "", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			conf := &tls.Config{RootCAs: roots, ServerName: "example.com"}
			if c.by != nil {
				_, cert, key := issue(t, c.by, c.usage, c.until)
				pair, err := tls.X509KeyPair(cert, key)
				if err != nil {
					t.Fatal(err)
				}
				conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
			}
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(hs.URL, "http:", "https:", 1)+"/payloads/x/y", nil)
			if c.secret != "" {
				req.Header.Set(EnrolmentHeader, c.secret)
			}
			tr := &http.Transport{TLSClientConfig: conf}
			defer tr.CloseIdleConnections()
			res, err := tr.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != c.status {
				t.Errorf("status %d, want %d", res.StatusCode, c.status)
			}
		})
	}
}
