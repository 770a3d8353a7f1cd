package tools

import (
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/fault"
)

// HostTool is something that a build takes from the build machine, because it does not shape the image's bytes or cannot come from the lock.
type HostTool struct {
	Name    string // a program in PATH, or a file's absolute path
	Package string // the Debian package that brings it
}

// What the verbs take from the host.
var (
	ForLock  = []HostTool{{"apt-get", "apt"}, {"apt-config", "apt"}, {lock.Keyring, "debian-archive-keyring"}}
	ForBuild = []HostTool{{"mmdebstrap", "mmdebstrap"}, {"apt-get", "apt"}, {"apt-config", "apt"}, {"dpkg", "dpkg"}, {"dpkg-deb", "dpkg"}}
)

// CheckHost reports everything of the list that the host does not have as one error of kind Input, with the command that installs it.
func CheckHost(list []HostTool) error {
	return checkHost(list, exec.LookPath, os.Stat)
}

func checkHost(list []HostTool, lookPath func(string) (string, error), stat func(string) (os.FileInfo, error)) error {
	var missing, packages []string
	for _, t := range list {
		var err error
		if strings.HasPrefix(t.Name, "/") {
			_, err = stat(t.Name)
		} else {
			_, err = lookPath(t.Name)
		}
		if err == nil {
			continue
		}
		missing = append(missing, t.Name)
		if !slices.Contains(packages, t.Package) {
			packages = append(packages, t.Package)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return fault.New(fault.Input, "this machine lacks %s: %s", strings.Join(missing, ", "), fmt.Sprintf("apt-get install %s", strings.Join(packages, " ")))
}

// WithoutKeyring leaves Debian's keyring out of a list, for who brings keys of their own.
func WithoutKeyring(list []HostTool) []HostTool {
	return slices.DeleteFunc(slices.Clone(list), func(t HostTool) bool { return t.Name == lock.Keyring })
}
