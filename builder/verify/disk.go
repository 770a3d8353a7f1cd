package verify

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	diskfs "github.com/diskfs/go-diskfs/partition/gpt"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/rootsig"
	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/progress"
)

// disk checks a whole disk. What cannot be looked at because an earlier check failed is left out: that one failed, so the report has failed.
func (i *inspector) disk(path string) {
	var f *os.File
	var size int64
	if !i.check("disk", func() (string, error) {
		var err error
		if f, err = os.Open(path); err != nil {
			return "", fault.New(fault.IO, "%w", err)
		}
		if size, err = f.Seek(0, io.SeekEnd); err != nil { // a block device says its size in no other way
			return "", fault.New(fault.IO, "%w", err)
		}
		return progress.Size(size), nil
	}) {
		if f != nil {
			f.Close()
		}
		return
	}
	defer f.Close()

	table, slots, ok := i.partitionTable(f, size)
	if !ok {
		return
	}
	var kernels []kernelImage
	espPart, _ := espOf(table)
	if e := i.checkESP(f, espPart); e != nil {
		kernels = i.programs(e, table)
		if i.from != nil {
			i.sameUKI(e, kernels)
		}
	}
	for _, slot := range slots {
		i.slot(f, table, slot, kernels)
	}
}

// partitionTable reads the table twice, by our own reader and by go-diskfs, and compares it with the layout.
func (i *inspector) partitionTable(f *os.File, size int64) (table *gpt.Table, slots [2]layout.Slot, ok bool) {
	if !i.check("partition table", func() (string, error) {
		var found gpt.Found
		var err error
		if table, found, err = gpt.Read(f, size); err != nil {
			return "", err
		}
		if found.Used != gpt.Both || found.Damage != nil {
			return "", fault.New(fault.Verification, "only the %s copy is good: %w", found.Used, damage(found.Damage))
		}
		if found.Grown {
			return "", fault.New(fault.Verification, "the disk goes on behind the backup table")
		}
		return fmt.Sprintf("both copies and the protective MBR are good, disk %s, %s", table.DiskGUID, plural(used(table), "partition")), nil
	}) {
		return nil, slots, false
	}
	i.check("partition table by go-diskfs", func() (string, error) { return secondOpinion(f, size, table) })
	ok = i.check("disk layout", func() (string, error) {
		var err error
		if slots, err = layout.Slots(table); err != nil {
			return "", err
		}
		return i.checkLayout(table, slots, size)
	})
	return table, slots, ok
}

func damage(err error) error {
	if err == nil {
		return errors.New("the other one is missing")
	}
	return err
}

func used(t *gpt.Table) int {
	n := 0
	for _, p := range t.Partitions {
		if p.Used() {
			n++
		}
	}
	return n
}

// secondOpinion compares what go-diskfs reads with what we read.
func secondOpinion(f *os.File, size int64, table *gpt.Table) (string, error) {
	storage := file.New(f, true)
	theirs, err := diskfs.Read(storage, gpt.SectorSize, gpt.SectorSize)
	if err != nil {
		return "", fault.New(fault.Verification, "%w", err)
	}
	if err := theirs.Verify(storage, uint64(size)); err != nil {
		return "", fault.New(fault.Verification, "%w", err)
	}
	if theirs.RecoveredFromBackup || !theirs.ProtectiveMBR || !strings.EqualFold(theirs.GUID, table.DiskGUID.String()) {
		return "", fault.New(fault.Verification, "it sees disk %s, protective MBR %v, from the backup %v; we see disk %s",
			theirs.GUID, theirs.ProtectiveMBR, theirs.RecoveredFromBackup, table.DiskGUID)
	}
	compared := 0
	for _, p := range theirs.Partitions {
		if p.Type == diskfs.Unused {
			continue
		}
		if p.Index < 1 || p.Index > len(table.Partitions) {
			return "", fault.New(fault.Verification, "it sees a partition %d, we do not", p.Index)
		}
		q := table.Partitions[p.Index-1]
		if !strings.EqualFold(string(p.Type), q.Type.String()) || !strings.EqualFold(p.GUID, q.GUID.String()) || p.Start != q.First || p.End != q.Last ||
			p.Name != q.Name || p.Attributes != q.Attributes {
			return "", fault.New(fault.Verification, "partition %d: it sees %s, PARTUUID %s, sectors %d to %d, %q, attributes %#x; we see %s, %s, %d to %d, %q, %#x", p.Index,
				p.Type, p.GUID, p.Start, p.End, p.Name, p.Attributes, q.Type, q.GUID, q.First, q.Last, q.Name, q.Attributes)
		}
		compared++
	}
	if compared != used(table) {
		return "", fault.New(fault.Verification, "it sees %d partitions, we see %d", compared, used(table))
	}
	return fmt.Sprintf("sees the same %s", plural(compared, "partition")), nil
}

func espOf(t *gpt.Table) (gpt.Partition, error) {
	var found []gpt.Partition
	for _, p := range t.Partitions {
		if p.Type == gpt.TypeESP {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return gpt.Partition{}, fault.New(fault.Verification, "%s of the type EFI system, not one", plural(len(found), "partition"))
	}
	return found[0], nil
}

// checkLayout compares the partitions with what the layout says for slots and an ESP of this size. Behind them only /var may follow, and only on the disk
// of a machine.
func (i *inspector) checkLayout(t *gpt.Table, slots [2]layout.Slot, size int64) (string, error) {
	espPart, err := espOf(t)
	if err != nil {
		return "", err
	}
	arch, err := archOf(t, slots[0])
	if err != nil {
		return "", err
	}
	plan, err := layout.NewPlan(t.Partitions[slots[0].Root-1].Size(), espPart.Size(), arch)
	if err != nil {
		return "", err
	}
	for _, want := range plan.Parts {
		if want.Number > len(t.Partitions) {
			return "", fault.New(fault.Verification, "partition %d (%s) is missing", want.Number, want.Label)
		}
		got := t.Partitions[want.Number-1]
		if got.Type != want.Type || got.First != want.First || got.Last != want.Last || got.Attributes != want.Attributes {
			return "", fault.New(fault.Verification, "partition %d (%s): sectors %d to %d, type %s, attributes %#x; expected %d to %d, %s, %#x", want.Number, want.Label,
				got.First, got.Last, got.Type, got.Attributes, want.First, want.Last, want.Type, want.Attributes)
		}
	}
	varNumber, _, err := layout.Var(t)
	if err != nil {
		return "", err
	}
	extra := used(t) - len(plan.Parts)
	if varNumber != 0 {
		extra--
	}
	if extra != 0 {
		return "", fault.New(fault.Verification, "%s more than the layout has", plural(extra, "partition"))
	}
	if i.from != nil && (varNumber != 0 || size != plan.DiskSize) {
		return "", fault.New(fault.Verification, "a released disk has no /var and %d bytes, this one has %d bytes and /var in partition %d", plan.DiskSize, size, varNumber)
	}
	detail := fmt.Sprintf("%s, ESP of %s, two slots of %s", arch, progress.Size(espPart.Size()), progress.Size(t.Partitions[slots[0].Root-1].Size()))
	if varNumber != 0 {
		detail += fmt.Sprintf(", /var of %s", progress.Size(t.Partitions[varNumber-1].Size()))
	}
	return detail, nil
}

func archOf(t *gpt.Table, s layout.Slot) (string, error) {
	for _, a := range gpt.Archs {
		if t.Partitions[s.Root-1].Type == a.Root {
			return a.Arch, nil
		}
	}
	return "", fault.New(fault.Verification, "partition %d has no known root type", s.Root)
}

func section(f *os.File, p gpt.Partition) *io.SectionReader {
	return io.NewSectionReader(f, p.Offset(), p.Size())
}

// slot checks one slot by what its labels say of it.
func (i *inspector) slot(f *os.File, t *gpt.Table, s layout.Slot, kernels []kernelImage) {
	name := "slot " + string(s.Name)
	switch s.State {
	case layout.Empty:
		i.check(name+" is empty", func() (string, error) { return i.emptySlot(f, t, s) })
		return
	case layout.Writing:
		i.check(name, func() (string, error) {
			return "", fault.New(fault.Verification, "labelled %q, %q and %q: it is being written, or that was interrupted", t.Partitions[s.Root-1].Name,
				t.Partitions[s.Verity-1].Name, t.Partitions[s.Sig-1].Name)
		})
		return
	}
	hash := verity.RootHash(s.RootHash)
	root, tree, sig := t.Partitions[s.Root-1], t.Partitions[s.Verity-1], t.Partitions[s.Sig-1]
	i.check(name, func() (string, error) {
		for _, k := range kernels {
			if k.rootHash == hash {
				if k.version != s.Version {
					return "", fault.New(fault.Verification, "labelled %s, but %s, which boots it, is of version %s", s.Version, k.path, k.version)
				}
				return fmt.Sprintf("version %s, started by %s, PARTUUIDs %s and %s", s.Version, k.path, root.GUID, tree.GUID), nil
			}
		}
		return "", fault.New(fault.Verification, "no kernel image on the ESP boots its root hash %s", hash)
	})
	verified := i.check("dm-verity of "+name, func() (string, error) {
		bar := progress.New(i.options.Terminal, "dm-verity of "+name, 0)
		defer bar.Done()
		sb, err := verity.VerifyAll(&counting{section(f, root), bar}, root.Size(), section(f, tree), tree.Size(), hash)
		if err != nil {
			return "", fault.Wrap(fault.Verification, err)
		}
		return fmt.Sprintf("all %d blocks (%s) give the root hash %s", sb.DataBlocks, progress.Size(int64(sb.DataBlocks)*verity.BlockSize), hash), nil
	})
	i.check("root hash signature of "+name, func() (string, error) { return signatureOf(f, sig, hash, kernels) })
	if i.from != nil && verified {
		i.sameSlot(f, root, tree, sig)
	}
}

// signatureOf checks the signature partition as the machine will: with the certificate in the initrd of the signed kernel image.
func signatureOf(f *os.File, p gpt.Partition, hash verity.RootHash, kernels []kernelImage) (string, error) {
	for _, k := range kernels {
		if k.rootHash != hash {
			continue
		}
		if k.verityCerts == nil {
			return "", fault.New(fault.Verification, "there is no trusted certificate for it: %s", k.path)
		}
		data := make([]byte, min(p.Size(), rootsig.MaxSize))
		if _, err := io.ReadFull(section(f, p), data); err != nil {
			return "", fault.New(fault.IO, "read it: %w", err)
		}
		cert, err := rootsig.Verify(data, hash, k.verityCerts)
		if err != nil {
			return "", fault.Wrap(fault.Verification, err)
		}
		return fmt.Sprintf("by %s, the certificate in the initrd of %s", cert.Subject, k.path), nil
	}
	return "", fault.New(fault.Verification, "no kernel image on the ESP, and so no certificate, belongs to it")
}

// emptySlot checks that nothing is left in a slot that has never been written. On a machine's disk, remains of an earlier version may be there.
func (i *inspector) emptySlot(f *os.File, t *gpt.Table, s layout.Slot) (string, error) {
	varNumber, _, err := layout.Var(t)
	if err != nil {
		return "", err
	}
	for _, number := range []int{s.Root, s.Verity, s.Sig} {
		p := t.Partitions[number-1]
		from, to := p.Offset(), p.Offset()+p.Size()
		at, err := firstNonZero(i.ctx, f, from, to)
		switch {
		case err != nil:
			return "", err
		case at != to && varNumber == 0:
			return "", fault.New(fault.Verification, "partition %d is labelled empty, but its byte %d is not zero", number, at-from)
		case at != to:
			return "labelled empty, with remains of an earlier version", nil
		}
	}
	return "all zeros", nil
}

// counting shows progress of a reader.
type counting struct {
	r   io.ReaderAt
	bar *progress.Bar
}

func (c *counting) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.r.ReadAt(p, off)
	c.bar.Add(int64(n))
	return n, err
}
