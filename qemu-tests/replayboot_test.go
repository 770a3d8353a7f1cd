package qemutests

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/qemu-tests/guest"
	"github.com/semper-os/semper/vm"
)

// write makes a file of a state.
func (r *recording) write(name, path string) error {
	s, err := r.replay.At(name)
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), guest.CopySparse(r.base.Name(), path)); err != nil {
		return err
	}
	out, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	for offset, length := range s.Changed() {
		if _, err := io.Copy(io.NewOffsetWriter(out, offset), io.NewSectionReader(s, offset, length)); err != nil {
			return errors.Join(err, out.Close())
		}
	}
	return out.Close()
}

// choose takes n states to boot, of each kind in turn.
func (v *verdict) choose(n int) []candidate {
	kinds := [3][]candidate{}
	for _, k := range v.bootable {
		kinds[k.kind] = append(kinds[k.kind], k)
	}
	for _, k := range kinds {
		slices.SortFunc(k, func(a, b candidate) int { return cmp.Compare(a.order, b.order) })
	}
	var all []candidate
	for i := 0; len(all) < n && len(all) < len(v.bootable); i++ {
		if k := &kinds[i%3]; len(*k) > 0 {
			all, *k = append(all, (*k)[0]), (*k)[1:]
		}
	}
	return all
}

var rootMounted = regexp.MustCompile(`root mounted: slot ([AB]) \(version ([^)]*)\)`)

// boot starts a machine with the disk of a state. It must start the version that the checker says. With a server, the update to 1.1.0 is then completed, and
// the disk that is left is judged once more.
func (r *recording) boot(t *testing.T, k candidate, s *server) {
	takeSlot(t)
	dir := filepath.Join(r.dir, k.name)
	c := guest.Config{Name: k.name, Dir: dir, Disk: filepath.Join(dir, "disk.raw"), Key: world.key, CPUs: 1, CPU: cpu, KernelArgs: kernelArgs}
	if err := r.write(k.name, c.Disk); err != nil {
		t.Fatal(err)
	}
	m := start(t, c)
	ctx, cancel := context.WithTimeout(t.Context(), bootTime)
	defer cancel()
	line, err := m.Console.Wait(ctx, 0, rootMounted)
	if err != nil {
		t.Fatalf("%s: no root is mounted: %v; the console's last lines:\n%s", k.name, err, m.Console.Tail())
	}
	if got := rootMounted.FindStringSubmatch(line.Text)[2]; got != k.version {
		t.Errorf("%s starts version %s, not %s", k.name, got, k.version)
	}
	if s == nil {
		m.Kill()
		os.Remove(c.Disk) // the overlay tells what went wrong, and nothing did
		return
	}
	m.waitVersion(k.version)
	if k.version == first {
		m.use(s.URL)
		m.check()
		m.waitVersion(second)
	}
	m.waitStatus(blessed(second))
	m.run("systemctl stop efi.mount; sync")
	if err := m.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.judgeLast(t, c, k)
}

// judgeLast judges the disk of a machine that was ended after the update.
func (r *recording) judgeLast(t *testing.T, c guest.Config, k candidate) {
	t.Helper()
	raw := filepath.Join(c.Dir, "last.raw")
	if err := vm.Flatten(t.Context(), filepath.Join(c.Dir, "overlay.qcow2"), raw); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	res, err := checker(t).Check(io.NewSectionReader(f, 0, r.size))
	switch {
	case err != nil:
		t.Errorf("%s, booted and updated: %v", k.name, err)
	case res.Chosen.Version != second || res.Chosen.Counting():
		t.Errorf("%s, booted and updated: %s is chosen", k.name, res.Chosen.Name)
	case slices.Contains(res.Notes, twoNames):
		t.Errorf("%s, booted and updated: a file has two names", k.name)
	}
}

// fsck has fsck.fat look at the ESP of a state. What it may find is what the checker notes.
func (r *recording) fsck(name string, notes []string) {
	t := r.t
	t.Helper()
	s, err := r.replay.At(name)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(r.dir, "esp.raw")
	if err := writeSparse(io.NewSectionReader(s, r.esp.Offset, r.esp.Length), path, r.esp.Length); err != nil {
		t.Fatal(err)
	}
	program, err := exec.LookPath("fsck.fat")
	if err != nil {
		program = "/usr/sbin/fsck.fat" // not in everybody's PATH
	}
	out, err := exec.CommandContext(t.Context(), program, "-n", path).CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("install the package dosfstools: %v", err)
	}
	var rest []string
	for line := range strings.Lines(string(out)) {
		if line = strings.TrimSpace(line); line != "" && !fsckHarmless.MatchString(line) {
			rest = append(rest, line)
		}
	}
	noted := slices.ContainsFunc(notes, func(n string) bool {
		return !strings.Contains(n, "partition table") && n != "the ESP is marked as in use"
	})
	if len(rest) > 0 && !noted {
		t.Errorf("%s: fsck.fat finds what the checker does not: %s", name, strings.Join(rest, "; "))
	}
	if text := strings.Join(rest, "; "); strings.Contains(text, "BOOTX64") || strings.Contains(text, "loader.conf") {
		t.Errorf("%s: fsck.fat finds the boot loader damaged: %s", name, text)
	}
	t.Logf("%s: the checker notes %q, fsck.fat finds %q", name, notes, rest)
}

// fsckHarmless are fsck.fat's lines about the flag of a file system in use and the counter of free clusters, and those that say nothing.
var fsckHarmless = regexp.MustCompile(`^(fsck\.fat |There are differences between boot sector|This is mostly harmless|65:01/00|Not automatically fixing|Dirty bit is set|` +
	`Automatically removing dirty bit|Free cluster summary wrong|Auto-correcting|Leaving filesystem unchanged|.* files, [0-9]+/[0-9]+ clusters)`)

func writeSparse(r io.Reader, path string, size int64) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	buf, blank := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < size; at += int64(len(buf)) {
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), size-at)])
		if err != nil {
			return errors.Join(err, f.Close())
		}
		if bytes.Equal(buf[:n], blank[:n]) {
			continue
		}
		if _, err := f.WriteAt(buf[:n], at); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return errors.Join(f.Truncate(size), f.Close())
}
