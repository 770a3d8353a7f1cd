package qemutests

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/qemu-tests/guest"
	"github.com/semper-os/semper/qemu-tests/offline"
	"github.com/semper-os/semper/qemu-tests/writelog"
	"github.com/semper-os/semper/updater/agent"
)

const (
	replayDraws = 20000 // states that are drawn; with the systematic ones there are more
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
		c = guest.Config{Name: t.Name(), Dir: dir, Disk: raw, Key: world.key, CPUs: 1, CPU: cpu, KernelArgs: kernelArgs}
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
	// The first boot makes /var.
	for _, q := range now.Partitions[len(before.Partitions):] {
		if len(before.Partitions) != 8 || q.Number != 9 {
			return fmt.Errorf("partition %d is new", q.Number)
		}
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
	n := int64(0)
	for _, i := range e.Writes {
		n += r.log.Entries[i].Length / 512
	}
	return int(min(16, n))
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

// scenario is something that a machine does, and that the power may fail in.
type scenario struct {
	name  string
	disk  string // what it starts with; empty: the machine ready
	run   func(*testing.T, *machine, *server)
	story string // the versions that the boot loader would choose, one after the other
	boots int    // how many states are booted
	last  bool   // whether the update goes on in one of them
}

func scenarios() []scenario {
	soak := os.Getenv("SEMPER_SOAK") != ""
	all := []scenario{{
		name: "update", boots: replayBoots, last: true, story: first + " " + second,
		run: func(_ *testing.T, m *machine, s *server) {
			s.publish(second)
			m.use(s.URL)
			m.check()
			m.waitVersion(second)
			m.waitStatus(blessed(second))
		},
	}}
	if !soak {
		return all
	}
	all[0].boots = soakBoots
	return append(all, scenario{
		name: "rollback", boots: soakBoots / 4, story: first + " " + sick + " " + first,
		run: func(_ *testing.T, m *machine, s *server) {
			s.publish(sick)
			m.use(s.URL)
			m.check()
			m.waitStatus(func(r agent.Report) bool { return r.Version == first && r.RolledBack != nil })
		},
	}, scenario{
		name: "first boot", boots: soakBoots / 4, story: first, disk: filepath.Join(releasePath(first), "disk.raw"),
		run: func(_ *testing.T, m *machine, _ *server) {
			m.waitVersion(first)
			m.waitStatus(blessed(first))
		},
	})
}

// TestPowerCutsExhaustively records what a machine writes, blessing included, and judges the disk after every write, and after more than 10,000 power cuts
// within flush epochs. Some of these disks are booted; in one the update then goes on to its end, and its disk is judged once more.
func TestPowerCutsExhaustively(t *testing.T) {
	t.Parallel()
	all := scenarios()
	for _, sc := range all {
		t.Run(sc.name, func(t *testing.T) {
			if len(all) > 1 { // one alone keeps its parent's turn, and does not wait behind all the tests
				t.Parallel()
			}
			s := startServer(t)
			r := record(t, sc.disk, func(m *machine) {
				sc.run(t, m, s)
				// What is not written yet would be written in time.
				m.run("systemctl stop efi.mount; sync")
			})
			began := time.Now()
			v := r.judge(checker(t))
			r.report(v, time.Since(began))
			if got := strings.Join(v.story, " "); got != sc.story {
				t.Errorf("the boot loader would choose %s one after the other, not %s", got, sc.story)
			}
			if v.cuts < 10000 {
				t.Errorf("only %d different cuts", v.cuts)
			}
			r.untouched(v)
			for _, k := range v.choose(replayFsck) {
				r.fsck(k.name, k.notes)
			}
			for i, k := range v.choose(sc.boots) {
				t.Run(k.name, func(t *testing.T) {
					t.Parallel()
					var last *server
					if i == 0 && sc.last {
						last = s
					}
					r.boot(t, k, last)
				})
			}
		})
	}
}
