// Package tools is the tools tree: the programs and files that shape an image's bytes (mkfs.erofs, depmod, systemd-boot, …), unpacked from the
// locked packages, so that the bytes depend on the lock and not on the build machine.
//
//	CACHE/tools/DIGEST/usr/…      the packages' files; /bin, /sbin, /lib and /lib64 are links into /usr, as on any Debian
//
// DIGEST is that of the packages, so a tree is made once and never changed. It appears complete and flushed, or not at all.
//
// Programs run without root, chroot or mounts: the tree's own dynamic loader starts them with the tree's own libraries. They see the files of the
// host, and may be given any path. Maintainer scripts are never run, and set-user-id bits, owners and devices are not unpacked.
package tools

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/builder/arch"
	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/fault"
)

// layout changes the digest when the way of unpacking changes.
const layout = "semper tools tree 1"

const (
	maxFiles = 200_000
	maxBytes = 8 << 30
)

// Files tells where a locked package lies; a *debs.Store does.
type Files interface {
	Path(lock.Package) string
}

// Tree is an unpacked tools tree.
type Tree struct {
	dir   string
	arch  arch.Arch
	epoch time.Time
}

// Unpack returns the tree of the lock's tools below the cache folder, and makes it where it is not there yet. The packages must be in the store.
func Unpack(ctx context.Context, cache string, files Files, l *lock.Lock) (*Tree, error) {
	a, err := arch.Lookup(l.Architecture)
	if err != nil {
		return nil, err
	}
	packages := l.Group(lock.Tools)
	if cache, err = filepath.Abs(cache); err != nil {
		return nil, fault.New(fault.IO, "tools tree: %w", err)
	}
	t := &Tree{dir: filepath.Join(cache, "tools", digest(packages)), arch: a, epoch: l.Epoch()}
	if _, err := os.Stat(t.dir); err == nil {
		return t, nil
	}
	if err := t.make(ctx, files, packages); err != nil {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		return nil, fmt.Errorf("tools tree: %w", err)
	}
	return t, nil
}

func digest(packages []lock.Package) string {
	h := sha256.New()
	fmt.Fprintln(h, layout)
	for _, p := range packages { // sorted by name
		fmt.Fprintln(h, p.SHA256)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// Digest names the tree's content; a step that runs a tool depends on it.
func (t *Tree) Digest() string { return filepath.Base(t.dir) }

// Path is the place of one of the tree's files, for instance "usr/lib/systemd/boot/efi/linuxx64.efi.stub". A file that is not there is an error of kind Input:
// the recipe's tools lack the package that has it.
func (t *Tree) Path(name string) (string, error) {
	root, err := os.OpenRoot(t.dir)
	if err != nil {
		return "", fault.New(fault.IO, "tools tree: %w", err)
	}
	defer root.Close()
	// Through the root, because an absolute link would lead to a file of the host.
	info, err := root.Stat(strings.TrimPrefix(path.Clean("/"+name), "/"))
	if err != nil || !info.Mode().IsRegular() {
		return "", fault.New(fault.Input, "the recipe's tools packages have no file %s: add the package that brings it to tools.packages", name)
	}
	return filepath.Join(t.dir, path.Clean("/"+name)), nil
}

// Command prepares one of the tree's programs, found in its /usr/bin or /usr/sbin. It runs with a fixed environment (UTF-8, UTC, umask 022 and the lock's date as
// SOURCE_DATE_EPOCH); more may be added to Env.
func (t *Tree) Command(ctx context.Context, name string, args ...string) (*exec.Cmd, error) {
	program, err := t.program(name)
	if err != nil {
		return nil, err
	}
	loader, err := t.Path(t.arch.Loader)
	if err != nil {
		return nil, err
	}
	libraries := make([]string, 0, 2)
	for _, d := range []string{"usr/lib/" + t.arch.Triplet, "usr/lib"} {
		libraries = append(libraries, filepath.Join(t.dir, d))
	}
	// The host's cache of libraries must not be asked: it would lend the program what the lock does not name. The shell is there for the umask alone.
	line := []string{
		"-c", `umask 022 && exec "$0" "$@"`,
		loader, "--inhibit-cache", "--library-path", strings.Join(libraries, ":"), "--argv0", name, program,
	}
	cmd := exec.CommandContext(ctx, "/bin/sh", append(line, args...)...)
	cmd.Env = []string{
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C.UTF-8", "TZ=UTC", "HOME=/nonexistent",
		fmt.Sprintf("SOURCE_DATE_EPOCH=%d", t.epoch.Unix()),
	}
	return cmd, nil
}

func (t *Tree) program(name string) (string, error) {
	for _, d := range []string{"usr/bin", "usr/sbin"} {
		if p, err := t.Path(d + "/" + name); err == nil {
			return p, nil
		}
	}
	return "", fault.New(fault.Input, "the recipe's tools packages have no program %s: add the package that brings it to tools.packages", name)
}

// Run runs a prepared command and returns what it printed on stdout. The error holds the end of what it printed on stderr.
func Run(cmd *exec.Cmd, name string) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	if cmd.Stdout == nil {
		cmd.Stdout = &stdout
	}
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		const most = 2000
		said := strings.TrimSpace(stderr.String())
		said = said[max(0, len(said)-most):]
		return nil, fault.New(fault.IO, "%s: %w: %s", name, err, said)
	}
	return stdout.Bytes(), nil
}

func (t *Tree) make(ctx context.Context, files Files, packages []lock.Package) error {
	parent := filepath.Dir(t.dir)
	if err := os.MkdirAll(parent, 0o755); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	// One at a time, so that what an interrupted build left can be told from what another build is making.
	unlock, err := lockFolder(ctx, parent)
	if err != nil {
		return err
	}
	defer func() { _ = unlock() }() // closing the folder frees it
	if _, err := os.Stat(t.dir); err == nil {
		return nil
	}
	temp := filepath.Join(parent, ".partial")
	if err := os.RemoveAll(temp); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if err := os.Mkdir(temp, 0o755); err != nil {
		return diskError(err)
	}
	defer os.RemoveAll(temp)
	root, err := os.OpenRoot(temp)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer root.Close()
	u := unpacker{root: root}
	if err := u.merge(); err != nil {
		return diskError(err)
	}
	for _, p := range packages {
		if err := u.deb(ctx, files.Path(p)); err != nil {
			return fmt.Errorf("unpack %s: %w", p.Name, err)
		}
	}
	if err := openFolders(temp); err != nil {
		return diskError(err)
	}
	if err := flush(temp); err != nil {
		return diskError(err)
	}
	return diskError(os.Rename(temp, t.dir))
}

// lockFolder waits until no other process holds the folder's lock, and takes it.
func lockFolder(ctx context.Context, dir string) (unlock func() error, err error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	for {
		err := unix.Flock(int(d.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return d.Close, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			d.Close()
			return nil, fault.New(fault.IO, "lock %s: %w", dir, err)
		}
		select {
		case <-ctx.Done():
			d.Close()
			return nil, context.Cause(ctx)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func diskError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		return fault.New(fault.IO, "disk full: %w", err)
	default:
		return fault.Wrap(fault.IO, err)
	}
}

// openFolders gives every folder the mode that it has on any Debian, whatever the umask says.
func openFolders(dir string) error {
	return filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		return os.Chmod(path, 0o755)
	})
}

// flush brings the tree to the disk before its final name says that it is complete.
func flush(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return unix.Syncfs(int(d.Fd()))
}

// unpacker writes the data of packages below a folder, and never outside of it.
type unpacker struct {
	root  *os.Root
	files int
	bytes int64
}

// merge makes the links of a merged /usr.
func (u *unpacker) merge() error {
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := u.root.MkdirAll("usr/"+d, 0o755); err != nil {
			return err
		}
		if err := u.root.Symlink("usr/"+d, d); err != nil {
			return err
		}
	}
	return nil
}

// deb unpacks one package; dpkg-deb takes it apart.
func (u *unpacker) deb(ctx context.Context, file string) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", file)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	data, err := cmd.StdoutPipe()
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if err := cmd.Start(); err != nil {
		return fault.New(fault.Input, "%w (dpkg-deb is part of Debian's package dpkg)", err)
	}
	unpackErr := u.tar(data)
	if unpackErr != nil {
		_ = cmd.Process.Kill() // it would wait for ever for someone to read on
	}
	waitErr := cmd.Wait()
	said := strings.TrimSpace(stderr.String())
	switch {
	case unpackErr != nil && said != "": // it gave up first
		return fault.New(fault.Input, "%w (%s)", unpackErr, said)
	case unpackErr != nil:
		return unpackErr
	case waitErr != nil:
		return fault.New(fault.Input, "dpkg-deb: %w: %s", waitErr, said)
	}
	return nil
}

func (u *unpacker) tar(r io.Reader) error {
	archive := tar.NewReader(r)
	for {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			_, err := io.Copy(io.Discard, r) // the padding, so that dpkg-deb ends well
			return err
		}
		if err != nil {
			return fault.New(fault.Input, "data.tar: %w", err)
		}
		if err := u.entry(h, archive); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
}

func (u *unpacker) entry(h *tar.Header, content io.Reader) error {
	name := inUsr(h.Name)
	if name == "" {
		return nil // the root itself
	}
	if u.files++; u.files > maxFiles {
		return fault.New(fault.Input, "more than %d files", maxFiles)
	}
	if u.bytes += h.Size; u.bytes > maxBytes {
		return fault.New(fault.Input, "more than %d bytes", int64(maxBytes))
	}
	if h.Typeflag != tar.TypeDir {
		if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
			return diskError(err)
		}
	}
	switch h.Typeflag {
	case tar.TypeDir:
		return diskError(u.root.MkdirAll(name, 0o755))
	case tar.TypeReg:
		return diskError(u.file(name, os.FileMode(h.Mode)&0o755|0o644, content))
	case tar.TypeSymlink:
		if err := u.root.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return diskError(err)
		}
		return diskError(u.root.Symlink(h.Linkname, name))
	case tar.TypeLink:
		if err := u.root.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
			return diskError(err)
		}
		return diskError(u.root.Link(inUsr(h.Linkname), name))
	default:
		return fault.New(fault.Input, "it is a device or a pipe, which no tool needs")
	}
}

// inUsr is a packed name below the tree, in /usr where the merged links lead there.
func inUsr(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if name == d || strings.HasPrefix(name, d+"/") {
			return "usr/" + name
		}
	}
	return name
}

func (u *unpacker) file(name string, mode os.FileMode, content io.Reader) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	if _, err := io.Copy(f, content); err != nil {
		f.Close()
		return err
	}
	if err := f.Chmod(mode); err != nil { // whatever the umask says
		f.Close()
		return err
	}
	return f.Close()
}
