package install

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/updater/durable"
)

// tempUKI is the UKI's name on the ESP until it is whole. The boot loader looks at names that end in .efi only.
const tempUKI = "semper-update.part"

// Bounds of what is looked at on the ESP. A machine has two entries, three in the middle of an update.
const (
	maxNames   = 1000
	maxEntries = 50
)

// file is one UKI of this product on the ESP.
type file struct {
	name  string
	entry bootentry.Entry
	size  int64
	// rootHash is the one of the UKI's command line; all zero where the file is not a UKI that says one.
	rootHash [32]byte
}

func (f *file) boots(rootHash [32]byte) bool { return f.rootHash == rootHash }

// entries lists the UKIs of product id in the folder. Files of other names are somebody else's and never touched.
func entries(esp durable.Folder, id string) ([]file, error) {
	names, err := esp.Names()
	if err != nil {
		return nil, fault.New(fault.IO, "list the boot entries: %w", err)
	}
	if len(names) > maxNames {
		return nil, fault.New(fault.Input, "the ESP's folder of boot entries has %d files, at most %d are looked at: remove some", len(names), maxNames)
	}
	var all []file
	for _, name := range names {
		if !strings.HasPrefix(name, id+"_") {
			continue
		}
		entry, err := bootentry.Parse(name)
		if err != nil {
			continue // no boot entry, whatever it is
		}
		if len(all) == maxEntries {
			return nil, fault.New(fault.Input, "the ESP has more than %d boot entries of %s: remove some", maxEntries, id)
		}
		f := file{name: name, entry: entry}
		f.size, f.rootHash, err = identify(esp, name)
		if errors.Is(err, fs.ErrNotExist) {
			continue // renamed by bless or rollback this very moment
		}
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	return all, nil
}

// identify reads the root hash out of a UKI. A file that cannot be read is an error, one that can but makes no sense has no root hash.
func identify(esp durable.Folder, name string) (size int64, rootHash [32]byte, err error) {
	f, err := esp.Open(name)
	if err != nil {
		return 0, rootHash, fault.New(fault.IO, "boot entry %s: %w", name, err)
	}
	defer f.Close()
	if size, err = f.Size(); err != nil {
		return 0, rootHash, fault.New(fault.IO, "boot entry %s: %w", name, err)
	}
	image, err := uki.Open(f, size)
	if err == nil {
		rootHash, err = image.RootHash()
	}
	if err != nil && !fault.Is(err, fault.IO) {
		return size, [32]byte{}, nil
	}
	if err != nil {
		return 0, rootHash, fmt.Errorf("boot entry %s: %w", name, err)
	}
	return size, rootHash, nil
}

// runningEntries returns the entries whose UKI boots the running root: one, unless something went wrong.
func runningEntries(all []file, rootHash [32]byte) []file {
	var out []file
	for _, f := range all {
		if f.boots(rootHash) {
			out = append(out, f)
		}
	}
	return out
}

// onTrial reports whether the running version is not blessed: it has an entry with a counter and none without.
func onTrial(running []file) bool {
	for _, f := range running {
		if !f.entry.Counting {
			return false
		}
	}
	return len(running) > 0
}

var errNoRunningEntry = fault.New(fault.IO, "the ESP has no boot entry of the running version: it is not the one that this machine booted from, or the entry was removed")

// removeFiles deletes files durably. Those that are gone already are fine.
func removeFiles(folder durable.Folder, names ...string) error {
	changed := false
	for _, name := range names {
		err := folder.Remove(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return fault.New(fault.IO, "remove %s: %w", name, err)
		}
		changed = true
	}
	if !changed {
		return nil
	}
	if err := folder.Sync(); err != nil {
		return fault.New(fault.IO, "remove %s: %w", strings.Join(names, ", "), err)
	}
	return nil
}
