package authenticode_test

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	efi "github.com/foxboron/go-uefi/authenticode"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/uki/authenticode"
	"github.com/semper-os/semper/partitions/uki/ukitest"
)

type pair struct {
	key  crypto.Signer
	cert *x509.Certificate
}

func selfSigned(key crypto.Signer, name string) pair {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(len(name))),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2021, 1, 1, 0, 0, 0, 0, time.UTC), // long over: must not matter
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		panic(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return pair{key, cert}
}

func rsaPair(name string) pair {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	return selfSigned(key, name)
}

var (
	image  = sync.OnceValue(func() pair { return rsaPair("Image") })
	other  = sync.OnceValue(func() pair { return rsaPair("Somebody else") })
	impure = sync.OnceValue(func() pair { return selfSigned(other().key, "Image") }) // the name and serial of image's, another key
)

func unsigned(t testing.TB) []byte {
	t.Helper()
	b, err := uki.Assemble(ukitest.Parts("semper", "1.2.0", strings.Repeat("ab", 32)))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func sign(t testing.TB, b []byte, p pair) []byte {
	t.Helper()
	signed, err := authenticode.Sign(b, p.key, p.cert)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func verify(b []byte, certs ...*x509.Certificate) (*x509.Certificate, error) {
	f, err := uki.Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		return nil, err
	}
	return authenticode.Verify(f, certs)
}

func TestSignAndVerify(t *testing.T) {
	b := unsigned(t)
	signed := sign(t, b, image())
	if !bytes.Equal(signed, sign(t, b, image())) {
		t.Error("signing twice gives different bytes")
	}
	if len(signed)%8 != 0 {
		t.Errorf("the signed file has %d bytes, not a multiple of 8", len(signed))
	}
	got, err := verify(signed, other().cert, image().cert)
	if err != nil || got != image().cert {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := authenticode.Sign(signed, image().key, image().cert); !fault.Is(err, fault.Input) {
		t.Errorf("signing a signed file: %v", err)
	}
	if _, err := verify(b, image().cert); !errors.Is(err, authenticode.ErrNotSigned) || !fault.Is(err, fault.Verification) {
		t.Errorf("unsigned file: %v", err)
	}
	if _, err := verify(signed); !fault.Is(err, fault.Usage) {
		t.Errorf("no certificate: %v", err)
	}
	f, err := uki.Open(bytes.NewReader(signed), int64(len(signed)))
	if err != nil {
		t.Fatal(err)
	}
	if line, err := f.Cmdline(); err != nil || !strings.HasPrefix(line, "roothash=abab") {
		t.Errorf("command line after signing: %q, %v", line, err)
	}
}

// A length that is no multiple of 8 exercises the padding: systemd 252 ships such a boot loader.
func TestOddLength(t *testing.T) {
	b := append(unsigned(t), 1, 2, 3)
	if _, err := verify(sign(t, b, image()), image().cert); err != nil {
		t.Error(err)
	}
}

func TestRefusedKeys(t *testing.T) {
	b := unsigned(t)
	small, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]pair{
		"1024 bits": selfSigned(small, "small"), "ECDSA": selfSigned(ec, "ec"), "mismatch": {other().key, image().cert},
	} {
		if _, err := authenticode.Sign(b, p.key, p.cert); !fault.Is(err, fault.Input) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := authenticode.Sign([]byte("no program"), image().key, image().cert); !fault.Is(err, fault.Input) {
		t.Errorf("no program: %v", err)
	}
}

func TestVerifyRefuses(t *testing.T) {
	b := unsigned(t)
	signed := sign(t, b, image())
	table := bytes.Index(signed, image().cert.Raw)
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"another key":            {sign(t, b, other()), "made with another certificate"},
		"another key, same name": {sign(t, b, impure()), "does not hold it"},
		"one bit of the kernel":  {flip(signed, 8000), "its hash differs"},
		"one bit of the headers": {flip(signed, 0x40+8), "its hash differs"},
		"signature":              {flip(signed, len(signed)-20), "not made with its key"},
		"certificate type":       {flip(signed, len(b)+6), "has revision"},
		"certificate length":     {flip(signed, len(b)+3), "certificate table has"},
		"DER":                    {flip(signed, len(b)+8), ""},
		"embedded certificate":   {flip(signed, table), "does not hold it"},
	} {
		_, err := verify(c.file, image().cert)
		if err == nil || fault.KindOf(err) == fault.Internal || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
	}
}

func flip(b []byte, at int) []byte {
	b = bytes.Clone(b)
	b[at] ^= 1
	return b
}

// A signature of one file, put on another with the hash inside exchanged: the key has signed the attributes, but not for this file.
func TestExchangedHash(t *testing.T) {
	good := sign(t, unsigned(t), image())
	p := ukitest.Parts("semper", "6.6.6", strings.Repeat("66", 32))
	evil, err := uki.Assemble(p)
	if err != nil {
		t.Fatal(err)
	}
	digest := func(b []byte) []byte {
		f, err := uki.Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		d, err := f.Digest()
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	f, err := uki.Open(bytes.NewReader(good), int64(len(good)))
	if err != nil {
		t.Fatal(err)
	}
	signatures, err := f.Signatures()
	if err != nil || len(signatures) != 1 {
		t.Fatal(len(signatures), err)
	}
	forged := bytes.Replace(signatures[0], digest(good), digest(evil), 1)
	if bytes.Equal(forged, signatures[0]) {
		t.Fatal("the hash was not found in the signature")
	}
	evil, err = uki.AddSignature(evil, forged)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := verify(evil, image().cert); !fault.Is(err, fault.Verification) || !strings.Contains(err.Error(), "do not belong to the signed hash") {
		t.Errorf("got %v", err)
	}
}

// go-uefi's reading of the file is a second opinion on hash and certificate table.
func TestLibraryAgrees(t *testing.T) {
	for _, b := range [][]byte{unsigned(t), append(unsigned(t), 1, 2, 3)} {
		signed := sign(t, b, image())
		binary, err := efi.Parse(bytes.NewReader(signed))
		if err != nil {
			t.Fatal(err)
		}
		if ok, err := binary.Verify(image().cert); err != nil || !ok {
			t.Errorf("go-uefi: %v, %v", ok, err)
		}
	}
}

func run(t *testing.T, pkg, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s (Debian package %s)", name, args, err, out, pkg)
	}
	return string(out)
}

func write(t *testing.T, dir, name string, b []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWithSbsigntool(t *testing.T) {
	dir := t.TempDir()
	cert := write(t, dir, "db.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: image().cert.Raw}))
	stranger := write(t, dir, "other.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other().cert.Raw}))
	der, err := x509.MarshalPKCS8PrivateKey(image().key)
	if err != nil {
		t.Fatal(err)
	}
	key := write(t, dir, "db.key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))

	files := map[string][]byte{"uki": unsigned(t), "stub": ukitest.Stub()}
	for _, name := range []string{"linuxx64.efi.stub", "systemd-bootx64.efi"} {
		b, err := os.ReadFile("/usr/lib/systemd/boot/efi/" + name)
		if err != nil {
			t.Fatalf("%v (Debian package systemd-boot-efi)", err)
		}
		files[name] = b
	}
	for name, b := range files {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			ours := write(t, dir, "ours.efi", sign(t, b, image()))
			run(t, "sbsigntool", "sbverify", "--cert", cert, ours)
			if out, err := exec.Command("sbverify", "--cert", stranger, ours).CombinedOutput(); err == nil {
				t.Errorf("sbverify takes our signature for another's: %s", out)
			}

			// Our verifier takes sbsign's signature, and sbattach can take ours apart.
			theirs := filepath.Join(dir, "theirs.efi")
			run(t, "sbsigntool", "sbsign", "--key", key, "--cert", cert, "--output", theirs, write(t, dir, "plain.efi", b))
			signed, err := os.ReadFile(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := verify(signed, image().cert); err != nil {
				t.Errorf("a file signed by sbsign: %v", err)
			}
			if _, err := verify(signed, other().cert); !fault.Is(err, fault.Verification) {
				t.Errorf("a file signed by sbsign, with another's certificate: %v", err)
			}
			detached := filepath.Join(dir, "signature")
			run(t, "sbsigntool", "sbattach", "--detach", detached, ours)
			f, err := uki.Open(bytes.NewReader(sign(t, b, image())), int64(len(sign(t, b, image()))))
			if err != nil {
				t.Fatal(err)
			}
			want, err := f.Signatures()
			if err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(detached)
			if err != nil || !bytes.HasPrefix(got, want[0]) {
				t.Errorf("sbattach finds another signature: %d bytes, %v", len(got), err)
			}
		})
	}
}

func FuzzVerify(f *testing.F) {
	plain := unsigned(f)
	p := selfSigned(fuzzKey(f), "Fuzz")
	signed := sign(f, plain, p)
	file, err := uki.Open(bytes.NewReader(signed), int64(len(signed)))
	if err != nil {
		f.Fatal(err)
	}
	signatures, err := file.Signatures()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signatures[0])
	f.Add(signatures[0][:200])
	f.Add([]byte{0x30, 0x80})
	f.Fuzz(func(t *testing.T, der []byte) {
		b, err := uki.AddSignature(plain, der)
		if err != nil {
			return
		}
		_, err = verify(b, p.cert)
		if err == nil && !bytes.Equal(der, signatures[0]) && !bytes.Contains(der, p.cert.RawIssuer) {
			t.Fatal("a signature that does not even name the signer was taken")
		}
	})
}

// fuzzKey is the same in every process of a fuzz run.
func fuzzKey(f *testing.F) crypto.Signer {
	f.Helper()
	b, err := os.ReadFile("testdata/fuzz.key")
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(b)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		f.Fatal(err)
	}
	return key.(crypto.Signer)
}
