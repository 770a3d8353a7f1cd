// Package bootentry reads and makes the names of boot entries with counters, and says which one systemd-boot tries first.
//
// An entry is a unified kernel image in /EFI/Linux of the EFI system partition. Its name carries its state:
//
//	semper_1.2.0+3-0.efi   fresh: three tries left, none done
//	semper_1.2.0+2-1.efi   the loader renames it so before the first try
//	semper_1.2.0.efi       blessed: it came up healthy, nothing is counted any more
//	semper_1.2.0+0-1.efi   bad: no tries left, sorted behind all others
//
// The names follow the UAPI Boot Loader Specification (boot counting), versions the UAPI Version Format Specification, and
// the order is that of systemd-boot 257.
//
// Limits: counters of one digit are written, so that a rename never changes a name's length while they count; any number
// up to 2^31-1 is read.
package bootentry

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/semper-os/semper/fault"
)

const (
	suffix   = ".efi"
	maxName  = 255 // UTF-16 units in a FAT name; bytes are counted here, which is stricter
	maxTries = 9
)

// Entry is one file of /EFI/Linux.
type Entry struct {
	File     string // the name that Parse was given; empty for an entry that has no file yet
	Stem     string // the name without counter and suffix: "semper_1.2.0"
	Counting bool   // has a counter: not blessed
	Left     int    // tries left, where Counting
	Done     int    // tries done, where Counting

	// What systemd-boot sorts by. It reads them from the image's .osrel section (IMAGE_ID and IMAGE_VERSION); Parse takes them
	// from a Stem of the form ID_VERSION, which is the same for the images we build.
	SortKey   string // empty: none
	Version   string
	MachineID string
}

// New returns the entry of a version of an image, with 1 to 9 tries left.
func New(id, version string, tries int) (Entry, error) {
	if id == "" || strings.Trim(id, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" || strings.HasPrefix(id, "auto-") {
		return Entry{}, fault.New(fault.Input, "boot entry: image name %q: want lower-case letters, digits and dashes", id)
	}
	if err := CheckVersion(version); err != nil {
		return Entry{}, fmt.Errorf("boot entry: %w", err)
	}
	if tries < 1 || tries > maxTries {
		return Entry{}, fault.New(fault.Input, "boot entry: %d tries: want 1 to %d", tries, maxTries)
	}
	return Entry{Stem: id + "_" + version, Counting: true, Left: tries, SortKey: id, Version: version}, nil
}

// Parse reads a file name. What looks like a counter but is none is part of the Stem, as it is for the loader. It is an
// error if systemd-boot would not look at the file at all.
func Parse(file string) (Entry, error) {
	cut := len(file) - len(suffix)
	if cut < 1 || len(file) > maxName || !strings.EqualFold(file[cut:], suffix) || strings.ContainsAny(file, "/\\\x00") {
		return Entry{}, fault.New(fault.Input, "boot entry: %q is not the name of an .efi file", file)
	}
	if strings.HasPrefix(file, ".") || len(file) >= 5 && strings.EqualFold(file[:5], "auto-") {
		return Entry{}, fault.New(fault.Input, "boot entry: systemd-boot passes over the name %q", file)
	}
	e := Entry{File: file, Stem: file[:cut]}
	if plus := strings.LastIndexByte(e.Stem, '+'); plus >= 0 {
		left, done, has := strings.Cut(e.Stem[plus+1:], "-")
		l, lok := counter(left)
		d, dok := 0, true
		if has {
			d, dok = counter(done)
		}
		if lok && dok {
			e.Stem, e.Counting, e.Left, e.Done = e.Stem[:plus], true, l, d
		}
	}
	if under := strings.LastIndexByte(e.Stem, '_'); under > 0 && under < len(e.Stem)-1 {
		e.SortKey, e.Version = e.Stem[:under], e.Stem[under+1:]
	}
	return e, nil
}

// counter reads decimal digits, any number of leading zeros included.
func counter(s string) (int, bool) {
	if s == "" || strings.Trim(s, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseUint(s, 10, 64)
	return int(n), err == nil && n <= math.MaxInt32
}

// Name returns the file name in its usual form, always with both counters where there is one.
func (e Entry) Name() string {
	if !e.Counting {
		return e.Stem + suffix
	}
	return fmt.Sprintf("%s+%d-%d%s", e.Stem, e.Left, e.Done, suffix)
}

// Blessed returns the entry as it is once it came up healthy: without a counter.
func (e Entry) Blessed() Entry {
	e.File, e.Counting, e.Left, e.Done = "", false, 0, 0
	return e
}

// Bad returns the entry with no tries left; what was done stays.
func (e Entry) Bad() Entry {
	e.File, e.Counting, e.Left = "", true, 0
	return e
}

// Fresh returns the entry with tries left, kept within 1 to 9, and none done.
func (e Entry) Fresh(tries int) Entry {
	e.File, e.Counting, e.Left, e.Done = "", true, min(max(tries, 1), maxTries), 0
	return e
}
