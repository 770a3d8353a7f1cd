package payload

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/semper-os/semper/fault"
)

// executor does operations one after the other, with buffers that it keeps.
type executor struct {
	in, out []byte
	dec     *zstd.Decoder
}

// reserve makes room for the largest operation of a payload at once, rather than growing from each to a larger one.
func (x *executor) reserve(m *Manifest) {
	var in, out int64
	for i := range m.operations {
		in = max(in, m.operations[i].length)
		if m.operations[i].kind == opZstd {
			out = max(out, m.operations[i].size)
		}
	}
	x.in, x.out = grow(x.in, in), grow(x.out, out)
}

// buffer returns n bytes of the buffer that blobs are read into.
func (x *executor) buffer(n int64) []byte {
	x.in = grow(x.in, n)
	return x.in
}

func grow(b []byte, n int64) []byte {
	if int64(cap(b)) < n {
		return make([]byte, n)
	}
	return b[:n]
}

// read returns the operation's blob, once its SHA-256 is right, or nil where it has none. The bytes are good until the next call.
func (x *executor) read(ctx context.Context, r io.Reader, part *PartitionInfo, index int, op *operation, got func(n int)) ([]byte, error) {
	if op.kind == opZero {
		return nil, nil
	}
	blob := x.buffer(op.length)
	if err := readFull(ctx, r, blob, got); err != nil {
		return nil, refuse(ReasonOf(err), "partition %q, operation %d: %w", part.Name, index, err)
	}
	if sum := sha256.Sum256(blob); sum != op.sum {
		return nil, refuse(OperationHash, "partition %q, operation %d: the SHA-256 of its blob is %x, the manifest says %x", part.Name, index, sum, op.sum)
	}
	return blob, nil
}

// execute writes what the operation makes of its blob.
func (x *executor) execute(ctx context.Context, w io.WriterAt, part *PartitionInfo, index int, op *operation, blob []byte) error {
	if op.kind == opZero {
		return x.zero(ctx, w, part, index, op)
	}
	data := blob
	if op.kind == opZstd {
		var err error
		if data, err = x.decode(op, blob); err != nil {
			return refuse(OperationFailed, "partition %q, operation %d: %w", part.Name, index, err)
		}
	}
	for _, e := range op.dst {
		if _, err := w.WriteAt(data[:e.size], e.start); err != nil {
			return refuse(WriteFailed, "partition %q, operation %d: write %d bytes at byte %d: %w", part.Name, index, e.size, e.start, err)
		}
		data = data[e.size:]
	}
	return nil
}

// decode returns exactly op.size bytes, or an error; a blob that would grow beyond that is stopped there.
func (x *executor) decode(op *operation, blob []byte) ([]byte, error) {
	if x.dec == nil {
		dec, err := zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(MaxOperationSize),
			zstd.WithDecodeAllCapLimit(true),
		)
		if err != nil {
			return nil, fault.New(fault.Internal, "start the zstd decoder: %w", err)
		}
		x.dec = dec
	}
	x.out = grow(x.out, op.size)
	data, err := x.dec.DecodeAll(blob, x.out[:0:op.size])
	if err != nil {
		return nil, fault.New(fault.Input, "decode zstd: %w", err)
	}
	if int64(len(data)) != op.size {
		return nil, fault.New(fault.Input, "its blob decodes to %d bytes, the manifest says %d", len(data), op.size)
	}
	return data, nil
}

func (x *executor) zero(ctx context.Context, w io.WriterAt, part *PartitionInfo, index int, op *operation) error {
	x.out = grow(x.out, readPiece)
	clear(x.out)
	for _, e := range op.dst {
		for done := int64(0); done < e.size; {
			if ctx.Err() != nil {
				return refuse(Cancelled, "cancelled: %w", context.Cause(ctx))
			}
			n := min(e.size-done, readPiece)
			if _, err := w.WriteAt(x.out[:n], e.start+done); err != nil {
				return refuse(WriteFailed, "partition %q, operation %d: write %d zeros at byte %d: %w", part.Name, index, n, e.start+done, err)
			}
			done += n
		}
	}
	return nil
}
