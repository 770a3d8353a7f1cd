// Package recipe reads an image's recipe.toml: what the image is made of, by name. Versions are the lock's business (package lock).
//
// A recipe lies in a folder of its own, images/NAME/recipe.toml, beside packages.lock and tree/, the files laid over the root.
//
//	name = "semper"              # IMAGE_ID and ID in os-release: a-z, 0-9, -, at most 16 characters
//	title = "Semper OS"          # NAME in os-release, for people; default: the name
//	suite = "trixie"             # the Debian release; its -updates and -security suites are always used too
//	architecture = "amd64"       # a row of package arch
//	components = ["main"]        # of main, contrib, non-free, non-free-firmware; default: main
//	epoch = 0                    # SEMPER_EPOCH; a machine refuses a release of a lower epoch than its own
//	min-version = "1.1.0"        # the oldest version that can be updated to the release directly; default: any
//	packages = ["systemd", …]    # what is installed, with all it depends on; recommended packages are not
//	remove-packages = ["dpkg"]   # installed while the tree is made, but none of their files reach the image
//	remove-paths = ["usr/share/man/*"]          # what is left out of the image: patterns of path.Match, anchored at the root
//	keep-paths = ["usr/share/doc/*/copyright"]  # what stays although remove-paths names it
//
//	[kernel]
//	package = "linux-image-amd64"   # the meta package or a concrete kernel; default: the architecture's generic one
//	modules = "plain"               # "plain": stored uncompressed; "as-shipped": as the package has them
//	exclude-modules = ["kernel/drivers/media/**"]   # left out, see MatchModule
//	command-line = "console=tty0"   # after roothash=, which the builder writes; at most 1024 characters
//
//	[root]
//	slot-size = "2GiB"           # of each of the two root partitions: 64 MiB to 1 TiB, whole MiB
//	compression = "lz4hc,12"     # mkfs.erofs -z: none, lz4, lz4hc, zstd, deflate or lzma, with a level where there is one
//
//	[esp]
//	size = "1GiB"                # 256 MiB to 32 GiB, whole MiB; default 1GiB
//
//	[tools]
//	packages = ["erofs-utils", …]   # programs and files that shape the image's bytes, unpacked (never installed) from the lock
//
//	[[users]]                    # an account of the image; its primary group has the same name
//	name = "semperd"
//	uid = 800                    # 100 to 999 for a system account, 1000 to 59999 for others
//	gid = 800                    # default: uid
//	home = "/var/lib/semperd"    # default: /nonexistent for a system account, /home/NAME for others
//	shell = "/bin/bash"          # default: /usr/sbin/nologin for a system account, /bin/bash for others
//	groups = ["adm"]             # further groups, which must exist in the image
//	system = true
//
//	[[health]]                   # a program that must exit 0 before a boot counts as good; the tree may bring more in /usr/lib/semper/health.d
//	name = "network"
//	command = ["systemctl", "is-active", "systemd-networkd.service"]
//
// Sizes are whole numbers with the unit KiB, MiB, GiB or TiB. Everything is checked before any work begins: an unknown key is refused with its line and the
// nearest key that exists, and so are names that cannot be right, duplicates, clashing identifiers and sizes that do not fit a partition.
//
// Limits: 1 MiB of TOML, 4096 packages, 256 users, 256 health checks, 1024 globs.
package recipe

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/semper-os/semper/builder/arch"
	"github.com/semper-os/semper/fault"
)

// FileName is a recipe's name within its folder.
const FileName = "recipe.toml"

const maxBytes = 1 << 20

// ModuleStorage says how kernel modules are stored in the root.
type ModuleStorage string

// The ways to store modules.
const (
	ModulesPlain     ModuleStorage = "plain"      // uncompressed: erofs compresses them, and a delta finds what changed
	ModulesAsShipped ModuleStorage = "as-shipped" // as they are in the package (xz)
)

// Recipe is a recipe that was read and checked.
type Recipe struct {
	Path string // of recipe.toml, as it was given; for messages

	Name           string
	Title          string
	Suite          string
	Arch           arch.Arch
	Components     []string // sorted, never empty
	Epoch          int
	MinVersion     string   // the oldest version that can be updated to a release of this recipe directly; empty: any
	Packages       []string // in the recipe's order
	RemovePackages []string
	RemovePaths    []string
	KeepPaths      []string
	Kernel         Kernel
	Root           Root
	ESP            ESP
	Tools          []string
	Users          []User
	Health         []HealthCheck

	lines map[string]int
}

// Kernel is the recipe's [kernel].
type Kernel struct {
	Package        string
	Modules        ModuleStorage
	ExcludeModules []string // globs for MatchModule
	CommandLine    string
}

// Root is the recipe's [root].
type Root struct {
	SlotSize    int64  // bytes
	Compression string // for mkfs.erofs -z; empty: not compressed
}

// ESP is the recipe's [esp].
type ESP struct {
	Size int64 // bytes
}

// User is one of the recipe's [[users]], with every default filled in.
type User struct {
	Name   string
	UID    int
	GID    int // of the primary group, which has the user's name
	Home   string
	Shell  string
	Groups []string
	System bool
}

// Load reads the recipe of an image folder, or the recipe file itself.
// Errors are of kind Input where the recipe is wrong, and IO where it could not be read.
func Load(path string) (*Recipe, error) {
	info, err := os.Stat(path)
	if err == nil && info.IsDir() {
		path = filepath.Join(path, FileName)
		info, err = os.Stat(path)
	}
	if os.IsNotExist(err) {
		return nil, fault.New(fault.Input, "no recipe at %s: name an image folder that holds a %s", path, FileName)
	}
	if err != nil {
		return nil, fault.New(fault.IO, "read recipe: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, fault.New(fault.Input, "%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fault.New(fault.IO, "read recipe: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBytes+1))
	if err != nil {
		return nil, fault.New(fault.IO, "read recipe: %w", err)
	}
	return Parse(path, data)
}

// Dir is the image's folder.
func (r *Recipe) Dir() string { return filepath.Dir(r.Path) }

// Tree is the folder of the files that are laid over the root; it need not exist.
func (r *Recipe) Tree() string { return filepath.Join(r.Dir(), "tree") }

// Where returns "path:line" of a key such as "packages", "packages[3]", "kernel.package" or "users[0].uid", for messages; the path alone where
// the recipe does not have the key.
func (r *Recipe) Where(key string) string {
	if line := r.lines[key]; line > 0 {
		return fmt.Sprintf("%s:%d", r.Path, line)
	}
	return r.Path
}
