package writelog

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const testDisk = 3<<20 + 512 // chunks are 1 MiB; the last one is not whole

// record is a write as a test says it: fill bytes at a sector.
type record struct {
	sector, sectors int
	fill            byte
	flags           Flags
	mark            string
}

// encode makes a log of records.
func encode(sector int, records ...record) []byte {
	b := make([]byte, sector)
	binary.LittleEndian.PutUint64(b, magic)
	binary.LittleEndian.PutUint64(b[8:], 1)
	binary.LittleEndian.PutUint64(b[16:], uint64(len(records)))
	binary.LittleEndian.PutUint32(b[24:], uint32(sector))
	for _, r := range records {
		data := bytes.Repeat([]byte{r.fill}, r.sectors*sector)
		if r.flags&Mark != 0 {
			data = []byte(r.mark)
		}
		if r.flags&Discard != 0 {
			data = nil
		}
		head := make([]byte, sector)
		length := 0
		if r.flags&Mark != 0 {
			length = len(data)
		}
		for i, v := range []uint64{uint64(r.sector), uint64(r.sectors), uint64(r.flags), uint64(length)} {
			binary.LittleEndian.PutUint64(head[8*i:], v)
		}
		b = append(append(b, head...), data...)
		for len(b)%sector != 0 {
			b = append(b, 0)
		}
	}
	return b
}

func read(t *testing.T, data []byte) *Log {
	t.Helper()
	l, err := Read(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func base() []byte {
	b := make([]byte, testDisk)
	for i := range b {
		b[i] = byte(i / sectorSize)
	}
	return b
}

// windows are the sectors that the tests' logs write to, and some around them.
var windows = [][2]int{{0, 160}, {2030, 2070}, {6140, testDisk / sectorSize}}

// content reads the windows, one after the other.
func content(t *testing.T, s *State) []byte {
	t.Helper()
	var all []byte
	for _, w := range windows {
		b := make([]byte, (w[1]-w[0])*sectorSize)
		if _, err := s.ReadAt(b, int64(w[0])*sectorSize); err != nil {
			t.Fatalf("%s: %v", s.Name, err)
		}
		all = append(all, b...)
	}
	return all
}

// cut takes the windows out of a whole disk.
func cut(disk []byte) []byte {
	var all []byte
	for _, w := range windows {
		all = append(all, disk[w[0]*sectorSize:w[1]*sectorSize]...)
	}
	return all
}

// in returns where a sector is in the windows.
func in(sector int) int {
	at := 0
	for _, w := range windows {
		if sector >= w[0] && sector < w[1] {
			return (at + sector - w[0]) * sectorSize
		}
		at += w[1] - w[0]
	}
	panic("not in a window")
}

// story has small and large epochs, overlaps, a discard, a chunk border and the disk's last sector.
func story() []record {
	all := []record{
		{sector: 10, sectors: 4, fill: 'a'},
		{flags: Flush},
		{sector: 12, sectors: 1, fill: 'b'},
		{sector: 2040, sectors: 16, fill: 'c'},
		{sector: 11, sectors: 3, fill: 'd'},
		{flags: Flush},
		{flags: Flush},
		{flags: Mark, mark: "half"},
		{sector: 2046, sectors: 4, flags: Discard},
		{sector: 6144, sectors: 1, fill: 'e'},
		{flags: Flush | FUA, sector: 3, sectors: 2, fill: 'f'},
	}
	for i := range 12 {
		all = append(all, record{sector: 100 + 3*i, sectors: 5, fill: byte('g' + i)})
	}
	return all
}

func TestRead(t *testing.T) {
	for _, sector := range []int{512, 1024, 4096} {
		l := read(t, encode(sector, story()...))
		if len(l.Entries) != len(story()) {
			t.Fatalf("%d entries", len(l.Entries))
		}
		for i, want := range story() {
			e := l.Entries[i]
			if e.Offset != int64(want.sector*sector) || e.Length != int64(want.sectors*sector) || e.Flags != want.flags || e.Mark != want.mark {
				t.Errorf("sectors of %d: entry %d is %+v, want %+v", sector, i, e, want)
			}
		}
	}
	epochs := read(t, encode(512, story()...)).Epochs()
	var got []string
	for _, e := range epochs {
		got = append(got, fmt.Sprint(e.Writes))
	}
	if want := "[0] [2 3 4] [8 9] [10 11 12 13 14 15 16 17 18 19 20 21 22]"; strings.Join(got, " ") != want {
		t.Errorf("epochs %s, want %s", strings.Join(got, " "), want)
	}
}

func TestReadRefuses(t *testing.T) {
	good := encode(512, record{sector: 1, sectors: 2, fill: 'x'}, record{flags: Flush})
	change := func(at int, v uint64) []byte {
		b := bytes.Clone(good)
		binary.LittleEndian.PutUint64(b[at:], v)
		return b
	}
	for name, data := range map[string][]byte{
		"magic":                change(0, 1),
		"version":              change(8, 2),
		"too many entries":     change(16, 1<<40),
		"one entry too many":   change(16, 3),
		"sectors of 3 bytes":   change(24, 3),
		"behind every disk":    change(512, 1<<60),
		"overflowing sectors":  change(520, 1<<63),
		"unknown flag":         change(528, 32),
		"too much data":        change(520, 4096),
		"data of another size": change(536, 512),
		"cut":                  good[:1024],
		"empty":                nil,
	} {
		if _, err := Read(bytes.NewReader(data), int64(len(data))); err == nil {
			t.Errorf("%s: read", name)
		}
	}
	if _, err := read(t, good).Replay(bytes.NewReader(nil), 1024); err == nil {
		t.Error("a write behind the disk's end was taken")
	}
}

func TestBoundaries(t *testing.T) {
	l := read(t, encode(512, story()...))
	r, err := l.Replay(bytes.NewReader(base()), testDisk)
	if err != nil {
		t.Fatal(err)
	}
	want, next := base(), 0
	for s := range r.Boundaries() {
		for ; next <= s.Entry; next++ {
			if rec := story()[next]; rec.flags&Mark == 0 {
				fill := rec.fill // 0 for a discard
				copy(want[rec.sector*512:], bytes.Repeat([]byte{fill}, rec.sectors*512))
			}
		}
		if !bytes.Equal(content(t, s), cut(want)) {
			t.Errorf("%s differs", s.Name)
		}
		// Reads that begin and end anywhere see the same.
		for _, at := range []int{0, 1, 511, 5000, 2040*512 - 7, 2047*512 + 100, testDisk - 700} {
			p := make([]byte, min(9000, testDisk-at))
			if _, err := s.ReadAt(p, int64(at)); err != nil || !bytes.Equal(p, want[at:at+len(p)]) {
				t.Errorf("%s: read at %d: %v", s.Name, at, err)
			}
		}
	}
	if next != len(story()) {
		t.Errorf("the last state is the one after entry %d of %d", next-1, len(story()))
	}
}

// possible tells for each sector of the windows which contents a cut in an epoch may leave there.
func possible(l []record, epochs []Epoch, n int) (allowed []map[byte]bool) {
	b := base()
	for _, e := range epochs[:n] {
		for _, i := range e.Writes {
			copy(b[l[i].sector*512:], bytes.Repeat([]byte{l[i].fill}, l[i].sectors*512))
		}
	}
	b = cut(b)
	for at := 0; at < len(b); at += 512 {
		allowed = append(allowed, map[byte]bool{b[at]: true})
	}
	for _, i := range epochs[n].Writes {
		for s := range l[i].sectors {
			allowed[in(l[i].sector+s)/512][l[i].fill] = true
		}
	}
	return allowed
}

func TestCuts(t *testing.T) {
	recs := story()
	l := read(t, encode(512, recs...))
	r, err := l.Replay(bytes.NewReader(base()), testDisk)
	if err != nil {
		t.Fatal(err)
	}
	plan := Plan{Seed: 1, Draws: 300}
	perEpoch, seen, torn := map[int]int{}, map[string]bool{}, 0
	var names []string
	contents := map[string][]byte{}
	for s := range r.Cuts(plan) {
		b := content(t, s)
		allowed := possible(recs, r.Epochs(), s.Epoch)
		for sector, ok := range allowed {
			if got := b[sector*512]; !ok[got] || !bytes.Equal(b[sector*512:sector*512+512], bytes.Repeat([]byte{got}, 512)) {
				t.Fatalf("%s: sector %d holds %q", s.Name, sector, got)
			}
		}
		key := fmt.Sprint(s.Epoch, string(b))
		if seen[key] {
			t.Errorf("%s is there twice", s.Name)
		}
		seen[key] = true
		perEpoch[s.Epoch]++
		if s.Epoch == 1 && (b[in(2040)] == 'c') != (b[in(2055)] == 'c') {
			torn++
		}
		names = append(names, s.Name)
		contents[s.Name] = b
	}
	// Without draws: none, none of the subsets of 3 writes but 6, of 2 writes 2, of 13 writes 26 (write 10 has FUA, so that "only" has it too).
	if perEpoch[1] <= 6 || perEpoch[2] < 2 || perEpoch[3] < 100 || torn == 0 {
		t.Errorf("states by epoch: %v, torn: %d", perEpoch, torn)
	}
	if len(names) < 250 {
		t.Errorf("%d states of 400 drawn", len(names))
	}
	// Each is made again by its name, and the plan gives the same ones again.
	for _, name := range names {
		s, err := r.At(name)
		if err != nil || s.Name != name || !bytes.Equal(content(t, s), contents[name]) {
			t.Errorf("%s: made again: %v", name, err)
		}
	}
	again := 0
	for s := range r.Cuts(plan) {
		if s.Name != names[again] {
			t.Fatalf("state %d is %s, before it was %s", again, s.Name, names[again])
		}
		again++
	}
	for _, name := range []string{"", "write-1", "write-99", "write-x", "epoch-9-subset-1", "epoch-1-with-3", "epoch-1-only-3", "epoch--1-only-0", "epoch-1-seed-"} {
		if _, err := r.At(name); err == nil {
			t.Errorf("there is a state %q", name)
		}
	}
}

func TestFUAIsThere(t *testing.T) {
	recs := []record{{sector: 1, sectors: 1, fill: 'a'}, {sector: 5, sectors: 1, fill: 'b', flags: FUA}, {sector: 5, sectors: 1, fill: 'd'}, {sector: 9, sectors: 1, fill: 'c'}}
	r, err := read(t, encode(512, recs...)).Replay(bytes.NewReader(base()), testDisk)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for s := range r.Cuts(Plan{Seed: 3, Draws: 100}) {
		b := content(t, s)
		n++
		if (b[in(9)] == 'c' || b[in(5)] == 'd') && b[in(5)] != 'b' && b[in(5)] != 'd' {
			t.Errorf("%s: the write with FUA is lost although a later one is there", s.Name)
		}
	}
	if n < 6 {
		t.Errorf("only %d states", n)
	}
}

func TestFingerprint(t *testing.T) {
	r, err := read(t, encode(512, story()...)).Replay(bytes.NewReader(base()), testDisk)
	if err != nil {
		t.Fatal(err)
	}
	ranges := [][2]int64{{10 * 512, 4 * 512}, {12 * 512, 512}, {2040 * 512, 20 * 512}, {1 << 20, 1 << 14}, {4096, 2 << 20}, {100 * 512, 64 * 512}, {3 << 20, 512}}
	byPrint := map[string][]byte{}
	check := func(s *State) {
		for _, rng := range ranges {
			key := fmt.Sprintf("%v %x", rng, s.Fingerprint(rng[0], rng[1]))
			part := make([]byte, rng[1])
			if _, err := s.ReadAt(part, rng[0]); err != nil {
				t.Fatal(err)
			}
			if old, ok := byPrint[key]; ok && !bytes.Equal(old, part) {
				t.Errorf("%s: range %v has another content and the same fingerprint", s.Name, rng)
			}
			byPrint[key] = part
		}
	}
	states := 0
	for s := range r.Boundaries() {
		check(s)
		states++
	}
	for s := range r.Cuts(Plan{Seed: 7, Draws: 60}) {
		check(s)
		states++
	}
	if len(byPrint) >= states*len(ranges)/2 {
		t.Errorf("%d fingerprints of %d states: ranges that stay the same do not keep theirs", len(byPrint), states)
	}
}

// TestQEMU reads a log that QEMU's driver wrote.
func TestQEMU(t *testing.T) {
	program, err := exec.LookPath("qemu-io")
	if err != nil {
		t.Fatal("qemu-io is missing: install the package qemu-utils")
	}
	dir := t.TempDir()
	disk, log := filepath.Join(dir, "disk"), filepath.Join(dir, "log")
	if err := os.WriteFile(disk, base(), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(log, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	options := "driver=blklogwrites,log-super-update-interval=1,file.driver=raw,file.file.driver=file,file.file.filename=" + disk + ",log.driver=file,log.filename=" + log
	cmd := exec.Command(program, "-t", "writeback", "-c", "write -P 0x61 5120 2048", "-c", "flush", "-c", "write -P 0x62 1M 1k", "-c", "discard 2M 4k", "-c", "write -f -P 0x63 512 512",
		"--image-opts", options)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("qemu-io: %v: %s", err, out)
	}
	data, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	l := read(t, data)
	var got []string
	for _, e := range l.Entries {
		got = append(got, fmt.Sprintf("%d+%d/%d", e.Offset, e.Length, e.Flags))
	}
	// QEMU flushes once more when it ends; a write with FUA becomes a write and a flush where the file has no FUA.
	if text := strings.Join(got, " "); !strings.HasPrefix(text, "5120+2048/0 0+0/1 1048576+1024/0 2097152+4096/4 512+512/") {
		t.Errorf("the log has %s", text)
	}
	r, err := l.Replay(bytes.NewReader(base()), testDisk)
	if err != nil {
		t.Fatal(err)
	}
	last := make([]byte, testDisk)
	for s := range r.Boundaries() {
		if _, err := s.ReadAt(last, 0); err != nil {
			t.Fatal(err)
		}
	}
	now, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(last, now) {
		t.Error("the whole log over the base is not what the disk holds")
	}
}

func FuzzRead(f *testing.F) {
	f.Add(encode(512, story()...))
	f.Add(encode(4096, story()[:3]...))
	f.Add(encode(512)[:28])
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Read(bytes.NewReader(data), int64(len(data)))
		if err != nil {
			return
		}
		r, err := l.Replay(bytes.NewReader(base()), testDisk)
		if err != nil {
			return
		}
		buf := make([]byte, 4096)
		for s := range r.Cuts(Plan{Seed: 1, Draws: 4}) {
			for _, at := range []int64{0, 512 * 9, 1<<20 - 2048} {
				if _, err := s.ReadAt(buf, at); err != nil {
					t.Fatalf("%s: %v", s.Name, err)
				}
			}
		}
	})
}
