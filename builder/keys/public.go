package keys

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"path/filepath"

	"github.com/pelletier/go-toml/v2"

	"github.com/semper-os/semper/fault"
)

// MaxPayloadKeys bounds how many keys machines trust.
const MaxPayloadKeys = 16

// PublicKey is the public half of a payload key.
type PublicKey struct {
	Name string // "payload-1"
	Key  crypto.PublicKey
	PEM  []byte // PKIX, as it goes into the image
}

// Public is what everybody may know, and what goes into the image.
type Public struct {
	SecureBootCert *x509.Certificate
	VerityCert     *x509.Certificate
	Payload        []PublicKey // by number, at least one
	Threshold      int         // so many payload keys must have signed; 1 to len(Payload)
}

// PayloadKeys returns the keys alone.
func (p *Public) PayloadKeys() []crypto.PublicKey {
	all := make([]crypto.PublicKey, len(p.Payload))
	for i, k := range p.Payload {
		all[i] = k.Key
	}
	return all
}

// VerityPEM returns /verity.crt of the initrd.
func (p *Public) VerityPEM() []byte { return certificatePEM(p.VerityCert.Raw) }

// SecureBootPEM returns the certificate that firmware must know.
func (p *Public) SecureBootPEM() []byte { return certificatePEM(p.SecureBootCert.Raw) }

// Files returns the files of /usr/lib/semper in the image, by their paths below that folder.
func (p *Public) Files() map[string][]byte {
	files := map[string][]byte{trustFile: encodeTrust(p.Threshold)}
	for _, k := range p.Payload {
		files["keys/payload/"+k.Name+".pem"] = bytes.Clone(k.PEM)
	}
	return files
}

// LoadPublic reads the public files of a folder of keys; it needs none of the private ones.
func LoadPublic(dir string) (*Public, error) {
	p := new(Public)
	var err error
	if p.Payload, p.Threshold, err = loadPublicPayload(dir); err != nil {
		return nil, err
	}
	if p.SecureBootCert, err = readCertificate(filepath.Join(dir, secureBoot+".crt")); err != nil {
		return nil, err
	}
	if p.VerityCert, err = readCertificate(filepath.Join(dir, verityName+".crt")); err != nil {
		return nil, err
	}
	return p, nil
}

// loadPublicPayload reads the public payload keys and how many of them must have signed.
func loadPublicPayload(dir string) ([]PublicKey, int, error) {
	names, err := payloadFiles(dir, ".pem")
	if err != nil {
		return nil, 0, err
	}
	if len(names) == 0 || len(names) > MaxPayloadKeys {
		return nil, 0, fault.New(fault.Input, "%s holds %d public payload keys (payload-N.pem), between 1 and %d are needed", dir, len(names), MaxPayloadKeys)
	}
	var keys []PublicKey
	for _, name := range names {
		path := filepath.Join(dir, name+".pem")
		key, err := readPublicKey(path)
		if err != nil {
			return nil, 0, err
		}
		for _, k := range keys {
			if equalKeys(k.Key, key) {
				return nil, 0, fault.New(fault.Input, "%s is the same key as %s.pem: it would count twice", path, k.Name)
			}
		}
		encoded, err := publicPEM(key)
		if err != nil {
			return nil, 0, err
		}
		keys = append(keys, PublicKey{Name: name, Key: key, PEM: encoded})
	}
	threshold, err := readTrust(filepath.Join(dir, trustFile), len(keys))
	if err != nil {
		return nil, 0, err
	}
	return keys, threshold, nil
}

// trust is the content of trust.toml.
type trust struct {
	Threshold int `toml:"threshold"`
}

func readTrust(path string, keys int) (int, error) {
	b, err := readFile(path, false)
	if err != nil {
		return 0, err
	}
	var t trust
	if err := toml.NewDecoder(bytes.NewReader(b)).DisallowUnknownFields().Decode(&t); err != nil {
		return 0, fault.New(fault.Input, "%s: %w", path, err)
	}
	if t.Threshold < 1 || t.Threshold > keys {
		return 0, fault.New(fault.Input, "%s: threshold = %d, but there are %d payload keys", path, t.Threshold, keys)
	}
	return t.Threshold, nil
}

// checkPayloadKey takes what payloads can be signed with (see package payload): ECDSA on P-256 and RSA of 4096 bits.
func checkPayloadKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n != 4096 {
			return fault.New(fault.Input, "RSA with %d bits, a payload key has 4096", n)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return fault.New(fault.Input, "ECDSA on %s, a payload key is on P-256", k.Curve.Params().Name)
		}
	default:
		return fault.New(fault.Input, "%T is neither RSA nor ECDSA", key)
	}
	return nil
}

// checkCertificateKey takes what firmware and kernel can verify: RSA of 2048 to 4096 bits.
func checkCertificateKey(key crypto.PublicKey) error {
	k, ok := key.(*rsa.PublicKey)
	if !ok {
		return fault.New(fault.Input, "%T is not an RSA key", key)
	}
	if n := k.N.BitLen(); n < 2048 || n > 4096 {
		return fault.New(fault.Input, "RSA with %d bits, not 2048 to 4096", n)
	}
	return nil
}

func equalKeys(a, b crypto.PublicKey) bool {
	k, ok := a.(interface{ Equal(crypto.PublicKey) bool })
	return ok && k.Equal(b)
}

func certificatePEM(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func publicPEM(key crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}
