package payload

import (
	"context"
	"crypto"
	"crypto/sha256"
	"errors"
	"io"
)

// metadata is the start of a payload up to the first blob.
type metadata struct {
	raw      []byte // as read: header, manifest, metadata signature
	header   Header
	manifest *Manifest
	signers  []crypto.PublicKey // the trusted keys that signed it
}

// readMetadata reads and verifies the start of a payload. With a nil trust nothing is verified: that is for showing a file, never for
// acting on it.
func readMetadata(ctx context.Context, r io.Reader, trust *Trust) (*metadata, error) {
	if trust != nil {
		if _, err := trust.distinct(); err != nil {
			return nil, err
		}
	}
	raw := make([]byte, HeaderSize)
	if err := readFull(ctx, r, raw, nil); err != nil {
		return nil, refuse(ReasonOf(err), "payload header: %w", err)
	}
	h, err := ParseHeader(raw)
	if err != nil {
		return nil, err
	}
	raw = append(make([]byte, 0, h.MetadataSize()), raw...)[:h.MetadataSize()]
	if err := readFull(ctx, r, raw[HeaderSize:], nil); err != nil {
		return nil, refuse(ReasonOf(err), "payload manifest: %w", err)
	}
	return parseMetadata(raw, trust)
}

// parseMetadata verifies the signature of a payload's start and only then looks at the manifest.
func parseMetadata(raw []byte, trust *Trust) (*metadata, error) {
	h, err := ParseHeader(raw)
	if err != nil {
		return nil, err
	}
	if int64(len(raw)) != h.MetadataSize() {
		return nil, refuse(MetadataSize, "payload metadata: %d bytes, its header says %d", len(raw), h.MetadataSize())
	}
	md := &metadata{raw: raw, header: h}
	signed := md.signed()
	if trust != nil {
		if md.signers, err = trust.verify("metadata", sha256.Sum256(signed), raw[len(signed):]); err != nil {
			return nil, err
		}
	}
	if md.manifest, err = parseManifest(h, signed[HeaderSize:]); err != nil {
		return nil, err
	}
	return md, nil
}

// signed returns header and manifest: what the metadata signature signs, and the payload signature begins with.
func (md *metadata) signed() []byte { return md.raw[:HeaderSize+md.header.ManifestSize] }

// readPiece is how much is read between two looks at the context and two reports of progress.
const readPiece = 256 << 10

// readFull fills b from r. Each piece is reported to got, which may be nil.
func readFull(ctx context.Context, r io.Reader, b []byte, got func(n int)) error {
	for len(b) > 0 {
		if err := ctx.Err(); err != nil {
			return refuse(Cancelled, "cancelled: %w", context.Cause(ctx))
		}
		n, err := io.ReadFull(r, b[:min(len(b), readPiece)])
		b = b[n:]
		if got != nil {
			got(n)
		}
		switch {
		case err == nil:
		case ctx.Err() != nil: // whoever cancels often closes the stream too
			return refuse(Cancelled, "cancelled: %w", context.Cause(ctx))
		case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
			return refuse(Transfer, "the payload ends %d bytes too early: %w", len(b), io.ErrUnexpectedEOF)
		default:
			return refuse(Transfer, "read the payload: %w", err)
		}
	}
	return nil
}
