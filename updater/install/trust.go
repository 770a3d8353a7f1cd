package install

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sort"

	"github.com/pelletier/go-toml/v2"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
)

// Where trust comes from, below the verified root.
const (
	keyFolder  = "usr/lib/semper/keys/payload"
	trustFile  = "usr/lib/semper/trust.toml"
	verityCert = "usr/lib/semper/keys/verity.crt"

	maxKeyFile  = 64 << 10
	maxKeyFiles = 64
)

// LoadTrust reads the keys of the image whose root is at root ("/" on a machine). It fails closed: no folder, no key, a file that is not a key, a
// threshold that is missing or cannot be met are errors, and without trust nothing is installed.
func LoadTrust(root string) (Trust, error) {
	var t Trust
	names, err := filepath.Glob(filepath.Join(root, keyFolder, "*.pem"))
	if err != nil {
		return Trust{}, fault.New(fault.Internal, "payload keys: %w", err)
	}
	if len(names) == 0 {
		return Trust{}, fault.New(fault.Verification, "this image trusts no payload key (%s is empty): nothing can be installed", filepath.Join(root, keyFolder))
	}
	if len(names) > maxKeyFiles {
		return Trust{}, fault.New(fault.Input, "%d payload keys, at most %d are read", len(names), maxKeyFiles)
	}
	sort.Strings(names)
	for _, name := range names {
		data, err := readSmall(name)
		if err != nil {
			return Trust{}, err
		}
		keys, err := payload.ParsePublicKeys(data)
		if err != nil {
			return Trust{}, fault.New(fault.Verification, "payload key %s: %w", name, err)
		}
		t.Payload.Keys = append(t.Payload.Keys, keys...)
	}
	if t.Payload.Threshold, err = loadThreshold(filepath.Join(root, trustFile)); err != nil {
		return Trust{}, err
	}
	if t.Verity, err = loadCertificates(filepath.Join(root, verityCert)); err != nil {
		return Trust{}, err
	}
	return t, nil
}

func loadThreshold(path string) (int, error) {
	data, err := readSmall(path)
	if err != nil {
		return 0, err
	}
	var f struct {
		Threshold int `toml:"threshold"`
	}
	dec := toml.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&f); err != nil {
		return 0, fault.New(fault.Input, "%s: %w", path, err)
	}
	if f.Threshold < 1 {
		return 0, fault.New(fault.Verification, "%s: threshold is %d, at least one signature must be asked for", path, f.Threshold)
	}
	return f.Threshold, nil
}

// loadCertificates reads the certificates that may sign a root hash; a file that is missing gives none. An image that moves to another certificate lists
// the old and the new one.
func loadCertificates(path string) ([]*x509.Certificate, error) {
	data, err := readSmall(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		if block.Type != "CERTIFICATE" {
			return nil, fault.New(fault.Verification, "%s: a PEM block is %q, want \"CERTIFICATE\"", path, block.Type)
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Verification, "%s: %w", path, err)
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, fault.New(fault.Verification, "%s: no certificate in it", path)
	}
	return certs, nil
}

func readSmall(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fault.New(fault.IO, "read trust: %w", err)
	}
	if info.Size() > maxKeyFile {
		return nil, fault.New(fault.Input, "%s: %d bytes, at most %d are read", path, info.Size(), maxKeyFile)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.IO, "read trust: %w", err)
	}
	return data, nil
}
