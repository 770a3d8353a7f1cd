package qemutests

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
)

// tools are the world's programs that look at a disk, with the Debian packages that bring them.
var tools = map[string]string{
	"sgdisk": "gdisk", "fsck.fat": "dosfstools", "mdir": "mtools", "mcopy": "mtools", "veritysetup": "cryptsetup-bin", "objdump": "binutils",
	"objcopy": "binutils", "sbverify": "sbsigntool", "dump.erofs": "erofs-utils", "fsck.erofs": "erofs-utils", "dd": "coreutils",
}

// tool runs one of the tools, which must succeed.
func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if errors.Is(err, exec.ErrNotFound) {
		t.Fatalf("the host program %s is missing: install the package %s", name, tools[name])
	}
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestToolsCrossCheck has the tools that the world uses look at a released disk, and at the disk of a machine after an update.
func TestToolsCrossCheck(t *testing.T) {
	t.Parallel()
	t.Run("release", func(t *testing.T) {
		r := openRelease(t, wholePath(first))
		checkDisk(t, r.Path(release.Disk), map[layout.Name]string{layout.A: first}, "semper_1.0.0+3-0.efi")
		tool(t, "veritysetup", "verify", r.Path(release.Root), r.Path(release.Verity), r.Manifest.RootHash)
		tool(t, "fsck.erofs", r.Path(release.Root))
	})
	t.Run("updated machine", func(t *testing.T) {
		takeSlot(t)
		c, err := updated()
		if err != nil {
			t.Fatal(err)
		}
		disk, err := c.FlatDisk(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		checkDisk(t, disk, map[layout.Name]string{layout.A: first, layout.B: second}, "semper_1.0.0.efi", "semper_1.1.0.efi")
	})
}

// checkDisk looks at a disk whose slots hold versions, whole ones, and whose ESP has boot entries.
func checkDisk(t *testing.T, disk string, versions map[layout.Name]string, entries ...string) {
	t.Helper()
	if out := tool(t, "sgdisk", "--verify", disk); !strings.Contains(out, "No problems found") {
		t.Errorf("sgdisk: %s", out)
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	dir := t.TempDir()
	_, table := findSlot(t, f, layout.A)
	for name, version := range versions {
		slot, _ := findSlot(t, f, name)
		if slot.State != layout.Complete || slot.Version != version {
			t.Errorf("slot %s is %s with version %q", name, slot.State, slot.Version)
		}
		manifest := openRelease(t, wholePath(version)).Manifest
		root, tree := cut(t, f, table, slot.Root, dir), cut(t, f, table, slot.Verity, dir)
		tool(t, "veritysetup", "verify", root, tree, manifest.RootHash)
		if out := tool(t, "dump.erofs", root); !regexp.MustCompile(`(?m)^Filesystem magic number:\s+0xE0F5E1E2`).MatchString(out) {
			t.Errorf("dump.erofs: %s", out)
		}
	}
	esp := cut(t, f, table, espNumber(t, table), dir)
	tool(t, "fsck.fat", "-n", esp)
	listing := tool(t, "mdir", "-i", esp, "-b", "::/EFI/Linux")
	var found []string
	for _, line := range strings.Fields(listing) {
		found = append(found, strings.TrimPrefix(line, "::/EFI/Linux/"))
	}
	if strings.Join(found, " ") != strings.Join(entries, " ") {
		t.Errorf("mdir finds the entries %q, want %q", found, entries)
	}
	for _, program := range append([]string{"BOOT/BOOTX64.EFI", "systemd/systemd-bootx64.efi"}, prefixed("Linux/", found)...) {
		file := filepath.Join(dir, "program.efi")
		tool(t, "mcopy", "-n", "-o", "-i", esp, "::/EFI/"+program, file)
		tool(t, "sbverify", "--cert", filepath.Join(keysFolder(), "secure-boot.crt"), file)
		if !strings.HasPrefix(program, "Linux/") {
			continue
		}
		sections := tool(t, "objdump", "-h", file)
		for _, want := range []string{".linux", ".osrel", ".cmdline", ".initrd", ".uname"} {
			if !regexp.MustCompile(`(?m)^\s*\d+\s+` + regexp.QuoteMeta(want) + `\s`).MatchString(sections) {
				t.Errorf("objdump finds no section %s in %s:\n%s", want, program, sections)
			}
		}
		cmdline := filepath.Join(dir, "cmdline")
		tool(t, "objcopy", "-O", "binary", "--only-section=.cmdline", file, cmdline)
		text, err := os.ReadFile(cmdline)
		if err != nil {
			t.Fatal(err)
		}
		if !names(t, string(text), versions) {
			t.Errorf("%s's command line names no slot of the disk: %s", program, text)
		}
	}
}

// names tells whether a command line has the root hash of one of the versions.
func names(t *testing.T, cmdline string, versions map[layout.Name]string) bool {
	t.Helper()
	for _, version := range versions {
		if strings.Contains(cmdline, "roothash="+openRelease(t, wholePath(version)).Manifest.RootHash) {
			return true
		}
	}
	return false
}

func prefixed(prefix string, list []string) []string {
	var out []string
	for _, s := range list {
		out = append(out, prefix+s)
	}
	return out
}

func espNumber(t *testing.T, table *gpt.Table) int {
	t.Helper()
	for i, p := range table.Partitions {
		if p.Name == layout.LabelESP {
			return i + 1
		}
	}
	t.Fatal("the disk has no ESP")
	return 0
}

// cut writes a partition's bytes to a file of its own, for tools that know nothing of partition tables.
func cut(t *testing.T, disk *os.File, table *gpt.Table, number int, dir string) string {
	t.Helper()
	p := table.Partitions[number-1]
	path := filepath.Join(dir, fmt.Sprintf("partition-%d", number))
	tool(t, "dd", "if="+disk.Name(), "of="+path, "bs=1M", "iflag=skip_bytes,count_bytes", fmt.Sprintf("skip=%d", p.Offset()), fmt.Sprintf("count=%d", p.Size()),
		"conv=sparse", "status=none")
	// A hole at the end was not written.
	if err := os.Truncate(path, p.Size()); err != nil {
		t.Fatal(err)
	}
	return path
}
