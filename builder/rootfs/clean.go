package rootfs

import (
	"fmt"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/semper-os/semper/builder/tree"
)

// emptied are directories whose content belongs to the build or to the running system, never to an image.
var emptied = []string{
	"dev", "proc", "run", "sys", "tmp", // mounted over
	"boot",                            // the kernel is in the UKI
	"var/log", "var/cache", "var/tmp", // logs and caches of the build, with times and inode numbers inside
}

// removed are files that differ from build to build or that must be made anew on every machine.
var removed = []string{
	"etc/.pwd.lock", "etc/.resolv.conf.systemd-resolved.bak", "etc/hostname", "etc/mtab",
	"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-",
	"etc/ssl/private/ssl-cert-snakeoil.key", "etc/ssl/certs/ssl-cert-snakeoil.pem",
	"var/backups", "var/lib/apt", "var/lib/ucf", "var/lib/systemd/deb-systemd-helper-enabled", "var/lib/systemd/deb-systemd-user-helper-enabled",
	"var/lib/dbus/machine-id", "var/lib/systemd/random-seed", "var/lib/systemd/credential.secret", "etc/machine-info",
	"var/lib/dpkg/lock", "var/lib/dpkg/lock-frontend", "var/lib/dpkg/triggers/Lock",
}

var (
	hostKey  = regexp.MustCompile(`^etc/ssh/ssh_host_[a-z0-9]+_key(\.pub)?$`)
	leftover = regexp.MustCompile(`(\.dpkg-(old|new|dist|tmp)|\.ucf-(old|new|dist))$|^var/lib/dpkg/[a-z-]+-old$|(^|/)__pycache__$|\.pyc$`)
)

// Clean takes away what makes two builds of the same packages differ, and what the running system mounts over.
// The files are those that facts of Debian's maintainer scripts name: see docs/release.md, "What is taken away".
func Clean(t *tree.Tree, epoch time.Time) error {
	for _, p := range emptied {
		t.Clear(p)
	}
	for _, p := range removed {
		t.Remove(p)
	}
	t.RemoveMatching(func(p string, _ *tree.Inode) bool { return hostKey.MatchString(p) || leftover.MatchString(p) })
	if err := t.PutDir("var/log/journal", 0o755); err != nil {
		return err
	}
	if err := t.PutSymlink("etc/mtab", "../proc/self/mounts"); err != nil {
		return err
	}
	// Empty and not "uninitialized": systemd then makes an identifier on the machine, and does not take the boot for a
	// first boot, on which it would enable every unit by preset.
	if err := t.PutFile("etc/machine-id", 0o444, nil); err != nil {
		return err
	}
	if err := t.PutFile("etc/fstab", 0o644, []byte("# semper-init mounts /, /etc and /var.\n")); err != nil {
		return err
	}
	return fixPasswordDates(t, epoch)
}

// fixPasswordDates sets the day of the last password change, which the passwd tools take from the clock.
func fixPasswordDates(t *tree.Tree, epoch time.Time) error {
	const p = "etc/shadow"
	b, err := t.ReadFile(p)
	if err != nil {
		return err
	}
	day := strconv.FormatInt(epoch.Unix()/86400, 10)
	lines := strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
	for i, line := range lines {
		f := strings.Split(line, ":")
		if len(f) != 9 {
			return fmt.Errorf("/%s: line %d has %d fields, 9 are expected", p, i+1, len(f))
		}
		if f[1] == "" {
			return fmt.Errorf("/%s: %s could log in without a password", p, f[0])
		}
		f[2] = day
		lines[i] = strings.Join(f, ":")
	}
	return rewrite(t, p, strings.Join(lines, "\n")+"\n")
}

// rewrite gives a file new content and keeps its owner and mode.
func rewrite(t *tree.Tree, p, text string) error {
	old := t.Lookup(p)
	if err := t.PutFile(p, old.Mode, []byte(text)); err != nil {
		return err
	}
	n := t.Lookup(p)
	n.UID, n.GID = old.UID, old.GID
	return nil
}

// removeEmptyParents takes p's parent directories away for as long as they are empty.
func removeEmptyParents(t *tree.Tree, p string) {
	for dir := path.Dir(p); dir != "." && strings.Contains(dir, "/"); dir = path.Dir(dir) {
		if !t.Empty(dir) {
			return
		}
		t.Remove(dir)
	}
}
