// Package rootsig makes and checks the root hash's PKCS#7 signature partition.
package rootsig

import (
	"crypto"
	"crypto/x509"

	"github.com/semper-os/semper/fault"
)

// MaxSize bounds what Verify looks at, in bytes.
const MaxSize = 64 << 10

// Sign returns the bytes of the partition, a multiple of 4096.
func Sign(rootHash [32]byte, key crypto.Signer, cert *x509.Certificate) ([]byte, error) {
	return nil, fault.New(fault.Internal, "rootsig: not built")
}

// Verify checks the partition's bytes (the first MaxSize are enough) and returns which of the allowed certificates signed.
func Verify(data []byte, rootHash [32]byte, allowed []*x509.Certificate) (*x509.Certificate, error) {
	return nil, fault.New(fault.Internal, "rootsig: not built")
}
