package keys_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/semper-os/semper/builder/keys"
	"github.com/semper-os/semper/builder/keys/keystest"
	"github.com/semper-os/semper/fault"
)

var options = keys.Options{
	Name: "Test OS",
	Now:  time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC),
	Rand: rand.Reader,
	Fast: true,
}

var allFiles = []string{
	"payload-1.key", "payload-1.pem", "payload-2.key", "payload-2.pem", "secure-boot.crt", "secure-boot.key", "trust.toml", "verity.crt", "verity.key",
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestNew(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0)) // the modes must not depend on the umask
	parent := t.TempDir()
	dir := filepath.Join(parent, "keys")
	made, err := keys.New(context.Background(), dir, options)
	if err != nil {
		t.Fatal(err)
	}
	if got := names(t, dir); !slices.Equal(got, allFiles) {
		t.Errorf("files %v, want %v", got, allFiles)
	}
	if got := names(t, parent); !slices.Equal(got, []string{"keys"}) {
		t.Errorf("left behind: %v", got)
	}
	mode := func(path string) os.FileMode {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info.Mode().Perm()
	}
	if m := mode(dir); m != 0o700 {
		t.Errorf("folder has mode %o", m)
	}
	var told []string
	for _, f := range made {
		want := os.FileMode(0o644)
		if strings.HasSuffix(f.Path, ".key") {
			want = 0o600
		}
		if m := mode(f.Path); m != want || f.Secret != (want == 0o600) || f.About == "" {
			t.Errorf("%+v has mode %o, want %o", f, m, want)
		}
		told = append(told, filepath.Base(f.Path))
	}
	slices.Sort(told)
	if !slices.Equal(told, allFiles) {
		t.Errorf("New tells of %v, want %v", told, allFiles)
	}

	k, err := keys.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(k.Payload) != 2 || k.Payload[0].Name != "payload-1" || k.Payload[1].Name != "payload-2" || k.Public.Threshold != 1 {
		t.Errorf("payload keys %+v, threshold %d", k.Payload, k.Public.Threshold)
	}
	for subject, cert := range map[string]*x509.Certificate{"Test OS Secure Boot": k.SecureBoot.Certificate, "Test OS root hash": k.Verity.Certificate} {
		if cert.Subject.CommonName != subject || cert.NotBefore.Format(time.DateOnly) != "2026-03-04" || cert.NotAfter.Format(time.DateOnly) != "2046-03-04" {
			t.Errorf("certificate of %v from %v to %v", cert.Subject, cert.NotBefore, cert.NotAfter)
		}
		if err := cert.CheckSignatureFrom(cert); err != nil {
			t.Errorf("%s is not its own issuer: %v", subject, err)
		}
	}
	if k.SecureBoot.Certificate.SerialNumber.Cmp(k.Verity.Certificate.SerialNumber) == 0 {
		t.Error("two certificates with one serial number")
	}

	files := k.Public.Files()
	for name, file := range map[string]string{
		"keys/payload/payload-1.pem": "payload-1.pem", "keys/payload/payload-2.pem": "payload-2.pem", "trust.toml": "trust.toml",
	} {
		want, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !bytes.Equal(files[name], want) {
			t.Errorf("for the image, %s is %q, want %q", name, files[name], want)
		}
	}
	if len(files) != 3 {
		t.Errorf("%d files for the image", len(files))
	}
	for file, got := range map[string][]byte{"verity.crt": k.Public.VerityPEM(), "secure-boot.crt": k.Public.SecureBootPEM()} {
		want, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %q, want %q", file, got, want)
		}
	}
}

// OpenSSL must read what we write: it is what people look at keys with, and what firmware is built on.
func TestOpenSSLReadsThem(t *testing.T) {
	dir := keystest.Dir(t, "openssl")
	for _, args := range [][]string{
		{"verify", "-check_ss_sig", "-CAfile", "secure-boot.crt", "secure-boot.crt"},
		{"verify", "-check_ss_sig", "-CAfile", "verity.crt", "verity.crt"},
		{"pkey", "-in", "payload-1.key", "-check", "-noout"},
		{"pkey", "-in", "payload-2.key", "-check", "-noout"},
		{"pkey", "-pubin", "-in", "payload-1.pem", "-noout"},
		{"pkey", "-in", "secure-boot.key", "-check", "-noout"},
	} {
		c := exec.Command("openssl", args...)
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("openssl %v: %v\n%s (Debian package openssl)", args, err, out)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	parent := t.TempDir()
	full := filepath.Join(parent, "full")
	if err := os.Mkdir(full, 0o755); err != nil {
		t.Fatal(err)
	}
	precious := filepath.Join(full, "secure-boot.key")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty := filepath.Join(parent, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(parent, "link")
	if err := os.Symlink(empty, link); err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]string{full: "is not empty", precious: "not a directory", link: "symbolic link"} {
		if _, err := keys.New(context.Background(), dir, options); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", dir, err, want)
		}
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "precious" {
		t.Errorf("the old key is now %q, %v", b, err)
	}
	if _, err := keys.New(context.Background(), filepath.Join(parent, "no", "parent"), options); !fault.Is(err, fault.IO) {
		t.Errorf("no parent: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := keys.New(ctx, filepath.Join(parent, "cancelled"), options); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	broken := options
	broken.Rand = strings.NewReader("")
	if _, err := keys.New(context.Background(), filepath.Join(parent, "broken"), broken); !fault.Is(err, fault.IO) {
		t.Errorf("no randomness: %v", err)
	}
	if got := names(t, parent); !slices.Equal(got, []string{"empty", "full", "link"}) {
		t.Errorf("left behind: %v", got)
	}
	if _, err := keys.New(context.Background(), empty, options); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
}

func TestLoadRefuses(t *testing.T) {
	other := keystest.Dir(t, "other")
	copyFrom := func(t *testing.T, dir, from, to string) {
		b, err := os.ReadFile(filepath.Join(other, from))
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), b, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	write := func(name, content string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(names ...string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			for _, name := range names {
				if err := os.Remove(filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		want   string
	}{
		"readable key": {func(t *testing.T, dir string) {
			if err := os.Chmod(filepath.Join(dir, "payload-2.key"), 0o640); err != nil {
				t.Fatal(err)
			}
		}, "payload-2.key is a private key that others can read (mode 0640): run 'chmod 600 "},
		"missing key":         {remove("verity.key"), "verity.key is missing"},
		"missing certificate": {remove("secure-boot.crt"), "secure-boot.crt is missing"},
		"missing trust":       {remove("trust.toml"), "trust.toml is missing"},
		"no payload keys":     {remove("payload-1.pem", "payload-2.pem"), "0 public payload keys"},
		"no private keys":     {remove("payload-1.key", "payload-2.key"), "asks for 1 signatures"},
		"stray key":           {remove("payload-2.pem"), "payload-2.key has no public half"},
		"other's certificate": {func(t *testing.T, dir string) { copyFrom(t, dir, "verity.crt", "verity.crt") }, "does not belong to verity.crt"},
		"other's Secure Boot": {func(t *testing.T, dir string) { copyFrom(t, dir, "secure-boot.key", "secure-boot.key") }, "does not belong to secure-boot.crt"},
		"other's payload key": {func(t *testing.T, dir string) { copyFrom(t, dir, "payload-1.key", "payload-1.key") }, "does not belong to payload-1.pem"},
		"same key twice": {func(t *testing.T, dir string) {
			copyFrom(t, dir, "payload-1.pem", "payload-3.pem")
			copyFrom(t, dir, "payload-1.pem", "payload-4.pem")
		}, "same key as payload-3.pem"},
		"threshold too high":   {write("trust.toml", "threshold = 3\n"), "threshold = 3, but there are 2"},
		"threshold zero":       {write("trust.toml", "threshold = 0\n"), "threshold = 0"},
		"threshold missing":    {write("trust.toml", ""), "threshold = 0"},
		"unknown setting":      {write("trust.toml", "threshold = 1\nthresold = 2\n"), "trust.toml"},
		"key is a certificate": {write("verity.key", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), `not a PEM file with one "PRIVATE KEY" block`},
		"key is rubbish":       {write("verity.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"), "not a PKCS #8 key"},
		"two keys in one file": {func(t *testing.T, dir string) {
			b, _ := os.ReadFile(filepath.Join(dir, "verity.key"))
			write("verity.key", string(b)+string(b))(t, dir)
		}, "not a PEM file with one"},
		"certificate rubbish":   {write("verity.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "not an X.509"},
		"public key is rubbish": {write("payload-1.pem", "x"), "not a PEM file"},
		"RSA-2048 as a payload key": {func(t *testing.T, dir string) {
			b, err := exec.Command("openssl", "rsa", "-in", filepath.Join(dir, "verity.key"), "-pubout").Output()
			if err != nil {
				t.Fatal(err)
			}
			write("payload-3.pem", string(b))(t, dir)
		}, "payload-3.pem: RSA with 2048 bits"},
		"huge file": {write("verity.crt", strings.Repeat("x", 1<<17)), "not a file of at most"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := keystest.Dir(t, "first")
			c.change(t, dir)
			if _, err := keys.Load(dir); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want an input error with %q", err, c.want)
			}
		})
	}
	missing := filepath.Join(t.TempDir(), "nowhere")
	if _, err := keys.Load(missing); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "semper keys new --out "+missing) {
		t.Errorf("missing folder: %v", err)
	}
}

// A key that somebody else holds is trusted, and must be counted for the threshold only by machines.
func TestForeignKey(t *testing.T) {
	dir, other := keystest.Dir(t, "first"), keystest.Dir(t, "other")
	b, err := os.ReadFile(filepath.Join(other, "payload-2.pem"))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "payload-10.pem"), b, 0o644)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "trust.toml"), []byte("threshold = 2\n"), 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	k, err := keys.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(k.Payload) != 2 || len(k.Public.Payload) != 3 || k.Public.Payload[2].Name != "payload-10" || k.Public.Threshold != 2 {
		t.Errorf("%d private, %d public keys, threshold %d", len(k.Payload), len(k.Public.Payload), k.Public.Threshold)
	}
	if got := len(k.Public.PayloadKeys()); got != 3 {
		t.Errorf("PayloadKeys returns %d keys", got)
	}
	if got := len(k.PayloadSigners()); got != 2 {
		t.Errorf("PayloadSigners returns %d keys", got)
	}
}

// Machines and verifiers never see the private files.
func TestPublicWithoutPrivate(t *testing.T) {
	dir := keystest.Dir(t, "first")
	for _, name := range []string{"payload-1.key", "payload-2.key", "verity.key", "secure-boot.key"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	p, err := keys.LoadPublic(dir)
	if err != nil || len(p.Payload) != 2 {
		t.Errorf("%+v %v", p, err)
	}
}

// TestLoadPayload reads a folder that holds payload keys and nothing else.
func TestLoadPayload(t *testing.T) {
	without := func(names ...string) string {
		dir := keystest.Dir(t, "payload-only")
		for _, name := range append(names, "secure-boot.key", "secure-boot.crt", "verity.key", "verity.crt") {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
		return dir
	}
	k, err := keys.LoadPayload(without())
	if err != nil || len(k.Payload) != 2 || len(k.Public.Payload) != 2 || k.Public.Threshold != 1 {
		t.Errorf("keys %+v (%v)", k, err)
	}
	if k, err = keys.LoadPayload(without("payload-1.key")); err != nil || len(k.Payload) != 1 || k.Payload[0].Name != "payload-2" || len(k.Public.Payload) != 2 {
		t.Errorf("without the first private key: %+v (%v)", k, err)
	}
	for want, dir := range map[string]string{
		"holds no private payload key":    without("payload-1.key", "payload-2.key"),
		"has no public half":              without("payload-1.pem"),
		"trust.toml is missing":           without("trust.toml"),
		"holds 0 public payload keys":     without("payload-1.pem", "payload-2.pem"),
		"make them with 'semper keys new": filepath.Join(t.TempDir(), "nothing"),
	} {
		if _, err := keys.LoadPayload(dir); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
}
