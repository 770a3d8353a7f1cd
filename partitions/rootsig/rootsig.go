// Package rootsig makes and checks the signature of a dm-verity root hash, as the root-verity-sig partition of the UAPI
// Discoverable Partitions Specification holds it.
//
// The partition begins with JSON, and NUL bytes follow up to a multiple of 4096:
//
//	{"rootHash":"HEX","certificateFingerprint":"HEX","signature":"BASE64"}
//
// The signature is DER: PKCS#7 signed data, detached, over the 64 hexadecimal digits of the root hash themselves, without
// signed attributes; what `openssl smime -sign -noattr -binary -outform der` makes, and what the kernel's dm-verity and
// systemd take. With an RSA key it is the same bytes each time; with ECDSA too, for keys that sign as RFC 6979 says when they
// are given no randomness (those of Go's standard library do).
//
// Limits: RSA (PKCS #1 v1.5) and ECDSA keys; SHA-256 to sign, SHA-256, 384 and 512 to verify; one signer. Verify trusts a
// certificate because it is on the caller's list, so neither its dates nor its issuer are looked at: a machine that boots
// may not know the time yet.
package rootsig

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/semper-os/semper/fault"
)

// Sizes in bytes.
const (
	MaxSize   = 64 << 10 // of the JSON; Verify looks at no more of a partition
	blockSize = 4096
)

type content struct {
	RootHash    string `json:"rootHash"`
	Fingerprint string `json:"certificateFingerprint,omitempty"`
	Signature   string `json:"signature"`
}

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return hex.EncodeToString(sum[:])
}

// Sign returns the bytes for the partition, a multiple of 4096. The rest of the partition must be zero. The certificate is
// that of the key.
func Sign(rootHash [32]byte, key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	text := hex.EncodeToString(rootHash[:])
	der, err := signPKCS7([]byte(text), key, cert)
	if err != nil {
		return nil, fmt.Errorf("sign root hash: %w", err)
	}
	b, err := json.Marshal(content{RootHash: text, Fingerprint: fingerprint(cert), Signature: base64.StdEncoding.EncodeToString(der)})
	if err != nil {
		return nil, fault.New(fault.Internal, "sign root hash: %w", err)
	}
	if len(b) > MaxSize {
		return nil, fault.New(fault.Input, "sign root hash: %d bytes with the certificate, at most %d are possible", len(b), MaxSize)
	}
	return append(b, make([]byte, (blockSize-len(b)%blockSize)%blockSize)...), nil
}

// Verify checks that one of the allowed certificates signed the root hash, and returns it. Data is the partition from its
// start; of more than MaxSize bytes the rest is not looked at.
func Verify(data []byte, rootHash [32]byte, allowed []*x509.Certificate) (*x509.Certificate, error) {
	data = data[:min(len(data), MaxSize)]
	text, padding, _ := bytes.Cut(data, []byte{0})
	if len(text) == 0 {
		return nil, fault.New(fault.Input, "root hash signature: there is none")
	}
	if slices.ContainsFunc(padding, func(b byte) bool { return b != 0 }) {
		return nil, fault.New(fault.Input, "root hash signature: bytes follow that should be NUL")
	}
	var c content
	if err := json.Unmarshal(text, &c); err != nil {
		return nil, fault.New(fault.Input, "root hash signature: %w", err)
	}
	want := hex.EncodeToString(rootHash[:])
	if c.RootHash != want {
		return nil, fault.New(fault.Verification, "root hash signature: it is for the root hash %.64q, not for %s", c.RootHash, want)
	}
	if c.Fingerprint != "" && !slices.ContainsFunc(allowed, func(cert *x509.Certificate) bool { return fingerprint(cert) == c.Fingerprint }) {
		return nil, fault.New(fault.Verification, "root hash signature: made with the certificate %.64q, which is not one of the %d allowed", c.Fingerprint, len(allowed))
	}
	der, err := base64.StdEncoding.Strict().DecodeString(c.Signature)
	if err != nil {
		return nil, fault.New(fault.Input, "root hash signature: %w", err)
	}
	cert, err := verifyPKCS7(der, []byte(want), allowed)
	if err != nil {
		return nil, fmt.Errorf("root hash signature: %w", err)
	}
	return cert, nil
}
