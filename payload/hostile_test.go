package payload

import (
	"bytes"
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload/updatemetadata"
)

// parts is a payload taken apart, to be put together again in ways that the writer would not.
type parts struct {
	version  uint64
	manifest *updatemetadata.DeltaArchiveManifest
	raw      []byte // instead of manifest, where not nil
	blobs    []byte
	// signers of metadata and of contents
	metadataSigners, signers []crypto.Signer
	// instead of the signatures, where not nil
	metadataSignature, signature []byte
}

func takeApart(t testing.TB, b []byte) *parts {
	t.Helper()
	h, err := ParseHeader(b)
	if err != nil {
		t.Fatal(err)
	}
	p := &parts{version: MajorVersion, manifest: &updatemetadata.DeltaArchiveManifest{}, metadataSigners: []crypto.Signer{keyA}, signers: []crypto.Signer{keyA}}
	if err := proto.Unmarshal(b[HeaderSize:HeaderSize+h.ManifestSize], p.manifest); err != nil {
		t.Fatal(err)
	}
	p.blobs = bytes.Clone(b[h.MetadataSize() : h.MetadataSize()+int64(p.manifest.GetSignaturesOffset())])
	return p
}

func (p *parts) assemble(t testing.TB) []byte {
	t.Helper()
	manifest := p.raw
	if manifest == nil {
		var err error
		if manifest, err = proto.Marshal(p.manifest); err != nil {
			t.Fatal(err)
		}
	}
	message := func(digest [sha256.Size]byte, signers []crypto.Signer) []byte {
		b, err := sign(nil, digest, signers)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	metadataSize := len(p.metadataSignature)
	if p.metadataSignature == nil {
		metadataSize, _ = signaturesSize(p.metadataSigners)
	}
	b := append([]byte(Magic), make([]byte, 20)...)
	binary.BigEndian.PutUint64(b[4:], p.version)
	binary.BigEndian.PutUint64(b[12:], uint64(len(manifest)))
	binary.BigEndian.PutUint32(b[20:], uint32(metadataSize))
	b = append(b, manifest...)
	signed := bytes.Clone(b)
	if p.metadataSignature != nil {
		b = append(b, p.metadataSignature...)
	} else {
		b = append(b, message(sha256.Sum256(signed), p.metadataSigners)...)
	}
	b = append(b, p.blobs...)
	if p.signature != nil {
		return append(b, p.signature...)
	}
	return append(b, message(sha256.Sum256(append(signed, p.blobs...)), p.signers)...)
}

// op returns the first operation of a type, and its partition.
func (p *parts) op(t testing.TB, kind updatemetadata.InstallOperation_Type) (*updatemetadata.PartitionUpdate, *updatemetadata.InstallOperation) {
	t.Helper()
	for _, part := range p.manifest.GetPartitions() {
		for _, o := range part.GetOperations() {
			if o.GetType() == kind {
				return part, o
			}
		}
	}
	t.Fatalf("no operation %v", kind)
	return nil, nil
}

// setBlob replaces the blob of an operation and moves all that comes after it.
func (p *parts) setBlob(op *updatemetadata.InstallOperation, blob []byte) {
	start, end := op.GetDataOffset(), op.GetDataOffset()+op.GetDataLength()
	p.blobs = append(append(bytes.Clone(p.blobs[:start]), blob...), p.blobs[end:]...)
	delta := uint64(len(blob)) - op.GetDataLength()
	for _, part := range p.manifest.GetPartitions() {
		for _, o := range part.GetOperations() {
			if o.GetType() != opZero && o.GetDataOffset() > start {
				*o.DataOffset += delta
			}
		}
	}
	sum := sha256.Sum256(blob)
	op.DataLength, op.DataSha256Hash = proto.Uint64(uint64(len(blob))), sum[:]
	*p.manifest.SignaturesOffset += delta
}

func compressed(b []byte) []byte {
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		panic(err)
	}
	return enc.EncodeAll(b, nil)
}

// concatenated returns a blob of many frames that decode to n bytes each.
func concatenated(n, frames int) []byte { return bytes.Repeat(compressed(make([]byte, n)), frames) }

// TestHostile applies payloads that are wrong in one way each, but signed (where the case is not about signatures) by the right key.
func TestHostile(t *testing.T) {
	const written = true // the fault can only be seen when earlier operations are done
	base := write(t, testOptions(testContents(), keyA))
	man := func(p *parts) *updatemetadata.DeltaArchiveManifest { return p.manifest }
	root := func(p *parts) *updatemetadata.PartitionUpdate { return p.manifest.GetPartitions()[0] }
	op0 := func(p *parts) *updatemetadata.InstallOperation { return root(p).GetOperations()[0] }
	for _, c := range []struct {
		name    string
		reason  Reason
		written bool
		change  func(*parts)
	}{
		// the envelope
		{"major version 1", BadVersion, !written, func(p *parts) { p.version = 1 }},
		{"major version 3", BadVersion, !written, func(p *parts) { p.version = 3 }},
		{"manifest that is no protobuf", BadManifest, !written, func(p *parts) { p.raw = []byte{0xff, 0xff, 0xff} }},
		{"no metadata signature", Unsigned, !written, func(p *parts) { p.metadataSignature = []byte{} }},
		{"empty list of metadata signatures", Unsigned, !written, func(p *parts) { p.metadataSignature = []byte{0x12, 0} }},
		{"metadata signature that is no protobuf", BadSignature, !written, func(p *parts) { p.metadataSignature = []byte{0xff} }},
		{"metadata signed by a stranger", BadSignature, !written, func(p *parts) { p.metadataSigners = []crypto.Signer{keyB} }},
		{"contents signed by a stranger", BadSignature, written, func(p *parts) { p.signers = []crypto.Signer{keyB} }},
		{"contents not signed", Unsigned, written, func(p *parts) {
			p.signature = append([]byte{0x12}, protowire.AppendVarint(nil, 77)...)
			p.signature = append(p.signature, make([]byte, 77)...)
			p.manifest.SignaturesSize = proto.Uint64(79)
		}},
		{"17 signatures", BadSignature, !written, func(p *parts) {
			one, err := signaturesMessage([]crypto.Signer{keyA}, func(int, crypto.Signer) ([]byte, error) { return nil, nil })
			if err != nil {
				t.Fatal(err)
			}
			p.metadataSignature = bytes.Repeat(one, 17)
		}},
		{"signature shorter than its size without padding", BadSignature, !written, func(p *parts) {
			b, err := proto.Marshal(&updatemetadata.Signatures{Signatures: []*updatemetadata.Signatures_Signature{{Data: make([]byte, 8), UnpaddedSignatureSize: proto.Uint32(9)}}})
			if err != nil {
				t.Fatal(err)
			}
			p.metadataSignature = b
		}},

		// the manifest
		{"no block size", BadManifest, !written, func(p *parts) { man(p).BlockSize = nil }},
		{"block size 512", BadManifest, !written, func(p *parts) { man(p).BlockSize = proto.Uint32(512) }},
		{"a delta payload", UnknownOperation, !written, func(p *parts) { man(p).MinorVersion = proto.Uint32(4) }},
		{"no image", BadManifest, !written, func(p *parts) { man(p).Image = nil }},
		{"image id with a slash", BadManifest, !written, func(p *parts) { man(p).Image.Id = proto.String("../etc") }},
		{"version with a slash", BadManifest, !written, func(p *parts) { man(p).Image.Version = proto.String("1/2") }},
		{"version with a counter", BadManifest, !written, func(p *parts) { man(p).Image.Version = proto.String("1.2+3-0") }},
		{"version with a line break", BadManifest, !written, func(p *parts) { man(p).Image.Version = proto.String("1.2\n") }},
		{"oldest version with a space", BadManifest, !written, func(p *parts) { man(p).Image.MinVersion = proto.String("1 2") }},
		{"no architecture", BadManifest, !written, func(p *parts) { man(p).Image.Architecture = nil }},
		{"no partition", BadManifest, !written, func(p *parts) { man(p).Partitions = nil }},
		{"17 partitions", BadManifest, !written, func(p *parts) {
			for len(man(p).Partitions) < 17 {
				man(p).Partitions = append(man(p).Partitions, root(p))
			}
		}},
		{"no payload signature", Unsigned, !written, func(p *parts) { man(p).SignaturesSize = nil }},
		{"huge payload signature", BadManifest, !written, func(p *parts) { man(p).SignaturesSize = proto.Uint64(1 << 60) }},
		{"payload signature over the blobs", BadManifest, !written, func(p *parts) { *man(p).SignaturesOffset -= 1 }},
		{"payload signature behind a gap", BadManifest, !written, func(p *parts) { *man(p).SignaturesOffset += 1; p.blobs = append(p.blobs, 0) }},

		// partitions
		{"unknown partition", WrongPartition, !written, func(p *parts) { root(p).PartitionName = proto.String("kernel") }},
		{"missing partition", WrongPartition, !written, func(p *parts) { // the last one, so that the blobs stay in order
			last := man(p).Partitions[2]
			man(p).Partitions = man(p).Partitions[:2]
			p.blobs = p.blobs[:last.Operations[0].GetDataOffset()]
			man(p).SignaturesOffset = last.Operations[0].DataOffset
		}},
		{"partition twice", BadManifest, !written, func(p *parts) { man(p).Partitions[1].PartitionName = proto.String("root") }},
		{"partition name with a slash", BadManifest, !written, func(p *parts) { root(p).PartitionName = proto.String("a/b") }},
		{"no partition name", BadManifest, !written, func(p *parts) { root(p).PartitionName = nil }},
		{"no partition info", BadManifest, !written, func(p *parts) { root(p).NewPartitionInfo = nil }},
		{"partition of 0 bytes", BadManifest, !written, func(p *parts) { root(p).NewPartitionInfo.Size = proto.Uint64(0) }},
		{"partition of 2^64-1 bytes", BadManifest, !written, func(p *parts) { root(p).NewPartitionInfo.Size = proto.Uint64(1<<64 - 1) }},
		{"partition larger than its operations", BadManifest, !written, func(p *parts) { *root(p).NewPartitionInfo.Size += BlockSize }},
		{"partition a byte larger than its operations", BadManifest, !written, func(p *parts) { *root(p).NewPartitionInfo.Size++ }},
		{"partition smaller than its operations", BadManifest, !written, func(p *parts) { *root(p).NewPartitionInfo.Size -= BlockSize }},
		{"partition without operations", BadManifest, !written, func(p *parts) { man(p).Partitions[2].Operations = nil; *man(p).SignaturesOffset -= 4096 }},
		{"partition hash of 20 bytes", BadManifest, !written, func(p *parts) { root(p).NewPartitionInfo.Hash = make([]byte, 20) }},
		{"partition hash of other bytes", PartitionHash, written, func(p *parts) { root(p).NewPartitionInfo.Hash[5] ^= 1 }},
		{"old partition in a full payload", BadManifest, !written, func(p *parts) { root(p).OldPartitionInfo = root(p).NewPartitionInfo }},
		{"verity of another block count", BadManifest, !written, func(p *parts) { root(p).Verity = goodVerity(1) }},
		{"verity with a long salt", BadManifest, !written, func(p *parts) {
			root(p).Verity = goodVerity(root(p).NewPartitionInfo.GetSize() / BlockSize)
			root(p).Verity.Salt = make([]byte, 257)
		}},
		{"verity with sha1", BadManifest, !written, func(p *parts) {
			root(p).Verity = goodVerity(root(p).NewPartitionInfo.GetSize() / BlockSize)
			root(p).Verity.Algorithm = proto.String("sha1")
		}},
		{"verity with a short root hash", BadManifest, !written, func(p *parts) {
			root(p).Verity = goodVerity(root(p).NewPartitionInfo.GetSize() / BlockSize)
			root(p).Verity.RootHash = root(p).Verity.RootHash[:31]
		}},
		{"verity without UUID", BadManifest, !written, func(p *parts) {
			root(p).Verity = goodVerity(root(p).NewPartitionInfo.GetSize() / BlockSize)
			root(p).Verity.SuperblockUuid = nil
		}},

		// operations
		{"operation without type", UnknownOperation, !written, func(p *parts) { op0(p).Type = nil }},
		{"operation of type 4711", UnknownOperation, !written, func(p *parts) { op0(p).Type = updatemetadata.InstallOperation_Type(4711).Enum() }},
		{"SOURCE_COPY", UnknownOperation, !written, func(p *parts) { op0(p).Type = updatemetadata.InstallOperation_SOURCE_COPY.Enum() }},
		{"DISCARD", UnknownOperation, !written, func(p *parts) { op0(p).Type = updatemetadata.InstallOperation_DISCARD.Enum() }},
		{"REPLACE_XZ", UnknownOperation, !written, func(p *parts) { op0(p).Type = updatemetadata.InstallOperation_REPLACE_XZ.Enum() }},
		{"the last operation is unknown", UnknownOperation, !written, func(p *parts) {
			man(p).Partitions[2].Operations[0].Type = updatemetadata.InstallOperation_PUFFDIFF.Enum()
		}},
		{"source of a full operation", BadManifest, !written, func(p *parts) { op0(p).SrcExtents = op0(p).DstExtents }},
		{"source hash of a full operation", BadManifest, !written, func(p *parts) { op0(p).SrcSha256Hash = make([]byte, 32) }},
		{"no destination", BadManifest, !written, func(p *parts) { op0(p).DstExtents = nil }},
		{"extent of 0 blocks", BadManifest, !written, func(p *parts) { op0(p).DstExtents[0].NumBlocks = proto.Uint64(0) }},
		{"extent behind the partition", BadManifest, !written, func(p *parts) { op0(p).DstExtents[0].StartBlock = proto.Uint64(1 << 40) }},
		{"extent at the hole marker", BadManifest, !written, func(p *parts) { op0(p).DstExtents[0].StartBlock = proto.Uint64(1<<64 - 1) }},
		{"extent that overflows", BadManifest, !written, func(p *parts) {
			op0(p).DstExtents[0].StartBlock, op0(p).DstExtents[0].NumBlocks = proto.Uint64(1), proto.Uint64(1<<64-1)
		}},
		{"extent that overflows as bytes", BadManifest, !written, func(p *parts) { op0(p).DstExtents[0].NumBlocks = proto.Uint64(1 << 52) }},
		{"overlapping operations", BadManifest, !written, func(p *parts) { root(p).Operations[1].DstExtents = root(p).Operations[2].DstExtents }},
		{"overlapping extents of one operation", BadManifest, !written, func(p *parts) {
			_, z := p.op(t, opZero)
			z.DstExtents = append(z.DstExtents, z.DstExtents[0])
		}},
		{"operation larger than the partition", BadManifest, !written, func(p *parts) {
			_, z := p.op(t, opZero)
			for range 100 {
				z.DstExtents = append(z.DstExtents, z.DstExtents[0])
			}
		}},
		{"ZERO with a blob", BadManifest, !written, func(p *parts) { _, z := p.op(t, opZero); z.DataLength = proto.Uint64(5) }},
		{"ZERO with a hash", BadManifest, !written, func(p *parts) { _, z := p.op(t, opZero); z.DataSha256Hash = make([]byte, 32) }},
		{"blob of 0 bytes", BadManifest, !written, func(p *parts) { op0(p).DataLength = proto.Uint64(0) }},
		{"blob of 2^64-1 bytes", BadManifest, !written, func(p *parts) { _, z := p.op(t, opZstd); z.DataLength = proto.Uint64(1<<64 - 1) }},
		{"blob of 8 MiB and a byte", BadManifest, !written, func(p *parts) { _, z := p.op(t, opZstd); z.DataLength = proto.Uint64(MaxOperationSize + 1) }},
		{"blobs that overlap", BadManifest, !written, func(p *parts) { *root(p).Operations[3].DataOffset -= 1 }},
		{"blobs in another order", BadManifest, !written, func(p *parts) { o := root(p).Operations; o[0], o[3] = o[3], o[0] }},
		{"blob without offset", BadManifest, !written, func(p *parts) { op0(p).DataOffset = nil }},
		{"blob without hash", NoOperationHash, !written, func(p *parts) { op0(p).DataSha256Hash = nil }},
		{"blob hash of 31 bytes", BadManifest, !written, func(p *parts) { op0(p).DataSha256Hash = make([]byte, 31) }},
		{"blob hash of other bytes", OperationHash, written, func(p *parts) { _, z := p.op(t, opZstd); z.DataSha256Hash[31] ^= 1 }},
		{"REPLACE of another size", BadManifest, !written, func(p *parts) { _, o := p.op(t, opReplace); p.setBlob(o, make([]byte, 4096)) }},

		// blobs
		{"zstd that is none", OperationFailed, written, func(p *parts) { _, o := p.op(t, opZstd); p.setBlob(o, []byte("this is no zstd frame")) }},
		{"zstd that is cut", OperationFailed, written, func(p *parts) {
			_, o := p.op(t, opZstd)
			b := p.blobs[o.GetDataOffset() : o.GetDataOffset()+o.GetDataLength()]
			p.setBlob(o, bytes.Clone(b[:len(b)-1]))
		}},
		{"zstd with rubbish behind", OperationFailed, written, func(p *parts) {
			_, o := p.op(t, opZstd)
			b := p.blobs[o.GetDataOffset() : o.GetDataOffset()+o.GetDataLength()]
			p.setBlob(o, append(bytes.Clone(b), 1, 2, 3, 4, 5))
		}},
		{"zstd of too few bytes", OperationFailed, written, func(p *parts) { _, o := p.op(t, opZstd); p.setBlob(o, compressed(make([]byte, 4096))) }},
		{"zstd of one byte too many", OperationFailed, written, func(p *parts) { _, o := p.op(t, opZstd); p.setBlob(o, compressed(make([]byte, 64<<10+1))) }},
		{"zstd bomb", OperationFailed, written, func(p *parts) { _, o := p.op(t, opZstd); p.setBlob(o, compressed(make([]byte, 64<<20))) }},
		{"zstd bomb of many frames", OperationFailed, written, func(p *parts) { _, o := p.op(t, opZstd); p.setBlob(o, concatenated(64<<10, 2000)) }},
		{"zstd bomb that does not say its size", OperationFailed, written, func(p *parts) { _, o := p.op(t, opZstd); p.setBlob(o, unsizedBomb(4<<20)) }},
		{"zstd with a window of 1 GiB", OperationFailed, written, func(p *parts) {
			_, o := p.op(t, opZstd)
			p.setBlob(o, append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 20 << 3}, 0x03, 0x00, 0x08, 'x'))
		}},
		{"zstd with a dictionary", OperationFailed, written, func(p *parts) {
			_, o := p.op(t, opZstd)
			p.setBlob(o, append([]byte{0x28, 0xb5, 0x2f, 0xfd, 0x21, 0x07}, 0x04, 0x01, 0x00, 0x00))
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := takeApart(t, base)
			c.change(p)
			b := p.assemble(t)
			disks := testDisks(testContents())
			_, err := apply(b, applyOptions(disks, trust(1, keyA)))
			if got := ReasonOf(err); got != c.reason {
				t.Fatalf("reason %q, want %q: %v", got, c.reason, err)
			}
			if k := fault.KindOf(err); k == fault.Internal {
				t.Errorf("kind %v: %v", k, err)
			}
			if !c.written {
				checkUntouched(t, disks)
			}
			if _, err := Check(context.Background(), bytes.NewReader(b), int64(len(b)), trust(1, keyA), nil); err == nil && c.reason != PartitionHash && c.reason != OperationFailed && c.reason != WrongPartition {
				t.Error("Check found nothing wrong")
			}
		})
	}
}

func goodVerity(blocks uint64) *updatemetadata.Verity {
	return &updatemetadata.Verity{
		RootHash: make([]byte, 32), Salt: make([]byte, 32), SuperblockUuid: make([]byte, 16), DataBlocks: proto.Uint64(blocks),
		DataBlockSize: proto.Uint32(4096), HashBlockSize: proto.Uint32(4096), Algorithm: proto.String("sha256"), HashType: proto.Uint32(1),
	}
}

// unsizedBomb returns a frame without content size whose blocks are runs of one byte: a window of 8 MiB, 128 KiB a block for 4 bytes.
func unsizedBomb(n int) []byte {
	b := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 13 << 3}
	const run = 128 << 10
	for off := 0; off < n; off += run {
		header := uint32(run<<3 | 1<<1)
		if off+run >= n {
			header |= 1
		}
		b = append(b, byte(header), byte(header>>8), byte(header>>16), 0)
	}
	return b
}

// TestBombMemory makes sure that a blob that would grow is stopped at the size that the manifest says, not after.
func TestBombMemory(t *testing.T) {
	bombs := map[string][]byte{"one frame": compressed(make([]byte, 8<<20)), "many frames": concatenated(64<<10, 120), "unsized": unsizedBomb(8 << 20)}
	var x executor
	to := make([]byte, 64<<10)
	if err := x.decode(to, compressed(make([]byte, 64<<10))); err != nil { // makes the decoder and its buffers
		t.Fatal(err)
	}
	for name, blob := range bombs {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := x.decode(to, blob)
		runtime.ReadMemStats(&after)
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
			t.Errorf("%s: %d bytes allocated to find out", name, n)
		}
	}
}

// TestManyOperations are partitions that would fit the manifest's size limit, but have more than anyone needs.
func TestManyOperations(t *testing.T) {
	block := &updatemetadata.Extent{StartBlock: proto.Uint64(0), NumBlocks: proto.Uint64(1)}
	zero := &updatemetadata.InstallOperation{Type: opZero.Enum(), DstExtents: []*updatemetadata.Extent{block}}
	for _, c := range []struct {
		want string
		ops  []*updatemetadata.InstallOperation
	}{
		{"more than 1048576 extents", []*updatemetadata.InstallOperation{{Type: opZero.Enum(), DstExtents: slices.Repeat([]*updatemetadata.Extent{block}, maxExtents+1)}}},
		{"more than 1048576 operations", slices.Repeat([]*updatemetadata.InstallOperation{zero}, maxOperations+1)},
	} {
		err := new(Manifest).addPartition(&updatemetadata.PartitionUpdate{
			PartitionName:    proto.String("root"),
			NewPartitionInfo: &updatemetadata.PartitionInfo{Size: proto.Uint64(MaxPartitionSize), Hash: make([]byte, 32)},
			Operations:       c.ops,
		})
		if ReasonOf(err) != BadManifest || !strings.Contains(err.Error(), c.want) {
			t.Errorf("want %q: %v", c.want, err)
		}
	}
}

// TestHeaderSizes are the sizes that are refused before anything of that size is read or allocated.
func TestHeaderSizes(t *testing.T) {
	header := func(manifest uint64, signature uint32) []byte {
		return Header{manifest, signature}.append(nil)
	}
	for _, c := range []struct {
		name   string
		b      []byte
		reason Reason
	}{
		{"nothing", nil, Transfer},
		{"23 bytes", header(1, 1)[:23], Transfer},
		{"another magic", append([]byte("CRAU"), header(1, 1)[4:]...), BadMagic},
		{"no manifest", header(0, 1), MetadataSize},
		{"manifest of 16 MiB and a byte", header(MaxManifestSize+1, 1), MetadataSize},
		{"manifest of 2^64-1 bytes", header(1<<64-1, 1), MetadataSize},
		{"no signature", header(1, 0), Unsigned},
		{"signature of 64 KiB and a byte", header(1, MaxSignaturesSize+1), MetadataSize},
		{"signature of 2^32-1 bytes", header(1, 1<<32-1), MetadataSize},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := apply(c.b, Options{Trust: trust(1, keyA), Accept: AcceptAny})
			if got := ReasonOf(err); got != c.reason {
				t.Errorf("reason %q, want %q: %v", got, c.reason, err)
			}
		})
	}
}

// TestFlippedBytes flips a bit in each part of a payload, at its first, its last and some bytes between.
func TestFlippedBytes(t *testing.T) {
	contents := testContents()
	base := write(t, testOptions(contents, keyA))
	h, err := ParseHeader(base)
	if err != nil {
		t.Fatal(err)
	}
	m, err := Inspect(context.Background(), bytes.NewReader(base), int64(len(base)))
	if err != nil {
		t.Fatal(err)
	}
	manifestEnd := HeaderSize + int64(h.ManifestSize)
	dataEnd := m.MetadataSize + m.DataSize
	for _, part := range []struct {
		name       string
		start, end int64
		reasons    []Reason
		untouched  bool
	}{
		{"magic", 0, 4, []Reason{BadMagic}, true},
		{"version", 4, 12, []Reason{BadVersion}, true},
		{"manifest size", 12, 20, []Reason{MetadataSize, BadSignature, Transfer, Unsigned}, true},
		{"signature size", 20, 24, []Reason{MetadataSize, BadSignature, Transfer, Unsigned}, true},
		{"manifest", HeaderSize, manifestEnd, []Reason{BadSignature}, true},
		{"blobs", m.MetadataSize, dataEnd, []Reason{OperationHash}, false},
	} {
		step := max(1, (part.end-part.start)/37)
		for off := part.start; off < part.end; off += step {
			b := bytes.Clone(base)
			b[off] ^= 1 << (off % 8)
			checkFlipped(t, part.name, off, b, part.reasons, part.untouched)
		}
	}
	// In a signature message not every byte means something: a flip may make the length of the padding, or a field that nobody knows. What
	// must hold is that the payload is accepted only where the signature without padding is still there.
	for _, part := range []struct {
		name       string
		start, end int64
	}{{"metadata signature", manifestEnd, m.MetadataSize}, {"payload signature", dataEnd, m.Size}} {
		sigs, err := parseSignatures(part.name, base[part.start:part.end])
		if err != nil {
			t.Fatal(err)
		}
		for off := part.start; off < part.end; off++ {
			b := bytes.Clone(base)
			b[off] ^= 1 << (off % 8)
			got, err := parseSignatures(part.name, b[part.start:part.end])
			if err == nil && len(got) == 1 && bytes.Equal(got[0], sigs[0]) {
				continue
			}
			checkFlipped(t, part.name, off, b, []Reason{BadSignature, Unsigned}, part.start == manifestEnd)
		}
	}
}

func checkFlipped(t *testing.T, part string, off int64, b []byte, reasons []Reason, untouched bool) {
	t.Helper()
	disks := testDisks(testContents())
	_, err := apply(b, applyOptions(disks, trust(1, keyA)))
	ok := false
	for _, r := range reasons {
		ok = ok || ReasonOf(err) == r
	}
	if !ok {
		t.Errorf("%s, bit flipped in byte %d: reason %q, want one of %q: %v", part, off, ReasonOf(err), reasons, err)
	}
	if untouched {
		checkUntouched(t, disks)
	}
}

// TestTruncated cuts a payload at every boundary of its parts, and one byte to either side.
func TestTruncated(t *testing.T) {
	base := write(t, testOptions(testContents(), keyA))
	m, err := Inspect(context.Background(), bytes.NewReader(base), int64(len(base)))
	if err != nil {
		t.Fatal(err)
	}
	h, _ := ParseHeader(base)
	cuts := []int64{0, 4, 12, 20, HeaderSize, HeaderSize + int64(h.ManifestSize), m.MetadataSize, m.MetadataSize + m.DataSize, m.Size}
	for _, op := range m.operations {
		cuts = append(cuts, m.MetadataSize+op.offset)
	}
	for _, cut := range cuts {
		for _, n := range []int64{cut - 1, cut, cut + 1} {
			if n < 0 || n >= m.Size {
				continue
			}
			_, err := apply(base[:n], applyOptions(testDisks(testContents()), trust(1, keyA)))
			if ReasonOf(err) != Transfer || !fault.Is(err, fault.Network) {
				t.Errorf("stream of %d bytes: reason %q: %v", n, ReasonOf(err), err)
			}
			if _, err := Check(context.Background(), bytes.NewReader(base[:n]), n, trust(1, keyA), nil); ReasonOf(err) != SizeMismatch {
				t.Errorf("Check of %d bytes: reason %q: %v", n, ReasonOf(err), err)
			}
			if _, err := Inspect(context.Background(), bytes.NewReader(base[:n]), n); ReasonOf(err) != SizeMismatch {
				t.Errorf("Inspect of %d bytes: reason %q: %v", n, ReasonOf(err), err)
			}
		}
	}
	long := append(bytes.Clone(base), 0)
	if _, err := Check(context.Background(), bytes.NewReader(long), int64(len(long)), trust(1, keyA), nil); ReasonOf(err) != SizeMismatch {
		t.Errorf("Check of a payload with a byte behind it: %v", err)
	}
}

func TestTrust(t *testing.T) {
	base := write(t, testOptions(testContents(), keyA))
	twice := takeApart(t, base) // keyA signs, and signs again: two signatures, one key
	twice.metadataSigners = []crypto.Signer{keyA, keyA}
	twice.signers = twice.metadataSigners
	size, err := signaturesSize(twice.signers)
	if err != nil {
		t.Fatal(err)
	}
	twice.manifest.SignaturesSize = proto.Uint64(uint64(size))
	byTwo := write(t, testOptions(testContents(), keyA, keyB))
	oneAtTheEnd := takeApart(t, byTwo) // metadata signed by two, contents by one
	oneAtTheEnd.metadataSigners = []crypto.Signer{keyA, keyB}
	size, err = signaturesSize(oneAtTheEnd.signers)
	if err != nil {
		t.Fatal(err)
	}
	oneAtTheEnd.manifest.SignaturesSize = proto.Uint64(uint64(size))
	for _, c := range []struct {
		name    string
		payload []byte
		trust   Trust
		reason  Reason
	}{
		{"no key", base, trust(1), NoTrust},
		{"the zero Trust", base, Trust{}, NoTrust},
		{"threshold 0", base, trust(0, keyA), NoTrust},
		{"threshold -1", base, trust(-1, keyA), NoTrust},
		{"threshold above the number of keys", base, trust(2, keyA), NoTrust},
		{"threshold met by listing a key twice", base, trust(2, keyA, keyA), NoTrust},
		{"a key of a foreign kind", base, Trust{Keys: []crypto.PublicKey{"key"}, Threshold: 1}, NoTrust},
		{"another key", base, trust(1, keyB), BadSignature},
		{"1 of 2 is enough", base, trust(1, keyB, keyA), ""},
		{"1 signature where 2 are needed", base, trust(2, keyA, keyB), BadSignature},
		{"2 signatures by the same key where 2 are needed", twice.assemble(t), trust(2, keyA, keyB), BadSignature},
		{"2 signatures by the same key where 1 is needed", twice.assemble(t), trust(1, keyA, keyB), ""},
		{"2 of 2", byTwo, trust(2, keyA, keyB), ""},
		{"3 of 3 with 2 signatures", byTwo, trust(3, keyA, keyB, keyC), BadSignature},
		{"metadata by 2, contents by 1", oneAtTheEnd.assemble(t), trust(2, keyA, keyB), BadSignature},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := apply(c.payload, applyOptions(testDisks(testContents()), c.trust))
			if ReasonOf(err) != c.reason || (err == nil) != (c.reason == "") {
				t.Errorf("reason %q, want %q: %v", ReasonOf(err), c.reason, err)
			}
		})
	}
}

// TestManifestNotParsedUnverified makes sure of the order: a manifest that would be refused for its meaning is refused for its signature.
func TestManifestNotParsedUnverified(t *testing.T) {
	p := takeApart(t, write(t, testOptions(testContents(), keyA)))
	p.raw = []byte{0xff}
	p.metadataSigners = []crypto.Signer{keyB}
	if _, err := apply(p.assemble(t), applyOptions(testDisks(testContents()), trust(1, keyA))); ReasonOf(err) != BadSignature {
		t.Errorf("reason %q: %v", ReasonOf(err), err)
	}
}

func TestAnnounced(t *testing.T) {
	b := write(t, testOptions(testContents(), keyA))
	sum := sha256.Sum256(b)
	other, _ := hex.DecodeString("00000000000000000000000000000000000000000000000000000000000000ff")
	for _, c := range []struct {
		name   string
		change func(*Options)
		reason Reason
	}{
		{"right", func(o *Options) { o.Size, o.SHA256 = int64(len(b)), sum[:] }, ""},
		{"larger", func(o *Options) { o.Size = int64(len(b)) + 1 }, SizeMismatch},
		{"another file", func(o *Options) { o.SHA256 = other }, HashMismatch},
		{"slot too small", func(o *Options) { x := o.Targets["uki"]; x.Limit = 300<<10 + 122; o.Targets["uki"] = x }, TooLarge},
		{"slot just large enough", func(o *Options) { x := o.Targets["uki"]; x.Limit = 300<<10 + 123; o.Targets["uki"] = x }, ""},
		{"policy says no", func(o *Options) {
			o.Accept = Policy{Running: Image{ID: "semper", Version: "1.1.0", Architecture: "amd64"}}.Check
		}, OldVersion},
		{"disk fails", func(o *Options) { o.Targets["rootsig"].Storage.(*disk).fail = errDisk }, WriteFailed},
	} {
		t.Run(c.name, func(t *testing.T) {
			disks := testDisks(testContents())
			o := applyOptions(disks, trust(1, keyA))
			c.change(&o)
			_, err := apply(b, o)
			if ReasonOf(err) != c.reason || (err == nil) != (c.reason == "") {
				t.Errorf("reason %q, want %q: %v", ReasonOf(err), c.reason, err)
			}
			if c.reason == SizeMismatch || c.reason == TooLarge || c.reason == OldVersion {
				checkUntouched(t, disks)
			}
		})
	}
}

var errDisk = fault.New(fault.IO, "the disk is on fire")

func TestPolicy(t *testing.T) {
	running := Image{ID: "semper", Version: "1.1.0", Epoch: 2, Architecture: "amd64"}
	for _, c := range []struct {
		name    string
		offered Image
		reason  Reason
	}{
		{"newer", Image{ID: "semper", Version: "1.2.0", Epoch: 2, Architecture: "amd64"}, ""},
		{"newer by number, not by text", Image{ID: "semper", Version: "1.10.0", Epoch: 2, Architecture: "amd64"}, ""},
		{"newer, higher epoch", Image{ID: "semper", Version: "1.2.0", Epoch: 3, Architecture: "amd64"}, ""},
		{"newer, lower epoch", Image{ID: "semper", Version: "9.9.9", Epoch: 1, Architecture: "amd64"}, OldVersion},
		{"the same", Image{ID: "semper", Version: "1.1.0", Epoch: 2, Architecture: "amd64"}, OldVersion},
		{"older", Image{ID: "semper", Version: "1.0.9", Epoch: 2, Architecture: "amd64"}, OldVersion},
		{"older, higher epoch", Image{ID: "semper", Version: "1.0.9", Epoch: 3, Architecture: "amd64"}, OldVersion},
		{"a beta of what runs", Image{ID: "semper", Version: "1.1.0~beta1", Epoch: 2, Architecture: "amd64"}, OldVersion},
		{"another image", Image{ID: "other", Version: "1.2.0", Epoch: 2, Architecture: "amd64"}, WrongImage},
		{"another architecture", Image{ID: "semper", Version: "1.2.0", Epoch: 2, Architecture: "arm64"}, WrongImage},
		{"direct from here", Image{ID: "semper", Version: "2.0.0", Epoch: 2, Architecture: "amd64", MinVersion: "1.1.0"}, ""},
		{"not direct from here", Image{ID: "semper", Version: "2.0.0", Epoch: 2, Architecture: "amd64", MinVersion: "1.1.1"}, TooFar},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := Policy{Running: running}.Check(&Manifest{Image: c.offered})
			if ReasonOf(err) != c.reason || (err == nil) != (c.reason == "") {
				t.Errorf("reason %q, want %q: %v", ReasonOf(err), c.reason, err)
			}
		})
	}
}

// TestReasons makes sure that each reason has its number, its kind and a word that can be stored.
func TestReasons(t *testing.T) {
	for r, e := range reasons {
		if r.Code() != e.code || e.code < 9 || e.code > 44 || e.kind == fault.Internal {
			t.Errorf("%q: code %d, kind %v", r, e.code, e.kind)
		}
		if !nameSyntax.MatchString(string(r)) {
			t.Errorf("%q is not a plain word", r)
		}
		err := refuse(r, "x: %w", refuse(Transfer, "y"))
		if ReasonOf(err) != r || fault.KindOf(err) != e.kind {
			t.Errorf("%q: ReasonOf gives %q, kind %v", r, ReasonOf(err), fault.KindOf(err))
		}
	}
	if ReasonOf(nil) != "" || Reason("no such").Code() != 1 {
		t.Error("a reason out of nothing")
	}
}
