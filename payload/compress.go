package payload

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/bits"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/errgroup"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload/updatemetadata"
)

// chunk is one operation in the making.
type chunk struct {
	partition int
	off       int64
	data      []byte // of the partition
	packed    []byte // the buffer that the compressor writes to
	kind      updatemetadata.InstallOperation_Type
	blob      []byte // data, packed or from the cache
	sum       [sha256.Size]byte
	hit       bool
	ready     chan struct{} // closed when kind, blob and sum are set
}

// compress cuts the partitions into chunks, compresses them on all cores and writes the blobs to w in order. It fills in the manifest's
// operations, hashes and sizes, and returns how many chunks came from the cache.
//
// One goroutine hands out the chunks, Workers of them compress, and this one writes. The number of chunks in flight is bounded by their
// buffers, which go round.
func compress(ctx context.Context, w io.Writer, m *Manifest, opts *WriteOptions) (hits int, err error) {
	p, err := newPacker(opts)
	if err != nil {
		return 0, err
	}
	g, ctx := errgroup.WithContext(ctx)
	inFlight := 2*opts.Workers + 1
	free := make(chan *chunk, inFlight)
	for range inFlight {
		free <- &chunk{}
	}
	work := make(chan *chunk)
	ordered := make(chan *chunk, inFlight)
	g.Go(func() error {
		defer close(work)
		defer close(ordered)
		for i, part := range opts.Partitions {
			for off := int64(0); off < part.Size; off += int64(opts.ChunkSize) {
				select {
				case <-ctx.Done():
					return context.Cause(ctx)
				case c := <-free:
					n := min(int64(opts.ChunkSize), part.Size-off)
					*c = chunk{partition: i, off: off, data: grow(c.data, n), packed: c.packed, ready: make(chan struct{})}
					ordered <- c // never blocks: there are no more chunks than it has room for
					select {
					case work <- c:
					case <-ctx.Done():
						return context.Cause(ctx)
					}
				}
			}
		}
		return nil
	})
	for range opts.Workers {
		g.Go(func() error {
			for c := range work {
				part := &opts.Partitions[c.partition]
				if n, err := part.Data.ReadAt(c.data, c.off); n < len(c.data) {
					if err == nil || errors.Is(err, io.EOF) {
						err = io.ErrUnexpectedEOF
					}
					return fault.New(fault.IO, "payload: read partition %q at byte %d: %w", part.Name, c.off, err)
				}
				p.pack(c)
				close(c.ready)
			}
			return nil
		})
	}
	g.Go(func() error {
		hash := sha256.New()
		for c := range ordered {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-c.ready:
			}
			hash.Write(c.data)
			part := &m.Partitions[c.partition]
			op := operation{partition: c.partition, kind: c.kind, dst: []extent{{c.off, int64(len(c.data))}}, size: int64(len(c.data))}
			if c.kind != opZero {
				op.offset, op.length, op.sum = m.DataSize, int64(len(c.blob)), c.sum
				if _, err := w.Write(c.blob); err != nil {
					return fault.New(fault.IO, "payload: collect blobs: %w", err)
				}
			}
			if c.hit {
				hits++
			}
			m.operations = append(m.operations, op)
			m.DataSize += op.length
			if c.off+op.size == part.Size {
				part.SHA256 = sumOf(hash)
				hash.Reset()
			}
			if opts.Progress != nil {
				opts.Progress(op.size)
			}
			free <- c
		}
		return nil
	})
	err = g.Wait() // before hits is looked at
	return hits, err
}

// packer turns data into blobs. It is used by all workers at once. Encoder and decoder only see whole chunks, so they have nothing to close.
type packer struct {
	enc   *zstd.Encoder
	dec   *zstd.Decoder
	cache Cache
	salt  []byte
	zeros []byte
}

func newPacker(opts *WriteOptions) (*packer, error) {
	p := &packer{cache: opts.Cache, zeros: make([]byte, opts.ChunkSize)}
	var err error
	p.enc, err = zstd.NewWriter(nil,
		zstd.WithEncoderConcurrency(opts.Workers),
		zstd.WithEncoderLevel(zstd.EncoderLevelFromZstd(opts.Level)),
		zstd.WithEncoderCRC(false), // the SHA-256 of blob and partition are better
		zstd.WithWindowSize(max(zstd.MinWindowSize, 1<<bits.Len(uint(opts.ChunkSize-1)))),
	)
	if err != nil {
		return nil, fault.New(fault.Input, "payload: zstd level %d: %w", opts.Level, err)
	}
	p.salt = encoderSalt(p.enc, opts)
	p.dec, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(opts.Workers), zstd.WithDecoderMaxMemory(MaxOperationSize))
	if err != nil {
		return nil, fault.New(fault.Internal, "payload: zstd decoder: %w", err)
	}
	return p, nil
}

// pack chooses the operation for c.data and makes its blob.
func (p *packer) pack(c *chunk) {
	if bytes.Equal(c.data, p.zeros[:len(c.data)]) {
		c.kind = opZero
		return
	}
	blob := p.compressed(c)
	c.kind, c.blob = opZstd, blob
	if len(blob) >= len(c.data) {
		c.kind, c.blob = opReplace, c.data
	}
	c.sum = sha256.Sum256(c.blob)
}

// compressed returns the zstd form of c.data, from the cache where that has a good one.
func (p *packer) compressed(c *chunk) []byte {
	if p.cache == nil {
		c.packed = p.enc.EncodeAll(c.data, c.packed[:0])
		return c.packed
	}
	h := sha256.New()
	h.Write(p.salt)
	h.Write(c.data)
	key := sumOf(h)
	if blob, ok := p.cache.Get(key); ok {
		// A cache is a folder that someone can damage, and decoding is far cheaper than encoding: look before it is signed.
		data, err := p.dec.DecodeAll(blob, c.packed[:0])
		if err == nil && bytes.Equal(data, c.data) {
			c.packed, c.hit = data, true
			return blob
		}
	}
	c.packed = p.enc.EncodeAll(c.data, c.packed[:0])
	p.cache.Put(key, c.packed)
	return c.packed
}
