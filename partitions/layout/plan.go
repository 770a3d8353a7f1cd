package layout

import (
	"fmt"
	"slices"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/verity"
)

const (
	mib          = 1 << 20
	alignSectors = mib / gpt.SectorSize
	sigSize      = mib     // 64 KiB would do; a partition starts at a multiple of 1 MiB anyway
	maxPartSize  = 1 << 42 // of root or ESP, so that sums stay far from overflowing
)

// Part is one partition of a plan.
type Part struct {
	Number     int
	Label      string // the plan's name for it: "bios", "esp", "root-a", "verity-a", "verity-sig-a", "root-b", …
	Type       gpt.GUID
	First      uint64 // sector
	Last       uint64 // sector, inclusive
	Attributes uint64
}

// Offset returns the start in bytes.
func (p Part) Offset() int64 { return int64(p.First) * gpt.SectorSize }

// Size returns the length in bytes.
func (p Part) Size() int64 { return int64(p.Last-p.First+1) * gpt.SectorSize }

// Plan is the layout of a released disk, which has no /var yet.
type Plan struct {
	Arch     string
	Parts    []Part // in the order of their numbers
	DiskSize int64  // bytes, a multiple of 1 MiB
}

// NewPlan lays out a disk for root file systems of up to slotSize bytes. Both sizes are multiples of 1 MiB, up to 4 TiB;
// arch is a row of gpt.Archs.
func NewPlan(slotSize, espSize int64, arch string) (Plan, error) {
	types, ok := gpt.TypesOf(arch)
	if !ok {
		return Plan{}, fault.New(fault.Input, "disk layout: unknown architecture %q", arch)
	}
	for _, s := range []struct {
		name string
		size int64
	}{{"slot", slotSize}, {"ESP", espSize}} {
		if s.size <= 0 || s.size > maxPartSize || s.size%mib != 0 {
			return Plan{}, fault.New(fault.Input, "disk layout: %s size of %d bytes: want a multiple of 1 MiB, up to 4 TiB", s.name, s.size)
		}
	}
	hashSize := (verity.HashAreaSize(uint64(slotSize/verity.BlockSize)) + mib - 1) / mib * mib

	p := Plan{Arch: arch, Parts: []Part{{Number: 1, Label: LabelBIOS, Type: gpt.TypeBIOSBoot, First: 34, Last: alignSectors - 1}}}
	next := uint64(alignSectors)
	add := func(label string, kind gpt.GUID, size int64, attributes uint64) {
		last := next + uint64(size)/gpt.SectorSize - 1
		p.Parts = append(p.Parts, Part{Number: len(p.Parts) + 1, Label: label, Type: kind, First: next, Last: last, Attributes: attributes})
		next = last + 1
	}
	add(LabelESP, gpt.TypeESP, espSize, 0)
	for _, slot := range []string{"a", "b"} {
		add("root-"+slot, types.Root, slotSize, gpt.AttrReadOnly)
		add("verity-"+slot, types.RootVerity, hashSize, gpt.AttrReadOnly)
		add("verity-sig-"+slot, types.RootVeritySig, sigSize, gpt.AttrReadOnly)
	}
	p.DiskSize = int64(next)*gpt.SectorSize + mib // the last MiB is for the backup table
	return p, nil
}

// Part returns the partition with a plan's name. It panics if there is none: names are written in code.
func (p Plan) Part(label string) Part {
	i := slices.IndexFunc(p.Parts, func(q Part) bool { return q.Label == label })
	if i < 0 {
		panic(fmt.Sprintf("layout: no partition %q in the plan", label))
	}
	return p.Parts[i]
}

// NewTable returns the partition table of a released disk: slot A holds a version, slot B is empty. The function guid gives
// the GUIDs of "disk", "bios" and "esp"; all others follow from them and from the root hash.
func NewTable(p Plan, version string, rootHash [32]byte, guid func(label string) [16]byte) (*gpt.Table, error) {
	if err := CheckVersion(version); err != nil {
		return nil, fmt.Errorf("disk layout: %w", err)
	}
	t, err := gpt.New(guid("disk"), p.DiskSize)
	if err != nil {
		return nil, fmt.Errorf("disk layout: %w", err)
	}
	for _, part := range p.Parts {
		t.Partitions = append(t.Partitions, gpt.Partition{Type: part.Type, First: part.First, Last: part.Last, Attributes: part.Attributes, Name: part.Label})
	}
	for _, part := range []Part{p.Part(LabelBIOS), p.Part(LabelESP)} {
		t.Partitions[part.Number-1].GUID = guid(part.Label)
	}
	slots, err := Slots(t)
	if err != nil {
		return nil, fmt.Errorf("disk layout: %w", err)
	}
	slots[0].complete(t, version, rootHash)
	slots[1].release(t, LabelEmpty)
	if err := t.Check(); err != nil {
		return nil, fmt.Errorf("disk layout: %w", err)
	}
	return t, nil
}
