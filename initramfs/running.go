package initramfs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/verity"
)

// softDM begins the device-mapper name of a root that a soft-reboot leads to; its root hash follows. So whoever asks the kernel what is mounted at / learns
// which root it is, while the command line still names the one that was booted.
const softDM = rootDM + "_"

const maxMountinfo = 1 << 20

// Running says what runs below root ("/"), by the kernel's word: hash is the root hash of the root file system, booted the one of the command line. They
// differ after a soft-reboot.
func Running(root string) (hash, booted verity.RootHash, err error) {
	text, err := readLimited(filepath.Join(root, "proc/cmdline"), maxCmdline)
	if err != nil {
		return hash, booted, err
	}
	line, err := ParseCmdline(text)
	if err != nil {
		return hash, booted, err
	}
	if text, err = readLimited(filepath.Join(root, "proc/self/mountinfo"), maxMountinfo); err != nil {
		return hash, booted, err
	}
	device, err := rootDevice(text)
	if err != nil {
		return hash, booted, err
	}
	uuid, err := readLimited(filepath.Join(root, "sys/dev/block", device, "dm/uuid"), 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return line.RootHash, line.RootHash, nil // not device-mapper's, so no soft-reboot led here
	}
	if err != nil {
		return hash, booted, err
	}
	hash, err = hashOfUUID(strings.TrimSpace(uuid), line.RootHash)
	return hash, line.RootHash, err
}

// rootDevice finds the number ("253:0") of the device at / in the text of /proc/self/mountinfo. Of several the last one covers the others.
func rootDevice(mountinfo string) (number string, err error) {
	for line := range strings.Lines(mountinfo) {
		if f := strings.Fields(line); len(f) > 4 && f[4] == "/" {
			number = f[2]
		}
	}
	if number == "" || strings.Trim(number, "0123456789:") != "" {
		return "", fault.New(fault.Input, "mountinfo: no device at / (%.40q)", number)
	}
	return number, nil
}

// hashOfUUID is the root hash that the device-mapper UUID of the root tells; booted where it tells none, as semper-init makes it.
func hashOfUUID(uuid string, booted verity.RootHash) (verity.RootHash, error) {
	rest, ok := strings.CutPrefix(uuid, verityUUID)
	if !ok {
		return booted, nil
	}
	_, name, _ := strings.Cut(rest, "-")
	text, ok := strings.CutPrefix(name, softDM)
	if !ok {
		return booted, nil
	}
	hash, err := verity.ParseRootHash(text)
	if err != nil {
		return verity.RootHash{}, fault.New(fault.Input, "device-mapper UUID %.140q of the root: %w", uuid, err)
	}
	return hash, nil
}

// readLimited reads a file of a kernel's file system, which has no size beforehand.
func readLimited(path string, limit int) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return "", fault.Wrap(fault.IO, err)
	}
	if len(data) > limit {
		return "", fault.New(fault.Input, "%s: more than %d bytes", path, limit)
	}
	return string(data), nil
}
