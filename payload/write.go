package payload

import (
	"bufio"
	"context"
	"crypto"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/semper-os/semper/fault"
)

// Partition is a partition to be shipped whole.
type Partition struct {
	Name   string
	Data   io.ReaderAt
	Size   int64   // in bytes
	Verity *Verity // nil where the partition is not protected by dm-verity
}

// DefaultChunkSize is how much of a partition one operation holds. Larger chunks compress a little better, but cost memory on each host and
// lose more when a download is interrupted.
const DefaultChunkSize = 4 << 20

// DefaultLevel is the compression level of WriteOptions where none is given. See BenchmarkWrite for what the levels cost and gain.
const DefaultLevel = 7

// WriteOptions say what goes into a payload. The bytes depend on Image, Timestamp, Partitions, Level, ChunkSize and the signatures alone.
type WriteOptions struct {
	Image      Image
	Timestamp  time.Time // when the image was made (SOURCE_DATE_EPOCH), in whole seconds
	Partitions []Partition
	// Signers are RSA keys of 4096 bits or ECDSA keys on P-256, each a different one. Each signs.
	Signers []crypto.Signer
	// Rand is given to the signers. Nil makes the signatures of Go's own keys deterministic (RFC 6979 for ECDSA).
	Rand io.Reader

	Level     int           // of zstd, 1 to 22, of which the encoder tells apart 1-2, 3-5, 6-9 and 10-22; 0: DefaultLevel
	ChunkSize int           // bytes, a multiple of BlockSize, at most MaxOperationSize; 0: DefaultChunkSize
	Workers   int           // 0: all cores
	Cache     Cache         // may be nil
	Progress  func(n int64) // may be nil; told how many bytes of the partitions are compressed
}

// Summary describes a payload that was written.
type Summary struct {
	Manifest  *Manifest
	SHA256    [sha256.Size]byte // of the whole file
	CacheHits int               // chunks that were not compressed anew
}

// WriteFile writes a payload file. It appears under its name when it is complete and on disk; beside it, space for a second copy is needed meanwhile.
func WriteFile(ctx context.Context, path string, opts WriteOptions) (*Summary, error) {
	dir := filepath.Dir(path)
	spool, err := os.CreateTemp(dir, ".payload-*")
	if err != nil {
		return nil, fault.New(fault.IO, "write payload: %w", err)
	}
	defer spool.Close()
	if err := os.Remove(spool.Name()); err != nil { // it lives on without a name, and goes away with the process
		return nil, fault.New(fault.IO, "write payload: %w", err)
	}
	out, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*")
	if err != nil {
		return nil, fault.New(fault.IO, "write payload: %w", err)
	}
	defer os.Remove(out.Name()) // after the rename there is nothing of that name
	defer out.Close()
	sum, err := Write(ctx, out, spool, opts)
	if err != nil {
		return nil, fmt.Errorf("write %s: %w", path, err)
	}
	if err := publish(out, path); err != nil {
		return nil, fault.New(fault.IO, "write %s: %w", path, err)
	}
	return sum, nil
}

// publish gives a complete temporary file its name, so that a power cut leaves the old file or the new one.
func publish(f *os.File, path string) error {
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// Write writes a payload to w. The manifest comes before the blobs but knows their sizes and hashes, so the blobs are collected in spool,
// which must be empty and at its start, and needs room for all of them.
func Write(ctx context.Context, w io.Writer, spool io.ReadWriteSeeker, opts WriteOptions) (*Summary, error) {
	if err := opts.complete(); err != nil {
		return nil, err
	}
	sigSize, err := signaturesSize(opts.Signers)
	if err != nil {
		return nil, fault.New(fault.Internal, "payload signatures: %w", err)
	}
	m := &Manifest{Image: opts.Image, Timestamp: opts.Timestamp}
	for _, p := range opts.Partitions {
		m.Partitions = append(m.Partitions, PartitionInfo{Name: p.Name, Size: p.Size, Verity: p.Verity})
	}
	buffered := bufio.NewWriterSize(spool, 1<<20)
	hits, err := compress(ctx, buffered, m, &opts)
	if err != nil {
		return nil, err
	}
	if err := buffered.Flush(); err != nil {
		return nil, fault.New(fault.IO, "payload: collect blobs: %w", err)
	}
	manifest, err := m.encode(sigSize)
	if err != nil {
		return nil, fault.New(fault.Internal, "payload manifest: %w", err)
	}
	h := Header{ManifestSize: uint64(len(manifest)), MetadataSignatureSize: uint32(sigSize)}
	if h.ManifestSize > MaxManifestSize {
		return nil, fault.New(fault.Input, "payload: the manifest has %d bytes, allowed are %d; use larger chunks", h.ManifestSize, MaxManifestSize)
	}
	// What a reader would refuse must not leave this house.
	if m, err = parseManifest(h, manifest); err != nil {
		return nil, fmt.Errorf("payload: %w", err)
	}
	signed := append(h.append(nil), manifest...)
	signature, err := sign(opts.Rand, sha256.Sum256(signed), opts.Signers)
	if err != nil {
		return nil, err
	}
	file, contents := sha256.New(), sha256.New()
	out := io.MultiWriter(w, file)
	for _, step := range []func() error{
		func() error { _, err := io.MultiWriter(out, contents).Write(signed); return err },
		func() error { _, err := out.Write(signature); return err },
		func() error { _, err := spool.Seek(0, io.SeekStart); return err },
		func() error { return copyBlobs(ctx, io.MultiWriter(out, contents), spool, m.DataSize) },
	} {
		if err := step(); err != nil {
			return nil, fault.New(fault.IO, "payload: %w", err)
		}
	}
	if signature, err = sign(opts.Rand, sumOf(contents), opts.Signers); err != nil {
		return nil, err
	}
	if _, err := out.Write(signature); err != nil {
		return nil, fault.New(fault.IO, "payload: %w", err)
	}
	return &Summary{Manifest: m, SHA256: sumOf(file), CacheHits: hits}, nil
}

func copyBlobs(ctx context.Context, w io.Writer, r io.Reader, n int64) error {
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		c, err := io.CopyN(w, r, min(n, 8<<20))
		if err != nil {
			return fmt.Errorf("copy blobs: %w", err)
		}
		n -= c
	}
	return nil
}

// complete checks the options and fills in the defaults.
func (o *WriteOptions) complete() error {
	if err := checkSigners(o.Signers); err != nil {
		return err
	}
	if o.Level == 0 {
		o.Level = DefaultLevel
	}
	if o.Level < 1 || o.Level > 22 {
		return fault.New(fault.Input, "payload: zstd level %d, allowed are 1 to 22", o.Level)
	}
	if o.ChunkSize == 0 {
		o.ChunkSize = DefaultChunkSize
	}
	if o.ChunkSize < BlockSize || o.ChunkSize > MaxOperationSize || o.ChunkSize%BlockSize != 0 {
		return fault.New(fault.Input, "payload: chunks of %d bytes; allowed are multiples of %d up to %d", o.ChunkSize, BlockSize, MaxOperationSize)
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	for _, p := range o.Partitions {
		if p.Size <= 0 || p.Size > MaxPartitionSize {
			return fault.New(fault.Input, "payload: partition %q has %d bytes, allowed are 1 to %d", p.Name, p.Size, int64(MaxPartitionSize))
		}
		if p.Verity != nil { // before minutes of compression, not after
			if err := p.Verity.check(p.Name, p.Size); err != nil {
				return err
			}
		}
	}
	return o.Image.check()
}
