package payload

import (
	"bytes"
	"crypto/sha256"
	"encoding"
	"encoding/binary"
	"hash"

	"github.com/semper-os/semper/fault"
)

// A checkpoint on disk, integers big endian:
//
//	offset  size  field
//	0       8     magic "SmprCkpt"
//	8       4     format version = 1
//	12      4     N, the number of operations done
//	16      8     where in the payload the next byte to read is
//	24      8     announced size of the payload, 0 if none
//	32      2+n   announced SHA-256 of the payload, 0 or 32 bytes
//	        2+n   state of the SHA-256 of the file so far
//	        2+n   state of the SHA-256 of what is signed so far
//	        4+n   the payload's first bytes: header, manifest, metadata signature
//	        32    SHA-256 of all before
//
// The sum finds a torn write. It is no protection from someone who can write the file, and need not be: the metadata is verified again when the
// work is resumed, and the partitions are read back at the end.
const (
	checkpointMagic   = "SmprCkpt"
	checkpointVersion = 1
	checkpointFixed   = 32
	// MaxCheckpointSize is the most that a checkpoint can have, in bytes.
	MaxCheckpointSize = MaxManifestSize + MaxSignaturesSize + 4096
)

// Checkpoint is a state of an Applier that survives a power cut: everything before Offset is on the targets.
type Checkpoint struct {
	next      int
	offset    int64
	size      int64
	sum       []byte
	file      []byte
	signed    []byte
	metadata  []byte
	payloadID [sha256.Size]byte
}

// Offset returns the byte of the payload that the work goes on with.
func (c *Checkpoint) Offset() int64 { return c.offset }

// PayloadID tells payloads apart: it is the SHA-256 of header, manifest and metadata signature.
func (c *Checkpoint) PayloadID() [sha256.Size]byte { return c.payloadID }

// Announced returns the size (0: none) and the SHA-256 (nil: none) that were announced for the payload, see Options.
func (c *Checkpoint) Announced() (size int64, sum []byte) { return c.size, c.sum }

func (a *Applier) checkpoint() (*Checkpoint, error) {
	c := &Checkpoint{next: a.next, offset: a.size, size: a.opts.Size, sum: a.opts.SHA256, metadata: a.md.raw, payloadID: sha256.Sum256(a.md.raw)}
	var err error
	if c.file, err = a.fileHash.(encoding.BinaryMarshaler).MarshalBinary(); err == nil {
		c.signed, err = a.signedHash.(encoding.BinaryMarshaler).MarshalBinary()
	}
	if err != nil {
		return nil, fault.New(fault.Internal, "save SHA-256 state: %w", err)
	}
	return c, nil
}

// MarshalBinary returns the checkpoint's bytes for ParseCheckpoint.
func (c *Checkpoint) MarshalBinary() ([]byte, error) {
	b := make([]byte, 0, len(c.metadata)+512)
	b = append(b, checkpointMagic...)
	b = binary.BigEndian.AppendUint32(b, checkpointVersion)
	b = binary.BigEndian.AppendUint32(b, uint32(c.next))
	b = binary.BigEndian.AppendUint64(b, uint64(c.offset))
	b = binary.BigEndian.AppendUint64(b, uint64(c.size))
	for _, f := range [][]byte{c.sum, c.file, c.signed} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(f)))
		b = append(b, f...)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(c.metadata)))
	b = append(b, c.metadata...)
	sum := sha256.Sum256(b)
	return append(b, sum[:]...), nil
}

// ParseCheckpoint reads what MarshalBinary wrote. Any damage is an error of reason BadCheckpoint: then the update starts from its first byte.
func ParseCheckpoint(b []byte) (*Checkpoint, error) {
	if len(b) < checkpointFixed+sha256.Size || len(b) > MaxCheckpointSize {
		return nil, refuse(BadCheckpoint, "checkpoint: %d bytes cannot be one", len(b))
	}
	body := b[:len(b)-sha256.Size]
	if sum := sha256.Sum256(body); !bytes.Equal(sum[:], b[len(body):]) {
		return nil, refuse(BadCheckpoint, "checkpoint: it is damaged, its SHA-256 is wrong")
	}
	if string(body[:8]) != checkpointMagic {
		return nil, refuse(BadCheckpoint, "checkpoint: it starts with %q", body[:8])
	}
	if v := binary.BigEndian.Uint32(body[8:]); v != checkpointVersion {
		return nil, refuse(BadCheckpoint, "checkpoint: format version %d, only %d is supported", v, checkpointVersion)
	}
	c := &Checkpoint{next: int(binary.BigEndian.Uint32(body[12:])), offset: int64(binary.BigEndian.Uint64(body[16:])), size: int64(binary.BigEndian.Uint64(body[24:]))}
	rest := body[checkpointFixed:]
	take := func(n int) []byte {
		if rest == nil || n > len(rest) {
			rest = nil
			return nil
		}
		f := rest[:n:n]
		rest = rest[n:]
		return f
	}
	for _, f := range []*[]byte{&c.sum, &c.file, &c.signed} {
		if n := take(2); n != nil {
			*f = take(int(binary.BigEndian.Uint16(n)))
		}
	}
	if n := take(4); n != nil {
		c.metadata = take(int(binary.BigEndian.Uint32(n)))
	}
	if rest == nil || len(rest) != 0 || c.next < 0 || c.offset < 0 || c.size < 0 || len(c.sum) != 0 && len(c.sum) != sha256.Size {
		return nil, refuse(BadCheckpoint, "checkpoint: its fields do not fit together")
	}
	if len(c.sum) == 0 {
		c.sum = nil
	}
	c.payloadID = sha256.Sum256(c.metadata)
	return c, nil
}

// Resume returns an Applier that goes on where a checkpoint left off, with the payload from its Offset. The saved metadata is verified and
// accepted anew: keys and policy may have changed. What the checkpoint says was announced must be what opts says, where both say something.
func Resume(opts Options, c *Checkpoint) (*Applier, error) {
	a, err := NewApplier(opts)
	if err != nil {
		return nil, err
	}
	if opts.Size != 0 && c.size != 0 && opts.Size != c.size || len(opts.SHA256) != 0 && len(c.sum) != 0 && !bytes.Equal(opts.SHA256, c.sum) {
		return nil, refuse(BadCheckpoint, "checkpoint: it is of another payload than the one that is announced")
	}
	if len(opts.SHA256) == 0 {
		a.opts.SHA256 = c.sum
	}
	if opts.Size == 0 {
		a.opts.Size = c.size
	}
	md, err := parseMetadata(c.metadata, &opts.Trust)
	if err != nil {
		return nil, err
	}
	if err := a.begin(md); err != nil {
		return nil, err
	}
	m := md.manifest
	if c.next > len(m.operations) {
		return nil, refuse(BadCheckpoint, "checkpoint: %d operations are done, the payload has %d", c.next, len(m.operations))
	}
	done := m.DataSize
	if c.next < len(m.operations) {
		done = m.operations[c.next].offset
	}
	if c.offset != m.MetadataSize+done {
		return nil, refuse(BadCheckpoint, "checkpoint: operation %d is at byte %d of the payload, not at %d", c.next, m.MetadataSize+done, c.offset)
	}
	for _, h := range []struct {
		state  []byte
		length int64
		to     *hash.Hash
	}{
		{c.file, c.offset, &a.fileHash},
		{c.signed, int64(len(md.signed())) + done, &a.signedHash},
	} {
		restored, err := restoreHash(h.state)
		if err != nil {
			return nil, refuse(BadCheckpoint, "checkpoint: SHA-256 state: %w", err)
		}
		if n := binary.BigEndian.Uint64(h.state[len(h.state)-8:]); n != uint64(h.length) { // the state ends with the number of bytes hashed
			return nil, refuse(BadCheckpoint, "checkpoint: SHA-256 state after %d bytes, not after %d", n, h.length)
		}
		*h.to = restored
	}
	a.next, a.size = c.next, c.offset
	return a, nil
}
