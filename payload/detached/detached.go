// Package detached signs small documents with the payload keys and verifies such signatures: manifest.json of a release, and a channel's
// freshness statement. A document is signed by any number of keys, and believed when at least Trust.Threshold different ones are trusted.
//
//	{
//	  "key_id": "<SHA-256 of the public key's SubjectPublicKeyInfo in DER, 64 hexadecimal digits>",
//	  "algorithm": "ecdsa-p256-sha256" | "rsa4096-pkcs1v15-sha256",
//	  "signature": "<base64: DER for ECDSA, big-endian for RSA>"
//	}
//
// Each signature is over the document's bytes as they are, so "openssl dgst -sha256 -verify payload-1.pem" checks it. One set of keys signs several kinds of
// documents, and nothing here says which kind: a document must say itself what it is, in a form that none of the others can have.
//
// Signatures are deterministic (RFC 6979). Limits: MaxSignatures signatures, each by another key.
package detached

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
)

// MaxSignatures bounds the signatures of one document.
const MaxSignatures = 16

const (
	maxSignature = 1024 // bytes; RSA-4096 has 512

	algorithmECDSA = "ecdsa-p256-sha256"
	algorithmRSA   = "rsa4096-pkcs1v15-sha256"
)

// Signature is one key's signature of a document.
type Signature struct {
	KeyID     string `json:"key_id"`
	Algorithm string `json:"algorithm"`
	Signature []byte `json:"signature"`
}

// KeyID returns the SHA-256 of a key's SubjectPublicKeyInfo in lower-case hexadecimal digits.
func KeyID(key crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:]), nil
}

func algorithmOf(key crypto.PublicKey) (string, error) {
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		if k.Curve == elliptic.P256() {
			return algorithmECDSA, nil
		}
	case *rsa.PublicKey:
		if k.N.BitLen() == 4096 {
			return algorithmRSA, nil
		}
	}
	return "", fault.New(fault.Input, "a key of type %T signs no release: it must be ECDSA P-256 or RSA-4096", key)
}

// Sign returns a signature of document by each signer, in their order.
func Sign(document []byte, signers []crypto.Signer) ([]Signature, error) {
	if len(signers) == 0 || len(signers) > MaxSignatures {
		return nil, fault.New(fault.Input, "%d keys, between 1 and %d are possible", len(signers), MaxSignatures)
	}
	digest := sha256.Sum256(document)
	list := make([]Signature, len(signers))
	for i, signer := range signers {
		algorithm, err := algorithmOf(signer.Public())
		if err != nil {
			return nil, err
		}
		id, err := KeyID(signer.Public())
		if err != nil {
			return nil, err
		}
		// Without randomness ECDSA is deterministic (RFC 6979), and RSA PKCS #1 v1.5 uses none.
		sig, err := signer.Sign(nil, digest[:], crypto.SHA256)
		if err != nil {
			return nil, fmt.Errorf("key %.16s: %w", id, err)
		}
		list[i] = Signature{KeyID: id, Algorithm: algorithm, Signature: sig}
	}
	return list, nil
}

// Verify checks the signatures of document and returns the trusted keys that signed, each once. Signatures by keys that nobody trusts are passed over; one that
// names a trusted key and is wrong is an error even if others are good. Errors have the kind Verification.
func Verify(document []byte, list []Signature, trust payload.Trust) ([]crypto.PublicKey, error) {
	refuse := func(format string, args ...any) error { return fault.New(fault.Verification, format, args...) }
	if len(trust.Keys) == 0 || trust.Threshold < 1 {
		return nil, refuse("no trusted key to check it with")
	}
	if len(list) > MaxSignatures {
		return nil, refuse("%d signatures, at most %d are possible", len(list), MaxSignatures)
	}
	keys := map[string]crypto.PublicKey{}
	for _, key := range trust.Keys {
		id, err := KeyID(key)
		if err != nil {
			return nil, refuse("%w", err)
		}
		keys[id] = key
	}
	digest := sha256.Sum256(document)
	var signers []crypto.PublicKey
	seen := map[string]bool{}
	for _, s := range list {
		if seen[s.KeyID] {
			return nil, refuse("key %.16s signed twice", s.KeyID)
		}
		seen[s.KeyID] = true
		key, trusted := keys[s.KeyID]
		if !trusted {
			continue
		}
		if err := verifyOne(key, s, digest[:]); err != nil {
			return nil, refuse("key %.16s: %w", s.KeyID, err)
		}
		signers = append(signers, key)
	}
	if len(signers) < trust.Threshold {
		return nil, refuse("%d signature(s), of which %d are by trusted keys; %d needed", len(list), len(signers), trust.Threshold)
	}
	return signers, nil
}

func verifyOne(key crypto.PublicKey, s Signature, digest []byte) error {
	algorithm, err := algorithmOf(key)
	if err != nil {
		return err
	}
	if s.Algorithm != algorithm || len(s.Signature) > maxSignature {
		return fmt.Errorf("algorithm %.40q and %d bytes do not fit the key (%s)", s.Algorithm, len(s.Signature), algorithm)
	}
	good := false
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		good = ecdsa.VerifyASN1(k, digest, s.Signature)
	case *rsa.PublicKey:
		good = rsa.VerifyPKCS1v15(k, crypto.SHA256, digest, s.Signature) == nil
	}
	if !good {
		return fault.New(fault.Verification, "the signature is not of this document")
	}
	return nil
}
