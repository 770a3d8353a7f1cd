package install

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/initramfs"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/wire"
)

// Paths on a machine.
const (
	// StatePath is the installer's own folder.
	StatePath = "/var/lib/semper/install"
	// EntriesPath is where the boot loader looks for UKIs, on the ESP that semper-init's units mount when it is used.
	EntriesPath = "/efi/EFI/Linux"

	releasePath = "usr/lib/os-release" // not /etc's, which the machine's owner may overlay
	bootIDPath  = "proc/sys/kernel/random/boot_id"
)

// ReadMachine tells what runs, from the kernel and the verified root below root ("/").
func ReadMachine(root string) (Machine, error) {
	hash, booted, err := initramfs.Running(root)
	if err != nil {
		return Machine{}, err
	}
	bootID, err := readText(filepath.Join(root, bootIDPath))
	if err != nil {
		return Machine{}, err
	}
	release, err := readText(filepath.Join(root, releasePath))
	if err != nil {
		return Machine{}, err
	}
	image, err := parseRelease(release)
	if err != nil {
		return Machine{}, fmt.Errorf("%s: %w", releasePath, err)
	}
	m := Machine{RootHash: hash, Image: image, BootID: strings.TrimSpace(bootID)}
	boot, err := initramfs.ReadBoot(filepath.Join(root, initramfs.BootPath))
	switch {
	case err != nil && hash == booted:
		return m, nil // whoever needs it says so
	case err != nil:
		return Machine{}, fmt.Errorf("after a soft-reboot: %w", err)
	case boot.Soft == nil && hash != booted:
		return Machine{}, fault.New(fault.Verification, "the root that runs has the root hash %s, the kernel was started with %s, and %s knows of no soft-reboot", hash, booted, initramfs.BootPath)
	case boot.Soft != nil:
		m.Soft = &wire.Soft{Count: boot.Soft.Count, Version: boot.Soft.KernelVersion, Slot: strings.ToUpper(boot.Soft.KernelSlot)}
		m.BootID = m.Soft.BootID(m.BootID)
	}
	return m, nil
}

// parseRelease reads what an image says about itself.
func parseRelease(text string) (payload.Image, error) {
	fields := map[string]string{}
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			fields[key] = strings.Trim(value, `"'`)
		}
	}
	image := payload.Image{ID: fields["IMAGE_ID"], Version: fields["IMAGE_VERSION"], Architecture: runtime.GOARCH} // Go and Debian agree on amd64 and arm64
	if image.ID == "" {
		return image, fault.New(fault.Input, "IMAGE_ID is missing")
	}
	if err := bootentry.CheckVersion(image.Version); err != nil {
		return image, fault.New(fault.Input, "IMAGE_VERSION: %w", err)
	}
	epoch, err := strconv.ParseUint(fields["SEMPER_EPOCH"], 10, 64)
	if err != nil {
		return image, fault.New(fault.Input, "SEMPER_EPOCH %q is not a number", fields["SEMPER_EPOCH"])
	}
	image.Epoch = epoch
	return image, nil
}

// readText reads a small file of /proc or of the root.
func readText(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.Wrap(fault.IO, err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return "", fault.Wrap(fault.IO, err)
	}
	return string(data), nil
}

// OpenStorage opens the disk that this machine was started from, and the folders.
func OpenStorage(m Machine) (Storage, error) {
	boot, err := initramfs.ReadBoot(initramfs.BootPath)
	if err != nil {
		return Storage{}, err
	}
	if want := fmt.Sprintf("%x", m.RootHash); boot.RootHash != want {
		return Storage{}, fault.New(fault.Verification, "%s speaks of the root hash %s, and %s runs", initramfs.BootPath, boot.RootHash, want)
	}
	if boot.Partitions.ESP == "" {
		return Storage{}, fault.New(fault.IO, "%s has no EFI system partition to put a new kernel on", boot.Disk)
	}
	state, err := durable.MakeDir(StatePath, 0o700)
	if err != nil {
		return Storage{}, err
	}
	disk, err := OpenDisk(boot.Disk)
	if err != nil {
		return Storage{}, err
	}
	return Storage{Disk: disk, ESP: durable.At(EntriesPath), State: state}, nil
}

// rebootTimeout bounds the question to logind, not the way down.
const rebootTimeout = 30 * time.Second

// Holders names the device-mapper devices that the kernel has over the idle slot's partitions.
func Holders() ([]string, error) {
	boot, err := initramfs.ReadBoot(initramfs.BootPath)
	if err != nil {
		return nil, err
	}
	return holders("/sys/class/block", boot.Partitions.OtherRoot, boot.Partitions.OtherVerity, boot.Partitions.OtherVeritySig)
}

func holders(blocks string, nodes ...string) (all []string, err error) {
	for _, node := range nodes {
		if node == "" {
			continue
		}
		list, err := os.ReadDir(filepath.Join(blocks, filepath.Base(node), "holders"))
		if err != nil {
			return nil, fault.Wrap(fault.IO, err)
		}
		for _, h := range list {
			if !slices.Contains(all, h.Name()) {
				all = append(all, h.Name())
			}
		}
	}
	return all, nil
}

// ErrUnsure is what SoftReboot returns where the machine may be going down, or may not.
var ErrUnsure = fault.New(fault.IO, "nobody knows whether the soft-reboot is under way")

// softReboot is SD_LOGIND_SOFT_REBOOT of org.freedesktop.login1(5).
const softReboot = 1 << 2

// SoftRebootByLogind asks logind for a soft-reboot into a root, which semper-next-root.service mounts on the way.
func SoftRebootByLogind(rootHash [32]byte) error {
	if err := initramfs.WriteOrder(initramfs.OrderFolder, rootHash); err != nil {
		return err
	}
	err := askLogind(softReboot)
	switch {
	case err == nil:
		return nil
	case refused(err):
		return errors.Join(err, initramfs.DropOrder(initramfs.OrderFolder))
	default: // it may be under way, and must not lose its way then; a full reboot forgets the order
		return fmt.Errorf("%w: %w", ErrUnsure, err)
	}
}

// refused reports whether err is logind's own no, and not the bus's word that there is no answer: logind and the bus end with the rest when the machine
// goes down.
func refused(err error) bool {
	var reply dbus.Error
	return errors.As(err, &reply) && !slices.Contains([]string{
		"org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Timeout", "org.freedesktop.DBus.Error.TimedOut", "org.freedesktop.DBus.Error.Disconnected",
	}, reply.Name)
}

// RebootByLogind asks logind to reboot. The installer does it for semperd: it is root, so the answer needs no polkit and no rule for an unprivileged user
// who could then reboot at any time; here it happens only while an update waits for it.
func RebootByLogind() error { return askLogind(0) }

func askLogind(flags uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), rebootTimeout)
	defer cancel()
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return fault.New(fault.IO, "reboot: connect to the system bus: %w", err)
	}
	defer func() { _ = conn.Close() }()
	call := conn.Object("org.freedesktop.login1", "/org/freedesktop/login1").CallWithContext(ctx, "org.freedesktop.login1.Manager.RebootWithFlags", 0, flags)
	if call.Err != nil {
		return fault.New(fault.IO, "reboot: ask logind: %w", call.Err)
	}
	return nil
}

// RebootByAllMeans is for a system that is not healthy: where logind does not do it, the service manager does, and where that does not, the kernel.
func RebootByAllMeans() error {
	err := RebootByLogind()
	if err == nil {
		return nil
	}
	for _, args := range [][]string{{"reboot"}, {"--force", "reboot"}, {"--force", "--force", "reboot"}} {
		ctx, cancel := context.WithTimeout(context.Background(), rebootTimeout)
		out, cmdErr := exec.CommandContext(ctx, "systemctl", args...).CombinedOutput()
		cancel()
		if cmdErr == nil {
			return nil
		}
		err = fmt.Errorf("%w; systemctl %s: %w %s", err, strings.Join(args, " "), cmdErr, strings.TrimSpace(string(out)))
	}
	return fault.Wrap(fault.IO, err)
}
