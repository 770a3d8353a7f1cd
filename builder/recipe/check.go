package recipe

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/semper-os/semper/builder/arch"
	"github.com/semper-os/semper/builder/release"
)

const (
	mib = 1 << 20
	gib = 1 << 30

	maxPackages    = 4096
	maxUsers       = 256
	maxHealth      = 256
	maxGlobs       = 1024
	maxCommandLine = 1024 // the kernel takes 2048 bytes, of which roothash= and a platform's addon need some
	maxEpoch       = 1<<31 - 1
)

var (
	nameForm    = regexp.MustCompile(`^[a-z][a-z0-9-]{0,15}$`)               // with "PRT#", "_" and a version it must fit a GPT label of 36 characters
	titleForm   = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9 ._()-]{0,63}$`) // it stands in quotes in os-release, which is shell
	suiteForm   = regexp.MustCompile(`^[a-z][a-z0-9]{0,31}$`)
	packageForm = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]{1,127}$`) // Debian policy 5.6.1
	userForm    = regexp.MustCompile(`^[a-z_][a-z0-9_-]{0,30}$`)
	checkForm   = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,63}$`)

	components = []string{"main", "contrib", "non-free", "non-free-firmware"}
)

// checker turns a decoded file into a Recipe, or says what is wrong and where.
type checker struct {
	r *Recipe
	f *file
}

func (c *checker) check() error {
	for _, step := range []func() error{
		c.identity, c.packages, c.kernel, c.sizes, c.users, c.health,
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// at is an error at the line of a key.
func (c *checker) at(key, format string, args ...any) error {
	return fmt.Errorf("%s: %s: %w", c.r.Where(key), key, fmt.Errorf(format, args...))
}

func (c *checker) has(key string) bool { return c.r.lines[key] > 0 }

func (c *checker) identity() error {
	r, f := c.r, c.f
	for _, k := range []string{"name", "suite", "architecture", "packages", "root.slot-size", "tools.packages"} {
		if !c.has(k) {
			return fmt.Errorf("%s: the key %q is missing", r.Path, k)
		}
	}
	if !nameForm.MatchString(f.Name) {
		return c.at("name", "%q is not an image name: a letter, then a-z, 0-9 and -, at most 16 characters", f.Name)
	}
	if f.Title == "" {
		f.Title = f.Name
	}
	if !titleForm.MatchString(f.Title) {
		return c.at("title", "%q is not a title: letters, digits, blanks and . - _ ( ), at most 64 characters", f.Title)
	}
	if !suiteForm.MatchString(f.Suite) {
		return c.at("suite", "%q is not a Debian suite: give the release alone, as in \"trixie\"", f.Suite)
	}
	a, err := arch.Lookup(f.Architecture)
	if err != nil {
		return fmt.Errorf("%s: %w", r.Where("architecture"), err)
	}
	if f.Epoch < 0 || f.Epoch > maxEpoch {
		return c.at("epoch", "%d is not between 0 and %d", f.Epoch, maxEpoch)
	}
	if c.has("min-version") {
		if err := release.CheckVersion(f.MinVersion); err != nil {
			return c.at("min-version", "%w", err)
		}
	}
	r.Name, r.Title, r.Suite, r.Arch, r.Epoch, r.MinVersion = f.Name, f.Title, f.Suite, a, f.Epoch, f.MinVersion
	r.Components = []string{"main"}
	if c.has("components") {
		if err := c.list("components", f.Components, len(components), func(s string) error {
			if slices.Contains(components, s) {
				return nil
			}
			return fmt.Errorf("%q is not one of %s", s, strings.Join(components, ", "))
		}); err != nil {
			return err
		}
		if len(f.Components) == 0 {
			return c.at("components", "at least one is needed")
		}
		r.Components = slices.Sorted(slices.Values(f.Components))
	}
	return nil
}

// list checks each element of an array, and that none is there twice.
func (c *checker) list(key string, list []string, most int, check func(string) error) error {
	if len(list) > most {
		return c.at(key, "%d entries, at most %d are allowed", len(list), most)
	}
	seen := make(map[string]int, len(list))
	for i, s := range list {
		element := fmt.Sprintf("%s[%d]", key, i)
		if err := check(s); err != nil {
			return fmt.Errorf("%s: %s: %w", c.r.Where(element), key, err)
		}
		if first, twice := seen[s]; twice {
			return fmt.Errorf("%s: %s: %q is listed twice, first in line %d", c.r.Where(element), key, s, c.r.lines[fmt.Sprintf("%s[%d]", key, first)])
		}
		seen[s] = i
	}
	return nil
}

func checkPackage(s string) error {
	if packageForm.MatchString(s) {
		return nil
	}
	if strings.ContainsAny(s, "=/:") {
		return fmt.Errorf("%q is not a package name: versions, suites and architectures belong to the lock", s)
	}
	return fmt.Errorf("%q is not a package name", s)
}

func checkPathPattern(s string) error {
	if s == "" || path.IsAbs(s) || path.Clean(s) != s || strings.HasPrefix(s, "..") {
		return fmt.Errorf("%q is not a pattern of a path below the root: write it without a leading slash", s)
	}
	if _, err := path.Match(s, ""); err != nil {
		return fmt.Errorf("%q is not a pattern: %w", s, err)
	}
	return nil
}

func (c *checker) packages() error {
	r, f := c.r, c.f
	for _, l := range []struct {
		key  string
		list []string
	}{{"packages", f.Packages}, {"remove-packages", f.RemovePackages}, {"tools.packages", f.Tools.Packages}} {
		if err := c.list(l.key, l.list, maxPackages, checkPackage); err != nil {
			return err
		}
	}
	for _, l := range []struct {
		key  string
		list []string
	}{{"remove-paths", f.RemovePaths}, {"keep-paths", f.KeepPaths}} {
		if err := c.list(l.key, l.list, maxGlobs, checkPathPattern); err != nil {
			return err
		}
	}
	for i, p := range f.RemovePackages {
		if slices.Contains(f.Packages, p) {
			key := fmt.Sprintf("remove-packages[%d]", i)
			return fmt.Errorf("%s: %q is in packages and in remove-packages", r.Where(key), p)
		}
	}
	if len(f.Packages) == 0 {
		return c.at("packages", "at least one package is needed")
	}
	if !slices.Contains(f.Tools.Packages, "erofs-utils") {
		return c.at("tools.packages", "erofs-utils is missing: it makes the root file system")
	}
	r.Packages, r.RemovePackages, r.Tools = f.Packages, f.RemovePackages, f.Tools.Packages
	r.RemovePaths, r.KeepPaths = f.RemovePaths, f.KeepPaths
	return nil
}

func (c *checker) kernel() error {
	k, f := &c.r.Kernel, &c.f.Kernel
	k.Package = c.r.Arch.Kernel
	if c.has("kernel.package") {
		if err := checkPackage(f.Package); err != nil {
			return c.at("kernel.package", "%w", err)
		}
		k.Package = f.Package
	}
	for i, p := range c.f.Packages {
		if p == k.Package || strings.HasPrefix(p, "linux-image-") {
			return fmt.Errorf("%s: %q is a kernel: it belongs to kernel.package", c.r.Where(fmt.Sprintf("packages[%d]", i)), p)
		}
	}
	k.Modules = ModulesPlain
	if c.has("kernel.modules") {
		k.Modules = ModuleStorage(f.Modules)
		if k.Modules != ModulesPlain && k.Modules != ModulesAsShipped {
			return c.at("kernel.modules", "%q is neither %q nor %q", f.Modules, ModulesPlain, ModulesAsShipped)
		}
	}
	if err := c.list("kernel.exclude-modules", f.ExcludeModules, maxGlobs, checkGlob); err != nil {
		return err
	}
	k.ExcludeModules = f.ExcludeModules
	if err := checkCommandLine(f.CommandLine); err != nil {
		return c.at("kernel.command-line", "%w", err)
	}
	k.CommandLine = strings.Join(strings.Fields(f.CommandLine), " ")
	return nil
}

func checkCommandLine(s string) error {
	if len(s) > maxCommandLine {
		return fmt.Errorf("%d characters, at most %d are allowed", len(s), maxCommandLine)
	}
	for _, b := range []byte(s) {
		if b < ' ' || b > '~' {
			return fmt.Errorf("it may hold printable ASCII only, not byte 0x%02x", b)
		}
	}
	for _, word := range strings.Fields(s) {
		switch name, _, _ := strings.Cut(word, "="); name {
		case "roothash", "usrhash", "root", "init", "rdinit":
			return fmt.Errorf("%s= is the builder's to set: it decides what is trusted", name)
		}
	}
	return nil
}

func (c *checker) sizes() error {
	r, f := c.r, c.f
	var err error
	if r.Root.SlotSize, err = partitionSize(f.Root.SlotSize, 64*mib, 1024*gib); err != nil {
		return c.at("root.slot-size", "%w", err)
	}
	r.ESP.Size = gib
	if c.has("esp.size") {
		if r.ESP.Size, err = partitionSize(f.ESP.Size, 256*mib, 32*gib); err != nil {
			return c.at("esp.size", "%w", err)
		}
	}
	r.Root.Compression = "lz4hc,12"
	if c.has("root.compression") {
		if r.Root.Compression, err = compression(f.Root.Compression); err != nil {
			return c.at("root.compression", "%w", err)
		}
	}
	return nil
}

// partitionSize reads a size that partitions can have: whole MiB, so that every partition starts at one.
func partitionSize(s string, least, most int64) (int64, error) {
	n, err := ParseSize(s)
	switch {
	case err != nil:
		return 0, err
	case n%mib != 0:
		return 0, fmt.Errorf("%s is not a whole number of MiB", s)
	case n < least || n > most:
		return 0, fmt.Errorf("%s is not between %d MiB and %d MiB", s, least/mib, most/mib)
	}
	return n, nil
}

// ParseSize reads a whole number with the unit KiB, MiB, GiB or TiB and returns bytes.
func ParseSize(s string) (int64, error) {
	for i, unit := range []string{"KiB", "MiB", "GiB", "TiB"} {
		digits, ok := strings.CutSuffix(s, unit)
		if !ok {
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		shift := 10 * (i + 1)
		if err != nil || n > (1<<63-1)>>shift || (len(digits) > 1 && digits[0] == '0') {
			break
		}
		return int64(n) << shift, nil
	}
	return 0, fmt.Errorf("%q is not a size: write a whole number and a unit, as in \"2GiB\" (KiB, MiB, GiB, TiB)", s)
}

// levels are mkfs.erofs's algorithms with their least and greatest level; 0, 0 means that there are none.
var levels = map[string][2]int{"lz4": {0, 0}, "lz4hc": {0, 12}, "zstd": {1, 22}, "deflate": {0, 9}, "lzma": {0, 9}}

func compression(s string) (string, error) {
	if s == "none" {
		return "", nil
	}
	name, level, leveled := strings.Cut(s, ",")
	span, known := levels[name]
	if !known {
		return "", fmt.Errorf("%q is not one of none, lz4, lz4hc, zstd, deflate, lzma", name)
	}
	if leveled {
		n, err := strconv.Atoi(level)
		if err != nil || strconv.Itoa(n) != level || span[1] == 0 || n < span[0] || n > span[1] {
			if span[1] == 0 {
				return "", fmt.Errorf("%s has no level", name)
			}
			return "", fmt.Errorf("%q is not a level of %s (%d to %d)", level, name, span[0], span[1])
		}
	}
	return s, nil
}

func (c *checker) users() error {
	if len(c.f.Users) > maxUsers {
		return c.at("users", "%d users, at most %d are allowed", len(c.f.Users), maxUsers)
	}
	for i := range c.f.Users {
		u, err := c.user(i)
		if err != nil {
			return err
		}
		for j, other := range c.r.Users {
			first := c.r.lines[fmt.Sprintf("users[%d]", j)]
			at := func(key string) string { return c.r.Where(fmt.Sprintf("users[%d].%s", i, key)) }
			switch {
			case other.Name == u.Name:
				return fmt.Errorf("%s: user %q is there twice, first in line %d", at("name"), u.Name, first)
			case other.UID == u.UID:
				return fmt.Errorf("%s: user %q: uid %d is user %q's (line %d)", at("uid"), u.Name, u.UID, other.Name, first)
			case other.GID == u.GID:
				return fmt.Errorf("%s: user %q: gid %d is user %q's (line %d)", at("gid"), u.Name, u.GID, other.Name, first)
			}
		}
		c.r.Users = append(c.r.Users, u)
	}
	return nil
}

func (c *checker) user(i int) (User, error) {
	f := &c.f.Users[i]
	prefix := fmt.Sprintf("users[%d].", i)
	u := User{Name: f.Name, UID: f.UID, GID: f.GID, Home: f.Home, Shell: f.Shell, Groups: f.Groups, System: f.System}
	for _, k := range []string{"name", "uid"} {
		if !c.has(prefix + k) {
			return u, fmt.Errorf("%s: a user without %q", c.r.Where(fmt.Sprintf("users[%d]", i)), k)
		}
	}
	if !userForm.MatchString(u.Name) || u.Name == "root" || u.Name == "nobody" {
		return u, c.at(prefix+"name", "%q is not a name for a user", u.Name)
	}
	least, most, sort := 1000, 59999, "an ordinary"
	if u.System {
		least, most, sort = 100, 999, "a system"
	}
	if u.UID < least || u.UID > most {
		return u, c.at(prefix+"uid", "%d is not between %d and %d, where %s account's is", u.UID, least, most, sort)
	}
	if !c.has(prefix + "gid") {
		u.GID = u.UID
	}
	if u.GID < 100 || u.GID > 59999 {
		return u, c.at(prefix+"gid", "%d is not between 100 and 59999", u.GID)
	}
	home, shell := "/home/"+u.Name, "/bin/bash"
	if u.System {
		home, shell = "/nonexistent", "/usr/sbin/nologin"
	}
	if !c.has(prefix + "home") {
		u.Home = home
	}
	if !c.has(prefix + "shell") {
		u.Shell = shell
	}
	for _, p := range []struct{ key, path string }{{"home", u.Home}, {"shell", u.Shell}} {
		if err := checkPath(p.path); err != nil {
			return u, c.at(prefix+p.key, "%w", err)
		}
	}
	return u, c.list(prefix+"groups", u.Groups, maxUsers, func(s string) error {
		if !userForm.MatchString(s) || s == u.Name {
			return fmt.Errorf("%q is not a further group of user %q", s, u.Name)
		}
		return nil
	})
}

// checkPath refuses what would break a line of /etc/passwd, and paths that are not in their shortest form.
func checkPath(s string) error {
	if !path.IsAbs(s) || path.Clean(s) != s || len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || r == ':' }) {
		return fmt.Errorf("%q is not an absolute path in its shortest form, of printable characters without \":\"", s)
	}
	return nil
}

func (c *checker) health() error {
	if len(c.f.Health) > maxHealth {
		return c.at("health", "%d health checks, at most %d are allowed", len(c.f.Health), maxHealth)
	}
	seen := map[string]bool{}
	for i, h := range c.f.Health {
		prefix := fmt.Sprintf("health[%d]", i)
		if !checkForm.MatchString(h.Name) {
			return c.at(prefix, "%q is not a name for a health check: a-z, 0-9 and -", h.Name)
		}
		if seen[h.Name] {
			return c.at(prefix, "the check %q is there twice", h.Name)
		}
		seen[h.Name] = true
		if err := checkCommand(h.Command); err != nil {
			return c.at(prefix, "check %q: %w", h.Name, err)
		}
		c.r.Health = append(c.r.Health, HealthCheck{Name: h.Name, Command: h.Command})
	}
	return nil
}

func checkCommand(words []string) error {
	if len(words) == 0 || words[0] == "" {
		return errors.New("command is empty: give a program and its arguments")
	}
	for _, w := range words {
		if strings.ContainsAny(w, "\x00\n\r") {
			return fmt.Errorf("%q has a line break", w)
		}
	}
	return nil
}
