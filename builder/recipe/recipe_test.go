package recipe

import (
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
)

const smallest = `name = "semper"
suite = "trixie"
architecture = "amd64"
packages = ["podman"]
[root]
slot-size = "2GiB"
[tools]
packages = ["erofs-utils"]
`

const full = `name = "edge-box"
title = "Edge Box (lab)"
suite = "trixie"
architecture = "amd64"
components = ["non-free-firmware", "main"]
epoch = 3
packages = [
  "podman", "openssh-server", # two on a line

  "g++", "libstdc++6",
]
remove-packages = ["dpkg"]
remove-paths = ["usr/share/man/*"]
keep-paths = ["usr/share/doc/*/copyright"]

[kernel]
package = "linux-image-cloud-amd64"
modules = "as-shipped"
exclude-modules = ["kernel/drivers/media/**", "kernel/fs/hfs/hfs.ko"]
command-line = "  console=tty0   quiet "

[root]
slot-size = "1536MiB"
compression = "none"

[esp]
size = "512MiB"

[tools]
packages = ["erofs-utils", "kmod"]

[[users]]
name = "semperd"
uid = 800
system = true

[[users]]
name = "core"
uid = 1000
gid = 2000
home = "/var/home/core"
shell = "/bin/sh"
groups = ["sudo", "adm"]

[[health]]
name = "network"
command = ["systemctl", "is-active", "systemd-networkd.service"]
`

func TestParse(t *testing.T) {
	r, err := Parse("images/edge/recipe.toml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := &Recipe{
		Path: "images/edge/recipe.toml", Name: "edge-box", Title: "Edge Box (lab)", Suite: "trixie", Arch: r.Arch, Components: []string{"main", "non-free-firmware"}, Epoch: 3,
		Packages: []string{"podman", "openssh-server", "g++", "libstdc++6"}, RemovePackages: []string{"dpkg"},
		RemovePaths: []string{"usr/share/man/*"}, KeepPaths: []string{"usr/share/doc/*/copyright"},
		Kernel: Kernel{
			Package: "linux-image-cloud-amd64", Modules: ModulesAsShipped,
			ExcludeModules: []string{"kernel/drivers/media/**", "kernel/fs/hfs/hfs.ko"}, CommandLine: "console=tty0 quiet",
		},
		Root: Root{SlotSize: 1536 << 20}, ESP: ESP{Size: 512 << 20}, Tools: []string{"erofs-utils", "kmod"},
		Users: []User{
			{Name: "semperd", UID: 800, GID: 800, Home: "/nonexistent", Shell: "/usr/sbin/nologin", System: true},
			{Name: "core", UID: 1000, GID: 2000, Home: "/var/home/core", Shell: "/bin/sh", Groups: []string{"sudo", "adm"}},
		},
		Health: []HealthCheck{{"network", []string{"systemctl", "is-active", "systemd-networkd.service"}}},
		lines:  r.lines,
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got\n%+v, want\n%+v", r, want)
	}
	if r.Arch.Debian != "amd64" {
		t.Errorf("architecture %q", r.Arch.Debian)
	}
	if r.Dir() != "images/edge" || r.Tree() != "images/edge/tree" {
		t.Errorf("Dir %q, Tree %q", r.Dir(), r.Tree())
	}
	for key, want := range map[string]string{
		"name": ":1", "packages[0]": ":8", "packages[1]": ":8", "packages[2]": ":10", "kernel.package": ":17", "users[1].gid": ":40",
		"users[1]": ":37", "health[0].command[2]": ":47", "no-such-key": "",
	} {
		if got := r.Where(key); got != "images/edge/recipe.toml"+want {
			t.Errorf("Where(%q) = %q, want %q", key, got, want)
		}
	}
}

func TestDefaults(t *testing.T) {
	r, err := Parse("recipe.toml", []byte(smallest))
	if err != nil {
		t.Fatal(err)
	}
	want := &Recipe{
		Path: "recipe.toml", Name: "semper", Title: "semper", Suite: "trixie", Arch: r.Arch, Components: []string{"main"},
		Packages: []string{"podman"}, Kernel: Kernel{Package: "linux-image-amd64", Modules: ModulesPlain},
		Root: Root{SlotSize: 2 << 30, Compression: "lz4hc,12"}, ESP: ESP{Size: 1 << 30}, Tools: []string{"erofs-utils"}, lines: r.lines,
	}
	if !reflect.DeepEqual(r, want) {
		t.Errorf("got\n%+v, want\n%+v", r, want)
	}
}

func TestRefused(t *testing.T) {
	replace := func(old, new string) string {
		if !strings.Contains(full, old) {
			t.Fatalf("the recipe has no %q", old)
		}
		return strings.Replace(full, old, new, 1)
	}
	user := func(lines string) string { return smallest + "[[users]]\n" + lines }
	for _, c := range []struct{ name, text, want string }{
		{"unknown key", replace(`epoch =`, `epcoh =`), `r.toml:6: unknown key "epcoh", did you mean "epoch"?`},
		{"unknown key in a table", replace(`slot-size =`, `slotsize =`), `r.toml:23: unknown key "root.slotsize", did you mean "root.slot-size"?`},
		{"unknown key in an array of tables", replace(`groups =`, `group =`), `r.toml:43: unknown key "users.group", did you mean "users.groups"?`},
		{"unknown table", smallest + "[kernell]\npackage = \"x\"\n", `r.toml:9: unknown key "kernell", did you mean "kernel"?`},
		{"nothing near", smallest + "[zzzzzzzzzzzz]\n", `r.toml:9: unknown key "zzzzzzzzzzzz"`},
		{"not TOML", "name = \n", `r.toml:1: unexpected character U+000A at start of value`},
		{"key twice", "name = \"a\"\nname = \"b\"\n", `r.toml:2: name: key name is already defined`},
		{"wrong type", replace(`slot-size = "1536MiB"`, `slot-size = 5`), `r.toml:23: root.slot-size: it must be a string in quotes, not integer`},
		{"wrong type of list", replace(`groups = ["sudo", "adm"]`, `groups = "sudo"`), `r.toml:43: users.groups: it must be a list of strings, not string`},
		{"wrong type of flag", replace(`system = true`, `system = "yes"`), `r.toml:35: users.system: it must be true or false, not string`},
		{"missing key", strings.Replace(smallest, "suite = \"trixie\"\n", "", 1), `r.toml: the key "suite" is missing`},
		{"image name", replace(`"edge-box"`, `"Edge_Box"`), `r.toml:1: name: "Edge_Box" is not an image name: a letter, then a-z, 0-9 and -, at most 16 characters`},
		{"title for a shell", replace(`"Edge Box (lab)"`, `"$(reboot)"`), `r.toml:2: title: "$(reboot)" is not a title: letters, digits, blanks and . - _ ( ), at most 64 characters`},
		{"suite with a pocket", replace(`"trixie"`, `"trixie-updates"`), `r.toml:3: suite: "trixie-updates" is not a Debian suite: give the release alone, as in "trixie"`},
		{"architecture", replace(`"amd64"`, `"arm46"`), `r.toml:4: architecture "arm46" is not supported (known: amd64)`},
		{"component", replace(`"main"`, `"universe"`), `r.toml:5: components: "universe" is not one of main, contrib, non-free, non-free-firmware`},
		{"negative epoch", replace(`epoch = 3`, `epoch = -1`), `r.toml:6: epoch: -1 is not between 0 and 2147483647`},
		{"package twice", replace(`"g++"`, `"podman"`), `r.toml:10: packages: "podman" is listed twice, first in line 8`},
		{"package name", replace(`"g++"`, `"G++"`), `r.toml:10: packages: "G++" is not a package name`},
		{"package with version", replace(`"g++"`, `"g++=4:14"`), `r.toml:10: packages: "g++=4:14" is not a package name: versions, suites and architectures belong to the lock`},
		{"an option in disguise", replace(`"g++"`, `"--allow-unauthenticated"`), `r.toml:10: packages: "--allow-unauthenticated" is not a package name`},
		{"kernel among packages", replace(`"g++"`, `"linux-image-amd64"`), `r.toml:10: "linux-image-amd64" is a kernel: it belongs to kernel.package`},
		{"removed and installed", replace(`["dpkg"]`, `["podman"]`), `r.toml:12: "podman" is in packages and in remove-packages`},
		{"no packages", strings.Replace(smallest, `["podman"]`, `[]`, 1), `r.toml:4: packages: at least one package is needed`},
		{"no erofs-utils", strings.Replace(smallest, `erofs-utils`, `kmod`, 1), `r.toml:8: tools.packages: erofs-utils is missing: it makes the root file system`},
		{"path outside", replace(`"usr/share/man/*"`, `"../x"`), `r.toml:13: remove-paths: "../x" is not a pattern of a path below the root: write it without a leading slash`},
		{"module storage", replace(`"as-shipped"`, `"zstd"`), `r.toml:18: kernel.modules: "zstd" is neither "plain" nor "as-shipped"`},
		{"module folder without stars", replace(`"kernel/drivers/media/**"`, `"kernel/drivers/media"`), `r.toml:19: kernel.exclude-modules: "kernel/drivers/media" names no module: end it with /** for a folder, or with .ko`},
		{"module glob anywhere", replace(`"kernel/drivers/media/**"`, `"**/media/**"`), `r.toml:19: kernel.exclude-modules: "**/media/**" is not a module glob: write kernel/…, with * within one folder and ** only as the last element`},
		{"root hash by hand", replace(`console=tty0`, `roothash=00`), `r.toml:20: kernel.command-line: roothash= is the builder's to set: it decides what is trusted`},
		{"line break in the command line", replace(`console=tty0`, `a\nb`), `r.toml:20: kernel.command-line: it may hold printable ASCII only, not byte 0x0a`},
		{"size without unit", replace(`"1536MiB"`, `"1536"`), `r.toml:23: root.slot-size: "1536" is not a size: write a whole number and a unit, as in "2GiB" (KiB, MiB, GiB, TiB)`},
		{"size not aligned", replace(`"1536MiB"`, `"1572865KiB"`), `r.toml:23: root.slot-size: 1572865KiB is not a whole number of MiB`},
		{"size too small", replace(`"1536MiB"`, `"1MiB"`), `r.toml:23: root.slot-size: 1MiB is not between 64 MiB and 1048576 MiB`},
		{"ESP too small", replace(`"512MiB"`, `"64MiB"`), `r.toml:27: esp.size: 64MiB is not between 256 MiB and 32768 MiB`},
		{"compression", replace(`"none"`, `"brotli"`), `r.toml:24: root.compression: "brotli" is not one of none, lz4, lz4hc, zstd, deflate, lzma`},
		{"compression level", replace(`"none"`, `"lz4hc,13"`), `r.toml:24: root.compression: "13" is not a level of lz4hc (0 to 12)`},
		{"level where there is none", replace(`"none"`, `"lz4,1"`), `r.toml:24: root.compression: lz4 has no level`},
		{"uid twice", replace(`uid = 1000`, `uid = 800`+"\nsystem = true"), `r.toml:39: user "core": uid 800 is user "semperd"'s (line 32)`},
		{"name twice", replace(`name = "core"`, `name = "semperd"`), `r.toml:38: user "semperd" is there twice, first in line 32`},
		{"gid twice", replace(`gid = 2000`, `gid = 800`), `r.toml:40: user "core": gid 800 is user "semperd"'s (line 32)`},
		{"uid of Debian's own", user("name = \"x\"\nuid = 33\nsystem = true\n"), `r.toml:11: users[0].uid: 33 is not between 100 and 999, where a system account's is`},
		{"ordinary uid for a system account", user("name = \"x\"\nuid = 1000\nsystem = true\n"), `r.toml:11: users[0].uid: 1000 is not between 100 and 999, where a system account's is`},
		{"root", user("name = \"root\"\nuid = 1000\n"), `r.toml:10: users[0].name: "root" is not a name for a user`},
		{"user without uid", user("name = \"x\"\n"), `r.toml:9: a user without "uid"`},
		{"colon in a home", user("name = \"x\"\nuid = 1000\nhome = \"/a:b\"\n"), `r.toml:12: users[0].home: "/a:b" is not an absolute path in its shortest form, of printable characters without ":"`},
		{"own group", user("name = \"x\"\nuid = 1000\ngroups = [\"x\"]\n"), `r.toml:12: users[0].groups: "x" is not a further group of user "x"`},
		{"health check twice", smallest + "[[health]]\nname = \"a\"\ncommand = [\"x\"]\n[[health]]\nname = \"a\"\ncommand = [\"x\"]\n", `r.toml:12: health[1]: the check "a" is there twice`},
		{"health check without a command", smallest + "[[health]]\nname = \"a\"\n", `r.toml:9: health[0]: check "a": command is empty: give a program and its arguments`},
		{"health check that is a path", smallest + "[[health]]\nname = \"../a\"\n", `r.toml:9: health[0]: "../a" is not a name for a health check: a-z, 0-9 and -`},
		{"too large", strings.Repeat("#", maxBytes+1), `r.toml: larger than 1048576 bytes: not a recipe`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse("r.toml", []byte(c.text))
			if err == nil {
				t.Fatal("accepted")
			}
			if err.Error() != c.want || !fault.Is(err, fault.Input) {
				t.Errorf("got  %v (%s)\nwant %s", err, fault.KindOf(err), c.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	if _, err := Load(dir); !fault.Is(err, fault.Input) || !strings.HasPrefix(err.Error(), "no recipe at "+filepath.Join(dir, FileName)) {
		t.Errorf("missing recipe: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, FileName), []byte(smallest), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{dir, filepath.Join(dir, FileName)} {
		r, err := Load(path)
		if err != nil || r.Dir() != dir {
			t.Errorf("Load(%s): %v", path, err)
		}
	}
}

// The recipe that ships must load.
func TestShippedRecipe(t *testing.T) {
	if _, err := Load("../../images/semper"); err != nil {
		t.Error(err)
	}
}

func TestParseSize(t *testing.T) {
	for _, c := range []struct {
		text string
		want int64 // -1: refused
	}{
		{"1KiB", 1 << 10},
		{"64MiB", 64 << 20},
		{"2GiB", 2 << 30},
		{"1TiB", 1 << 40},
		{"0MiB", 0},
		{"8388607TiB", 8388607 << 40},
		{"8388608TiB", -1},
		{"99999999999999999999KiB", -1},
		{"", -1},
		{"GiB", -1},
		{"1GB", -1},
		{"1 GiB", -1},
		{"-1GiB", -1},
		{"+1GiB", -1},
		{"01GiB", -1},
		{"1.5GiB", -1},
		{"1gib", -1},
		{"0x1GiB", -1},
		{"1_0GiB", -1},
	} {
		got, err := ParseSize(c.text)
		if err != nil {
			got = -1
		}
		if got != c.want {
			t.Errorf("ParseSize(%q) = %d (%v), want %d", c.text, got, err, c.want)
		}
	}
}

func TestMatchModule(t *testing.T) {
	for _, c := range []struct {
		glob, name string
		want       bool
	}{
		{"kernel/drivers/media/**", "kernel/drivers/media/rc/rc-core.ko", true},
		{"kernel/drivers/media/**", "kernel/drivers/media/mc.ko", true},
		{"kernel/drivers/media/**", "kernel/drivers/mediatek/mc.ko", false},
		{"kernel/drivers/media/**", "kernel/drivers/media", false},
		{"kernel/drivers/net/wire*/**", "kernel/drivers/net/wireless/ath/ath.ko", true},
		{"kernel/drivers/net/wire*/**", "kernel/drivers/net/wireguard.ko", false},
		{"kernel/*/hfs/hfs*.ko", "kernel/fs/hfs/hfs.ko", true},
		{"kernel/*/hfs*.ko", "kernel/fs/hfs/hfs.ko", false},
		{"drivers/media/**", "kernel/drivers/media/mc.ko", false},
		{"kernel/**", "kernel/fs/ext4/ext4.ko", true},
		{"kernel/[", "kernel/[", false},
	} {
		if got := MatchModule(c.glob, c.name); got != c.want {
			t.Errorf("MatchModule(%q, %q) = %t", c.glob, c.name, got)
		}
	}
}

// The script must hand the words to the program as they are, whatever a shell would make of them.
func TestHealthScript(t *testing.T) {
	words := []string{"printf", `%s\n`, "a b", "it's", `"$HOME"`, "`id`", "", "*"}
	file := filepath.Join(t.TempDir(), "check")
	if err := os.WriteFile(file, []byte(HealthCheck{"x", words}.Script()), 0o755); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("/bin/sh", file).CombinedOutput()
	if want := strings.Join(words[2:], "\n") + "\n"; err != nil || string(out) != want {
		t.Errorf("got %q (%v), want %q", out, err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(smallest))
	f.Add([]byte(full))
	f.Add([]byte("users = [{name = \"a\", uid = 1000}]\nhealth = [[1]]\n"))
	f.Add([]byte("[[users]]\n[[users]]\n[users.x]\n"))
	f.Add([]byte("packages = [[[[[]]]]]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := Parse("r.toml", data)
		if err != nil {
			if !fault.Is(err, fault.Input) {
				t.Errorf("kind %s: %v", fault.KindOf(err), err)
			}
			return
		}
		if r.Root.SlotSize <= 0 || len(r.Packages) == 0 || len(r.Components) == 0 {
			t.Errorf("accepted an impossible recipe: %+v", r)
		}
	})
}

func TestMinVersion(t *testing.T) {
	with := func(line string) []byte {
		return []byte(strings.Replace(smallest, "architecture", line+"\narchitecture", 1))
	}
	r, err := Parse("r.toml", with(`min-version = "1.1.0~rc2"`))
	if err != nil || r.MinVersion != "1.1.0~rc2" {
		t.Errorf("%+v, %v", r, err)
	}
	for line, want := range map[string]string{
		`min-version = ""`:      `r.toml:3: min-version: version "": write numbers with dots`,
		`min-version = "v1"`:    `r.toml:3: min-version: version "v1": write numbers with dots`,
		`min-version = "1.0+1"`: `r.toml:3: min-version: version "1.0+1": write numbers with dots`,
		`min-version = 1`:       `r.toml:3: min-version: it must be a string in quotes, not integer`,
		`min_version = "1.0"`:   `r.toml:3: unknown key "min_version", did you mean "min-version"?`,
	} {
		if _, err := Parse("r.toml", with(line)); !fault.Is(err, fault.Input) || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}
