package recipe

import (
	"fmt"
	"path"
	"strings"
)

// MatchModule reports whether a module is covered by one of the recipe's exclude-modules globs. The name is relative to the modules' folder of one kernel version,
// without the compression's suffix: "kernel/drivers/net/tun.ko".
//
// A glob is one of
//
//	kernel/drivers/media/**       everything below a folder
//	kernel/drivers/net/wire*/**   the same, for each folder that matches
//	kernel/fs/*/hfs*.ko           one level a star, as in path.Match
//
// It must begin with the first element of the name: there is no implicit "anywhere".
func MatchModule(glob, name string) bool {
	if folder, ok := strings.CutSuffix(glob, "/**"); ok {
		depth := strings.Count(folder, "/") + 1
		elements := strings.Split(name, "/")
		if len(elements) <= depth {
			return false
		}
		glob, name = folder, strings.Join(elements[:depth], "/")
	}
	ok, err := path.Match(glob, name)
	return err == nil && ok
}

// checkGlob refuses what MatchModule could never match.
func checkGlob(glob string) error {
	folder := strings.TrimSuffix(glob, "/**")
	if folder == "" || strings.Contains(folder, "**") || path.Clean(folder) != folder || path.IsAbs(folder) || strings.HasPrefix(folder, "../") {
		return fmt.Errorf("%q is not a module glob: write kernel/…, with * within one folder and ** only as the last element", glob)
	}
	if _, err := path.Match(folder, ""); err != nil {
		return fmt.Errorf("%q is not a module glob: %w", glob, err)
	}
	if folder == glob && !strings.HasSuffix(glob, ".ko") && !strings.HasSuffix(glob, "*") {
		return fmt.Errorf("%q names no module: end it with /** for a folder, or with .ko", glob)
	}
	return nil
}
