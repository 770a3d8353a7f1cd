package image

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/semper-os/semper/builder/arch"
	"github.com/semper-os/semper/builder/seed"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/fat"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/verity"
)

// loaderConf is systemd-boot's configuration: boot at once, and let nobody at the console edit a signed command line.
const loaderConf = "timeout 0\nconsole-mode keep\neditor no\n"

// disk is everything that a released disk holds.
type disk struct {
	arch      arch.Arch
	version   string
	rootHash  verity.RootHash
	slotSize  int64
	espSize   int64
	seed      seed.Seed
	epoch     time.Time
	bootName  string // of the UKI below /EFI/Linux
	uki       []byte
	sdBoot    []byte // signed
	signature []byte // of the root hash, as the -verity-sig partition holds it
	root      *os.File
	verity    *os.File
}

// write makes the whole disk, sparse, in the new file f.
func (d disk) write(f *os.File) error {
	plan, err := layout.NewPlan(d.slotSize, d.espSize, d.arch.Debian)
	if err != nil {
		return fmt.Errorf("disk: %w", err)
	}
	if err := f.Truncate(plan.DiskSize); err != nil {
		return fault.New(fault.IO, "disk: %w", err)
	}
	table, err := layout.NewTable(plan, d.version, d.rootHash, func(label string) [16]byte { return d.seed.UUID("partition-" + label) })
	if err != nil {
		return fmt.Errorf("disk: partition table: %w", err)
	}
	if err := table.Write(f); err != nil {
		return fmt.Errorf("disk: partition table: %w", err)
	}
	if err := d.writeESP(io.NewOffsetWriter(f, plan.Part("esp").Offset()), plan.Part("esp")); err != nil {
		return fmt.Errorf("disk: esp: %w", err)
	}
	for _, p := range []struct {
		label string
		from  *os.File
	}{{"root-a", d.root}, {"verity-a", d.verity}} {
		if err := copyInto(f, plan.Part(p.label), p.from); err != nil {
			return fmt.Errorf("disk: %s: %w", p.label, err)
		}
	}
	sig := plan.Part("verity-sig-a")
	if int64(len(d.signature)) > sig.Size() {
		return fault.New(fault.Internal, "disk: a signature of %d bytes in a partition of %d", len(d.signature), sig.Size())
	}
	if _, err := f.WriteAt(d.signature, sig.Offset()); err != nil {
		return fault.New(fault.IO, "disk: signature: %w", err)
	}
	return nil
}

func (d disk) writeESP(w io.WriterAt, part layout.Part) error {
	volume := d.seed.Bytes("esp-volume")
	file := func(path string, b []byte) fat.File {
		return fat.File{Path: path, Size: int64(len(b)), Data: bytes.NewReader(b)}
	}
	return fat.Write(w, fat.Params{
		Size: part.Size(), VolumeID: binary.LittleEndian.Uint32(volume[:]), Label: "ESP", Time: d.epoch, HiddenSectors: uint32(part.First),
		Files: []fat.File{
			file("EFI/BOOT/"+d.arch.EFIBoot, d.sdBoot),
			file("EFI/systemd/"+d.arch.SDBoot, d.sdBoot),
			file("EFI/Linux/"+d.bootName, d.uki),
			file("loader/loader.conf", []byte(loaderConf)),
		},
	})
}

// copyInto copies a whole file to the start of a partition. The kernel copies within a file system where it can.
func copyInto(disk *os.File, part layout.Part, from *os.File) error {
	info, err := from.Stat()
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if info.Size() > part.Size() {
		return fault.New(fault.Input, "%d bytes do not fit into a partition of %d", info.Size(), part.Size())
	}
	if _, err := from.Seek(0, io.SeekStart); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if _, err := disk.Seek(part.Offset(), io.SeekStart); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	n, err := io.Copy(disk, from)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if n != info.Size() {
		return fault.New(fault.IO, "copied %d of %d bytes", n, info.Size())
	}
	return nil
}
