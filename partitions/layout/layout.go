// Package layout knows Semper's disk: which partitions there are, and which of them are the slots of the system.
//
// The disk has a GPT and sectors of 512 bytes. Partitions start at multiples of 1 MiB, but for the first:
//
//	number  plan's name    label                 holds
//	1       bios           bios                  room for a BIOS boot loader, sectors 34 to 2047
//	2       esp            esp                   EFI system partition, FAT32
//	3       root-a         semper_<version>      slot A: root file system
//	4       verity-a       the same              dm-verity superblock and tree, with room for a full slot
//	5       verity-sig-a   the same              signature of the root hash, 1 MiB
//	6, 7, 8 root-b …       the same or _empty    slot B
//	9                      var                   /var, made at first boot on all the room that is left
//
// The labels of a slot tell its state: "_empty", "PRT#semper_<version>" while it is being written, "semper_<version>" once it
// is complete. Types and the PARTUUIDs of root and verity follow the UAPI Discoverable Partitions Specification: they are the
// two halves of the root hash, so that a kernel command line with roothash= finds its slot on any disk.
// The other PARTUUIDs of slots are custom (version 8) UUIDs: that of a signature is derived from the root hash, those of a
// slot without a root hash from the disk's GUID and the partition's number.
//
// Everything here edits a gpt.Table in memory; (*gpt.Table).Write makes it durable.
package layout

import (
	"crypto/sha256"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/partitions/gpt"
)

// Labels of partitions.
const (
	LabelBIOS       = "bios"
	LabelESP        = "esp"
	LabelEmpty      = "_empty"
	LabelVar        = "var"
	LabelVarPartial = "PRT#var" // made, its file system not yet

	imageName     = "semper"
	prefixSlot    = imageName + "_"
	prefixPartial = "PRT#" + prefixSlot
)

// MaxVersion is the most characters of a version: what a label of 36 leaves behind "PRT#semper_".
const MaxVersion = gpt.NameUnits - len(prefixPartial)

// CheckVersion reports why a version cannot name a slot and a boot entry: see bootentry.CheckVersion, and it has at most
// MaxVersion characters.
func CheckVersion(version string) error {
	if err := bootentry.CheckVersion(version); err != nil {
		return err
	}
	if len(version) > MaxVersion {
		return fault.New(fault.Input, "version %q: at most %d characters fit into a partition label", version, MaxVersion)
	}
	return nil
}

// PartUUIDs returns the PARTUUIDs of the root and the verity partition that a root hash names.
func PartUUIDs(rootHash [32]byte) (root, verity gpt.GUID) {
	return gpt.GUID(rootHash[:16]), gpt.GUID(rootHash[16:])
}

// SigUUID returns the PARTUUID of the signature partition for a root hash.
func SigUUID(rootHash [32]byte) gpt.GUID {
	return derive("semper verity-sig", rootHash[:])
}

// emptyUUID returns the PARTUUID of a slot's partition while no root hash belongs to it.
func emptyUUID(disk gpt.GUID, number int) gpt.GUID {
	return derive("semper empty slot", append(disk[:], byte(number)))
}

func derive(what string, from []byte) gpt.GUID {
	sum := sha256.Sum256(append([]byte(what+"\x00"), from...))
	g := gpt.GUID(sum[:16])
	g[6] = g[6]&0x0f | 0x80
	g[8] = g[8]&0x3f | 0x80
	return g
}
