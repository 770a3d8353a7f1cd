// Package installtest makes small releases and whole machines in memory for tests of the installer and the agent.
package installtest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	mrand "math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/semper-os/semper/partitions/rootsig"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/uki/ukitest"
	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/payload"
)

// Keys are what a test's releases are signed with.
type Keys struct {
	Payload    *ecdsa.PrivateKey
	verity     *ecdsa.PrivateKey
	VerityCert *x509.Certificate
}

// NewKeys draws keys.
func NewKeys(t testing.TB) Keys {
	t.Helper()
	draw := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	k := Keys{Payload: draw(), verity: draw()}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test verity"}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.verity.Public(), k.verity)
	if err != nil {
		t.Fatal(err)
	}
	if k.VerityCert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return k
}

// Trust is a threshold of one.
func (k Keys) Trust() payload.Trust {
	return payload.Trust{Keys: []crypto.PublicKey{k.Payload.Public()}, Threshold: 1}
}

// Release is one version of a small image.
type Release struct {
	Version  string
	Image    payload.Image
	Root     []byte
	Verity   []byte // superblock and tree
	RootHash [32]byte
	Sig      []byte
	UKI      []byte
	Payload  []byte
	SHA256   [32]byte // of Payload
}

// SHA256Hex is what the update server announces.
func (r Release) SHA256Hex() string { return hex.EncodeToString(r.SHA256[:]) }

// Spec changes what a release is made of before it is put together; nil fields keep the usual.
type Spec struct {
	Version  string
	RootSize int    // bytes, a multiple of 4096; 0: 160 KiB
	Root     []byte // instead of what the version gives
	// Each may change its part of the payload and leaves the rest as it is. The payload is signed afterwards.
	Image   func(*payload.Image)
	Sig     func([]byte) []byte
	UKI     func(*uki.Parts)
	Verity  func(*payload.Verity)
	Parts   func([]payload.Partition) []payload.Partition
	Signers []crypto.Signer // instead of Keys.Payload
	// ChunkSize is how much of a partition one operation holds; 0: 16 KiB.
	ChunkSize int
}

// Release makes version with its usual parts.
func (k Keys) Release(t testing.TB, version string) Release {
	t.Helper()
	return k.Make(t, Spec{Version: version})
}

// Make makes a release. Equal specs give equal roots.
func (k Keys) Make(t testing.TB, s Spec) Release {
	t.Helper()
	if s.RootSize == 0 {
		s.RootSize = 160 << 10
	}
	if s.ChunkSize == 0 {
		s.ChunkSize = 16 << 10
	}
	r := Release{Version: s.Version, Image: payload.Image{ID: "semper", Version: s.Version, Architecture: "amd64"}}
	if s.Image != nil {
		s.Image(&r.Image)
	}
	seed := sha256.Sum256([]byte(s.Version))
	if r.Root = s.Root; r.Root == nil {
		r.Root = make([]byte, s.RootSize)
		_, _ = mrand.NewChaCha8(seed).Read(r.Root)
		copy(r.Root[s.RootSize/2:], make([]byte, 32<<10)) // a run of zeros
	}

	tree := make(memory, verity.HashAreaSize(uint64(len(r.Root)/verity.BlockSize)))
	res, err := verity.Format(bytes.NewReader(r.Root), int64(len(r.Root)), tree, verity.Params{UUID: [16]byte(seed[:16]), Salt: seed[:]})
	if err != nil {
		t.Fatal(err)
	}
	r.Verity, r.RootHash = tree, res.RootHash
	if r.Sig, err = rootsig.Sign(r.RootHash, k.verity, k.VerityCert); err != nil {
		t.Fatal(err)
	}
	if s.Sig != nil {
		r.Sig = s.Sig(r.Sig)
	}
	parts := ukitest.Parts("semper", s.Version, hex.EncodeToString(r.RootHash[:]))
	parts.OSRelease = fmt.Appendf(parts.OSRelease, "SEMPER_EPOCH=%d\nSEMPER_SOFT_REBOOT=1\n", r.Image.Epoch)
	if s.UKI != nil {
		s.UKI(&parts)
	}
	if r.UKI, err = uki.Assemble(parts); err != nil {
		t.Fatal(err)
	}
	v := payload.Verity{RootHash: res.RootHash, Superblock: res.Superblock}
	if s.Verity != nil {
		s.Verity(&v)
	}
	list := []payload.Partition{
		{Name: "root", Data: bytes.NewReader(r.Root), Size: int64(len(r.Root)), Verity: &v},
		{Name: "uki", Data: bytes.NewReader(r.UKI), Size: int64(len(r.UKI))},
		{Name: "rootsig", Data: bytes.NewReader(r.Sig), Size: int64(len(r.Sig))},
	}
	if s.Parts != nil {
		list = s.Parts(list)
	}
	if s.Signers == nil {
		s.Signers = []crypto.Signer{k.Payload}
	}
	spool, err := os.Create(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	var out bytes.Buffer
	sum, err := payload.Write(t.Context(), &out, spool, payload.WriteOptions{
		Image: r.Image, Timestamp: time.Unix(1_700_000_000, 0), Partitions: list, Signers: s.Signers, ChunkSize: s.ChunkSize, Level: 1, Workers: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	r.Payload, r.SHA256, r.Version = out.Bytes(), sum.SHA256, r.Image.Version
	return r
}

// memory is an io.WriterAt of a fixed size; writers of different places do not meet.
type memory []byte

func (m memory) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off > int64(len(m)) || int64(len(p)) > int64(len(m))-off {
		return 0, io.ErrShortWrite
	}
	return copy(m[off:], p), nil
}
