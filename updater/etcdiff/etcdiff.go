// Package etcdiff tells what a machine changed in /etc.
//
// /etc is an overlay: below lies the image's /etc, read-only and verified, above it the machine's own layer, /var/lib/semper/etc/upper. What the machine
// changed is exactly what is in its layer, and not all of that is a change: a file that was opened for writing and closed again is there too.
//
//	upper has                                 means
//	a file, link or special file              added, or changed if it differs from the image's in content, mode or owner
//	a directory                               nothing by itself, but its mode and owner may differ
//	a character device 0:0 (whiteout)         removed
//	a directory that is opaque (xattr)        what the image has in it is removed, except what upper has too
//
// The format is the kernel's, Documentation/filesystems/overlayfs.rst. Limits: 100,000 entries; redirects of directories and metadata-only copies, which
// the image's kernel does not make by default, are reported as an error rather than shown wrong.
package etcdiff

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

// UpperPath is the machine's layer.
const UpperPath = "/var/lib/semper/etc/upper"

// maxEntries bounds a comparison.
const maxEntries = 100_000

// Kind says what happened to a path.
type Kind string

// The kinds.
const (
	Added   Kind = "added"
	Changed Kind = "changed"
	Removed Kind = "removed"
)

// Change is a path below /etc that is not as the image has it.
type Change struct {
	Path string `json:"path"` // "ssh/sshd_config"
	Kind Kind   `json:"kind"`
	// How is what differs of a changed path: "content", "mode 0644 to 0600", "owner 0:0 to 1000:1000", "file to link".
	How []string `json:"how,omitempty"`
}

// Image opens the image's /etc, without what is mounted over it, as a path that this process and its children with the same descriptor can use.
// It needs CAP_SYS_ADMIN.
func Image() (*os.File, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, "/", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if errors.Is(err, unix.EPERM) {
		return nil, fault.New(fault.Usage, "only root can look below /etc (use sudo)")
	}
	if err != nil {
		return nil, fault.New(fault.IO, "look below /etc: %w", err)
	}
	return os.NewFile(uintptr(fd), "the image's root"), nil
}

// Compare lists what differs between the machine's layer and the image's /etc, in byte order of the paths.
func Compare(upper, lower string) ([]Change, error) {
	c := comparison{upper: upper, lower: lower}
	if err := c.folder(""); err != nil {
		return nil, err
	}
	sort.Slice(c.changes, func(i, j int) bool { return c.changes[i].Path < c.changes[j].Path })
	return c.changes, nil
}

type comparison struct {
	upper, lower string
	entries      int
	changes      []Change
}

func (c *comparison) add(path string, kind Kind, how ...string) {
	c.changes = append(c.changes, Change{Path: path, Kind: kind, How: how})
}

// folder compares a directory that both layers have.
func (c *comparison) folder(dir string) error {
	above, err := os.ReadDir(filepath.Join(c.upper, dir))
	if err != nil {
		return fault.New(fault.IO, "the machine's layer of /etc: %w", err)
	}
	opaque, err := c.overlay(filepath.Join(c.upper, dir))
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, e := range above {
		have[e.Name()] = true
		if c.entries++; c.entries > maxEntries {
			return fault.New(fault.Input, "the machine's layer of /etc has more than %d entries", maxEntries)
		}
		if err := c.entry(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	if !opaque {
		return nil
	}
	below, err := os.ReadDir(filepath.Join(c.lower, dir))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.IO, "the image's /etc: %w", err)
	}
	for _, e := range below {
		if !have[e.Name()] {
			c.add(filepath.Join(dir, e.Name()), Removed)
		}
	}
	return nil
}

// overlay reads what the kernel noted at a directory of the upper layer.
func (c *comparison) overlay(path string) (opaque bool, err error) {
	for _, name := range []string{"trusted.overlay.redirect", "trusted.overlay.metacopy"} {
		if _, err := unix.Lgetxattr(path, name, nil); err == nil {
			return false, fault.New(fault.Input, "%s: %s is not understood", path, name)
		}
	}
	value := make([]byte, 8)
	n, err := unix.Lgetxattr(path, "trusted.overlay.opaque", value)
	switch {
	case err == nil:
		return string(value[:n]) == "y", nil
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return false, nil
	}
	return false, fault.New(fault.IO, "%s: %w", path, err)
}

// entry compares one name. In an opaque directory the image's is as good as gone, but saying "changed" of what was replaced is truer than "removed" and "added".
func (c *comparison) entry(path string) error {
	up, err := os.Lstat(filepath.Join(c.upper, path))
	if err != nil {
		return fault.New(fault.IO, "the machine's layer of /etc: %w", err)
	}
	low, err := os.Lstat(filepath.Join(c.lower, path))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return fault.New(fault.IO, "the image's /etc: %w", err)
	}
	there := err == nil
	switch {
	case whiteout(up):
		if there {
			c.add(path, Removed)
		}
		return nil
	case !there:
		c.add(path, Added)
		if up.IsDir() {
			return c.everything(path)
		}
		return nil
	}
	how, err := c.differ(path, up, low)
	if err != nil {
		return err
	}
	if len(how) > 0 {
		c.add(path, Changed, how...)
	}
	switch {
	case up.IsDir() && low.IsDir():
		return c.folder(path)
	case up.IsDir():
		return c.everything(path)
	}
	return nil
}

// everything adds what is below a directory that the image does not have.
func (c *comparison) everything(dir string) error {
	return filepath.WalkDir(filepath.Join(c.upper, dir), func(p string, e fs.DirEntry, err error) error {
		if err != nil {
			return fault.New(fault.IO, "the machine's layer of /etc: %w", err)
		}
		rel, err := filepath.Rel(c.upper, p)
		if err != nil || rel == dir {
			return err
		}
		if c.entries++; c.entries > maxEntries {
			return fault.New(fault.Input, "the machine's layer of /etc has more than %d entries", maxEntries)
		}
		info, err := e.Info()
		if err != nil {
			return fault.New(fault.IO, "the machine's layer of /etc: %w", err)
		}
		if !whiteout(info) {
			c.add(rel, Added)
		}
		return nil
	})
}

func whiteout(i fs.FileInfo) bool {
	st, ok := i.Sys().(*syscall.Stat_t)
	return ok && i.Mode()&fs.ModeCharDevice != 0 && st.Rdev == 0
}

func word(m fs.FileMode) string {
	switch m.Type() {
	case 0:
		return "file"
	case fs.ModeDir:
		return "folder"
	case fs.ModeSymlink:
		return "link"
	}
	return "special file"
}

// differ says what differs between two entries of the same name.
func (c *comparison) differ(path string, up, low fs.FileInfo) ([]string, error) {
	var how []string
	if up.Mode().Type() != low.Mode().Type() {
		return []string{word(low.Mode()) + " to " + word(up.Mode())}, nil
	}
	const bits = fs.ModePerm | fs.ModeSetuid | fs.ModeSetgid | fs.ModeSticky
	if a, b := low.Mode()&bits, up.Mode()&bits; a != b && up.Mode().Type() != fs.ModeSymlink {
		how = append(how, fmt.Sprintf("mode %04o to %04o", mode(low), mode(up)))
	}
	a, b := low.Sys().(*syscall.Stat_t), up.Sys().(*syscall.Stat_t)
	if a.Uid != b.Uid || a.Gid != b.Gid {
		how = append(how, fmt.Sprintf("owner %d:%d to %d:%d", a.Uid, a.Gid, b.Uid, b.Gid))
	}
	same, err := c.same(path, up, low)
	if err != nil {
		return nil, err
	}
	if !same {
		how = append([]string{"content"}, how...)
	}
	return how, nil
}

func mode(i fs.FileInfo) uint32 { return i.Sys().(*syscall.Stat_t).Mode & 0o7777 }

func (c *comparison) same(path string, up, low fs.FileInfo) (bool, error) {
	a, b := filepath.Join(c.upper, path), filepath.Join(c.lower, path)
	switch up.Mode().Type() {
	case 0:
		if up.Size() != low.Size() {
			return false, nil
		}
		return sameContent(a, b)
	case fs.ModeSymlink:
		x, errX := os.Readlink(a)
		y, errY := os.Readlink(b)
		if err := errors.Join(errX, errY); err != nil {
			return false, fault.New(fault.IO, "compare %s: %w", path, err)
		}
		return x == y, nil
	}
	return true, nil
}

func sameContent(a, b string) (bool, error) {
	x, err := os.Open(a)
	if err != nil {
		return false, fault.Wrap(fault.IO, err)
	}
	defer x.Close()
	y, err := os.Open(b)
	if err != nil {
		return false, fault.Wrap(fault.IO, err)
	}
	defer y.Close()
	p, q := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errX := io.ReadFull(x, p)
		m, errY := io.ReadFull(y, q)
		if !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		if ended(errX) || ended(errY) {
			return ended(errX) && ended(errY), nil
		}
		if err := errors.Join(errX, errY); err != nil {
			return false, fault.Wrap(fault.IO, err)
		}
	}
}

func ended(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }
