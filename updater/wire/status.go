package wire

import (
	"fmt"
	"time"
)

// Status is what semper-installd knows about the machine's slots.
type Status struct {
	Version  string `json:"version"`   // of the running system
	Slot     string `json:"slot"`      // "A" or "B"
	RootHash string `json:"root_hash"` // of the running root, hexadecimal
	// Trial: the running entry still has a boot counter, it is not blessed yet.
	Trial bool `json:"trial"`
	// WayBack: the other slot can be booted.
	WayBack bool `json:"way_back"`
	// Other is what the other slot holds; nil: nothing that was ever complete.
	Other *Other `json:"other,omitempty"`

	Pending    *Pending    `json:"pending,omitempty"`     // complete in the other slot and tried at the next boot
	Partial    *Partial    `json:"partial,omitempty"`     // an interrupted or running installation
	RolledBack *RolledBack `json:"rolled_back,omitempty"` // the last version that was installed here and did not come up
	Blessed    *Blessed    `json:"blessed,omitempty"`     // the last version that was installed here and is healthy
	Written    *Written    `json:"written,omitempty"`     // what the last installation did to the disk
	Allowed    *Allowed    `json:"allowed,omitempty"`     // an older version that may be installed
	Drained    *time.Time  `json:"drained,omitempty"`     // when the machine was last drained for a reboot, in this boot
	Soft       *Soft       `json:"soft,omitempty"`        // what runs was started by a soft-reboot; nil: by a boot
}

// Soft is what a machine that was soft-rebooted still has of its boot.
type Soft struct {
	Count   int    `json:"count"`   // soft-reboots since the boot
	Version string `json:"version"` // that the machine booted: its kernel is the one that runs
	Slot    string `json:"slot"`    // of that version, then: "A" or "B"
}

// BootID tells the times apart between which a machine went down: the kernel's own id stays the same over a soft-reboot. S may be nil.
func (s *Soft) BootID(kernel string) string {
	if s == nil {
		return kernel
	}
	return fmt.Sprintf("%s+%d", kernel, s.Count)
}

// Other is a version that is complete in the slot that does not run.
type Other struct {
	Version string `json:"version"`
	// Bootable: an entry of the boot loader leads there, and it was not given up.
	Bootable bool `json:"bootable"`
}

// Written counts the bytes of a root since the installation was begun or resumed.
type Written struct {
	Version string    `json:"version"`
	Bytes   int64     `json:"bytes"`   // written
	Skipped int64     `json:"skipped"` // not written, because the disk held them already
	At      time.Time `json:"at"`
}

// Allowed is root's word that an older version may be installed once.
type Allowed struct {
	Version string    `json:"version"`
	Until   time.Time `json:"until"`
}

// Pending is an update that waits for a reboot.
type Pending struct {
	Version string    `json:"version"`
	From    string    `json:"from"` // the version that installed it
	At      time.Time `json:"at"`
	// Back: it is older than what runs, and somebody wants it so: a way back, or a downgrade that was allowed.
	Back bool `json:"back,omitempty"`
	// Full is why the way into it is a full reboot, for people. Empty: it differs in user space alone, and a soft-reboot will do.
	Full string `json:"full_reboot,omitempty"`
}

// Partial is a payload that is partly written.
type Partial struct {
	SHA256 string `json:"sha256"`
	Offset int64  `json:"offset"` // bytes of the payload that need not be sent again
	Size   int64  `json:"size"`
}

// RolledBack is an update that was booted, or should have been, and that the machine came back from.
type RolledBack struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason"`           // for people
	Check   string    `json:"check,omitempty"`  // the health check that failed, where one did
	Output  string    `json:"output,omitempty"` // its output's end
	At      time.Time `json:"at"`
}

// Blessed is an update that passed its health checks.
type Blessed struct {
	Version string    `json:"version"`
	From    string    `json:"from"`
	At      time.Time `json:"at"`
}
