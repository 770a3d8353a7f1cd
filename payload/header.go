package payload

import "encoding/binary"

// Header is the fixed start of a payload.
type Header struct {
	ManifestSize          uint64 // bytes
	MetadataSignatureSize uint32 // bytes
}

// ParseHeader reads a header from the first HeaderSize bytes of b and checks the sizes against the format's limits.
func ParseHeader(b []byte) (Header, error) {
	if len(b) < HeaderSize {
		return Header{}, refuse(BadMagic, "payload header: %d bytes, need %d", len(b), HeaderSize)
	}
	if string(b[:4]) != Magic {
		return Header{}, refuse(BadMagic, "not an update payload: it starts with %q, not with %q", b[:4], Magic)
	}
	if v := binary.BigEndian.Uint64(b[4:]); v != MajorVersion {
		return Header{}, refuse(BadVersion, "payload has major version %d; only %d is supported", v, MajorVersion)
	}
	h := Header{ManifestSize: binary.BigEndian.Uint64(b[12:]), MetadataSignatureSize: binary.BigEndian.Uint32(b[20:])}
	switch {
	case h.ManifestSize == 0 || h.ManifestSize > MaxManifestSize:
		return Header{}, refuse(MetadataSize, "payload header: the manifest has %d bytes, allowed are 1 to %d", h.ManifestSize, MaxManifestSize)
	case h.MetadataSignatureSize == 0:
		return Header{}, refuse(Unsigned, "the payload's metadata is not signed")
	case h.MetadataSignatureSize > MaxSignaturesSize:
		return Header{}, refuse(MetadataSize, "payload header: the metadata signature has %d bytes, allowed are %d", h.MetadataSignatureSize, MaxSignaturesSize)
	}
	return h, nil
}

// MetadataSize returns the bytes before the first blob: header, manifest and metadata signature.
func (h Header) MetadataSize() int64 {
	return HeaderSize + int64(h.ManifestSize) + int64(h.MetadataSignatureSize)
}

func (h Header) append(b []byte) []byte {
	b = append(b, Magic...)
	b = binary.BigEndian.AppendUint64(b, MajorVersion)
	b = binary.BigEndian.AppendUint64(b, h.ManifestSize)
	return binary.BigEndian.AppendUint32(b, h.MetadataSignatureSize)
}
