// Package tree is a file tree as a model in memory: paths, owners, modes and links are held as values, file contents stay
// where they are (in a tar file, on disk or in a byte slice) until the tree is written out.
//
// A build edits this model instead of a directory: nothing needs root, nothing leaks from the host (umask, inode order,
// times), and what is written is sorted by path, byte by byte, with one time stamp for every file. The tree is written as
// a POSIX (pax) tar stream, which mkfs.erofs reads.
//
// Paths are slash-separated, relative, clean, and without a leading slash: "usr/bin/env". The root directory is ".".
// Limits: at most 1,000,000 nodes; a path is at most 4096 bytes; a link target at most 4095.
package tree

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

// Limits of a tree, see the package's documentation.
const (
	maxNodes  = 1_000_000
	maxPath   = 4096
	maxTarget = 4095
)

// Type is the kind of a node.
type Type uint8

// The types of a node. A hard link is not a type: two paths then share one *Inode.
const (
	File Type = iota
	Directory
	Symlink
	CharDevice
	BlockDevice
	Fifo
)

// Inode is what a path leads to.
type Inode struct {
	Type         Type
	Mode         uint32 // permission bits and setuid, setgid, sticky: at most 0o7777
	UID, GID     int
	Target       string            // of a symbolic link
	Major, Minor int64             // of a device
	Xattrs       map[string]string // "security.capability" and the like

	content content
}

// content is a file's bytes, wherever they are kept.
type content struct {
	size int64
	open func() (io.ReadCloser, error)
}

// Size returns the number of bytes in a file, 0 for anything else.
func (n *Inode) Size() int64 { return n.content.size }

// Open returns a reader of a file's bytes. The caller closes it.
func (n *Inode) Open() (io.ReadCloser, error) {
	if n.Type != File {
		return nil, fmt.Errorf("not a regular file")
	}
	if n.content.open == nil {
		return io.NopCloser(bytes.NewReader(nil)), nil
	}
	return n.content.open()
}

// Tree is a set of paths. The zero value is not usable; call New.
type Tree struct {
	nodes    map[string]*Inode
	children map[string]map[string]struct{} // full paths by directory; a directory without any has no entry
}

// New returns a tree that holds its root directory alone (root:root, 0755).
func New() *Tree {
	return &Tree{nodes: map[string]*Inode{".": {Type: Directory, Mode: 0o755}}, children: map[string]map[string]struct{}{}}
}

// set makes n the inode at p, whose parent directory is there or will be.
func (t *Tree) set(p string, n *Inode) {
	t.nodes[p] = n
	if dir := path.Dir(p); t.children[dir] == nil {
		t.children[dir] = map[string]struct{}{p: {}}
	} else {
		t.children[dir][p] = struct{}{}
	}
}

// unset takes p alone away.
func (t *Tree) unset(p string) {
	delete(t.nodes, p)
	dir := path.Dir(p)
	delete(t.children[dir], p)
	if len(t.children[dir]) == 0 {
		delete(t.children, dir)
	}
}

// Len returns the number of paths, the root directory included.
func (t *Tree) Len() int { return len(t.nodes) }

// Paths returns every path in the order in which the tree is written: sorted by bytes, parents before children.
func (t *Tree) Paths() []string { return slices.Sorted(maps.Keys(t.nodes)) }

// Lookup returns the inode at p, or nil. It does not follow symbolic links.
func (t *Tree) Lookup(p string) *Inode { return t.nodes[p] }

// ReadFile returns the bytes of the file at p, which may be at most 64 MiB.
func (t *Tree) ReadFile(p string) ([]byte, error) {
	n := t.nodes[p]
	if n == nil {
		return nil, fault.New(fault.Input, "/%s: %w in the tree", p, os.ErrNotExist)
	}
	if n.Size() > 64<<20 {
		return nil, fault.New(fault.Input, "/%s: %d bytes are too many to hold in memory", p, n.Size())
	}
	r, err := n.Open()
	if err != nil {
		return nil, fmt.Errorf("/%s: %w", p, err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("/%s: read: %w", p, err)
	}
	return b, nil
}

// Put sets the inode at p and makes missing parent directories (root:root, 0755).
// Whatever stood at p before is replaced; a directory's children stay only if n is a directory too.
func (t *Tree) Put(p string, n *Inode) error {
	if err := checkPath(p); err != nil {
		return err
	}
	if len(n.Target) > maxTarget {
		return fault.New(fault.Input, "/%s: link target of %d bytes, at most %d", p, len(n.Target), maxTarget)
	}
	if old := t.nodes[p]; old != nil && old.Type == Directory && n.Type != Directory {
		t.Remove(p)
	}
	for dir := path.Dir(p); dir != "."; dir = path.Dir(dir) {
		switch parent := t.nodes[dir]; {
		case parent == nil:
			t.set(dir, &Inode{Type: Directory, Mode: 0o755})
		case parent.Type != Directory:
			return fault.New(fault.Input, "/%s: its parent /%s is not a directory", p, dir)
		}
	}
	if len(t.nodes) >= maxNodes {
		return fault.New(fault.Input, "/%s: a tree holds at most %d files", p, maxNodes)
	}
	t.set(p, n)
	return nil
}

// PutFile puts a file of root:root with the given bytes at p.
func (t *Tree) PutFile(p string, mode uint32, data []byte) error {
	return t.Put(p, &Inode{Type: File, Mode: mode, content: content{
		size: int64(len(data)),
		open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil },
	}})
}

// PutHostFile puts a file of root:root at p whose bytes are those of a file of the host, read when the tree is written.
func (t *Tree) PutHostFile(p string, mode uint32, name string) error {
	info, err := os.Stat(name)
	if err != nil {
		return fault.Wrap(fault.Input, err)
	}
	if !info.Mode().IsRegular() {
		return fault.New(fault.Input, "%s: not a regular file", name)
	}
	return t.Put(p, &Inode{Type: File, Mode: mode, content: content{
		size: info.Size(),
		open: func() (io.ReadCloser, error) { return os.Open(name) },
	}})
}

// PutSymlink puts a symbolic link at p.
func (t *Tree) PutSymlink(p, target string) error {
	return t.Put(p, &Inode{Type: Symlink, Mode: 0o777, Target: target})
}

// PutDir puts a directory of root:root at p. A directory that is there already only gets the mode.
func (t *Tree) PutDir(p string, mode uint32) error {
	if old := t.nodes[p]; old != nil && old.Type == Directory {
		old.Mode = mode
		return nil
	}
	return t.Put(p, &Inode{Type: Directory, Mode: mode})
}

// Remove takes p and everything below it away, and reports how many paths that were.
func (t *Tree) Remove(p string) int {
	if p == "." {
		return 0
	}
	n := t.nodes[p]
	if n == nil {
		return 0
	}
	count := 1
	if n.Type == Directory {
		count += t.Clear(p)
	}
	t.unset(p)
	return count
}

// Clear takes everything below the directory p away and keeps p itself.
func (t *Tree) Clear(p string) int {
	below := t.Below(p)
	for _, q := range below {
		t.unset(q)
	}
	return len(below)
}

// Empty reports whether nothing is below the directory p.
func (t *Tree) Empty(p string) bool { return len(t.children[p]) == 0 }

// RemoveMatching takes away every path for which match says yes, with everything below it.
func (t *Tree) RemoveMatching(match func(p string, n *Inode) bool) int {
	count := 0
	for _, p := range t.Paths() {
		if n := t.nodes[p]; n != nil && p != "." && match(p, n) {
			count += t.Remove(p)
		}
	}
	return count
}

// Below returns the sorted paths strictly below the directory p.
func (t *Tree) Below(p string) []string {
	below := slices.Collect(maps.Keys(t.children[p]))
	for i := 0; i < len(below); i++ { // it grows
		below = slices.AppendSeq(below, maps.Keys(t.children[below[i]]))
	}
	slices.Sort(below)
	return below
}

func checkPath(p string) error {
	if p == "" || p == "." || len(p) > maxPath || path.Clean(p) != p || path.IsAbs(p) || p == ".." || strings.HasPrefix(p, "../") || strings.ContainsRune(p, 0) {
		return fault.New(fault.Input, "%.80q is not a clean relative path of at most %d bytes", p, maxPath)
	}
	return nil
}
