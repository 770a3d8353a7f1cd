package fat

import (
	"cmp"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

const maxFileSize = 1<<32 - 1

// node is a file or folder on its way into the file system.
type node struct {
	name     string
	path     string
	folder   bool
	file     File
	children []*node // sorted by name

	short [11]byte // padded name of 8 and 3 characters
	long  []uint16 // UTF-16, nil where the short name says all
	first uint32   // first cluster; 0 for an empty file
}

// buildTree arranges files into folders, checks their names, and gives out short ones.
func buildTree(files []File) (*node, error) {
	root := &node{path: "/", folder: true}
	for _, f := range files {
		if err := root.add(f); err != nil {
			return nil, err
		}
	}
	return root, root.finish()
}

func (n *node) add(f File) error {
	path, folder := strings.CutSuffix(f.Path, "/")
	if f.Size < 0 || f.Size > maxFileSize || folder && f.Size != 0 || f.Size > 0 && f.Data == nil {
		return fault.New(fault.Input, "FAT file %q: a size of %d bytes: want 0 to %d, and data for it", f.Path, f.Size, int64(maxFileSize))
	}
	names := strings.Split(path, "/")
	for i, name := range names {
		if err := checkName(name); err != nil {
			return fault.New(fault.Input, "FAT file %q: %w", f.Path, err)
		}
		last := i == len(names)-1
		at := slices.IndexFunc(n.children, func(c *node) bool { return foldName(c.name) == foldName(name) })
		if at < 0 {
			child := &node{name: name, path: strings.Join(names[:i+1], "/"), folder: !last || folder}
			if last {
				child.file = f
			}
			n.children = append(n.children, child)
			n = child
			continue
		}
		child := n.children[at]
		if !child.folder || last && !folder {
			return fault.New(fault.Input, "FAT file %q: %q is there already", f.Path, child.path)
		}
		if child.name != name {
			return fault.New(fault.Input, "FAT file %q: the folder is also written %q; FAT does not tell upper from lower case", f.Path, child.path)
		}
		n = child
	}
	return nil
}

// finish sorts the folder and all below it, and names the entries.
func (n *node) finish() error {
	slices.SortFunc(n.children, func(a, b *node) int { return cmp.Compare(a.name, b.name) })
	if err := giveShortNames(n.children); err != nil {
		return fault.New(fault.Input, "FAT folder %q: %w", n.path, err)
	}
	for _, c := range n.children {
		if c.folder {
			if err := c.finish(); err != nil {
				return err
			}
		}
	}
	return nil
}
