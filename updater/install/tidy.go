package install

import (
	"fmt"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/updater/durable"
)

// partialLabel begins the label of a slot that is being written, see package layout.
const partialLabel = "PRT#semper_"

// tidy removes what an attempt left that cannot be resumed: the new kernel's temporary name on the ESP, a kernel in the state folder that no checkpoint
// speaks of, half-written state files, and the label of a slot that nobody goes on writing. The mutex is held and no session is open. Once a process is
// enough: it is done at its first status or begin.
func (c *Core) tidy(s *Storage) error {
	if c.tidied {
		return nil
	}
	if err := tidyESP(s.ESP); err != nil {
		return err
	}
	names, err := s.State.Names()
	if err != nil {
		return fault.New(fault.IO, "list the state folder: %w", err)
	}
	var gone []string
	for _, name := range names {
		if strings.HasSuffix(name, ".new") { // see package durable
			gone = append(gone, name)
		}
	}
	resumable := loadCheckpoint(s.State) != nil && slices.Contains(names, ukiFile)
	if !resumable {
		for _, name := range []string{checkpointFile, ukiFile} {
			if slices.Contains(names, name) {
				gone = append(gone, name)
			}
		}
	}
	if err := removeFiles(s.State, gone...); err != nil {
		return err
	}
	if !resumable {
		if err := c.tidySlot(s); err != nil {
			return err
		}
	}
	if len(gone) > 0 {
		c.o.Log.Info("remains of an installation removed", "files", gone)
	}
	c.tidied = true
	return nil
}

func tidyESP(esp durable.Folder) error {
	names, err := esp.Names()
	if err != nil {
		return fault.New(fault.IO, "list the boot entries: %w", err)
	}
	if slices.Contains(names, tempUKI) {
		return removeFiles(esp, tempUKI)
	}
	return nil
}

// tidySlot empties a slot that was being written. Labels that are not ours are somebody's own doing, and left to the next installation.
func (c *Core) tidySlot(s *Storage) error {
	table, _, idle, err := c.slots(s)
	if err != nil {
		return err
	}
	if idle.State != layout.Writing || !strings.HasPrefix(table.Partitions[idle.Root-1].Name, partialLabel) {
		return nil
	}
	if err := layout.MarkEmpty(table, idle.Name, c.o.Machine.RootHash); err != nil {
		return fmt.Errorf("label slot %s: %w", idle.Name, err)
	}
	if err := writeTable(s, table); err != nil {
		return err
	}
	c.o.Log.Info("a slot that was given up is empty", "slot", idle.Name, "version", idle.Version)
	return nil
}
