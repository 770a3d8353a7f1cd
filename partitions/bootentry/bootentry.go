// Package bootentry reads and makes boot entry names with counters, and says which one systemd-boot tries first.
package bootentry

import "github.com/semper-os/semper/fault"

// Entry is one file of /EFI/Linux.
type Entry struct {
	Stem     string // name without counter and suffix: "semper_1.2.0"
	Counting bool   // has a counter: not blessed
	Left     int
	Done     int

	// What systemd-boot sorts by. Parse fills them from the Stem (ID_VERSION); a UKI's .osrel is the authority.
	SortKey   string
	Version   string
	MachineID string
}

// New returns the entry of an image's version with tries left.
func New(id, version string, tries int) (Entry, error) {
	return Entry{}, fault.New(fault.Internal, "bootentry: not built")
}

// Parse reads a file name ending in .efi.
func Parse(name string) (Entry, error) { return Entry{}, fault.New(fault.Internal, "bootentry: not built") }

// Name returns the file name.
func (e Entry) Name() string { return "" }

// Blessed returns the entry without its counter.
func (e Entry) Blessed() Entry { return e }

// Bad returns the entry with no try left.
func (e Entry) Bad() Entry { return e }

// Fresh returns the entry with tries left and none done.
func (e Entry) Fresh(tries int) Entry { return e }

// Compare compares versions as systemd does: negative where a is older than b.
func Compare(a, b string) int { return 0 }

// CheckVersion reports why a version cannot be used in names of entries.
func CheckVersion(version string) error { return fault.New(fault.Internal, "bootentry: not built") }

// Sort puts the entry that systemd-boot tries first at the front.
func Sort(entries []Entry) {}
