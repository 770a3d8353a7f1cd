package layout

import (
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
)

// MinVar is the least room for /var, in bytes, that AddVar accepts.
const MinVar = 64 * mib

// Var finds the partition of /var: its number, 0 if there is none, and whether its file system was made.
func Var(t *gpt.Table) (number int, ready bool, err error) {
	switch numbers := numbersOf(t, gpt.TypeVar); len(numbers) {
	case 0:
		return 0, false, nil
	case 1:
		number = numbers[0]
	default:
		return 0, false, fault.New(fault.Input, "/var: partitions %d and %d both have its type", numbers[0], numbers[1])
	}
	switch label := t.Partitions[number-1].Name; label {
	case LabelVar:
		return number, true, nil
	case LabelVarPartial:
		return number, false, nil
	default:
		return 0, false, fault.New(fault.Input, "/var: partition %d has its type, but the label %q", number, label)
	}
}

// AddVar adds the partition of /var, labelled PRT#var, on all the room up to the end of a disk of diskSize bytes, and moves
// the backup table there. VarReady follows once it holds a file system.
func AddVar(t *gpt.Table, guid gpt.GUID, diskSize int64) (number int, err error) {
	if number, _, err := Var(t); err != nil || number != 0 {
		if err == nil {
			err = fault.New(fault.Input, "/var: the disk has it already, as partition %d", number)
		}
		return 0, err
	}
	edited := *t
	if err := edited.Resize(diskSize); err != nil {
		return 0, err
	}
	number, err = edited.Append(gpt.Partition{Type: gpt.TypeVar, GUID: guid, Name: LabelVarPartial}, 0, alignSectors)
	if err != nil {
		return 0, fault.New(fault.Input, "/var: %w; make the disk larger, at least %d MiB more", err, MinVar/mib)
	}
	if size := edited.Partitions[number-1].Size(); size < MinVar {
		return 0, fault.New(fault.Input, "/var: the disk has only %d KiB left for it; make the disk larger, /var needs at least %d MiB", size>>10, MinVar/mib)
	}
	*t = edited
	return number, nil
}

// VarReady renames PRT#var to var. It is no error if that was done before.
func VarReady(t *gpt.Table) error {
	number, _, err := Var(t)
	if err != nil {
		return err
	}
	if number == 0 {
		return fault.New(fault.Input, "/var: the disk has no partition for it")
	}
	t.Partitions[number-1].Name = LabelVar
	return nil
}

// GrowVar lets the partition of /var reach to the end of a disk of diskSize bytes, and moves the backup table there. It
// returns false, and changes nothing, where there is less than 1 MiB to win.
func GrowVar(t *gpt.Table, diskSize int64) (grown bool, err error) {
	number, _, err := Var(t)
	if err != nil {
		return false, err
	}
	if number == 0 {
		return false, fault.New(fault.Input, "/var: the disk has no partition for it")
	}
	edited := *t
	if err := edited.Resize(diskSize); err != nil {
		return false, err
	}
	for i, p := range edited.Partitions {
		if p.Used() && p.First > edited.Partitions[number-1].Last {
			return false, fault.New(fault.Input, "/var: cannot grow, partition %d (%q) is behind it", i+1, p.Name)
		}
	}
	last := (edited.LastUsable()+1)/alignSectors*alignSectors - 1
	if last <= t.Partitions[number-1].Last {
		return false, nil
	}
	t.BackupLBA = edited.BackupLBA
	t.Partitions[number-1].Last = last
	return true, nil
}
