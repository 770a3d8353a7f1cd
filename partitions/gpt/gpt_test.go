package gpt

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
)

const testDisk = 4 << 20

// memory is a disk in memory. It starts as one that has been written and flushed.
type memory struct{ b []byte }

func (m *memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m.b).ReadAt(p, off)
}

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	if off < 0 || off+int64(len(p)) > int64(len(m.b)) {
		return 0, io.ErrShortWrite
	}
	return copy(m.b[off:], p), nil
}

func (m *memory) Sync() error { return nil }

func id(n byte) GUID {
	g := mustGUID("00112233-4455-8677-8899-aabbccddee00")
	g[15] = n
	return g
}

// sample has a gap in its numbers, attributes and a name beyond ASCII.
func sample(t *testing.T) *Table {
	t.Helper()
	table, err := New(id(1), testDisk)
	if err != nil {
		t.Fatal(err)
	}
	types, _ := TypesOf("amd64")
	table.Partitions = []Partition{
		{Type: TypeBIOSBoot, GUID: id(2), First: 34, Last: 2047, Name: "bios"},
		{Type: TypeESP, GUID: id(3), First: 2048, Last: 4095, Name: "esp"},
		{},
		{Type: types.Root, GUID: id(4), First: 4096, Last: 6000, Attributes: AttrReadOnly | AttrNoAuto | 1<<48, Name: "semper_1.2.0 ä"},
	}
	for i := range table.BootCode {
		table.BootCode[i] = byte(i)
	}
	return table
}

func written(t *testing.T, table *Table, size int64) *memory {
	t.Helper()
	m := &memory{make([]byte, size)}
	if err := table.Write(m); err != nil {
		t.Fatal(err)
	}
	return m
}

func read(t *testing.T, b []byte) (*Table, Found) {
	t.Helper()
	table, found, err := Read(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	return table, found
}

func equal(a, b *Table) bool {
	return a.DiskGUID == b.DiskGUID && a.FirstUsable == b.FirstUsable && a.BackupLBA == b.BackupLBA && a.BootCode == b.BootCode && slices.Equal(a.Partitions, b.Partitions)
}

func TestRoundTrip(t *testing.T) {
	want := sample(t)
	want.Partitions[1].Name = strings.Repeat("🐧", NameUnits/2)
	m := written(t, want, testDisk)
	got, found := read(t, m.b)
	if !equal(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if found != (Found{}) {
		t.Errorf("found %+v, want all well", found)
	}
	if m.b[440] != 0 || m.b[446+4] != 0xee || m.b[510] != 0x55 || m.b[511] != 0xaa {
		t.Error("the protective MBR is wrong")
	}
	if n := binary.LittleEndian.Uint32(m.b[446+12:]); n != testDisk/SectorSize-1 {
		t.Errorf("the protective partition has %d sectors", n)
	}
}

// The bytes of a GUID on disk, against the example of the UEFI specification's ESP type.
func TestGUIDOnDisk(t *testing.T) {
	want := []byte{0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11, 0xba, 0x4b, 0x00, 0xa0, 0xc9, 0x3e, 0xc9, 0x3b}
	if got := TypeESP.swapped(); !bytes.Equal(got[:], want) {
		t.Errorf("got %x, want %x", got, want)
	}
	if s := TypeESP.String(); s != "c12a7328-f81f-11d2-ba4b-00a0c93ec93b" {
		t.Errorf("text form is %s", s)
	}
	for _, bad := range []string{"", "c12a7328f81f11d2ba4b00a0c93ec93b", "c12a7328-f81f-11d2-ba4b-00a0c93ec93g", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b0", "c12a7328+f81f-11d2-ba4b-00a0c93ec93b"} {
		if g, err := ParseGUID(bad); err == nil {
			t.Errorf("ParseGUID(%q) = %s, want an error", bad, g)
		}
	}
	if g, err := ParseGUID("C12A7328-F81F-11D2-BA4B-00A0C93EC93B"); err != nil || g != TypeESP {
		t.Errorf("upper case: %s, %v", g, err)
	}
}

func TestDamage(t *testing.T) {
	const backupHeader = testDisk - SectorSize
	const backupEntries = testDisk - 33*SectorSize
	tests := []struct {
		name   string
		damage func(b []byte)
		used   Copy
		says   string
	}{
		{"primary header", func(b []byte) { b[SectorSize+60] ^= 1 }, Backup, "wrong checksum"},
		{"primary header gone", func(b []byte) { clear(b[SectorSize : 2*SectorSize]) }, Backup, "no GPT header at sector 1"},
		{"primary entries", func(b []byte) { b[2*SectorSize+3*entrySize] ^= 1 }, Backup, "GPT entries at sector 2 have a wrong checksum"},
		{"backup header", func(b []byte) { b[backupHeader+24] ^= 1 }, Primary, "wrong checksum"},
		{"backup entries", func(b []byte) { b[backupEntries] ^= 1 }, Primary, "wrong checksum"},
		{"MBR", func(b []byte) { b[511] = 0 }, Both, "no protective MBR"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := sample(t)
			m := written(t, want, testDisk)
			tt.damage(m.b)
			got, found := read(t, m.b)
			if !equal(got, want) {
				t.Errorf("got %+v", got)
			}
			if found.Used != tt.used || found.Damage == nil || !strings.Contains(found.Damage.Error(), tt.says) {
				t.Errorf("used %s, damage %v; want %s and %q", found.Used, found.Damage, tt.used, tt.says)
			}
			if err := got.Write(m); err != nil {
				t.Fatal(err)
			}
			if again, found := read(t, m.b); !equal(again, want) || found.Damage != nil {
				t.Errorf("not mended by Write: %+v", found)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	both := func(change func(h, entries []byte)) func(b []byte) {
		return func(b []byte) {
			for _, at := range [][2]int{{SectorSize, 2 * SectorSize}, {testDisk - SectorSize, testDisk - 33*SectorSize}} {
				h, entries := b[at[0]:at[0]+SectorSize], b[at[1]:at[1]+MaxEntries*entrySize]
				change(h, entries)
				binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(entries))
				clear(h[16:20])
				binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
			}
		}
	}
	le := binary.LittleEndian
	tests := []struct {
		name   string
		damage func(b []byte)
		says   string
	}{
		{"nothing", func(b []byte) { clear(b) }, "both copies are unusable"},
		{"an MBR disk", func(b []byte) { clear(b); b[510], b[511], b[450] = 0x55, 0xaa, 0x83 }, "MBR partition table, not a GPT"},
		{"large sectors", func(b []byte) { clear(b); copy(b[4096:], signature) }, "sectors of 4096 bytes"},
		{"huge entry count", both(func(h, _ []byte) { le.PutUint32(h[80:], 1<<31) }), "entries of 128 bytes"},
		{"no entries", both(func(h, _ []byte) { le.PutUint32(h[80:], 0) }), "0 entries"},
		{"odd entry size", both(func(h, _ []byte) { le.PutUint32(h[84:], 136) }), "entries of 136 bytes"},
		{"small entry size", both(func(h, _ []byte) { le.PutUint32(h[84:], 64) }), "entries of 64 bytes"},
		{"entries outside", both(func(h, _ []byte) { le.PutUint64(h[72:], 1<<40) }), "outside the disk"},
		{"entries over the edge", both(func(h, _ []byte) { le.PutUint64(h[72:], 1<<64-1) }), "outside the disk"},
		{"overlap", both(func(_, e []byte) { le.PutUint64(e[entrySize+32:], 2000) }), "overlap"},
		{"turned round", both(func(_, e []byte) { le.PutUint64(e[32:], 4000) }), "before its start"},
		{"outside", both(func(_, e []byte) { le.PutUint64(e[3*entrySize+40:], 1<<63) }), "usable ones"},
		{"revision", both(func(h, _ []byte) { le.PutUint32(h[8:], 0x20000) }), "revision"},
		{"header size", both(func(h, _ []byte) { le.PutUint32(h[12:], 1<<20) }), "claims"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := written(t, sample(t), testDisk)
			tt.damage(m.b)
			_, _, err := Read(m, testDisk)
			if err == nil || !strings.Contains(err.Error(), tt.says) || !fault.Is(err, fault.Input) {
				t.Errorf("got %v (%s), want an input error with %q", err, fault.KindOf(err), tt.says)
			}
		})
	}
	t.Run("cut short", func(t *testing.T) {
		m := written(t, sample(t), testDisk)
		_, _, err := Read(m, 3<<20-SectorSize*200)
		if err == nil || !strings.Contains(err.Error(), "cut short") {
			t.Errorf("got %v", err)
		}
	})
}

func TestWriteRefuses(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Table)
		says string
	}{
		{"overlap", func(t *Table) { t.Partitions[1].First = 2047 }, "overlap"},
		{"in the entries", func(t *Table) { t.Partitions[0].First = 33 }, "usable"},
		{"in the backup", func(t *Table) { t.Partitions[3].Last = testDisk/SectorSize - 33 }, "usable"},
		{"same PARTUUID", func(t *Table) { t.Partitions[3].GUID = t.Partitions[0].GUID }, "same PARTUUID"},
		{"no PARTUUID", func(t *Table) { t.Partitions[3].GUID = GUID{} }, "no PARTUUID"},
		{"long name", func(t *Table) { t.Partitions[3].Name = strings.Repeat("🐧", 18) + "x" }, "longer than 36"},
		{"NUL", func(t *Table) { t.Partitions[3].Name = "a\x00b" }, "NUL"},
		{"not UTF-8", func(t *Table) { t.Partitions[3].Name = "\xff" }, "not UTF-8"},
		{"too many", func(t *Table) { t.Partitions = make([]Partition, 129) }, "129 entries"},
		{"first usable", func(t *Table) { t.FirstUsable = 8 }, "first usable"},
		{"no room", func(t *Table) { t.BackupLBA = 40 }, "no room"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			table := sample(t)
			tt.edit(table)
			m := &memory{make([]byte, testDisk)}
			err := table.Write(m)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want %q", err, tt.says)
			}
			if !bytes.Equal(m.b, make([]byte, testDisk)) {
				t.Error("something was written")
			}
		})
	}
}

func TestGrow(t *testing.T) {
	m := written(t, sample(t), testDisk)
	m.b = append(m.b, make([]byte, testDisk)...)
	table, found := read(t, m.b)
	if !found.Grown || found.Used != Both || found.Damage != nil {
		t.Fatalf("found %+v, want a grown disk with both copies", found)
	}
	if err := table.Resize(int64(len(m.b))); err != nil {
		t.Fatal(err)
	}
	n, err := table.Append(Partition{Type: TypeVar, GUID: id(9), Name: "var"}, 0, 2048)
	if err != nil || n != 5 {
		t.Fatalf("Append: %d, %v", n, err)
	}
	if p := table.Partitions[4]; p.First != 6144 || p.Last != 2*testDisk/SectorSize-2048-1 {
		t.Errorf("var covers %d to %d", p.First, p.Last)
	}
	if err := table.Write(m); err != nil {
		t.Fatal(err)
	}
	again, found := read(t, m.b)
	if !equal(again, table) || found != (Found{}) {
		t.Errorf("after growing: %+v, %+v", again, found)
	}
	if err := table.Resize(testDisk); err == nil {
		t.Error("Resize made the disk smaller than its partitions")
	}
	if _, err := table.Append(Partition{Type: TypeLinux, GUID: id(10)}, 4096, 1); err == nil || !strings.Contains(err.Error(), "are left") {
		t.Errorf("Append without room: %v", err)
	}
}

// cut is a disk that remembers what was written since the last Sync, sector by sector, and calls at each sector.
type cut struct {
	stable  []byte
	pending []sector
	each    func(stable []byte, pending []sector)
}

type sector struct {
	at   int64
	data []byte
}

func (c *cut) ReadAt(p []byte, off int64) (int, error) {
	return overlay{c.stable, c.pending}.ReadAt(p, off)
}

func (c *cut) WriteAt(p []byte, off int64) (int, error) {
	for i := 0; i < len(p); i += SectorSize {
		c.pending = append(c.pending, sector{off + int64(i), bytes.Clone(p[i : i+SectorSize])})
		c.each(c.stable, c.pending)
	}
	return len(p), nil
}

func (c *cut) Sync() error {
	for _, s := range c.pending {
		copy(c.stable[s.at:], s.data)
	}
	c.pending = nil
	return nil
}

// overlay is what a disk holds once some sectors were written over it.
type overlay struct {
	b       []byte
	sectors []sector
}

func (o overlay) ReadAt(p []byte, off int64) (int, error) {
	n, err := bytes.NewReader(o.b).ReadAt(p, off)
	for _, s := range o.sectors {
		if at := s.at - off; at >= 0 && at < int64(n) {
			copy(p[at:n], s.data)
		}
	}
	return n, err
}

// TestPowerCut cuts the power after each sector of an edit, with the sectors since the last Sync durable in order, in
// reverse order and by halves, and wants the old or the new table back each time.
func TestPowerCut(t *testing.T) {
	const size = 8 << 20
	edits := map[string]func(*Table, []byte){
		"edit":                         func(*Table, []byte) {},
		"edit with the primary broken": func(_ *Table, b []byte) { b[SectorSize+60] ^= 1 },
		"edit with the entries broken": func(_ *Table, b []byte) { b[2*SectorSize+5] ^= 1 },
		"edit with the backup broken":  func(_ *Table, b []byte) { b[testDisk-SectorSize+60] ^= 1 },
		"grow":                         func(t *Table, _ []byte) { t.BackupLBA = size/SectorSize - 1 },
		"grow with the entries broken": func(t *Table, b []byte) { b[2*SectorSize+5] ^= 1; t.BackupLBA = size/SectorSize - 1 },
	}
	for name, prepare := range edits {
		t.Run(name, func(t *testing.T) {
			old := sample(t)
			disk := append(written(t, old, testDisk).b, make([]byte, size-testDisk)...)
			grows := strings.HasPrefix(name, "grow")
			if !grows {
				disk = disk[:testDisk]
			}
			edited := *old
			edited.Partitions = slices.Clone(old.Partitions)
			edited.Partitions[3].Name, edited.Partitions[3].GUID = "semper_1.3.0", id(77)
			edited.Partitions[1].Last--
			prepare(&edited, disk)
			if _, _, err := Read(bytes.NewReader(disk), int64(len(disk))); err != nil {
				t.Fatalf("before the edit: %v", err)
			}
			cuts := 0
			check := func(stable []byte, pending []sector, keep func(i int) bool) {
				cuts++
				disk := overlay{b: stable}
				for i, s := range pending {
					if keep(i) {
						disk.sectors = append(disk.sectors, s)
					}
				}
				got, _, err := Read(disk, int64(len(stable)))
				if err != nil {
					t.Fatalf("cut %d: %v", cuts, err)
				}
				if !slices.Equal(got.Partitions, old.Partitions) && !slices.Equal(got.Partitions, edited.Partitions) {
					t.Fatalf("cut %d: a table that is neither the old nor the new one", cuts)
				}
			}
			d := &cut{stable: bytes.Clone(disk), each: func(stable []byte, pending []sector) {
				n := len(pending)
				check(stable, pending, func(int) bool { return true })
				check(stable, pending, func(i int) bool { return i == n-1 })
				check(stable, pending, func(i int) bool { return i%2 == n%2 })
				check(stable, pending, func(i int) bool { return i >= n/2 })
			}}
			if err := edited.Write(d); err != nil {
				t.Fatal(err)
			}
			if cuts < 4*66 {
				t.Errorf("only %d cuts were tried", cuts)
			}
			got, found := read(t, d.stable)
			if !equal(got, &edited) || found != (Found{}) {
				t.Errorf("after the edit: %+v", found)
			}
		})
	}
}

func TestWriteStopsAtErrors(t *testing.T) {
	table := sample(t)
	m := &memory{make([]byte, testDisk-SectorSize)}
	err := table.Write(m)
	if err == nil || !fault.Is(err, fault.IO) || !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v", err)
	}
}

func FuzzRead(f *testing.F) {
	const size = (minFirstUsable + arraySectors + 40) * SectorSize
	table, err := New(id(1), size)
	if err != nil {
		f.Fatal(err)
	}
	if _, err := table.Append(Partition{Type: TypeESP, GUID: id(2), Name: "esp"}, 8, 1); err != nil {
		f.Fatal(err)
	}
	if _, err := table.Append(Partition{Type: TypeVar, GUID: id(3), Name: "var"}, 0, 1); err != nil {
		f.Fatal(err)
	}
	m := &memory{make([]byte, size)}
	if err := table.Write(m); err != nil {
		f.Fatal(err)
	}
	// The input is the two headers, their checksums mended here, and the first entries, which both copies share.
	f.Add(m.b[SectorSize:2*SectorSize], m.b[size-SectorSize:], m.b[2*SectorSize:3*SectorSize], true)
	f.Add(m.b[SectorSize:2*SectorSize], []byte{}, m.b[2*SectorSize:3*SectorSize], false)
	f.Fuzz(func(t *testing.T, primary, backup, entries []byte, mend bool) {
		b := bytes.Clone(m.b)
		copy(b[SectorSize:2*SectorSize], primary)
		copy(b[size-SectorSize:], backup)
		copy(b[2*SectorSize:34*SectorSize], entries)
		copy(b[size-33*SectorSize:size-SectorSize], entries)
		if mend {
			for _, h := range [][]byte{b[SectorSize : 2*SectorSize], b[size-SectorSize:]} {
				n := min(int(binary.LittleEndian.Uint32(h[80:])), MaxEntries) * entrySize
				binary.LittleEndian.PutUint32(h[88:], crc32.ChecksumIEEE(b[2*SectorSize:2*SectorSize+n]))
				clear(h[16:20])
				binary.LittleEndian.PutUint32(h[16:], crc32.ChecksumIEEE(h[:headerSize]))
			}
		}
		got, _, err := Read(bytes.NewReader(b), size)
		if err != nil {
			return
		}
		for _, p := range got.Partitions {
			if p.Used() && (p.Size() <= 0 || p.Offset()+p.Size() > size) {
				t.Fatalf("partition outside the disk: %+v", p)
			}
		}
		if got.Resize(size) != nil {
			return
		}
		d := &memory{bytes.Clone(b)}
		if err := got.Write(d); err != nil {
			t.Fatalf("Write refuses what Resize accepts: %v", err)
		}
		again, found, err := Read(d, size)
		if err != nil || !equal(again, got) || found != (Found{}) {
			t.Fatalf("read back: %+v, %+v, %v\nwant %+v", again, found, err, got)
		}
	})
}
