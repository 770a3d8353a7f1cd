package installtest

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"slices"
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/proto"

	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/payload/updatemetadata"
)

// Forgery is a payload taken apart, to be changed in ways that package payload would not write, and signed by the right key nevertheless.
type Forgery struct {
	Manifest *updatemetadata.DeltaArchiveManifest
	Blobs    []byte
	Tail     []byte // behind the payload's end
}

// Part returns a partition of the manifest.
func (f *Forgery) Part(name string) *updatemetadata.PartitionUpdate {
	i := slices.IndexFunc(f.Manifest.GetPartitions(), func(p *updatemetadata.PartitionUpdate) bool { return p.GetPartitionName() == name })
	return f.Manifest.GetPartitions()[i]
}

// SetBlob replaces the blob of an operation, and moves all behind it.
func (f *Forgery) SetBlob(op *updatemetadata.InstallOperation, blob []byte) {
	start, end := op.GetDataOffset(), op.GetDataOffset()+op.GetDataLength()
	f.Blobs = slices.Concat(f.Blobs[:start], blob, f.Blobs[end:])
	delta := uint64(len(blob)) - op.GetDataLength()
	for _, part := range f.Manifest.GetPartitions() {
		for _, o := range part.GetOperations() {
			if o.DataOffset != nil && o.GetDataOffset() > start {
				*o.DataOffset += delta
			}
		}
	}
	sum := sha256.Sum256(blob)
	op.DataLength, op.DataSha256Hash = proto.Uint64(uint64(len(blob))), sum[:]
	*f.Manifest.SignaturesOffset += delta
}

// Compress returns a Zstandard frame.
func Compress(t testing.TB, b []byte) []byte {
	t.Helper()
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	return enc.EncodeAll(b, nil) // nothing to close: it was given no stream
}

// Forge changes a release's payload and signs it again.
func (k Keys) Forge(t testing.TB, r Release, change func(*Forgery)) Release {
	t.Helper()
	h, err := payload.ParseHeader(r.Payload[:payload.HeaderSize])
	if err != nil {
		t.Fatal(err)
	}
	f := &Forgery{Manifest: &updatemetadata.DeltaArchiveManifest{}}
	if err := proto.Unmarshal(r.Payload[payload.HeaderSize:payload.HeaderSize+h.ManifestSize], f.Manifest); err != nil {
		t.Fatal(err)
	}
	at := uint64(h.MetadataSize())
	f.Blobs = bytes.Clone(r.Payload[at : at+f.Manifest.GetSignaturesOffset()])
	change(f)

	manifest, err := proto.Marshal(f.Manifest)
	if err != nil {
		t.Fatal(err)
	}
	b := append([]byte(payload.Magic), make([]byte, 20)...)
	binary.BigEndian.PutUint64(b[4:], payload.MajorVersion)
	binary.BigEndian.PutUint64(b[12:], uint64(len(manifest)))
	binary.BigEndian.PutUint32(b[20:], h.MetadataSignatureSize)
	signed := append(b, manifest...)
	r.Payload = slices.Concat(signed, k.sign(t, signed), f.Blobs, k.sign(t, slices.Concat(signed, f.Blobs)), f.Tail)
	r.SHA256, r.Version = sha256.Sum256(r.Payload), f.Manifest.GetImage().GetVersion()
	return r
}

// sign returns a Signatures message of the payload key, padded as package payload does it.
func (k Keys) sign(t testing.TB, data []byte) []byte {
	t.Helper()
	sum := sha256.Sum256(data)
	sig, err := k.Payload.Sign(rand.Reader, sum[:], crypto.SHA256)
	if err != nil {
		t.Fatal(err)
	}
	padded := make([]byte, 72)
	copy(padded, sig)
	b, err := proto.Marshal(&updatemetadata.Signatures{Signatures: []*updatemetadata.Signatures_Signature{
		{Data: padded, UnpaddedSignatureSize: proto.Uint32(uint32(len(sig)))},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
