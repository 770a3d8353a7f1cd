// Package payload writes, checks and applies update payloads: one signed file that turns an idle slot into a new version.
//
// The format is CrAU major version 2, as the Android Open Source Project's update_engine defines it, with Semper's own fields and one
// operation type of its own in the private range of the protobuf messages (package updatemetadata). Integers are big endian:
//
//	offset        size  field
//	0             4     magic "CrAU"
//	4             8     major version = 2
//	12            8     M, the manifest's size
//	20            4     S, the metadata signature's size
//	24            M     manifest: protobuf DeltaArchiveManifest
//	24+M          S     metadata signature: protobuf Signatures over SHA-256 of bytes 0 to 24+M
//	24+M+S        D     blobs of the operations, in the order of the operations, without gaps
//	24+M+S+D      P     payload signature: protobuf Signatures over SHA-256 of bytes 0 to 24+M and 24+M+S to 24+M+S+D
//
// D and P are in the manifest (signatures_offset, signatures_size), so the manifest says where the file ends; nothing may follow.
//
// # Contents
//
// A full payload (minor version 0, the only one so far) has for each partition operations that write every block exactly once: ZERO (no blob),
// REPLACE (the blob is the data) and REPLACE_ZSTD (Semper's type 1000: Zstandard frames). Blocks have 4096 bytes. A partition's size need not be a multiple
// of that: the last operation then holds only the bytes up to its size. The dm-verity tree of a partition is not shipped; the manifest has all
// that it takes to compute the same bytes on the host.
//
// # Order of belief
//
// The metadata signature is checked before the manifest is parsed, the manifest's meaning before anything is written, each blob's SHA-256
// before it is decoded, the payload signature at the end, and last each partition, read back, against its dm-verity root hash or, without one, its SHA-256. Signatures must come from
// Trust.Threshold different trusted keys: RSA of 4096 bits (PKCS#1 v1.5 with SHA-256) or ECDSA on P-256.
// Not knowing something (a key, an operation, a partition, a minor version) is a reason to refuse, with nothing written; unknown protobuf
// fields alone are not, so whatever an older reader must not ignore has to raise the minor version or use a new operation type.
//
// # Limits
//
// Manifest 16 MiB, each signature message 64 KiB with 16 signatures, 16 partitions, 2^20 operations, 8 MiB for an operation's blob and for what it
// decodes to (ZERO excepted). Applying needs memory for the manifest, one blob and what two operations decode to, each of the largest size in that payload.
package payload

// The format's constants and limits, in bytes unless the name says otherwise.
const (
	Magic        = "CrAU"
	MajorVersion = 2
	HeaderSize   = 24
	BlockSize    = 4096

	MaxManifestSize   = 16 << 20
	MaxSignaturesSize = 64 << 10
	MaxOperationSize  = 8 << 20
	MaxPartitionSize  = 1 << 40

	maxSignatures = 16
	maxPartitions = 16
	maxOperations = 1 << 20
	maxExtents    = 1 << 20
)
