package release

import (
	"bytes"
	"crypto"
	"fmt"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/payload/detached"
)

const maxSigFile = 64 << 10

// Sign returns the bytes of manifest.json.sig: a signature of manifest by each signer.
func Sign(manifest []byte, signers []crypto.Signer) ([]byte, error) {
	list, err := detached.Sign(manifest, signers)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", ManifestFile, err)
	}
	return encode(list)
}

// Verify checks manifest.json.sig against the bytes of manifest.json and returns the trusted keys that signed, each once; see detached.Verify. Errors have the
// kind Verification.
func Verify(manifest, signatures []byte, trust payload.Trust) ([]crypto.PublicKey, error) {
	refuse := func(format string, args ...any) error {
		return fault.New(fault.Verification, SignatureFile+": "+format, args...)
	}
	var list []detached.Signature
	if err := decode(signatures, maxSigFile, &list); err != nil {
		return nil, refuse("%w", err)
	}
	if canonical, err := encode(list); err != nil || !bytes.Equal(canonical, signatures) {
		return nil, refuse("not in its canonical form")
	}
	signers, err := detached.Verify(manifest, list, trust)
	if err != nil {
		return nil, refuse("%w", err)
	}
	return signers, nil
}
