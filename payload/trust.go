package payload

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"

	"google.golang.org/protobuf/proto"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload/updatemetadata"
)

const rsaBits = 4096

// Trust says whose signatures count, and how many of them it takes. The zero Trust trusts nobody and refuses everything.
type Trust struct {
	Keys      []crypto.PublicKey // *rsa.PublicKey of 4096 bits or *ecdsa.PublicKey on P-256
	Threshold int                // how many different keys must have signed; at least 1
}

// ParsePublicKeys reads PEM blocks of type PUBLIC KEY (PKIX), one or more. Text between blocks is ignored, any other block is an error.
func ParsePublicKeys(b []byte) ([]crypto.PublicKey, error) {
	var keys []crypto.PublicKey
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		if block.Type != "PUBLIC KEY" {
			return nil, fault.New(fault.Input, "public key: the PEM block is %q, want \"PUBLIC KEY\"", block.Type)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Input, "public key: %w", err)
		}
		if err := checkKey(key); err != nil {
			return nil, fault.New(fault.Input, "public key: %w", err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fault.New(fault.Input, "public key: no PEM block of type \"PUBLIC KEY\" found")
	}
	return keys, nil
}

// checkKey refuses key types and strengths that are not part of the format.
func checkKey(key crypto.PublicKey) error {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if n := k.N.BitLen(); n != rsaBits {
			return refuse(NoTrust, "RSA key of %d bits; payloads are signed with RSA of %d bits or ECDSA on P-256", n, rsaBits)
		}
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P256() {
			return refuse(NoTrust, "ECDSA key on %s; payloads are signed with RSA of %d bits or ECDSA on P-256", k.Curve.Params().Name, rsaBits)
		}
	default:
		return refuse(NoTrust, "key of type %T; payloads are signed with RSA of %d bits or ECDSA on P-256", key, rsaBits)
	}
	return nil
}

// distinct returns the trusted keys without repetitions, or an error where they can never satisfy the threshold.
func (t Trust) distinct() ([]crypto.PublicKey, error) {
	if len(t.Keys) == 0 {
		return nil, refuse(NoTrust, "no trusted key to check the payload with")
	}
	if t.Threshold < 1 {
		return nil, refuse(NoTrust, "the number of signatures to ask for is %d; it must be at least 1", t.Threshold)
	}
	var keys []crypto.PublicKey
	for _, k := range t.Keys {
		if err := checkKey(k); err != nil {
			return nil, err
		}
		if indexKey(keys, k) < 0 {
			keys = append(keys, k)
		}
	}
	if len(keys) < t.Threshold {
		return nil, refuse(NoTrust, "%d signatures are asked for, but there are only %d different trusted keys", t.Threshold, len(keys))
	}
	return keys, nil
}

func indexKey(keys []crypto.PublicKey, k crypto.PublicKey) int {
	for i, have := range keys {
		if have.(interface{ Equal(crypto.PublicKey) bool }).Equal(k) {
			return i
		}
	}
	return -1
}

// verify checks a serialised Signatures message over digest. What names the signature in errors: "metadata" or "payload".
// It returns the trusted keys that signed, in the order of t.Keys.
func (t Trust) verify(what string, digest [sha256.Size]byte, message []byte) ([]crypto.PublicKey, error) {
	keys, err := t.distinct()
	if err != nil {
		return nil, err
	}
	sigs, err := parseSignatures(what, message)
	if err != nil {
		return nil, err
	}
	var signers []crypto.PublicKey
	for _, k := range keys { // by key, not by signature: a key counts once however many signatures it made
		for _, sig := range sigs {
			if verifyOne(k, digest, sig) {
				signers = append(signers, k)
				break
			}
		}
	}
	if len(signers) < t.Threshold {
		return nil, refuse(BadSignature, "the payload's %s has %d signature(s), of which %d are by trusted keys; %d needed",
			what, len(sigs), len(signers), t.Threshold)
	}
	return signers, nil
}

// parseSignatures returns the signatures of a message, without their padding.
func parseSignatures(what string, message []byte) ([][]byte, error) {
	var m updatemetadata.Signatures
	if err := proto.Unmarshal(message, &m); err != nil {
		return nil, refuse(BadSignature, "%s signature: %w", what, err)
	}
	list := m.GetSignatures()
	if len(list) == 0 {
		return nil, refuse(Unsigned, "the payload's %s is not signed", what)
	}
	if len(list) > maxSignatures {
		return nil, refuse(BadSignature, "%s signature: %d signatures, allowed are %d", what, len(list), maxSignatures)
	}
	sigs := make([][]byte, len(list))
	for i, s := range list {
		data := s.GetData()
		if s.UnpaddedSignatureSize != nil {
			if uint64(s.GetUnpaddedSignatureSize()) > uint64(len(data)) {
				return nil, refuse(BadSignature, "%s signature %d: %d bytes, but its size without padding is %d",
					what, i+1, len(data), s.GetUnpaddedSignatureSize())
			}
			data = data[:s.GetUnpaddedSignatureSize()]
		}
		sigs[i] = data
	}
	return sigs, nil
}

func verifyOne(key crypto.PublicKey, digest [sha256.Size]byte, sig []byte) bool {
	switch k := key.(type) {
	case *rsa.PublicKey:
		return rsa.VerifyPKCS1v15(k, crypto.SHA256, digest[:], sig) == nil
	case *ecdsa.PublicKey:
		return ecdsa.VerifyASN1(k, digest[:], sig)
	default:
		return false
	}
}
