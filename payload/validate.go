package payload

import (
	"cmp"
	"crypto/sha256"
	"regexp"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/payload/updatemetadata"
)

var (
	nameSyntax    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	versionSyntax = regexp.MustCompile(`^[0-9A-Za-z][0-9A-Za-z.~^-]{0,63}$`) // no '+' and no '_': both mean something in file names and labels
)

// parseManifest reads a manifest and checks all that can be checked without the blobs. Its signature must have been checked before.
func parseManifest(h Header, b []byte) (*Manifest, error) {
	var p updatemetadata.DeltaArchiveManifest
	if err := proto.Unmarshal(b, &p); err != nil {
		return nil, refuse(BadManifest, "manifest: %w", err)
	}
	if p.BlockSize == nil || p.GetBlockSize() != BlockSize {
		return nil, refuse(BadManifest, "manifest: block size %d, only %d is supported", p.GetBlockSize(), BlockSize)
	}
	if v := p.GetMinorVersion(); v != 0 {
		return nil, refuse(UnknownOperation, "manifest: minor version %d, only 0 (a full payload) is supported", v)
	}
	m := &Manifest{MetadataSize: h.MetadataSize()}
	if p.MaxTimestamp != nil {
		m.Timestamp = time.Unix(p.GetMaxTimestamp(), 0).UTC()
	}
	var err error
	if m.Image, err = parseImage(p.GetImage()); err != nil {
		return nil, err
	}
	if n := len(p.GetPartitions()); n == 0 || n > maxPartitions {
		return nil, refuse(BadManifest, "manifest: %d partitions, allowed are 1 to %d", n, maxPartitions)
	}
	for _, u := range p.GetPartitions() {
		if err := m.addPartition(u); err != nil {
			return nil, err
		}
	}
	switch size := p.GetSignaturesSize(); {
	case size == 0:
		return nil, refuse(Unsigned, "manifest: the payload has no signature at its end")
	case size > MaxSignaturesSize:
		return nil, refuse(BadManifest, "manifest: the payload signature has %d bytes, allowed are %d", size, MaxSignaturesSize)
	case p.SignaturesOffset == nil || p.GetSignaturesOffset() != uint64(m.DataSize):
		return nil, refuse(BadManifest, "manifest: the payload signature is at %d, but the blobs end at %d", p.GetSignaturesOffset(), m.DataSize)
	default:
		m.Size = m.MetadataSize + m.DataSize + int64(size)
	}
	return m, nil
}

func parseImage(p *updatemetadata.Image) (Image, error) {
	m := Image{
		ID: p.GetId(), Version: p.GetVersion(), Epoch: p.GetEpoch(),
		MinVersion: p.GetMinVersion(), Architecture: p.GetArchitecture(),
	}
	return m, m.check()
}

func (m Image) check() error {
	switch {
	case !nameSyntax.MatchString(m.ID):
		return refuse(BadManifest, "manifest: image id %q is not of the form %s", m.ID, nameSyntax)
	case !versionSyntax.MatchString(m.Version):
		return refuse(BadManifest, "manifest: version %q is not of the form %s", m.Version, versionSyntax)
	case m.MinVersion != "" && !versionSyntax.MatchString(m.MinVersion):
		return refuse(BadManifest, "manifest: oldest version %q is not of the form %s", m.MinVersion, versionSyntax)
	case !nameSyntax.MatchString(m.Architecture):
		return refuse(BadManifest, "manifest: architecture %q is not of the form %s", m.Architecture, nameSyntax)
	}
	return nil
}

// addPartition appends a partition and its operations.
func (m *Manifest) addPartition(u *updatemetadata.PartitionUpdate) error {
	part := PartitionInfo{Name: u.GetPartitionName(), Operations: len(u.GetOperations())}
	if !nameSyntax.MatchString(part.Name) {
		return refuse(BadManifest, "manifest: partition name %q is not of the form %s", part.Name, nameSyntax)
	}
	if m.Partition(part.Name) != nil {
		return refuse(BadManifest, "manifest: partition %q is there twice", part.Name)
	}
	info := u.GetNewPartitionInfo()
	if info.GetSize() == 0 || info.GetSize() > MaxPartitionSize {
		return refuse(BadManifest, "manifest: partition %q has %d bytes, allowed are 1 to %d", part.Name, info.GetSize(), int64(MaxPartitionSize))
	}
	part.Size = int64(info.GetSize())
	if len(info.GetHash()) != sha256.Size {
		return refuse(BadManifest, "manifest: partition %q: the SHA-256 has %d bytes", part.Name, len(info.GetHash()))
	}
	part.SHA256 = [sha256.Size]byte(info.GetHash())
	if u.OldPartitionInfo != nil {
		return refuse(BadManifest, "manifest: partition %q of a full payload has an old partition", part.Name)
	}
	if u.Verity != nil {
		v, err := parseVerity(part, u.GetVerity())
		if err != nil {
			return err
		}
		part.Verity = v
	}
	if len(m.operations)+part.Operations > maxOperations {
		return refuse(BadManifest, "manifest: more than %d operations", maxOperations)
	}
	var all []extent
	start := m.DataSize
	for i, o := range u.GetOperations() {
		op, err := m.parseOperation(&part, i, o)
		if err != nil {
			return err
		}
		all = append(all, op.dst...)
		if len(all) > maxExtents {
			return refuse(BadManifest, "manifest: partition %q has more than %d extents", part.Name, maxExtents)
		}
		op.partition = len(m.Partitions)
		m.operations = append(m.operations, op)
		m.DataSize += op.length
	}
	part.DataSize = m.DataSize - start
	m.Partitions = append(m.Partitions, part)
	return checkCoverage(&part, all)
}

func parseVerity(part PartitionInfo, p *updatemetadata.Verity) (*Verity, error) {
	switch {
	case p.GetAlgorithm() != "sha256" || p.GetDataBlockSize() != BlockSize || p.GetHashBlockSize() != BlockSize || p.GetHashType() != 1:
		return nil, refuse(BadManifest, "manifest: partition %q: dm-verity with %q, blocks of %d and %d, type %d; only \"sha256\", %d, %d and 1 are supported", part.Name,
			p.GetAlgorithm(), p.GetDataBlockSize(), p.GetHashBlockSize(), p.GetHashType(), BlockSize, BlockSize)
	case len(p.GetRootHash()) != sha256.Size:
		return nil, refuse(BadManifest, "manifest: partition %q: the root hash has %d bytes", part.Name, len(p.GetRootHash()))
	case len(p.GetSuperblockUuid()) != 16:
		return nil, refuse(BadManifest, "manifest: partition %q: the superblock's UUID has %d bytes", part.Name, len(p.GetSuperblockUuid()))
	}
	v := &Verity{
		RootHash:   verity.RootHash(p.GetRootHash()),
		Superblock: verity.Superblock{UUID: [16]byte(p.GetSuperblockUuid()), DataBlocks: p.GetDataBlocks(), Salt: p.GetSalt()},
	}
	return v, v.check(part.Name, part.Size)
}

func (v *Verity) check(name string, size int64) error {
	sb := v.Superblock
	if len(sb.Salt) > 256 {
		return refuse(BadManifest, "manifest: partition %q: the dm-verity salt has %d bytes, allowed are 256", name, len(sb.Salt))
	}
	if size%BlockSize != 0 || sb.DataBlocks != uint64(size/BlockSize) {
		return refuse(BadManifest, "manifest: partition %q: dm-verity covers %d blocks of %d bytes, the partition has %d bytes", name, sb.DataBlocks, BlockSize, size)
	}
	return nil
}

func (m *Manifest) parseOperation(part *PartitionInfo, i int, o *updatemetadata.InstallOperation) (operation, error) {
	bad := func(r Reason, format string, args ...any) (operation, error) {
		return operation{}, refuse(r, "manifest: partition %q, operation %d: "+format, append([]any{part.Name, i}, args...)...)
	}
	op := operation{kind: o.GetType(), offset: m.DataSize}
	if o.Type == nil || op.kind != opReplace && op.kind != opZstd && op.kind != opZero {
		return bad(UnknownOperation, "type %s (%d) is not known here", op.kind, int32(op.kind))
	}
	if len(o.GetSrcExtents()) != 0 || len(o.GetSrcSha256Hash()) != 0 {
		return bad(BadManifest, "type %s has a source", op.kind)
	}
	if len(o.GetDstExtents()) == 0 {
		return bad(BadManifest, "it has no destination")
	}
	for _, e := range o.GetDstExtents() {
		ext, ok := clip(e, part.Size)
		if !ok {
			return bad(BadManifest, "extent of %d blocks at block %d is not within the partition's %d bytes", e.GetNumBlocks(), e.GetStartBlock(), part.Size)
		}
		op.dst = append(op.dst, ext)
		op.size += ext.size
		if op.size > part.Size {
			return bad(BadManifest, "it writes more than the partition's %d bytes", part.Size)
		}
	}
	if op.kind == opZero {
		if o.GetDataLength() != 0 || o.GetDataOffset() != 0 || len(o.GetDataSha256Hash()) != 0 {
			return bad(BadManifest, "type %s has a blob", op.kind)
		}
		return op, nil
	}
	switch length := o.GetDataLength(); {
	case length == 0 || length > MaxOperationSize:
		return bad(BadManifest, "a blob of %d bytes, allowed are 1 to %d", length, MaxOperationSize)
	case op.size > MaxOperationSize:
		return bad(BadManifest, "it writes %d bytes, allowed are %d", op.size, MaxOperationSize)
	case op.kind == opReplace && int64(length) != op.size:
		return bad(BadManifest, "a blob of %d bytes for %d bytes of the partition", length, op.size)
	case o.DataOffset == nil || o.GetDataOffset() != uint64(m.DataSize):
		return bad(BadManifest, "its blob is at %d, the blob before it ends at %d", o.GetDataOffset(), m.DataSize)
	case len(o.GetDataSha256Hash()) == 0:
		return bad(NoOperationHash, "its blob has no SHA-256")
	case len(o.GetDataSha256Hash()) != sha256.Size:
		return bad(BadManifest, "its blob's SHA-256 has %d bytes", len(o.GetDataSha256Hash()))
	default:
		op.length, op.sum = int64(length), [sha256.Size]byte(o.GetDataSha256Hash())
		return op, nil
	}
}

// clip turns an extent of blocks into bytes. It may reach past size within its last block, since a partition need not end with a whole one.
func clip(e *updatemetadata.Extent, size int64) (extent, bool) {
	blocks := uint64((size + BlockSize - 1) / BlockSize)
	start, n := e.GetStartBlock(), e.GetNumBlocks()
	if n == 0 || start >= blocks || n > blocks-start {
		return extent{}, false
	}
	from := int64(start) * BlockSize
	return extent{from, min(int64(n)*BlockSize, size-from)}, true
}

// checkCoverage makes sure that the extents, in whatever order, write every byte of the partition exactly once.
func checkCoverage(part *PartitionInfo, all []extent) error {
	slices.SortFunc(all, func(a, b extent) int { return cmp.Compare(a.start, b.start) })
	var end int64
	for _, e := range all {
		if e.start < end {
			return refuse(BadManifest, "manifest: partition %q: block %d is written twice", part.Name, e.start/BlockSize)
		}
		if e.start > end {
			return refuse(BadManifest, "manifest: partition %q: block %d is not written", part.Name, end/BlockSize)
		}
		end = e.start + e.size
	}
	if end != part.Size {
		return refuse(BadManifest, "manifest: partition %q: block %d is not written", part.Name, end/BlockSize)
	}
	return nil
}
