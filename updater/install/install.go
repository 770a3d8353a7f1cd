// Package install is semper-installd: it turns a payload's bytes into a bootable slot, and can do nothing else to the disk.
//
// What it writes, in this order, each step durable before the next begins:
//
//	1  begin     metadata signature, product, architecture, version, epoch, sizes and room on the ESP are checked; nothing is written before
//	2  prepare   record of an earlier pending update away; entries of /EFI/Linux away that are not the running one's; checkpoint away;
//	             GPT label of the idle slot: PRT#semper_VERSION
//	3  stream    root and rootsig into the idle slot's partitions, uki into the state folder; a checkpoint every 64 MiB
//	4  verify    what was written is read back; the dm-verity tree is computed into the idle slot, its root hash compared;
//	             the root hash's signature; the UKI's command line and os-release
//	5  complete  GPT label semper_VERSION and the PARTUUIDs that the root hash gives
//	6  activate  UKI to a temporary name on the ESP; record of the pending update; rename to semper_VERSION+3-0.efi
//
// The boot loader looks at the ESP alone, so the last rename is what makes the update exist. A power cut before it boots the old version, and the next
// installation of the same payload goes on where the last checkpoint was, after step 5 as well as in the middle of step 3.
//
// # What it believes
//
// Only keys of the read-only root (/usr/lib/semper), the running system's own os-release, and the kernel: its command line, and after a soft-reboot the
// name of the device at /. semperd's words are used to
// find a checkpoint and to bound the stream. The running slot cannot be reached: partitions are written through a Region of the idle slot, and the GPT
// through functions of package layout that refuse to touch the slot whose PARTUUIDs are the running root hash's. The running entry of the ESP is known
// by the root hash inside its UKI, not by its name.
//
// # State
//
// In /var/lib/semper/install, readable by root only: checkpoint and uki.part of an interrupted installation; pending.json, an update that waits for its
// reboot or is on trial; failed.json, the last version that did not come up; blessed.json, the last one that did; allow.json, root's word that an older
// version may be installed; left.json, the versions that a policy left because they became sick.
package install

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/wire"
)

// Tries is how often the boot loader tries a new version before it falls back.
const Tries = 3

// espSlack is kept free on the ESP beside the new UKI, for directories and the loader's own files.
const espSlack = 1 << 20

// Disk is the block device with the slots.
type Disk interface {
	io.ReaderAt
	io.WriterAt
	// Sync returns when everything written before survives a power cut.
	Sync() error
	// Size is in bytes.
	Size() int64
}

// Machine is what runs now, from sources that an update cannot have written.
type Machine struct {
	RootHash [32]byte
	Image    payload.Image // MinVersion is not used
	BootID   string        // differs from boot to boot, and from soft-reboot to soft-reboot
	Soft     *wire.Soft    // it was started by a soft-reboot; nil: by a boot
}

// Trust is what the running image says about signatures.
type Trust struct {
	Payload payload.Trust
	// Verity are the certificates one of which must have signed the root hash. Empty: the image has none, and only the root hash itself is compared.
	Verity []*x509.Certificate
}

// Storage is what an installation writes to.
type Storage struct {
	Disk  Disk
	ESP   durable.Folder // /EFI/Linux of the ESP that the machine boots from
	State durable.Folder
}

// Options are a Core's surroundings; all are required but where it says otherwise.
type Options struct {
	Machine Machine
	// Storage opens the disk and the folders when they are first needed, so that a machine without an ESP can still say so.
	Storage func() (Storage, error)
	// Trust reads the keys. It is called for every installation.
	Trust func() (Trust, error)
	// Reboot asks the system to go down and returns when it agreed.
	Reboot func() error
	// SoftReboot is Reboot without a new kernel, into the root of this hash, which is complete in the idle slot. nil: this machine cannot. After any error
	// but ErrUnsure the machine stays up.
	SoftReboot func(rootHash [32]byte) error
	// Holders names what of the kernel still uses the idle slot, which must not be written then. nil: nothing ever does.
	Holders func() ([]string, error)
	Now     func() time.Time
	Log     *slog.Logger

	// Drain moves the machine's work away before it reboots from one version to another, and Undrain lets it come back. A failure means no reboot.
	// nil: there is nothing to drain.
	Drain   func(ctx context.Context, from, to string) error
	Undrain func(ctx context.Context) error
	// Warn writes to terminals, names below /dev. nil: nobody is there to be warned.
	Warn func(ctx context.Context, text string, ttys []string) error
	// Marker is told when an update begins to wait for a reboot, and when none does any longer. nil: nobody asks.
	Marker func(pending bool, version string)
}

// Core does the work. Its methods may be called from several goroutines.
type Core struct {
	o Options

	mu      sync.Mutex // of all below, and of everything on the ESP and in the state folder while no session is open
	storage *Storage
	active  *session
	tidied  bool

	claim  sync.Mutex // of session.claimed and session.revoked
	drain  drain
	marker marker
}

// New returns a Core.
func New(o Options) *Core { return &Core{o: o} }

// open returns the storage; the mutex is held.
func (c *Core) open() (*Storage, error) {
	if c.storage == nil {
		s, err := c.o.Storage()
		if err != nil {
			return nil, err
		}
		c.storage = &s
	}
	return c.storage, nil
}

// slots reads the partition table and returns it with the running and the idle slot.
func (c *Core) slots(s *Storage) (t *gpt.Table, running, idle layout.Slot, err error) {
	t, _, err = gpt.Read(s.Disk, s.Disk.Size())
	if err != nil {
		return nil, running, idle, fmt.Errorf("read the partition table: %w", err)
	}
	if running, err = layout.Running(t, c.o.Machine.RootHash); err != nil {
		return nil, running, idle, fmt.Errorf("find the running slot: %w", err)
	}
	if idle, err = layout.Idle(t, c.o.Machine.RootHash); err != nil {
		return nil, running, idle, fmt.Errorf("find the idle slot: %w", err)
	}
	return t, running, idle, nil
}

// coded is an error with the number that it is reported to the update server as.
type coded struct {
	error
	code omaha.ErrorCode
}

func (e *coded) Unwrap() error  { return e.error }
func (e *coded) OmahaCode() int { return int(e.code) }

// refuse returns an error of kind Verification with a code.
func refuse(code omaha.ErrorCode, format string, args ...any) error {
	return &coded{fault.New(fault.Verification, format, args...), code}
}

// withCode gives err the payload package's code where it has a reason, and otherwise code, unless it has one already. The codes decide what is tried again,
// here and at the update server, see omaha.ErrorCode.Passing.
func withCode(err error, code omaha.ErrorCode) error {
	if err == nil {
		return nil
	}
	var have *coded
	if errors.As(err, &have) {
		return err
	}
	switch r := payload.ReasonOf(err); {
	case r != "":
		code = omaha.ErrorCode(r.Code())
	case fault.Is(err, fault.IO) && !code.Passing():
		code = omaha.CodeWrite // this machine's disk: it says nothing against the version
	}
	return &coded{err, code}
}
