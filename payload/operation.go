package payload

import (
	"context"
	"crypto/sha256"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/semper-os/semper/fault"
)

// executor does operations one after the other, with buffers that it keeps. While one is written the next is read and decoded, so there are two buffers
// for what is written.
type executor struct {
	in      []byte
	out     [2][]byte
	turn    int        // the buffer that is free
	writing chan error // of the operation that is being written; nil: none is
	dec     *zstd.Decoder
}

// reserve makes room for the largest operation of a payload at once, rather than growing from each to a larger one.
func (x *executor) reserve(m *Manifest) {
	var in, out int64
	for i := range m.operations {
		in = max(in, m.operations[i].length)
		if m.operations[i].kind != opZero {
			out = max(out, m.operations[i].size)
		}
	}
	x.in = grow(x.in, in)
	for i := range x.out {
		x.out[i] = grow(x.out[i], out)
	}
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

// execute begins to write what the operation makes of its blob; drain waits for the end. A failure of the operation before comes out here.
func (x *executor) execute(ctx context.Context, w io.WriterAt, part *PartitionInfo, index int, op *operation, blob []byte) error {
	if op.kind == opZero { // it can be long, and be cancelled
		if err := x.drain(); err != nil {
			return err
		}
		return x.zero(ctx, w, part, index, op)
	}
	data := grow(x.out[x.turn], op.size)
	x.out[x.turn] = data
	if op.kind == opReplace {
		copy(data, blob)
	} else if err := x.decode(data, blob); err != nil {
		return refuse(OperationFailed, "partition %q, operation %d: %w", part.Name, index, err)
	}
	if err := x.drain(); err != nil {
		return err
	}
	x.turn = 1 - x.turn
	done := make(chan error, 1)
	x.writing = done
	go func() { done <- writeData(w, part, index, op, data) }()
	return nil
}

// drain waits until what was begun is written.
func (x *executor) drain() error {
	if x.writing == nil {
		return nil
	}
	err := <-x.writing
	x.writing = nil
	return err
}

func writeData(w io.WriterAt, part *PartitionInfo, index int, op *operation, data []byte) error {
	for _, e := range op.dst {
		if _, err := w.WriteAt(data[:e.size], e.start); err != nil {
			return refuse(WriteFailed, "partition %q, operation %d: write %d bytes at byte %d: %w", part.Name, index, e.size, e.start, err)
		}
		data = data[e.size:]
	}
	return nil
}

// decode fills all of to, or fails; a blob that would grow beyond that is stopped there.
func (x *executor) decode(to, blob []byte) error {
	if x.dec == nil {
		dec, err := zstd.NewReader(nil,
			zstd.WithDecoderConcurrency(1),
			zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxMemory(MaxOperationSize),
			zstd.WithDecodeAllCapLimit(true),
		)
		if err != nil {
			return fault.New(fault.Internal, "start the zstd decoder: %w", err)
		}
		x.dec = dec
	}
	data, err := x.dec.DecodeAll(blob, to[:0:len(to)])
	if err != nil {
		return fault.New(fault.Input, "decode zstd: %w", err)
	}
	if len(data) != len(to) {
		return fault.New(fault.Input, "its blob decodes to %d bytes, the manifest says %d", len(data), len(to))
	}
	return nil
}

// zeroPiece is how many zeros are written between two looks at the context.
const zeroPiece = 1 << 20

func (x *executor) zero(ctx context.Context, w io.WriterAt, part *PartitionInfo, index int, op *operation) error {
	zeros := grow(x.out[x.turn], zeroPiece)
	x.out[x.turn] = zeros
	clear(zeros)
	for _, e := range op.dst {
		for done := int64(0); done < e.size; {
			if ctx.Err() != nil {
				return refuse(Cancelled, "cancelled: %w", context.Cause(ctx))
			}
			n := min(e.size-done, zeroPiece)
			if _, err := w.WriteAt(zeros[:n], e.start+done); err != nil {
				return refuse(WriteFailed, "partition %q, operation %d: write %d zeros at byte %d: %w", part.Name, index, n, e.start+done, err)
			}
			done += n
		}
	}
	return nil
}
