package rootfs

import (
	"fmt"

	"github.com/semper-os/semper/builder/tree"
)

// Release is what os-release says of an image. systemd-boot sorts by IMAGE_ID and IMAGE_VERSION; semperd reports them.
type Release struct {
	ID      string // the recipe's name: "semper"
	Name    string // for people: "Semper OS"
	Version string // "1.2.0"
	Epoch   uint64 // security epoch
	Debian  string // the suite the packages came from: "trixie"
}

// Text returns the os-release file. SEMPER_SOFT_REBOOT says that the image knows what it runs after a soft-reboot, see package initramfs.
func (r Release) Text() string {
	return fmt.Sprintf(`ID=%[1]s
ID_LIKE=debian
NAME="%[2]s"
PRETTY_NAME="%[2]s %[3]s"
VERSION="%[3]s (%[5]s)"
VERSION_ID=%[3]s
VERSION_CODENAME=%[5]s
IMAGE_ID=%[1]s
IMAGE_VERSION=%[3]s
SEMPER_EPOCH=%[4]d
SEMPER_SOFT_REBOOT=1
DEFAULT_HOSTNAME=%[1]s
`, r.ID, r.Name, r.Version, r.Epoch, r.Debian)
}

// WriteOSRelease puts os-release and the login banners into the tree.
func WriteOSRelease(t *tree.Tree, r Release) error {
	for p, text := range map[string]string{
		"usr/lib/os-release": r.Text(),
		"etc/issue":          fmt.Sprintf("%s %s \\n \\l\n\n", r.Name, r.Version),
		"etc/issue.net":      fmt.Sprintf("%s %s\n", r.Name, r.Version),
		"etc/motd":           "",
	} {
		if err := t.PutFile(p, 0o644, []byte(text)); err != nil {
			return err
		}
	}
	return t.PutSymlink("etc/os-release", "../usr/lib/os-release")
}
