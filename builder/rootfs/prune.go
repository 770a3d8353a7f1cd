package rootfs

import (
	"fmt"
	"path"
	"strings"

	"github.com/semper-os/semper/builder/tree"
	"github.com/semper-os/semper/fault"
)

const (
	dpkgDir    = "var/lib/dpkg"
	dpkgKept   = "usr/share/semper/dpkg" // where the image's package list lives, for people and scanners
	dpkgStatus = dpkgDir + "/status"
)

// PrunePackages takes the files of installed packages away, for those that Debian calls essential and an image that is
// never changed by packages does not need: apt, dpkg, debconf. A file that another package owns too stays.
// What is left of dpkg's database is the list of the packages that are really there.
func PrunePackages(t *tree.Tree, names []string) error {
	drop := map[string]bool{}
	for _, n := range names {
		drop[n] = true
	}
	kept := map[string]bool{}
	var gone []string
	found := map[string]bool{}
	for _, p := range t.Below(dpkgDir + "/info") {
		name, ok := strings.CutSuffix(path.Base(p), ".list")
		if !ok {
			continue
		}
		name, _, _ = strings.Cut(name, ":")
		b, err := t.ReadFile(p)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(b)) {
			f := canonical(t, strings.TrimPrefix(strings.TrimSpace(line), "/"))
			if f == "" || f == "." {
				continue
			}
			if drop[name] {
				found[name] = true
				gone = append(gone, f)
			} else {
				kept[f] = true
			}
		}
	}
	for _, n := range names {
		if !found[n] {
			return fault.New(fault.Input, "remove-packages: %s is not installed in the image", n)
		}
	}
	for _, p := range gone {
		if n := t.Lookup(p); n != nil && n.Type != tree.Directory && !kept[p] {
			t.Remove(p)
			removeEmptyParents(t, p)
		}
	}
	return keepPackageList(t, drop)
}

// canonical resolves the links of the merged /usr in a path that dpkg recorded: bin/sh is usr/bin/sh.
func canonical(t *tree.Tree, p string) string {
	first, rest, ok := strings.Cut(p, "/")
	if n := t.Lookup(first); ok && n != nil && n.Type == tree.Symlink {
		return path.Join(n.Target, rest)
	}
	return p
}

// keepPackageList moves dpkg's status file, less the packages in drop, to /usr and removes the rest of dpkg's database.
func keepPackageList(t *tree.Tree, drop map[string]bool) error {
	b, err := t.ReadFile(dpkgStatus)
	if err != nil {
		return fmt.Errorf("package list: %w", err)
	}
	var out strings.Builder
	for stanza := range strings.SplitSeq(strings.TrimSpace(string(b)), "\n\n") {
		name, ok := strings.CutPrefix(stanza, "Package: ")
		name, _, _ = strings.Cut(name, "\n")
		if !ok {
			return fmt.Errorf("/%s: a stanza does not begin with Package", dpkgStatus)
		}
		if !drop[name] {
			out.WriteString(stanza + "\n\n")
		}
	}
	t.Remove(dpkgDir)
	return t.PutFile(dpkgKept+"/status", 0o644, []byte(out.String()))
}

// PrunePaths takes away every path that one of the patterns names, with everything below it. Patterns are those of
// path.Match, anchored at the root: "usr/share/man/*". A file in keep stays, and so do its parent directories.
func PrunePaths(t *tree.Tree, patterns, keep []string) error {
	for _, pattern := range append(append([]string{}, patterns...), keep...) {
		if _, err := path.Match(pattern, ""); err != nil {
			return fault.New(fault.Input, "pattern %q: %w", pattern, err)
		}
	}
	matches := func(patterns []string, p string) bool {
		for q := p; q != "."; q = path.Dir(q) {
			for _, pattern := range patterns {
				if ok, _ := path.Match(pattern, q); ok {
					return true
				}
			}
		}
		return false
	}
	var dirs []string
	for _, p := range t.Paths() {
		if p == "." || !matches(patterns, p) || matches(keep, p) {
			continue
		}
		if t.Lookup(p).Type == tree.Directory {
			dirs = append(dirs, p)
			continue
		}
		t.Remove(p)
	}
	for i := len(dirs) - 1; i >= 0; i-- { // children before their parents
		if t.Empty(dirs[i]) {
			t.Remove(dirs[i])
		}
	}
	return nil
}
