package payload

import (
	"crypto/sha256"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/payload/updatemetadata"
)

// Image says what a payload installs.
type Image struct {
	ID           string `json:"id"`                    // IMAGE_ID, for instance "semper"
	Version      string `json:"version"`               // IMAGE_VERSION, for instance "1.2.0"
	Epoch        uint64 `json:"epoch"`                 // SEMPER_EPOCH; never goes back
	MinVersion   string `json:"min_version,omitempty"` // the oldest version that may go there directly; "" is any
	Architecture string `json:"architecture"`          // Debian's name, for instance "amd64"
}

// Verity is all that it takes to compute the dm-verity superblock and hash tree of a partition, and the root hash that must come out.
// Only SHA-256, blocks of 4096 bytes and hash type 1 are supported; the data blocks are always the whole partition.
type Verity struct {
	RootHash   verity.RootHash
	Superblock verity.Superblock
}

// Manifest is a payload's validated table of contents.
type Manifest struct {
	Image      Image
	Timestamp  time.Time // when the image was made; the zero Time where the payload does not say
	Partitions []PartitionInfo

	MetadataSize int64 // header, manifest and metadata signature, in bytes
	DataSize     int64 // all blobs, in bytes
	Size         int64 // the whole file, in bytes

	operations []operation
}

// PartitionInfo describes one partition of a payload.
type PartitionInfo struct {
	Name       string
	Size       int64 // in bytes
	SHA256     [sha256.Size]byte
	Verity     *Verity // nil where the partition is not protected by dm-verity
	Operations int
	DataSize   int64 // the blobs of its operations, in bytes
}

// Partition returns the partition of that name, or nil.
func (m *Manifest) Partition(name string) *PartitionInfo {
	for i := range m.Partitions {
		if m.Partitions[i].Name == name {
			return &m.Partitions[i]
		}
	}
	return nil
}

// operation is one validated step: blob of length bytes at offset (counted from the first blob), to extents of a partition.
type operation struct {
	partition int // index in Manifest.Partitions
	kind      updatemetadata.InstallOperation_Type
	offset    int64
	length    int64
	sum       [sha256.Size]byte
	dst       []extent
	size      int64 // of dst, in bytes
}

// extent is a run of bytes of a partition.
type extent struct{ start, size int64 }

const (
	opReplace = updatemetadata.InstallOperation_REPLACE
	opZero    = updatemetadata.InstallOperation_ZERO
	opZstd    = updatemetadata.InstallOperation_REPLACE_ZSTD
)

// encode is the inverse of parseManifest for what the writer makes.
func (m *Manifest) encode(signaturesSize int) ([]byte, error) {
	p := &updatemetadata.DeltaArchiveManifest{
		BlockSize:        proto.Uint32(BlockSize),
		MinorVersion:     proto.Uint32(0),
		SignaturesOffset: proto.Uint64(uint64(m.DataSize)),
		SignaturesSize:   proto.Uint64(uint64(signaturesSize)),
		Image: &updatemetadata.Image{
			Id:           proto.String(m.Image.ID),
			Version:      proto.String(m.Image.Version),
			Epoch:        proto.Uint64(m.Image.Epoch),
			Architecture: proto.String(m.Image.Architecture),
		},
	}
	if m.Image.MinVersion != "" {
		p.Image.MinVersion = proto.String(m.Image.MinVersion)
	}
	if !m.Timestamp.IsZero() {
		p.MaxTimestamp = proto.Int64(m.Timestamp.Unix())
	}
	for i := range m.Partitions {
		part := &m.Partitions[i]
		u := &updatemetadata.PartitionUpdate{
			PartitionName:    proto.String(part.Name),
			NewPartitionInfo: &updatemetadata.PartitionInfo{Size: proto.Uint64(uint64(part.Size)), Hash: part.SHA256[:]},
			Version:          proto.String(m.Image.Version),
		}
		if v := part.Verity; v != nil {
			u.Verity = &updatemetadata.Verity{
				RootHash: v.RootHash[:], Salt: v.Superblock.Salt, SuperblockUuid: v.Superblock.UUID[:], DataBlocks: proto.Uint64(v.Superblock.DataBlocks),
				DataBlockSize: proto.Uint32(BlockSize), HashBlockSize: proto.Uint32(BlockSize), Algorithm: proto.String("sha256"), HashType: proto.Uint32(1),
			}
		}
		p.Partitions = append(p.Partitions, u)
	}
	for i := range m.operations {
		op := &m.operations[i]
		o := &updatemetadata.InstallOperation{Type: op.kind.Enum()}
		if op.kind != opZero {
			o.DataOffset, o.DataLength, o.DataSha256Hash = proto.Uint64(uint64(op.offset)), proto.Uint64(uint64(op.length)), op.sum[:]
		}
		for _, e := range op.dst {
			o.DstExtents = append(o.DstExtents, &updatemetadata.Extent{
				StartBlock: proto.Uint64(uint64(e.start / BlockSize)), NumBlocks: proto.Uint64(uint64((e.size + BlockSize - 1) / BlockSize)),
			})
		}
		u := p.Partitions[op.partition]
		u.Operations = append(u.Operations, o)
	}
	return proto.MarshalOptions{Deterministic: true}.Marshal(p)
}
