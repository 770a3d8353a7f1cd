package keys

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"io"
	"os"

	"github.com/semper-os/semper/fault"
)

const maxFile = 64 << 10 // bytes, any file of this package

// readFile reads a small file; a secret one only when nobody else can.
func readFile(path string, secret bool) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, fault.New(fault.Input, "%s is missing", path)
		}
		return nil, fault.New(fault.IO, "%w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, fault.New(fault.IO, "%w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxFile {
		return nil, fault.New(fault.Input, "%s is not a file of at most %d bytes", path, maxFile)
	}
	if mode := info.Mode().Perm(); secret && mode&0o077 != 0 {
		return nil, fault.New(fault.Input, "%s is a private key that others can read (mode %04o): run 'chmod 600 %s', and make a new key if somebody may have",
			path, mode, path)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fault.New(fault.IO, "read %s: %w", path, err)
	}
	if len(b) > maxFile {
		return nil, fault.New(fault.Input, "%s grew while it was read", path)
	}
	return b, nil
}

// onlyBlock returns the bytes of the one PEM block that b must be.
func onlyBlock(path string, b []byte, kind string) ([]byte, error) {
	block, rest := pem.Decode(b)
	if block == nil || block.Type != kind || len(bytes.TrimSpace(rest)) > 0 {
		return nil, fault.New(fault.Input, "%s is not a PEM file with one %q block", path, kind)
	}
	return block.Bytes, nil
}

func readPrivateKey(path string) (crypto.Signer, error) {
	b, err := readFile(path, true)
	if err != nil {
		return nil, err
	}
	der, err := onlyBlock(path, b, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fault.New(fault.Input, "%s: not a PKCS #8 key: %w", path, err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, fault.New(fault.Input, "%s: %T cannot sign", path, key)
	}
	return signer, nil
}

func readPublicKey(path string) (crypto.PublicKey, error) {
	b, err := readFile(path, false)
	if err != nil {
		return nil, err
	}
	der, err := onlyBlock(path, b, "PUBLIC KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKIXPublicKey(der)
	if err != nil {
		return nil, fault.New(fault.Input, "%s: not a public key: %w", path, err)
	}
	if err := checkPayloadKey(key); err != nil {
		return nil, fault.New(fault.Input, "%s: %w", path, err)
	}
	return key, nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	b, err := readFile(path, false)
	if err != nil {
		return nil, err
	}
	der, err := onlyBlock(path, b, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fault.New(fault.Input, "%s: not an X.509 certificate: %w", path, err)
	}
	if err := checkCertificateKey(cert.PublicKey); err != nil {
		return nil, fault.New(fault.Input, "%s: %w", path, err)
	}
	return cert, nil
}
