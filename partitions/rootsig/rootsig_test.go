package rootsig

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/smallstep/pkcs7"
)

var testHash = func() (h [32]byte) {
	for i := range h {
		h[i] = byte(i * 7)
	}
	return h
}()

// identity is a key with its certificate, both as files too.
type identity struct {
	key               crypto.Signer
	cert              *x509.Certificate
	keyFile, certFile string
}

func newIdentity(t testing.TB, key crypto.Signer, name string, serial int64) identity {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Unix(0, 0),
		NotAfter:     time.Unix(1<<32, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(nil, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	id := identity{key, cert, filepath.Join(t.TempDir(), "key.pem"), filepath.Join(t.TempDir(), "cert.pem")}
	for path, block := range map[string]*pem.Block{id.keyFile: {Type: "PRIVATE KEY", Bytes: private}, id.certFile: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return id
}

func newRSA(t testing.TB, name string) identity {
	t.Helper()
	key, err := rsa.GenerateKey(nil, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return newIdentity(t, key, name, 1)
}

func newECDSA(t testing.TB, name string, curve elliptic.Curve) identity {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, nil)
	if err != nil {
		t.Fatal(err)
	}
	return newIdentity(t, key, name, 2)
}

func sign(t testing.TB, id identity) []byte {
	t.Helper()
	b, err := Sign(testHash, id.key, id.cert)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parts(t testing.TB, b []byte) (c content, der []byte) {
	t.Helper()
	if err := json.Unmarshal(bytes.TrimRight(b, "\x00"), &c); err != nil {
		t.Fatal(err)
	}
	der, err := base64.StdEncoding.DecodeString(c.Signature)
	if err != nil {
		t.Fatal(err)
	}
	return c, der
}

func pack(t testing.TB, der []byte) []byte {
	t.Helper()
	b, err := json.Marshal(content{RootHash: hex.EncodeToString(testHash[:]), Signature: base64.StdEncoding.EncodeToString(der)})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSignAndVerify(t *testing.T) {
	ids := map[string]identity{
		"RSA":   newRSA(t, "rsa"),
		"P-256": newECDSA(t, "p256", elliptic.P256()),
		"P-384": newECDSA(t, "p384", elliptic.P384()),
	}
	var all []*x509.Certificate
	for _, id := range ids {
		all = append(all, id.cert)
	}
	for name, id := range ids {
		b := sign(t, id)
		if len(b) == 0 || len(b)%4096 != 0 {
			t.Errorf("%s: %d bytes", name, len(b))
		}
		if !bytes.Equal(b, sign(t, id)) {
			t.Errorf("%s: signing twice gives different bytes", name)
		}
		// As on the disk: with the rest of the partition behind it.
		if cert, err := Verify(append(b, make([]byte, 1<<20)...), testHash, all); err != nil || cert != id.cert {
			t.Errorf("%s: %v", name, err)
		}
		c, _ := parts(t, b)
		if c.RootHash != hex.EncodeToString(testHash[:]) || c.Fingerprint != fingerprint(id.cert) {
			t.Errorf("%s: %+v", name, c)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	a, b := newRSA(t, "a"), newECDSA(t, "b", elliptic.P256())
	if _, err := Sign(testHash, a.key, b.cert); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("a foreign certificate: %v", err)
	}
	if _, err := Sign(testHash, b.key, a.cert); err == nil || !strings.Contains(err.Error(), "does not belong") {
		t.Errorf("a foreign certificate: %v", err)
	}
	_, edwards, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(testHash, edwards, a.cert); err == nil || !strings.Contains(err.Error(), "only RSA and ECDSA") {
		t.Errorf("Ed25519: %v", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	good, other := newRSA(t, "semper"), newRSA(t, "other")
	double := newRSA(t, "semper") // the same name and serial number, another key
	signed := sign(t, good)
	c, der := parts(t, signed)
	edit := func(change func(*content)) []byte {
		e := c
		change(&e)
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	flipped := bytes.Clone(der)
	flipped[len(flipped)-1] ^= 1
	wrong := testHash
	wrong[0] ^= 1
	only := []*x509.Certificate{good.cert}
	tests := []struct {
		name    string
		data    []byte
		hash    [32]byte
		allowed []*x509.Certificate
		kind    fault.Kind
		says    string
	}{
		{"nothing", nil, testHash, only, fault.Input, "there is none"},
		{"an empty partition", make([]byte, 8192), testHash, only, fault.Input, "there is none"},
		{"not JSON", []byte("hello"), testHash, only, fault.Input, "invalid character"},
		{"more behind it", append(bytes.Clone(signed), 1), testHash, only, fault.Input, "should be NUL"},
		{"for another hash", signed, wrong, only, fault.Verification, "it is for the root hash"},
		{"upper case", edit(func(c *content) { c.RootHash = strings.ToUpper(c.RootHash) }), testHash, only, fault.Verification, "it is for the root hash"},
		{"hash of it replaced", edit(func(c *content) { c.RootHash = hex.EncodeToString(wrong[:]) }), wrong, only, fault.Verification, "does not match the key"},
		{"no certificates", signed, testHash, nil, fault.Verification, "not one of the 0 allowed"},
		{"another certificate", signed, testHash, []*x509.Certificate{other.cert}, fault.Verification, "not one of the 1 allowed"},
		{"another one, without fingerprint", edit(func(c *content) { c.Fingerprint = "" }), testHash, []*x509.Certificate{other.cert}, fault.Verification, "not one of the 1 allowed"},
		{"a double", edit(func(c *content) { c.Fingerprint = "" }), testHash, []*x509.Certificate{double.cert}, fault.Verification, "does not match the key"},
		{"a flipped bit", edit(func(c *content) { c.Signature = base64.StdEncoding.EncodeToString(flipped) }), testHash, only, fault.Verification, "does not match the key"},
		{"not base64", edit(func(c *content) { c.Signature = "!" }), testHash, only, fault.Input, "base64"},
		{"no signature", edit(func(c *content) { c.Signature = "" }), testHash, only, fault.Input, "PKCS#7"},
		{"cut short", edit(func(c *content) { c.Signature = base64.StdEncoding.EncodeToString(der[:100]) }), testHash, only, fault.Input, "PKCS#7"},
		{"trailing bytes", edit(func(c *content) { c.Signature = base64.StdEncoding.EncodeToString(append(bytes.Clone(der), 0)) }), testHash, only, fault.Input, "1 bytes follow"},
		{"too long", bytes.Repeat([]byte(" "), 1<<20), testHash, only, fault.Input, "unexpected end"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cert, err := Verify(tt.data, tt.hash, tt.allowed)
			if err == nil || cert != nil || !fault.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v (%s), want %s and %q", err, fault.KindOf(err), tt.kind, tt.says)
			}
		})
	}
	if cert, err := Verify(sign(t, good), testHash, []*x509.Certificate{other.cert, double.cert, good.cert}); err != nil || cert != good.cert {
		t.Errorf("with a double on the list: %v", err)
	}
}

// What smallstep/pkcs7 makes of ours, and its signatures of the kinds that we refuse.
func TestAgainstSmallstep(t *testing.T) {
	id := newRSA(t, "semper")
	text := []byte(hex.EncodeToString(testHash[:]))
	_, der := parts(t, sign(t, id))
	p7, err := pkcs7.Parse(der)
	if err != nil {
		t.Fatal(err)
	}
	if len(p7.Content) != 0 {
		t.Error("the signature is not detached")
	}
	p7.Content = text
	if err := p7.Verify(); err != nil {
		t.Error(err)
	}
	if signer := p7.GetOnlySigner(); signer == nil || !signer.Equal(id.cert) {
		t.Error("the certificate is not in it")
	}

	theirs := func(edit func(*pkcs7.SignedData) error) []byte {
		t.Helper()
		sd, err := pkcs7.NewSignedData(text)
		if err != nil {
			t.Fatal(err)
		}
		sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA256)
		sd.SetEncryptionAlgorithm(pkcs7.OIDEncryptionAlgorithmRSA)
		if err := edit(sd); err != nil {
			t.Fatal(err)
		}
		der, err := sd.Finish()
		if err != nil {
			t.Fatal(err)
		}
		return pack(t, der)
	}
	plain := func(sd *pkcs7.SignedData) error {
		return sd.SignWithoutAttr(id.cert, id.key, pkcs7.SignerInfoConfig{})
	}
	allowed := []*x509.Certificate{id.cert}
	if _, err := Verify(theirs(func(sd *pkcs7.SignedData) error { err := plain(sd); sd.Detach(); return err }), testHash, allowed); err != nil {
		t.Errorf("a plain one of theirs: %v", err)
	}
	for name, b := range map[string][]byte{
		"content inside": theirs(plain),
		"signed attributes": theirs(func(sd *pkcs7.SignedData) error {
			err := sd.AddSigner(id.cert, id.key, pkcs7.SignerInfoConfig{})
			sd.Detach()
			return err
		}),
		"unsigned attributes": theirs(func(sd *pkcs7.SignedData) error {
			err := plain(sd)
			if err == nil {
				err = sd.GetSignedData().SignerInfos[0].SetUnauthenticatedAttributes([]pkcs7.Attribute{{Type: pkcs7.OIDAttributeSigningTime, Value: time.Unix(0, 0)}})
			}
			sd.Detach()
			return err
		}),
		"two signers": theirs(func(sd *pkcs7.SignedData) error {
			err := plain(sd)
			if err == nil {
				err = plain(sd)
			}
			sd.Detach()
			return err
		}),
		"SHA-1": theirs(func(sd *pkcs7.SignedData) error {
			sd.SetDigestAlgorithm(pkcs7.OIDDigestAlgorithmSHA1)
			err := plain(sd)
			sd.Detach()
			return err
		}),
	} {
		if _, err := Verify(b, testHash, allowed); !fault.Is(err, fault.Input) {
			t.Errorf("%s: got %v, want it refused", name, err)
		}
	}
}

func openssl(t testing.TB, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Fatal("openssl is missing: install the Debian package openssl")
	}
	out, err := exec.Command("openssl", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

func TestAgainstOpenSSL(t *testing.T) {
	for name, id := range map[string]identity{"RSA": newRSA(t, "semper"), "P-256": newECDSA(t, "semper", elliptic.P256())} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			text, ours, theirs := filepath.Join(dir, "text"), filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
			_, der := parts(t, sign(t, id))
			for path, b := range map[string][]byte{text: []byte(hex.EncodeToString(testHash[:])), ours: der} {
				if err := os.WriteFile(path, b, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if out := openssl(t, "smime", "-verify", "-inform", "der", "-in", ours, "-content", text, "-binary", "-certfile", id.certFile, "-nointern", "-noverify"); !strings.Contains(out, "successful") {
				t.Error(out)
			}
			openssl(t, "smime", "-sign", "-nocerts", "-noattr", "-binary", "-in", text, "-inkey", id.keyFile, "-signer", id.certFile, "-outform", "der", "-out", theirs)
			b, err := os.ReadFile(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if cert, err := Verify(pack(t, b), testHash, []*x509.Certificate{id.cert}); err != nil || cert != id.cert {
				t.Errorf("without the certificate inside: %v", err)
			}
			openssl(t, "smime", "-sign", "-noattr", "-binary", "-in", text, "-inkey", id.keyFile, "-signer", id.certFile, "-outform", "der", "-out", theirs)
			b, err = os.ReadFile(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if cert, err := Verify(pack(t, b), testHash, []*x509.Certificate{id.cert}); err != nil || cert != id.cert {
				t.Errorf("as systemd's documentation makes it: %v", err)
			}
			if name == "RSA" && !bytes.Equal(b, der) {
				t.Errorf("not the bytes of openssl:\n%x\n%x", der, b)
			}
		})
	}
}

func FuzzVerify(f *testing.F) {
	id := newECDSA(f, "semper", elliptic.P256())
	signed := sign(f, id)
	_, der := parts(f, signed)
	f.Add(bytes.TrimRight(signed, "\x00"), false)
	f.Add(der, true)
	f.Add(der[:len(der)-3], true)
	f.Fuzz(func(t *testing.T, b []byte, packed bool) {
		if packed {
			b = pack(t, b)
		}
		if cert, err := Verify(b, testHash, []*x509.Certificate{id.cert}); err == nil {
			// A key made for this run signed it: only what is not covered by the signature can differ.
			if cert != id.cert || !bytes.Contains(b, []byte(hex.EncodeToString(testHash[:]))) {
				t.Fatalf("%q is accepted", b)
			}
		} else if cert != nil {
			t.Fatal("a certificate with an error")
		}
		if _, err := Verify(b, [32]byte{}, []*x509.Certificate{id.cert}); err == nil {
			t.Fatal("accepted for a root hash that nobody signed")
		}
	})
}
