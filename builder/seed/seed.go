// Package seed is the one place where identifiers that other tools draw at random enter a build.
//
// Every UUID, salt and volume serial of a release is HMAC-SHA256(seed, label), where the seed comes from the lock file's
// digest: the same lock gives the same bytes on any machine. Nothing else in the builder may draw randomness or read the
// clock (the lint forbids it), and signatures need none: RSA's are PKCS #1 v1.5, ECDSA's take their nonce from key and message (RFC 6979), so that two builds with the
// same keys are compared to the last byte, signatures included (semper build --reproducible-check).
package seed

import (
	"crypto/hmac"
	"crypto/sha256"
	"fmt"
)

// Seed is the secret-free root of all identifiers of one build.
type Seed [32]byte

// New derives a seed from the bytes that identify a build, for instance a lock file's digest and the release's version.
func New(parts ...[]byte) Seed {
	h := sha256.New()
	for _, p := range parts {
		sum := sha256.Sum256(p) // hashed one by one, so that moving a byte from one part to the next changes the seed
		h.Write(sum[:])
	}
	return Seed(h.Sum(nil))
}

// Bytes returns 32 bytes for a label, for instance a dm-verity salt.
func (s Seed) Bytes(label string) [32]byte {
	m := hmac.New(sha256.New, s[:])
	m.Write([]byte(label))
	return [32]byte(m.Sum(nil))
}

// UUID returns an RFC 9562 version 8 (custom) UUID for a label, in text order.
func (s Seed) UUID(label string) [16]byte {
	b := s.Bytes("uuid:" + label)
	u := [16]byte(b[:16])
	u[6] = u[6]&0x0f | 0x80
	u[8] = u[8]&0x3f | 0x80
	return u
}

// UUIDString is UUID in its usual form of 36 lower-case characters.
func (s Seed) UUIDString(label string) string {
	u := s.UUID(label)
	return fmt.Sprintf("%x-%x-%x-%x-%x", u[0:4], u[4:6], u[6:8], u[8:10], u[10:16])
}
