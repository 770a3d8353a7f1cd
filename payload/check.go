package payload

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"io"
)

// Report is what Check found to be true.
type Report struct {
	Manifest *Manifest
	SHA256   [sha256.Size]byte // of the whole file
	// The trusted keys that signed the metadata, and those that signed the contents. Each has at least Trust.Threshold.
	MetadataSigners, Signers []crypto.PublicKey
}

// Check reads a whole payload of size bytes and verifies its metadata signature, its manifest, the SHA-256 of each blob, its payload signature and
// that nothing follows. It writes nothing, and does not decode the blobs. Got, which may be nil, is told how many bytes were read.
func Check(ctx context.Context, r io.Reader, size int64, trust Trust, got func(n int)) (*Report, error) {
	md, err := readMetadata(ctx, r, &trust)
	if err != nil {
		return nil, endsEarly(err)
	}
	m := md.manifest
	if size != m.Size {
		return nil, refuse(SizeMismatch, "the payload should have %d bytes, the file has %d", m.Size, size)
	}
	if got != nil {
		got(len(md.raw))
	}
	file, signed := sha256.New(), sha256.New()
	file.Write(md.raw)
	signed.Write(md.signed())
	var x executor // only to read: nothing is decoded
	for i := range m.operations {
		op := &m.operations[i]
		blob, err := x.read(ctx, r, &m.Partitions[op.partition], i, op, got)
		if err != nil {
			return nil, endsEarly(err)
		}
		file.Write(blob)
		signed.Write(blob)
	}
	message := make([]byte, m.Size-m.MetadataSize-m.DataSize)
	if err := readFull(ctx, r, message, got); err != nil {
		return nil, endsEarly(err)
	}
	signers, err := trust.verify("contents", sumOf(signed), message)
	if err != nil {
		return nil, err
	}
	file.Write(message)
	return &Report{Manifest: m, SHA256: sumOf(file), MetadataSigners: md.signers, Signers: signers}, nil
}

// Inspect reads the manifest of a payload file of size bytes WITHOUT verifying anything: it shows what a file claims to be, and must not be acted on.
func Inspect(ctx context.Context, r io.Reader, size int64) (*Manifest, error) {
	md, err := readMetadata(ctx, r, nil)
	if err != nil {
		return nil, endsEarly(err)
	}
	if size != md.manifest.Size {
		return nil, refuse(SizeMismatch, "the payload should have %d bytes, the file has %d", md.manifest.Size, size)
	}
	return md.manifest, nil
}

// endsEarly turns the end of a stream into the end of a file, which no retry will make longer.
func endsEarly(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return refuse(SizeMismatch, "%w", err)
	}
	return err
}
