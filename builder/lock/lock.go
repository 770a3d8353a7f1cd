// Package lock is packages.lock: every .deb that an image is made of, by version, size and SHA-256, as apt resolved the recipe on the day it was locked.
//
// The file is JSON lines, sorted, one fact a line, so that a diff of two locks reads like a list of updates:
//
//	{"format":"semper lock 1","suite":"trixie","architecture":"amd64","components":["main"]}
//	{"release":"trixie","date":"2025-11-15T09:57:51Z"}                 the suites' Release files that were used
//	{"wants":"podman","for":"image"}                                   what the recipe asked for: image, kernel or tools
//	{"package":"podman","version":"5.4.2+ds1-2+b2","architecture":"amd64","groups":["image"],"size":24686200,"sha256":"…","archive":"debian","path":"pool/main/…/podman_….deb"}
//
// Groups say what a package is for: "image" is installed into the root, "kernel" is the one concrete kernel package, which is unpacked but not installed, and
// "tools" are programs and files that shape the image's bytes, unpacked on the build machine with the libraries they need. A path is relative to an
// archive ("debian" or "security"), never to a host: any mirror of the two archives will do, for SHA-256 decides.
//
// Reading is strict: a line must be, byte for byte, what this package writes, and lines must be in order. Limits: 16 MiB, 16384 packages, 4 GiB a package.
package lock

import (
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/semper-os/semper/builder/recipe"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/spelling"
)

// FileName is a lock's name in the image's folder.
const FileName = "packages.lock"

// Group says what a package is for.
type Group string

// The groups, in the order in which they are written.
const (
	Image  Group = "image"  // installed into the root
	Kernel Group = "kernel" // unpacked: kernel and modules
	Tools  Group = "tools"  // unpacked on the build machine
)

// Archive is one of the two Debian archives that a path can be relative to.
type Archive string

// The archives.
const (
	Debian   Archive = "debian"   // SUITE and SUITE-updates
	Security Archive = "security" // SUITE-security
)

// Package is one locked .deb.
type Package struct {
	Name         string  `json:"package"`
	Version      string  `json:"version"`
	Architecture string  `json:"architecture"` // the recipe's, or "all"
	Groups       []Group `json:"groups"`       // sorted, never empty
	Size         int64   `json:"size"`         // bytes
	SHA256       string  `json:"sha256"`       // 64 lower-case hexadecimal digits
	Archive      Archive `json:"archive"`
	Path         string  `json:"path"` // within the archive: "pool/main/…/name_version_arch.deb"
}

// In reports whether the package belongs to a group.
func (p Package) In(g Group) bool { return slices.Contains(p.Groups, g) }

// Release is one suite's Release file that the resolution read.
type Release struct {
	Suite string    `json:"release"`
	Date  time.Time `json:"date"` // UTC, whole seconds
}

// Want is a package that the recipe names.
type Want struct {
	Name string `json:"wants"`
	For  Group  `json:"for"`
}

// Lock is a resolved recipe.
type Lock struct {
	Suite        string
	Architecture string
	Components   []string  // sorted
	Releases     []Release // sorted by suite, never empty
	Wants        []Want    // sorted by group, then name
	Packages     []Package // sorted by name; a name is there once
}

// Group returns the packages of a group, sorted by name.
func (l *Lock) Group(g Group) []Package {
	var list []Package
	for _, p := range l.Packages {
		if p.In(g) {
			list = append(list, p)
		}
	}
	return list
}

// Package returns the locked package of that name.
func (l *Lock) Package(name string) (Package, bool) {
	i, ok := slices.BinarySearchFunc(l.Packages, name, func(p Package, name string) int { return strings.Compare(p.Name, name) })
	if !ok {
		return Package{}, false
	}
	return l.Packages[i], true
}

// Epoch is the date that builds from this lock use for "now" (SOURCE_DATE_EPOCH): that of the newest Release file.
func (l *Lock) Epoch() time.Time {
	var newest time.Time
	for _, r := range l.Releases {
		if r.Date.After(newest) {
			newest = r.Date
		}
	}
	return newest
}

// Digest is the SHA-256 of the lock's bytes, which are the same for equal locks.
func (l *Lock) Digest() [32]byte { return sha256.Sum256(l.Encode()) }

// Same reports whether two locks name the same packages for the same wishes; only the dates of their Release files may differ.
func (l *Lock) Same(other *Lock) bool {
	a, b := *l, *other
	a.Releases, b.Releases = nil, nil
	return a.Digest() == b.Digest()
}

// Load reads the lock in an image's folder. A lock that is missing is an error of kind Input that says how to make one.
func Load(dir string) (*Lock, error) {
	path := filepath.Join(dir, FileName)
	info, err := os.Stat(path)
	if os.IsNotExist(err) {
		return nil, fault.New(fault.Input, "%s does not exist: run 'semper lock %s'", path, dir)
	}
	if err != nil {
		return nil, fault.New(fault.IO, "read lock: %w", err)
	}
	if !info.Mode().IsRegular() || info.Size() > maxBytes {
		return nil, fault.New(fault.Input, "%s: a lock is a regular file of at most %d bytes", path, maxBytes)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fault.New(fault.IO, "read lock: %w", err)
	}
	return Parse(path, data)
}

// Save writes the lock into an image's folder: complete and on the disk, or not at all.
func (l *Lock) Save(dir string) error {
	if err := save(filepath.Join(dir, FileName), l.Encode()); err != nil {
		return fault.New(fault.IO, "write lock: %w", err)
	}
	return nil
}

func save(path string, data []byte) error {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := f.Chmod(0o644); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// wants are the packages that a recipe names, in the lock's order.
func wants(r *recipe.Recipe) []Want {
	list := []Want{{r.Kernel.Package, Kernel}}
	for _, p := range r.Packages {
		list = append(list, Want{p, Image})
	}
	for _, p := range r.Tools {
		list = append(list, Want{p, Tools})
	}
	slices.SortFunc(list, compareWants)
	return list
}

func compareWants(a, b Want) int {
	if c := strings.Compare(string(a.For), string(b.For)); c != 0 {
		return c
	}
	return strings.Compare(a.Name, b.Name)
}

// Check compares the lock with the recipe that it should resolve. A difference is an error of kind Input that says what changed since.
func (l *Lock) Check(r *recipe.Recipe) error {
	var changes []string
	for _, c := range []struct{ what, was, is string }{
		{"suite", l.Suite, r.Suite},
		{"architecture", l.Architecture, r.Arch.Debian},
		{"components", strings.Join(l.Components, " "), strings.Join(r.Components, " ")},
	} {
		if c.was != c.is {
			changes = append(changes, fmt.Sprintf("%s was %q and is %q", c.what, c.was, c.is))
		}
	}
	now := wants(r)
	for _, w := range now {
		if !slices.Contains(l.Wants, w) {
			changes = append(changes, fmt.Sprintf("%s package %q was added", w.For, w.Name))
		}
	}
	for _, w := range l.Wants {
		if !slices.Contains(now, w) {
			changes = append(changes, fmt.Sprintf("%s package %q was removed", w.For, w.Name))
		}
	}
	if len(changes) > 0 {
		const most = 10
		if more := len(changes) - most; more > 0 {
			changes = append(changes[:most], fmt.Sprintf("and %d more", more))
		}
		return fault.New(fault.Input, "%s no longer matches %s: %s; run 'semper lock %s'",
			filepath.Join(r.Dir(), FileName), r.Path, strings.Join(changes, ", "), r.Dir())
	}
	return l.checkRemoved(r)
}

// checkRemoved refuses to remove from the image what is not in it: most likely the name is mistyped, and the package would stay.
func (l *Lock) checkRemoved(r *recipe.Recipe) error {
	var names []string
	for _, p := range l.Group(Image) {
		names = append(names, p.Name)
	}
	for i, name := range r.RemovePackages {
		if slices.Contains(names, name) {
			continue
		}
		hint := ""
		if near := spelling.Nearest(name, names, 1); len(near) > 0 {
			hint = fmt.Sprintf(", did you mean %q?", near[0])
		}
		return fault.New(fault.Input, "%s: remove-packages: %q is not among the image's %d packages%s",
			r.Where(fmt.Sprintf("remove-packages[%d]", i)), name, len(names), hint)
	}
	return nil
}
