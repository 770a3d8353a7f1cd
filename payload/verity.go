package payload

import (
	"io"

	"github.com/semper-os/semper/partitions/verity"
)

// WriteVerity computes the dm-verity superblock and hash tree of a partition that was applied, as the manifest asks, writes them to w, and makes sure
// that the root hash is the manifest's. It is an error for a partition that dm-verity does not protect. The caller flushes w.
func (p *PartitionInfo) WriteVerity(data io.ReaderAt, w io.WriterAt) error {
	if p.Verity == nil {
		return refuse(VerityMismatch, "partition %q: the payload has no root hash for it", p.Name)
	}
	sb := p.Verity.Superblock
	res, err := verity.Format(data, p.Size, w, verity.Params{UUID: sb.UUID, Salt: sb.Salt})
	if err != nil {
		return refuse(WriteFailed, "partition %q: compute the dm-verity tree: %w", p.Name, err)
	}
	if res.RootHash != p.Verity.RootHash {
		return refuse(VerityMismatch, "partition %q: the dm-verity root hash of what was written is %s, the manifest says %s", p.Name, res.RootHash, p.Verity.RootHash)
	}
	return nil
}
