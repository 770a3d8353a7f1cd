package rootsig

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"

	"github.com/semper-os/semper/fault"
)

// This is the one shape of PKCS#7 (RFC 2315) that kernel, systemd and OpenSSL agree on for a root hash, and no more of it:
// a general library would bring BER, attributes and certificate chains into the initramfs, each of them a way to be fooled.

type contentInfo struct {
	Type    asn1.ObjectIdentifier
	Content signedData `asn1:"explicit,tag:0"`
}

type signedData struct {
	Version          int
	DigestAlgorithms []pkix.AlgorithmIdentifier `asn1:"set"`
	Data             detached
	Certificates     certificates `asn1:"optional,tag:0"` // not looked at: the allowed ones are known
	Signers          []signer     `asn1:"set"`
}

// detached is the content info of data that is somewhere else. Content that is there after all is refused.
type detached struct {
	Type    asn1.ObjectIdentifier
	Content asn1.RawValue `asn1:"optional"`
}

type certificates struct {
	Raw asn1.RawContent
}

type signer struct {
	Version            int
	Certificate        issuerAndSerial
	DigestAlgorithm    pkix.AlgorithmIdentifier
	SignatureAlgorithm pkix.AlgorithmIdentifier // signed attributes in front of it do not parse, and so are refused
	Signature          []byte
	Attributes         asn1.RawValue `asn1:"optional"` // unsigned ones, refused too
}

type issuerAndSerial struct {
	Issuer asn1.RawValue
	Serial *big.Int
}

const maxSerialBits = 20*8 + 8 // RFC 5280 allows 20 bytes

var (
	oidData       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 1}
	oidSignedData = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 7, 2}
	oidSHA256     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 1}
	oidSHA384     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 2}
	oidSHA512     = asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 2, 3}
	oidRSA        = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 1}
	oidECDSA256   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}
	oidECDSA384   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	oidECDSA512   = asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 4}
)

// algorithms is what a signature may use. The RSA ones have the key's identifier, not that of key and hash together: the
// kernel knows only that one.
var algorithms = []struct {
	digest, signature asn1.ObjectIdentifier
	is                x509.SignatureAlgorithm
}{
	{oidSHA256, oidRSA, x509.SHA256WithRSA},
	{oidSHA384, oidRSA, x509.SHA384WithRSA},
	{oidSHA512, oidRSA, x509.SHA512WithRSA},
	{oidSHA256, oidECDSA256, x509.ECDSAWithSHA256},
	{oidSHA384, oidECDSA384, x509.ECDSAWithSHA384},
	{oidSHA512, oidECDSA512, x509.ECDSAWithSHA512},
}

func signPKCS7(message []byte, key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	null := asn1.RawValue{FullBytes: asn1.NullBytes}
	var algorithm pkix.AlgorithmIdentifier
	switch public := key.Public().(type) {
	case *rsa.PublicKey:
		algorithm = pkix.AlgorithmIdentifier{Algorithm: oidRSA, Parameters: null}
		if !public.Equal(cert.PublicKey) {
			return nil, fault.New(fault.Input, "the key does not belong to the certificate %q", cert.Subject)
		}
	case *ecdsa.PublicKey:
		algorithm = pkix.AlgorithmIdentifier{Algorithm: oidECDSA256}
		if !public.Equal(cert.PublicKey) {
			return nil, fault.New(fault.Input, "the key does not belong to the certificate %q", cert.Subject)
		}
	default:
		return nil, fault.New(fault.Input, "a key of type %T; only RSA and ECDSA are supported", public)
	}
	digest := sha256.Sum256(message)
	signature, err := key.Sign(nil, digest[:], crypto.SHA256) // without randomness the result is the same each time
	if err != nil {
		return nil, fault.New(fault.Input, "sign with the key of %q: %w", cert.Subject, err)
	}
	raw, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: cert.Raw})
	if err != nil {
		return nil, fault.New(fault.Internal, "encode certificate: %w", err)
	}
	sha := pkix.AlgorithmIdentifier{Algorithm: oidSHA256, Parameters: null}
	der, err := asn1.Marshal(contentInfo{Type: oidSignedData, Content: signedData{
		Version:          1,
		DigestAlgorithms: []pkix.AlgorithmIdentifier{sha},
		Data:             detached{Type: oidData},
		Certificates:     certificates{Raw: raw},
		Signers: []signer{{
			Version:            1,
			Certificate:        issuerAndSerial{Issuer: asn1.RawValue{FullBytes: cert.RawIssuer}, Serial: cert.SerialNumber},
			DigestAlgorithm:    sha,
			SignatureAlgorithm: algorithm,
			Signature:          signature,
		}},
	}})
	if err != nil {
		return nil, fault.New(fault.Internal, "encode PKCS#7: %w", err)
	}
	return der, nil
}

func verifyPKCS7(der, message []byte, allowed []*x509.Certificate) (*x509.Certificate, error) {
	var info contentInfo
	rest, err := asn1.Unmarshal(der, &info)
	if err != nil {
		return nil, fault.New(fault.Input, "not a detached PKCS#7 signature without attributes: %w", err)
	}
	if len(rest) != 0 {
		return nil, fault.New(fault.Input, "%d bytes follow the PKCS#7 signature", len(rest))
	}
	sd := info.Content
	if !info.Type.Equal(oidSignedData) || !sd.Data.Type.Equal(oidData) || sd.Version != 1 || len(sd.Signers) != 1 {
		return nil, fault.New(fault.Input, "want PKCS#7 signed data, version 1, with one signer; got type %s of %s, version %d, with %d",
			info.Type, sd.Data.Type, sd.Version, len(sd.Signers))
	}
	s := sd.Signers[0]
	if len(sd.Data.Content.FullBytes) != 0 || len(s.Attributes.FullBytes) != 0 || s.Certificate.Serial.BitLen() > maxSerialBits {
		return nil, fault.New(fault.Input, "the PKCS#7 signature holds content, attributes or a serial number of %d bits", s.Certificate.Serial.BitLen())
	}
	algorithm := x509.UnknownSignatureAlgorithm
	for _, a := range algorithms {
		if s.DigestAlgorithm.Algorithm.Equal(a.digest) && s.SignatureAlgorithm.Algorithm.Equal(a.signature) {
			algorithm = a.is
		}
	}
	if algorithm == x509.UnknownSignatureAlgorithm {
		return nil, fault.New(fault.Input, "unsupported algorithms %s and %s", s.DigestAlgorithm.Algorithm, s.SignatureAlgorithm.Algorithm)
	}
	// Issuer and serial number are a name, not a proof: several certificates may share them, and each is tried.
	err = fault.New(fault.Verification, "made with the certificate number %d, which is not one of the %d allowed", s.Certificate.Serial, len(allowed))
	for _, cert := range allowed {
		if cert.SerialNumber.Cmp(s.Certificate.Serial) != 0 || !bytes.Equal(cert.RawIssuer, s.Certificate.Issuer.FullBytes) {
			continue
		}
		if err = cert.CheckSignature(algorithm, message, s.Signature); err == nil {
			return cert, nil
		}
		err = fault.New(fault.Verification, "does not match the key of %q: %w", cert.Subject, err)
	}
	return nil, err
}
