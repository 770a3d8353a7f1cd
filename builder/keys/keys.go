// Package keys makes, loads and checks the keys of an image: what an image author guards for as long as machines run it.
//
//	DIR/                    mode 0700
//	  secure-boot.key .crt  RSA-2048: signs systemd-boot and the unified kernel images. Firmware need not verify anything larger.
//	  verity.key .crt       RSA-3072: signs the root hash. PKCS #7 as the kernel's dm-verity verifies it too, so RSA with SHA-256; there
//	                        the size is free, and 3072 bits are as strong as the hash.
//	  payload-1.key .pem    ECDSA P-256: signs update payloads and the list of a release (manifest.json)
//	  payload-2.key .pem    RSA-4096: the same; a second algorithm, should the first one fall
//	  trust.toml            threshold = 1: how many of the payload keys must have signed
//
// Private keys (.key) are PKCS #8 in PEM with mode 0600, certificates (.crt) self-signed X.509, public keys (.pem) PKIX. More payload keys may
// be added as payload-N: machines trust every payload-N.pem, and a build signs with every payload-N.key, so that a key held by somebody else is
// there with its .pem alone. The same keys sign payloads and manifest.json, because both say the same thing to the same reader ("these bytes
// are release 1.2.0") and one set of keys is guarded better than two.
//
// A private key that others can read is refused.
package keys

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"

	"github.com/semper-os/semper/fault"
)

// The names of the files.
const (
	secureBoot = "secure-boot"
	verityName = "verity"
	trustFile  = "trust.toml"
)

// Pair is a private key and its certificate.
type Pair struct {
	Signer      crypto.Signer
	Certificate *x509.Certificate
}

// PayloadKey is a private key that signs payloads and manifests.
type PayloadKey struct {
	Name   string // "payload-1"
	Signer crypto.Signer
}

// Keys are an image's keys in memory.
type Keys struct {
	SecureBoot Pair
	Verity     Pair
	Payload    []PayloadKey // by number; at least Public.Threshold of them
	Public     Public
}

// PayloadSigners returns the private payload keys in the order of Payload.
func (k *Keys) PayloadSigners() []crypto.Signer {
	signers := make([]crypto.Signer, len(k.Payload))
	for i, p := range k.Payload {
		signers[i] = p.Signer
	}
	return signers
}

// Load reads and checks the keys in a folder. It refuses (kind Input) a missing file, a key that others can read, a key that does not fit
// its certificate, and fewer private payload keys than trust.toml asks for.
func Load(dir string) (*Keys, error) {
	public, err := LoadPublic(dir)
	if err != nil {
		return nil, err
	}
	k := &Keys{Public: *public}
	if k.SecureBoot, err = loadPair(dir, secureBoot, public.SecureBootCert); err != nil {
		return nil, err
	}
	if k.Verity, err = loadPair(dir, verityName, public.VerityCert); err != nil {
		return nil, err
	}
	if k.Payload, err = loadPayloadKeys(dir, public.Payload); err != nil {
		return nil, err
	}
	if len(k.Payload) < public.Threshold {
		return nil, fault.New(fault.Input, "%s asks for %d signatures, but %s holds %d private payload key(s) (payload-N.key)",
			filepath.Join(dir, trustFile), public.Threshold, dir, len(k.Payload))
	}
	return k, nil
}

// LoadPayload reads the payload keys alone, from a folder that need not hold anything else: for programs that sign documents and build no images. There may be fewer
// private ones than the threshold, where their holders sign one after the other, but not none. The certificates of the result are nil.
func LoadPayload(dir string) (*Keys, error) {
	k := new(Keys)
	var err error
	if k.Public.Payload, k.Public.Threshold, err = loadPublicPayload(dir); err != nil {
		return nil, err
	}
	if k.Payload, err = loadPayloadKeys(dir, k.Public.Payload); err != nil {
		return nil, err
	}
	if len(k.Payload) == 0 {
		return nil, fault.New(fault.Input, "%s holds no private payload key (payload-N.key)", dir)
	}
	return k, nil
}

// loadPayloadKeys reads the private halves that are there.
func loadPayloadKeys(dir string, public []PublicKey) ([]PayloadKey, error) {
	var keys []PayloadKey
	for _, p := range public {
		path := filepath.Join(dir, p.Name+".key")
		if _, err := os.Lstat(path); os.IsNotExist(err) {
			continue // somebody else's
		}
		signer, err := readPrivateKey(path)
		if err != nil {
			return nil, err
		}
		if !equalKeys(signer.Public(), p.Key) {
			return nil, fault.New(fault.Input, "%s does not belong to %s.pem: one of the two files comes from elsewhere", path, p.Name)
		}
		keys = append(keys, PayloadKey{Name: p.Name, Signer: signer})
	}
	return keys, checkStrayKeys(dir, public)
}

func loadPair(dir, name string, cert *x509.Certificate) (Pair, error) {
	path := filepath.Join(dir, name+".key")
	signer, err := readPrivateKey(path)
	if err != nil {
		return Pair{}, err
	}
	if !equalKeys(signer.Public(), cert.PublicKey) {
		return Pair{}, fault.New(fault.Input, "%s does not belong to %s.crt: one of the two files comes from elsewhere", path, name)
	}
	return Pair{Signer: signer, Certificate: cert}, nil
}

// checkStrayKeys refuses a private payload key without its public half: machines would not trust what it signs.
func checkStrayKeys(dir string, public []PublicKey) error {
	names, err := payloadFiles(dir, ".key")
	if err != nil {
		return err
	}
	for _, name := range names {
		if !slices.ContainsFunc(public, func(p PublicKey) bool { return p.Name == name }) {
			return fault.New(fault.Input, "%s has no public half: %s is missing", filepath.Join(dir, name+".key"), name+".pem")
		}
	}
	return nil
}

var payloadName = regexp.MustCompile(`^payload-([1-9][0-9]?)\.(key|pem)$`)

// payloadFiles lists the payload keys in a folder with the given suffix, without the suffix, by number.
func payloadFiles(dir, suffix string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, fault.New(fault.Input, "no keys in %s: make them with 'semper keys new --out %s'", dir, dir)
		}
		return nil, fault.New(fault.IO, "list keys: %w", err)
	}
	var numbers []int
	for _, e := range entries {
		m := payloadName.FindStringSubmatch(e.Name())
		if m == nil || "."+m[2] != suffix {
			continue
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			return nil, err
		}
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	names := make([]string, len(numbers))
	for i, n := range numbers {
		names[i] = fmt.Sprintf("payload-%d", n)
	}
	return names, nil
}
