package certs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// pair writes a self-signed certificate and its key below dir.
func pair(t *testing.T, dir, name string) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Unix(0, 0), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// replace puts a file in place as tools that renew do, under a new inode.
func replace(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func TestReload(t *testing.T) {
	dir := t.TempDir()
	files := Files{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
	certA, keyA := pair(t, dir, "a.example")
	certB, keyB := pair(t, dir, "b.example")
	replace(t, files.Cert, certA)
	replace(t, files.Key, keyA)
	now := time.Unix(1000, 0)
	var log bytes.Buffer
	k, err := New(files, func() time.Time { return now }, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	serves := func(step, name string, failures int) {
		t.Helper()
		conf, err := k.Config().GetConfigForClient(nil)
		if err != nil || conf.MinVersion != tls.VersionTLS12 {
			t.Fatalf("%s: %v", step, err)
		}
		if got := conf.Certificates[0].Leaf.Subject.CommonName; got != name {
			t.Errorf("%s: serves %s, want %s", step, got, name)
		}
		if got := strings.Count(log.String(), "the one before stays"); got != failures {
			t.Errorf("%s: %d failures are logged, want %d:\n%s", step, got, failures, &log)
		}
	}
	serves("start", "a.example", 0)
	replace(t, files.Cert, certB)
	serves("not looked at yet", "a.example", 0)
	now = now.Add(Every)
	serves("half a renewal", "a.example", 1)
	now = now.Add(Every)
	serves("half a renewal, again", "a.example", 1)
	replace(t, files.Key, keyB)
	now = now.Add(Every)
	serves("the other half", "b.example", 1)
	if err := os.Remove(files.Cert); err != nil {
		t.Fatal(err)
	}
	now = now.Add(Every)
	serves("gone", "b.example", 2)
	replace(t, files.Cert, []byte("rubbish"))
	now = now.Add(Every)
	serves("broken", "b.example", 3)
	replace(t, files.Cert, certA)
	replace(t, files.Key, keyA)
	now = now.Add(-time.Hour) // the clock was set back
	serves("whole again", "a.example", 3)
}

func TestNewRefuses(t *testing.T) {
	dir := t.TempDir()
	cert, key := pair(t, dir, "a.example")
	for _, c := range []struct{ name, cert, key, ca, want string }{
		{"no certificate", "", string(key), "", "no such file"},
		{"no key", string(cert), "", "", "no such file"},
		{"not PEM", "x", "y", "", "failed to find any PEM data"},
		{"no authority", string(cert), string(key), "x", "holds no PEM certificate"},
		{"a key among the authorities", string(cert), string(key), string(key), "want certificates only"},
		{"too long", strings.Repeat("x", maxFile+1), string(key), "", "is longer than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			files := Files{Cert: filepath.Join(dir, "cert"), Key: filepath.Join(dir, "key")}
			for path, data := range map[string]string{files.Cert: c.cert, files.Key: c.key, filepath.Join(dir, "ca"): c.ca} {
				if data != "" {
					replace(t, path, []byte(data))
				}
			}
			if c.ca != "" {
				files.ClientCA = filepath.Join(dir, "ca")
			}
			if _, err := New(files, time.Now, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}
