package network_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/network"
)

func get(t *testing.T, n config.Network, url string) (string, error) {
	t.Helper()
	tr, err := network.Transport(n, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer tr.CloseIdleConnections()
	res, err := (&http.Client{Transport: tr}).Get(url)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func write(t *testing.T, name string, blocks ...*pem.Block) string {
	t.Helper()
	var data []byte
	for _, b := range blocks {
		data = append(data, pem.EncodeToMemory(b)...)
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// A server of a private authority that wants to see a client certificate: refused without, trusted with.
func TestPrivateAuthorityAndClientCertificate(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "machine 1"}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	clients := x509.NewCertPool()
	clients.AppendCertsFromPEM(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))

	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: clients}
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	ca := write(t, "ca.pem", &pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	n := config.Network{Proxy: config.ProxyNone}
	if _, err := get(t, n, s.URL); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an unknown authority was trusted: %v", err)
	}
	n.CAFile = ca
	if _, err := get(t, n, s.URL); err == nil {
		t.Error("the server took a client without a certificate")
	}
	n.ClientCertificate = write(t, "client.pem", &pem.Block{Type: "CERTIFICATE", Bytes: der})
	n.ClientKey = write(t, "client.key", &pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	if body, err := get(t, n, s.URL); err != nil || body != "machine 1" {
		t.Errorf("got %q, %v", body, err)
	}
}

func TestProxy(t *testing.T) {
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "proxy for "+r.URL.String())
	}))
	defer proxy.Close()
	direct := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "direct") }))
	defer direct.Close()
	for _, c := range []struct{ proxy, url, want string }{
		{proxy.URL, "http://updates.example/x", "proxy for http://updates.example/x"},
		{config.ProxyNone, direct.URL, "direct"},
		{"", direct.URL, "direct"}, // the environment's, which never goes for loopback addresses
	} {
		if got, err := get(t, config.Network{Proxy: c.proxy}, c.url); err != nil || got != c.want {
			t.Errorf("proxy %q: got %q, %v, want %q", c.proxy, got, err, c.want)
		}
	}
}

func TestBadFiles(t *testing.T) {
	text := filepath.Join(t.TempDir(), "text")
	if err := os.WriteFile(text, []byte("not PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	long := filepath.Join(t.TempDir(), "long")
	if err := os.WriteFile(long, make([]byte, 1<<20+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		n    config.Network
		kind fault.Kind
		want string
	}{
		{"missing", config.Network{CAFile: "/nowhere/ca.pem"}, fault.IO, "network.ca_file: open /nowhere/ca.pem"},
		{"no certificate", config.Network{CAFile: text}, fault.Input, "holds no PEM certificate"},
		{"too long", config.Network{CAFile: long}, fault.Input, "longer than 1048576 bytes"},
		{"no pair", config.Network{ClientCertificate: text, ClientKey: text}, fault.Input, "network.client_certificate"},
		{"key is missing", config.Network{ClientCertificate: text, ClientKey: "/nowhere/key"}, fault.IO, "network.client_key"},
	} {
		_, err := network.Transport(c.n, time.Second)
		if !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: error %v, want kind %v with %q", c.name, err, c.kind, c.want)
		}
	}
}
