package rootfs

import (
	"fmt"
	"time"

	"github.com/semper-os/semper/builder/tree"
)

// Finishing says how a tree that mmdebstrap made becomes the root of an image.
type Finishing struct {
	Release        Release
	Users          []User
	RemovePackages []string // see PrunePackages
	RemovePaths    []string // see PrunePaths
	KeepPaths      []string
	Overlays       []string               // directories of the host, laid over the tree in this order
	Add            func(*tree.Tree) error // what the build itself puts in: programs, keys, modules
	Epoch          time.Time
}

// Finish runs every step in its order. Packages' leftovers go first, so that overlays and the build's own files have the
// last word; /var comes last, because all of them may put something there.
func Finish(t *tree.Tree, f Finishing) error {
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"clean", func() error { return Clean(t, f.Epoch) }},
		{"remove packages", func() error { return PrunePackages(t, f.RemovePackages) }},
		{"remove paths", func() error { return PrunePaths(t, f.RemovePaths, f.KeepPaths) }},
		{"users", func() error { return AddUsers(t, f.Users, f.Epoch) }},
		{"os-release", func() error { return WriteOSRelease(t, f.Release) }},
		{"overlays", func() error {
			for _, dir := range f.Overlays {
				if err := t.Overlay(dir); err != nil {
					return err
				}
			}
			return nil
		}},
		{"programs, keys and modules", func() error { return f.Add(t) }},
		{"/var", func() error { return Writable(t) }},
	} {
		if err := step.run(); err != nil {
			return fmt.Errorf("root file system: %s: %w", step.name, err)
		}
	}
	return nil
}
