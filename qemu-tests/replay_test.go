package qemutests

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/qemu-tests/guest"
	"github.com/semper-os/semper/qemu-tests/offline"
	"github.com/semper-os/semper/qemu-tests/writelog"
	"github.com/semper-os/semper/vm"
)

const (
	replayDraws = 11000 // states that are drawn; with the systematic ones there are more
	replayBoots = 3     // of them are booted; soakBoots with SEMPER_SOAK
	soakBoots   = 40
	replayFsck  = 4 // of them are looked at by fsck.fat too
)

// twoNames is the checker's note of a rename that was cut.
const twoNames = "a file has two names"

// recording is a disk, and everything that a machine wrote to it.
type recording struct {
	t      *testing.T
	dir    string
	base   *os.File
	size   int64
	log    *writelog.Log
	replay *writelog.Replay
	esp    offline.Partition
}

// record runs a machine that goes on from ready, or boots a disk, and keeps what it writes until story returns.
func record(t *testing.T, disk string, story func(*machine)) *recording {
	t.Helper()
	// Not for the whole test: its states are booted later.
	select {
	case world.slots <- struct{}{}:
		defer func() { <-world.slots }()
	case <-t.Context().Done():
		t.Fatal(context.Cause(t.Context()))
	}
	r := &recording{t: t, dir: filepath.Join(world.dir, t.Name())}
	dir := r.dir
	raw, log := filepath.Join(dir, "base.raw"), filepath.Join(dir, "writes.log")
	if kept := os.Getenv("SEMPER_REPLAY"); kept != "" {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		r.open(filepath.Join(kept, "base.raw"), filepath.Join(kept, "writes.log"))
		return r
	}
	var c guest.Config
	if disk == "" {
		origin, err := ready()
		if err != nil {
			t.Fatal(err)
		}
		if c, err = origin.Branch(t.Name(), dir); err != nil {
			t.Fatal(err)
		}
		if err := origin.FlatSnapshot(t.Context(), raw); err != nil {
			t.Fatal(err)
		}
	} else {
		c = guest.Config{Name: t.Name(), Dir: dir, Disk: raw, Key: world.key, CPUs: 1}
		if err := errors.Join(os.MkdirAll(dir, 0o755), guest.CopySparse(disk, raw), os.Truncate(raw, diskSize)); err != nil {
			t.Fatal(err)
		}
	}
	c.WriteLog = log
	m := start(t, c)
	story(m)
	if err := m.Quit(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.open(raw, log)
	return r
}

func (r *recording) open(raw, log string) {
	r.t.Helper()
	var err error
	if r.base, err = os.Open(raw); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { r.base.Close() })
	writes, err := os.Open(log)
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { writes.Close() })
	st, err := writes.Stat()
	if err != nil {
		r.t.Fatal(err)
	}
	if r.size, err = r.base.Seek(0, io.SeekEnd); err != nil {
		r.t.Fatal(err)
	}
	if r.log, err = writelog.Read(writes, st.Size()); err != nil {
		r.t.Fatal(err)
	}
	if r.replay, err = r.log.Replay(r.base, r.size); err != nil {
		r.t.Fatal(err)
	}
}

// checker knows the kernels and the boot loader of the tests' releases.
func checker(t *testing.T) *offline.Checker {
	t.Helper()
	c := offline.NewChecker()
	c.UKIs = map[[32]byte]string{}
	for _, version := range []string{first, second, sick, third, panicked} {
		names, err := filepath.Glob(filepath.Join(releasePath(version), "*.efi"))
		if err != nil || len(names) != 1 {
			t.Fatalf("the release %s has %d kernels (%v)", version, len(names), err)
		}
		data, err := os.ReadFile(names[0])
		if err != nil {
			t.Fatal(err)
		}
		c.UKIs[sha256.Sum256(data)] = version
	}
	return c
}

// verdict is what all states of a recording gave.
type verdict struct {
	boundaries, cuts int
	chosen           map[string]int
	notes            map[string]int
	story            []string // the versions that the boundaries choose, one after the other
	turns            []int    // the entries of the log with which they change
	before           *offline.Result
	bootable         []candidate
}

// candidate is a state that may be booted.
type candidate struct {
	name, version string
	notes         []string
	kind          int // 0 where the power cut a rename, 1 elsewhere on the ESP, 2 elsewhere
	order         uint64
}

// judge checks every state. What may be chosen after a cut is what one of the boundaries of its epoch chooses.
func (r *recording) judge(c *offline.Checker) *verdict {
	t := r.t
	t.Helper()
	v := &verdict{chosen: map[string]int{}, notes: map[string]int{}}
	allowed := make([]map[string]bool, len(r.replay.Epochs()))
	findings := 0
	check := func(s *writelog.State) *offline.Result {
		res, err := c.Check(s)
		if err == nil && v.before != nil {
			err = sameElsewhere(v.before, res)
		}
		if err != nil {
			if findings++; findings <= 20 {
				t.Errorf("after a power cut at %s (log in %s): %v", s.Name, r.dir, err)
			}
			return nil
		}
		v.chosen[res.Chosen.Version]++
		for _, n := range slices.Compact(slices.Clone(res.Notes)) {
			v.notes[n]++
		}
		return res
	}
	last := ""
	for s := range r.replay.Boundaries() {
		v.boundaries++
		res := check(s)
		if res == nil {
			continue
		}
		if v.before == nil {
			v.before = res
		}
		if allowed[s.Epoch] == nil {
			allowed[s.Epoch] = map[string]bool{last: true}
		}
		allowed[s.Epoch][res.Chosen.Version] = true
		if res.Chosen.Version != last {
			last = res.Chosen.Version
			v.story = append(v.story, last)
			if s.Entry >= 0 {
				v.turns = append(v.turns, s.Entry)
			}
		}
	}
	r.esp = r.partition(v.before, 2)
	for s := range r.replay.Cuts(writelog.Plan{Seed: 1, Draws: replayDraws, Weight: func(e writelog.Epoch) int { return r.weight(e) }}) {
		v.cuts++
		res := check(s)
		if res == nil {
			continue
		}
		if version := res.Chosen.Version; !allowed[s.Epoch][version] {
			t.Errorf("after a power cut at %s (log in %s): %s is chosen, the boundaries there choose %v", s.Name, r.dir, version, allowed[s.Epoch])
		}
		h := fnv.New64a()
		io.WriteString(h, s.Name)
		k := candidate{name: s.Name, version: res.Chosen.Version, notes: res.Notes, kind: 2, order: h.Sum64()}
		switch {
		case slices.Contains(res.Notes, twoNames):
			k.kind = 0
		case r.touches(r.replay.Epochs()[s.Epoch], r.esp):
			k.kind = 1
		}
		v.bootable = append(v.bootable, k)
	}
	if findings > 20 {
		t.Errorf("%d findings altogether", findings)
	}
	return v
}

// sameElsewhere checks what an update must never change: the other partitions' places, and the running slot's everything.
func sameElsewhere(before, now *offline.Result) error {
	if now.Loader != before.Loader {
		return errors.New("the boot loader is another one")
	}
	for _, p := range before.Partitions {
		i := slices.IndexFunc(now.Partitions, func(q offline.Partition) bool { return q.Number == p.Number })
		if i < 0 {
			return fmt.Errorf("partition %d is gone", p.Number)
		}
		q := now.Partitions[i]
		idle := p.Number >= 6 && p.Number <= 8
		if q.Offset != p.Offset || q.Length != p.Length || q.Type != p.Type || !idle && q != p {
			return fmt.Errorf("partition %d was %+v and is %+v", p.Number, p, q)
		}
	}
	if len(now.Partitions) != len(before.Partitions) {
		return fmt.Errorf("%d partitions, before there were %d", len(now.Partitions), len(before.Partitions))
	}
	return nil
}

func (r *recording) partition(res *offline.Result, number int) offline.Partition {
	r.t.Helper()
	i := slices.IndexFunc(res.Partitions, func(p offline.Partition) bool { return p.Number == number })
	if i < 0 {
		r.t.Fatalf("no partition %d", number)
	}
	return res.Partitions[i]
}

func (r *recording) touches(e writelog.Epoch, p offline.Partition) bool {
	return slices.ContainsFunc(e.Writes, func(i int) bool { return r.entryTouches(i, p) })
}

func (r *recording) entryTouches(i int, p offline.Partition) bool {
	w := &r.log.Entries[i]
	return w.Writes() && w.Offset < p.Offset+p.Length && p.Offset < w.Offset+w.Length
}

// weight draws most where it matters: on the ESP and in the partition table.
func (r *recording) weight(e writelog.Epoch) int {
	table := offline.Partition{Length: 34 * 512}
	backup := offline.Partition{Offset: r.size - 33*512, Length: 33 * 512}
	if r.touches(e, r.esp) || r.touches(e, table) || r.touches(e, backup) {
		return 64
	}
	return min(8, len(e.Writes))
}

func (r *recording) report(v *verdict, took time.Duration) {
	r.t.Helper()
	writes := 0
	for _, e := range r.replay.Epochs() {
		writes += len(e.Writes)
	}
	r.t.Logf("%d writes in %d epochs; %d boundaries and %d cuts judged in %v; chosen: %v; story: %v; notes: %v", writes, len(r.replay.Epochs()), v.boundaries, v.cuts,
		took.Round(time.Second), v.chosen, v.story, v.notes)
}

// untouched checks the log itself: the slot that runs first is never written to, and the other one not any more once it is the one to be started.
func (r *recording) untouched(v *verdict) {
	r.t.Helper()
	for i := range r.log.Entries {
		for number := 3; number <= 8; number++ {
			if (number <= 5 || len(v.turns) > 0 && i > v.turns[0]) && r.entryTouches(i, r.partition(v.before, number)) {
				r.t.Errorf("entry %d of the log writes to partition %d, which runs or is about to", i, number)
			}
		}
	}
}

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
	c := guest.Config{Name: k.name, Dir: dir, Disk: filepath.Join(dir, "disk.raw"), Key: world.key, CPUs: 1}
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
	t.Logf("%s: fsck.fat: %v, notes %q: %s", name, err, notes, out)
}

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

// TestPowerCutsExhaustively records an update, blessing included, and judges the disk after every write, and after more than 10,000 power cuts within
// flush epochs. Some of these disks are booted, and then the update completes.
func TestPowerCutsExhaustively(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.publish(second)
	r := record(t, "", func(m *machine) {
		m.use(s.URL)
		m.check()
		m.waitVersion(second)
		m.waitStatus(blessed(second))
		m.run("systemctl stop efi.mount; sync")
	})
	c := checker(t)
	began := time.Now()
	v := r.judge(c)
	r.report(v, time.Since(began))
	if got := strings.Join(v.story, " "); got != first+" "+second {
		t.Errorf("the boundaries choose %s one after the other, not %s and then %s", got, first, second)
	}
	r.untouched(v)
	if v.cuts < 10000 {
		t.Errorf("only %d different cuts", v.cuts)
	}
	for _, k := range v.choose(replayFsck) {
		r.fsck(k.name, k.notes)
	}
	for i, k := range v.choose(replayBoots) {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			var last *server
			if i == 0 {
				last = s
			}
			r.boot(t, k, last)
		})
	}
}
