package install

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/initramfs"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/durable"
)

// Paths on a machine.
const (
	// StatePath is the installer's own folder.
	StatePath = "/var/lib/semper/install"
	// EntriesPath is where the boot loader looks for UKIs, on the ESP that semper-init's units mount when it is used.
	EntriesPath = "/efi/EFI/Linux"

	releasePath = "usr/lib/os-release" // not /etc's, which the machine's owner may overlay
	cmdlinePath = "proc/cmdline"
	bootIDPath  = "proc/sys/kernel/random/boot_id"
)

// ReadMachine tells what runs, from the kernel and the verified root below root ("/").
func ReadMachine(root string) (Machine, error) {
	cmdline, err := readText(filepath.Join(root, cmdlinePath))
	if err != nil {
		return Machine{}, err
	}
	parsed, err := initramfs.ParseCmdline(cmdline)
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
	return Machine{RootHash: parsed.RootHash, Image: image, BootID: strings.TrimSpace(bootID)}, nil
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
		return Storage{}, fault.New(fault.Verification, "%s speaks of the root hash %s, the kernel was started with %s", initramfs.BootPath, boot.RootHash, want)
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

// RebootByLogind asks logind to reboot. The installer does it for semperd: it is root, so the answer needs no polkit and no rule for an unprivileged user
// who could then reboot at any time; here it happens only while an update waits for it.
func RebootByLogind() error {
	ctx, cancel := context.WithTimeout(context.Background(), rebootTimeout)
	defer cancel()
	conn, err := dbus.ConnectSystemBus(dbus.WithContext(ctx))
	if err != nil {
		return fault.New(fault.IO, "reboot: connect to the system bus: %w", err)
	}
	defer func() { _ = conn.Close() }()
	call := conn.Object("org.freedesktop.login1", "/org/freedesktop/login1").CallWithContext(ctx, "org.freedesktop.login1.Manager.RebootWithFlags", 0, uint64(0))
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
