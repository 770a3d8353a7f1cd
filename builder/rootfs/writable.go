package rootfs

import (
	"fmt"
	"path"
	"strings"

	"github.com/semper-os/semper/builder/tree"
	"github.com/semper-os/semper/fault"
)

const (
	factoryVar  = "usr/share/factory/var"
	tmpfilesVar = "usr/lib/tmpfiles.d/semper-var.conf"
)

// moved are directories that people and programs write to; on a read-only root they are links into /var.
var moved = []struct{ from, to, link string }{
	{"home", "var/home", "var/home"},
	{"root", "var/roothome", "var/roothome"},
	{"opt", "var/opt", "var/opt"},
	{"srv", "var/srv", "var/srv"},
	{"usr/local", "var/usrlocal", "../var/usrlocal"},
}

// Writable moves what must be writable to /var, and /var's content out of the root: directories and links become lines
// of a tmpfiles.d file, files lie below /usr/share/factory/var and are copied where a machine has none. systemd-tmpfiles
// makes all of it at every boot, so that what a new version adds arrives on old machines too, and what a machine has
// stays.
func Writable(t *tree.Tree) error {
	for _, m := range moved {
		if err := relocate(t, m.from, m.to); err != nil {
			return err
		}
		if err := t.PutSymlink(m.from, m.link); err != nil {
			return err
		}
	}
	declared, err := declaredByOthers(t)
	if err != nil {
		return err
	}
	var conf strings.Builder
	conf.WriteString("# Made by semper build: what the image's packages expect below /var.\n")
	for _, p := range t.Below("var") {
		if declared["/"+p] {
			continue
		}
		line, err := tmpfilesLine(t, p)
		if err != nil {
			return err
		}
		conf.WriteString(line)
	}
	fmt.Fprintf(&conf, "L+ /%s - - - - /%s\n", dpkgDir, dpkgKept)
	t.Clear("var")
	for _, p := range []string{"efi", "mnt", "media"} {
		if err := t.PutDir(p, 0o755); err != nil {
			return err
		}
	}
	return t.PutFile(tmpfilesVar, 0o644, []byte(conf.String()))
}

func relocate(t *tree.Tree, from, to string) error {
	n := t.Lookup(from)
	if n == nil || n.Type != tree.Directory {
		n = &tree.Inode{Type: tree.Directory, Mode: 0o755}
	}
	if err := t.Put(to, n); err != nil {
		return err
	}
	for _, p := range t.Below(from) {
		if err := t.Put(to+strings.TrimPrefix(p, from), t.Lookup(p)); err != nil {
			return err
		}
	}
	t.Remove(from)
	return nil
}

func tmpfilesLine(t *tree.Tree, p string) (string, error) {
	if strings.ContainsAny(p, " \t\n%\\") {
		return "", fault.New(fault.Input, "/%s: a path below /var with a blank, %% or \\ cannot be described to systemd-tmpfiles", p)
	}
	switch n := t.Lookup(p); n.Type {
	case tree.Directory:
		return fmt.Sprintf("d /%s %04o %d %d -\n", p, n.Mode, n.UID, n.GID), nil
	case tree.Symlink:
		return fmt.Sprintf("L /%s - - - - %s\n", p, n.Target), nil
	case tree.File:
		kept := path.Join(factoryVar, strings.TrimPrefix(p, "var/"))
		if err := t.Put(kept, n); err != nil {
			return "", err
		}
		return fmt.Sprintf("C /%s %04o %d %d - /%s\n", p, n.Mode, n.UID, n.GID, kept), nil
	default:
		return "", fault.New(fault.Input, "/%s: a device or fifo below /var", p)
	}
}

// declaredByOthers returns the paths that the packages' own tmpfiles.d files make: theirs is the truth.
func declaredByOthers(t *tree.Tree) (map[string]bool, error) {
	declared := map[string]bool{}
	for _, p := range t.Below("usr/lib/tmpfiles.d") {
		n := t.Lookup(p)
		if !strings.HasSuffix(p, ".conf") || n.Type != tree.File {
			continue
		}
		b, err := t.ReadFile(p)
		if err != nil {
			return nil, err
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) >= 2 && strings.ContainsRune("dDvqQLfFC", rune(f[0][0])) {
				declared[strings.TrimSuffix(f[1], "/")] = true
			}
		}
	}
	return declared, nil
}
