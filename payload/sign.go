package payload

import (
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"io"

	"google.golang.org/protobuf/proto"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload/updatemetadata"
)

// The longest ASN.1 DER signature on P-256: a sequence of two integers of 33 bytes, each with two bytes of its own.
const maxP256Signature = 2 + 2*(2+33)

// checkSigners refuses what a reader would refuse: no signer, a foreign kind of key, one key twice.
func checkSigners(signers []crypto.Signer) error {
	if len(signers) == 0 {
		return fault.New(fault.Input, "payload: no key to sign with")
	}
	if len(signers) > maxSignatures {
		return fault.New(fault.Input, "payload: %d keys to sign with, allowed are %d", len(signers), maxSignatures)
	}
	var keys []crypto.PublicKey
	for i, s := range signers {
		key := s.Public()
		if err := checkKey(key); err != nil {
			return fault.New(fault.Input, "payload: signing key %d: %w", i+1, err)
		}
		if j := indexKey(keys, key); j >= 0 {
			return fault.New(fault.Input, "payload: signing keys %d and %d are the same", j+1, i+1)
		}
		keys = append(keys, key)
	}
	return nil
}

func signatureSize(key crypto.PublicKey) int {
	if k, ok := key.(*rsa.PublicKey); ok {
		return k.Size()
	}
	return maxP256Signature
}

func signaturesMessage(signers []crypto.Signer, fill func(i int, s crypto.Signer) ([]byte, error)) ([]byte, error) {
	m := &updatemetadata.Signatures{}
	for i, s := range signers {
		sig, err := fill(i, s)
		if err != nil {
			return nil, err
		}
		data := make([]byte, signatureSize(s.Public()))
		copy(data, sig)
		m.Signatures = append(m.Signatures, &updatemetadata.Signatures_Signature{Data: data, UnpaddedSignatureSize: proto.Uint32(uint32(len(sig)))})
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

// signaturesSize returns the size of what sign will return: it depends on the keys alone, because it is part of what is signed.
func signaturesSize(signers []crypto.Signer) (int, error) {
	b, err := signaturesMessage(signers, func(int, crypto.Signer) ([]byte, error) { return nil, nil })
	return len(b), err
}

// sign returns the serialised Signatures message over digest. Each signature is verified before it is believed: a broken token or a bit
// that flipped must not become a release that every machine refuses.
func sign(rand io.Reader, digest [sha256.Size]byte, signers []crypto.Signer) ([]byte, error) {
	return signaturesMessage(signers, func(i int, s crypto.Signer) ([]byte, error) {
		sig, err := s.Sign(rand, digest[:], crypto.SHA256)
		if err != nil {
			return nil, fault.New(fault.IO, "payload: sign with key %d: %w", i+1, err)
		}
		if len(sig) > signatureSize(s.Public()) || !verifyOne(s.Public(), digest, sig) {
			return nil, fault.New(fault.Verification, "payload: the signature of key %d does not verify with its own public key", i+1)
		}
		return sig, nil
	})
}
