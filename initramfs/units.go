package initramfs

import (
	"fmt"
	"os"
	"path/filepath"
)

// espMount is where the EFI system partition is mounted when somebody looks.
const espMount = "/efi"

// espUnits returns the unit files that mount the ESP of the disk that this system was started from, by name below /run/systemd/system. systemd's own generator
// is off (systemd.gpt_auto=no): it knows the disk only where the boot loader says so, and mounts for longer than needed. FAT does not survive a power cut
// well, so the partition is mounted only while it is used. Linux renames on FAT in three steps: a new entry of no length, its content's place, and the
// end of the old entry; dirsync brings each to the disk before the next, so that a whole entry is there at any moment.
func espUnits(device string) map[string]string {
	return map[string]string{
		"efi.mount": fmt.Sprintf(`# Written by semper-init at boot.
[Unit]
Description=EFI system partition of the disk this system was started from

[Mount]
What=%s
Where=%s
Type=vfat
Options=umask=0077,nodev,nosuid,noexec,dirsync
`, device, espMount),
		"efi.automount": fmt.Sprintf(`# Written by semper-init at boot.
[Unit]
Description=EFI system partition, mounted while it is used

[Automount]
Where=%s
TimeoutIdleSec=10
`, espMount),
	}
}

// writeESPUnits writes the units below run (which is /run) and makes local-fs.target want them.
func writeESPUnits(run, device string) error {
	units := filepath.Join(run, "systemd/system")
	wants := filepath.Join(units, "local-fs.target.wants")
	if err := os.MkdirAll(wants, 0o755); err != nil {
		return err
	}
	for name, text := range espUnits(device) {
		if err := os.WriteFile(filepath.Join(units, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return os.Symlink("../efi.automount", filepath.Join(wants, "efi.automount"))
}
