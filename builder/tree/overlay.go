package tree

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/semper-os/semper/fault"
)

// Overlay lays a directory of the host over the tree. Owners are always root:root; a file's mode is 0755 where its owner
// may execute it and 0644 where not, a directory's 0755: the author's umask, user and group stay outside.
// A directory that the tree has already keeps its owner and mode.
func (t *Tree) Overlay(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return fault.Wrap(fault.Input, fmt.Errorf("overlay: %w", err))
		}
		p, err := filepath.Rel(dir, name)
		if err != nil || p == "." {
			return err
		}
		p = filepath.ToSlash(p)
		switch d.Type() {
		case fs.ModeDir:
			if old := t.nodes[p]; old != nil && old.Type == Directory {
				return nil
			}
			return t.Put(p, &Inode{Type: Directory, Mode: 0o755})
		case fs.ModeSymlink:
			target, err := os.Readlink(name)
			if err != nil {
				return fault.Wrap(fault.Input, fmt.Errorf("overlay: %w", err))
			}
			return t.PutSymlink(p, target)
		case 0:
			info, err := d.Info()
			if err != nil {
				return fault.Wrap(fault.Input, fmt.Errorf("overlay: %w", err))
			}
			mode := uint32(0o644)
			if info.Mode()&0o100 != 0 {
				mode = 0o755
			}
			return t.PutHostFile(p, mode, name)
		default:
			return fault.New(fault.Input, "overlay: %s: only files, directories and symbolic links can be laid over a tree", name)
		}
	})
}
