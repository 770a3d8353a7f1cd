// Package authenticode signs EFI programs for Secure Boot, unified kernel images and systemd-boot alike, and verifies such signatures.
//
// A signature is a PKCS #7 SignedData in the file's certificate table (see package uki) over an SpcIndirectDataContent, which holds the file's hash:
//
//	certificate ──signs──> attributes (content type, messageDigest) ──hash──> SpcIndirectDataContent ──hash──> the file
//
// Specification: "Windows Authenticode Portable Executable Signature Format", version 1.0, with SHA-256 and RSA PKCS #1 v1.5, which is what every
// UEFI firmware can verify. No counter-signatures, no chains: the certificate itself is the one in the firmware's db variable.
//
// It is a package of its own so that programs which only read a UKI do not carry the signature code and what that depends on.
package authenticode

import (
	"bytes"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	encasn1 "encoding/asn1"
	"errors"
	"fmt"
	"slices"

	efi "github.com/foxboron/go-uefi/authenticode"
	"github.com/foxboron/go-uefi/pkcs7"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/uki"
)

// ErrNotSigned is what Verify wraps for a file without any signature.
var ErrNotSigned = errors.New("it is not signed")

// Sign returns the EFI program with a signature. The key is RSA of at least 2048 bits and belongs to the certificate.
// The signature holds no time and no randomness: signing the same bytes with the same key gives the same file.
// A file that is signed already is refused (kind Input).
func Sign(file []byte, key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	public, ok := cert.PublicKey.(*rsa.PublicKey)
	if !ok || public.N.BitLen() < 2048 {
		return nil, fault.New(fault.Input, "the certificate of %q has no RSA key of at least 2048 bits, which firmware asks for", cert.Subject)
	}
	if !public.Equal(key.Public()) {
		return nil, fault.New(fault.Input, "the key does not belong to the certificate of %q", cert.Subject)
	}
	f, err := uki.Open(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		return nil, err
	}
	digest, err := f.Digest()
	if err != nil {
		return nil, err
	}
	content, err := efi.CreateSpcIndirectDataContent(digest, crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("describe the file's hash: %w", err)
	}
	signature, err := signedData(content, key, cert)
	if err != nil {
		return nil, err
	}
	out, err := uki.AddSignature(file, signature)
	if err != nil {
		return nil, err
	}
	signed, err := uki.Open(bytes.NewReader(out), int64(len(out)))
	if err == nil {
		_, err = Verify(signed, []*x509.Certificate{cert})
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "check the new signature: %w", err)
	}
	return out, nil
}

// signedData makes the PKCS #7 SignedData that firmware expects. The library's own function stamps the signature with the current time, which
// nobody verifies and which would make every build differ.
func signedData(content []byte, key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	contentDigest := sha256.Sum256(content)
	attributes := (&pkcs7.Attributes{ContentType: efi.OIDSpcIndirectDataContent, MessageDigest: contentDigest[:]}).Marshal()
	toSign := sha256.Sum256(attributes)
	signature, err := key.Sign(nil, toSign[:], crypto.SHA256)
	if err != nil {
		return nil, fmt.Errorf("sign with the key of %q: %w", cert.Subject, err)
	}
	set, inner := cryptobyte.String(attributes), cryptobyte.String(nil)
	if !set.ReadASN1(&inner, asn1.SET) {
		return nil, errors.New("signed attributes are not a set")
	}

	context0 := asn1.Tag(0).ContextSpecific().Constructed()
	algorithm := func(b *cryptobyte.Builder, add func(b *cryptobyte.Builder)) {
		b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { add(b); b.AddASN1NULL() })
	}
	hashSHA256 := func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(pkcs7.OIDDigestAlgorithmSHA256) }
	encryptRSA := func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(pkcs7.OIDEncryptionAlgorithmRSA) }

	var b cryptobyte.Builder
	b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // ContentInfo
		b.AddASN1ObjectIdentifier(pkcs7.OIDSignedData)
		b.AddASN1(context0, func(b *cryptobyte.Builder) {
			b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // SignedData
				b.AddASN1Int64(1)
				b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) { algorithm(b, hashSHA256) })
				b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1ObjectIdentifier(efi.OIDSpcIndirectDataContent)
					b.AddASN1(context0, func(b *cryptobyte.Builder) {
						b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(content) })
					})
				})
				b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddBytes(cert.Raw) })
				b.AddASN1(asn1.SET, func(b *cryptobyte.Builder) {
					b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) { // SignerInfo
						b.AddASN1Int64(1)
						b.AddASN1(asn1.SEQUENCE, func(b *cryptobyte.Builder) {
							b.AddBytes(cert.RawIssuer)
							b.AddASN1BigInt(cert.SerialNumber)
						})
						algorithm(b, hashSHA256)
						b.AddASN1(context0, func(b *cryptobyte.Builder) { b.AddBytes(inner) })
						algorithm(b, encryptRSA)
						b.AddASN1OctetString(signature)
					})
				})
			})
		})
	})
	der, err := b.Bytes()
	if err != nil {
		return nil, fmt.Errorf("encode the signature: %w", err)
	}
	return der, nil
}

// Verify checks that the whole file carries a signature by one of the certificates, and returns that certificate.
// The certificate's dates are not looked at: firmware does not either, and a machine's clock is not known to be right when it boots.
// A failure has the kind Verification.
func Verify(f *uki.File, certs []*x509.Certificate) (*x509.Certificate, error) {
	if len(certs) == 0 {
		return nil, fault.New(fault.Usage, "no certificate to verify an EFI program's signature with")
	}
	signatures, err := f.Signatures()
	if err != nil {
		return nil, err
	}
	if len(signatures) == 0 {
		return nil, fault.New(fault.Verification, "EFI program: %w", ErrNotSigned)
	}
	digest, err := f.Digest()
	if err != nil {
		return nil, err
	}
	var failures error
	for i, signature := range signatures {
		cert, err := verifySignature(signature, digest, certs)
		if err == nil {
			return cert, nil
		}
		failures = errors.Join(failures, fmt.Errorf("signature %d of %d: %w", i+1, len(signatures), err))
	}
	return nil, fault.Wrap(fault.Verification, failures)
}

// verifySignature checks one PKCS #7 signature against the file's hash.
func verifySignature(der, digest []byte, certs []*x509.Certificate) (*x509.Certificate, error) {
	signature, err := efi.ParseAuthenticode(der)
	if err != nil {
		return nil, err
	}
	if !signature.Algid.Algorithm.Equal(pkcs7.OIDDigestAlgorithmSHA256) {
		return nil, fmt.Errorf("hash algorithm %v is not SHA-256", signature.Algid.Algorithm)
	}
	if !bytes.Equal(signature.Digest, digest) {
		return nil, errors.New("the file is not the one that was signed (its hash differs)")
	}
	// The library checks that the certificate's key signed the attributes, but neither that there are attributes, nor that they are about this
	// content: without the next lines the attributes and signature of any other file would do.
	content, inner := cryptobyte.String(signature.Pkcs.ContentInfo), cryptobyte.String(nil)
	if !content.ReadASN1(&inner, asn1.SEQUENCE) || !content.Empty() {
		return nil, errors.New("malformed content")
	}
	contentDigest := sha256.Sum256(inner)
	if n := len(signature.Pkcs.SignerInfo); n != 1 {
		return nil, fmt.Errorf("%d signers, not one", n)
	}
	signer := signature.Pkcs.SignerInfo[0]
	a := signer.AuthenticatedAttributes
	if a == nil || !a.ContentType.Equal(efi.OIDSpcIndirectDataContent) || !bytes.Equal(a.MessageDigest, contentDigest[:]) {
		return nil, errors.New("the signed attributes do not belong to the signed hash")
	}
	if !signer.DigestAlgorithm.Algorithm.Equal(pkcs7.OIDDigestAlgorithmSHA256) {
		return nil, fmt.Errorf("hash algorithm %v is not SHA-256", signer.DigestAlgorithm.Algorithm)
	}
	for _, cert := range certs {
		if !signature.Pkcs.HasCertificate(cert) {
			continue
		}
		if !slices.ContainsFunc(signature.Pkcs.Certs, cert.Equal) { // firmware takes the certificate from here
			return nil, fmt.Errorf("it names the certificate %q but does not hold it", cert.Subject)
		}
		if ok, err := signature.Pkcs.Verify(cert); err == nil && ok {
			return cert, nil
		}
		return nil, fmt.Errorf("it names the certificate %q but was not made with its key", cert.Subject)
	}
	return nil, fmt.Errorf("it was made with another certificate, of %q, serial %x", issuerName(signer.IssuerAndSerialnumber.RawIssuer),
		signer.IssuerAndSerialnumber.SerialNumber)
}

func issuerName(der []byte) string {
	var rdn pkix.RDNSequence
	if rest, err := encasn1.Unmarshal(der, &rdn); err != nil || len(rest) > 0 {
		return "unreadable name"
	}
	return rdn.String()
}
