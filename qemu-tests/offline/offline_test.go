package offline

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestSharesNoCode keeps the checker from believing what the writer believes.
func TestSharesNoCode(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/semper-os/semper/"
	for line := range strings.Lines(string(out)) {
		path := strings.TrimSpace(line)
		if own, ok := strings.CutPrefix(path, module); ok && own != "qemu-tests/offline" {
			t.Errorf("package offline uses %s", own)
		}
	}
}

func tool(t *testing.T, program, pkg string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		path = "/usr/sbin/" + program
		if _, err := os.Stat(path); err != nil {
			t.Fatalf("%s is missing: install the package %s", program, pkg)
		}
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v: %s", program, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// memory is a disk.
type memory []byte

func (m memory) ReadAt(p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}
func (m memory) Size() int64 { return int64(len(m)) }

const (
	mib     = 1 << 20
	espAt   = 1 * mib
	espSize = 40 * mib
)

// slotAt returns where the root partition of slot 0 or 1 begins; its hash tree and signature follow it, 1 MiB each.
func slotAt(slot int) int64 { return espAt + espSize + int64(slot)*4*mib }

// rootPart returns the number of a slot's root partition.
func rootPart(slot int) int { return 2 + 3*slot }

// fixture is a disk that the world's tools made.
type fixture struct {
	memory
	hashes [2][32]byte
	ukis   [2][]byte
}

// newFixture makes a disk with version 1.0.0 in slot 0 and 1.1.0 in slot 1. Names are those of the two boot entries; an empty one is not there.
func newFixture(t *testing.T, names ...string) *fixture {
	t.Helper()
	key := strings.Join(names, "|")
	if fixtures[key] == nil {
		fixtures[key] = makeFixture(t, names)
	}
	f := *fixtures[key]
	f.memory = slices.Clone(f.memory)
	return &f
}

var fixtures = map[string]*fixture{}

func makeFixture(t *testing.T, names []string) *fixture {
	t.Helper()
	dir := t.TempDir()
	f := &fixture{memory: make(memory, slotAt(2)+mib)}
	args := []string{"-a", "1", "-n", "1:2048:+40M", "-t", "1:EF00"}
	var uuids []string
	for slot := range 2 {
		data := bytes.Repeat([]byte{byte('a' + slot)}, 2*mib)
		for i := range data {
			data[i] += byte(i / 4096 % 7)
		}
		root, tree := filepath.Join(dir, "root"), filepath.Join(dir, "tree")
		write(t, root, data)
		os.Remove(tree)
		out := tool(t, "veritysetup", "cryptsetup-bin", "format", "--salt", "0123456789abcdef", root, tree)
		text := regexp.MustCompile(`Root hash:\s+([0-9a-f]{64})`).FindStringSubmatch(out)[1]
		hash, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		f.hashes[slot] = [32]byte(hash)
		hashTree, err := os.ReadFile(tree)
		if err != nil {
			t.Fatal(err)
		}
		copy(f.memory[slotAt(slot):], data)
		copy(f.memory[slotAt(slot)+2*mib:], hashTree)
		copy(f.memory[slotAt(slot)+3*mib:], `{"rootHash":"`+text+`","signature":"…"}`)
		f.ukis[slot] = uki(fmt.Sprintf("IMAGE_ID=semper\nIMAGE_VERSION=1.%d.0\nPRETTY_NAME=\"Semper OS\"\n", slot), "roothash="+text+" ro")
		n, first := rootPart(slot), slotAt(slot)/512
		for i, kind := range []string{typeRoot, typeVerity, typeSig} {
			from, to := first, first+4095
			if i > 0 {
				from = first + int64(2+2*i)*1024
				to = from + 2047
			}
			args = append(args, "-n", fmt.Sprintf("%d:%d:%d", n+i, from, to), "-t", fmt.Sprintf("%d:%s", n+i, kind))
		}
		uuids = append(uuids, "-u", fmt.Sprintf("%d:%s", n, dashed(text[:32])), "-u", fmt.Sprintf("%d:%s", n+1, dashed(text[32:])))
	}
	disk, volume := filepath.Join(dir, "disk"), filepath.Join(dir, "esp")
	write(t, disk, f.memory)
	tool(t, "sgdisk", "gdisk", append(append(args, uuids...), disk)...)
	b, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	f.memory = b

	write(t, volume, make([]byte, espSize))
	tool(t, "mkfs.fat", "dosfstools", "-F", "32", "-s", "1", volume)
	tool(t, "mmd", "mtools", "-i", volume, "::/EFI", "::/EFI/BOOT", "::/EFI/Linux", "::/loader")
	put := func(path string, data []byte) {
		file := filepath.Join(dir, "file")
		write(t, file, data)
		tool(t, "mcopy", "mtools", "-i", volume, file, "::"+path)
	}
	put("/EFI/BOOT/BOOTX64.EFI", bytes.Repeat([]byte("boot"), 500))
	put("/loader/loader.conf", []byte("timeout 0\neditor no\n"))
	for slot, name := range names {
		if name != "" {
			put("/EFI/Linux/"+name, f.ukis[slot])
		}
	}
	if b, err = os.ReadFile(volume); err != nil {
		t.Fatal(err)
	}
	copy(f.memory[espAt:], b)
	return f
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
}

func dashed(hex string) string {
	return hex[:8] + "-" + hex[8:12] + "-" + hex[12:16] + "-" + hex[16:20] + "-" + hex[20:]
}

// uki is the least that is taken for one.
func uki(release, cmdline string) []byte {
	le := binary.LittleEndian
	sections := []struct {
		name string
		data []byte
	}{{".osrel", []byte(release)}, {".cmdline", []byte(cmdline)}, {".linux", bytes.Repeat([]byte("linux"), 1000)}, {".initrd", bytes.Repeat([]byte("initrd"), 1000)}}
	head := make([]byte, 1024)
	copy(head, "MZ")
	le.PutUint32(head[60:], 64)
	copy(head[64:], "PE\x00\x00")
	le.PutUint16(head[64+6:], uint16(len(sections)))
	le.PutUint16(head[64+20:], 112)
	table, body := 64+24+112, []byte{}
	for i, s := range sections {
		h := head[table+40*i:]
		copy(h[:8], s.name)
		size := (len(s.data) + 511) / 512 * 512
		le.PutUint32(h[8:], uint32(len(s.data)))
		le.PutUint32(h[16:], uint32(size))
		le.PutUint32(h[20:], uint32(len(head)+len(body)))
		body = append(body, append(s.data, make([]byte, size-len(s.data))...)...)
	}
	return append(head, body...)
}

func TestChoice(t *testing.T) {
	for _, c := range []struct {
		names            []string
		chosen, fallback string
	}{
		{[]string{"semper_1.0.0.efi", ""}, "semper_1.0.0.efi", ""},
		{[]string{"semper_1.0.0.efi", "semper_1.1.0+3-0.efi"}, "semper_1.1.0+3-0.efi", "semper_1.0.0.efi"},
		{[]string{"semper_1.0.0.efi", "semper_1.1.0+1-2.efi"}, "semper_1.1.0+1-2.efi", "semper_1.0.0.efi"},
		{[]string{"semper_1.0.0.efi", "semper_1.1.0+0-3.efi"}, "semper_1.0.0.efi", ""},
		{[]string{"semper_1.0.0.efi", "semper_1.1.0.efi"}, "semper_1.1.0.efi", "semper_1.0.0.efi"},
		{[]string{"semper_1.0.0.efi", "semper_1.1.0.part"}, "semper_1.0.0.efi", ""},
		{[]string{"semper_1.0.0.efi", "auto-1.1.0.efi"}, "semper_1.0.0.efi", ""},
	} {
		f := newFixture(t, c.names...)
		r, err := NewChecker().Check(f)
		if err != nil {
			t.Errorf("%v: %v", c.names, err)
			continue
		}
		fallback := ""
		if r.Fallback != nil {
			fallback = r.Fallback.Name
		}
		if r.Chosen.Name != c.chosen || fallback != c.fallback || len(r.Notes) != 0 {
			t.Errorf("%v: chosen %s, then %q, notes %q; want %s, then %q", c.names, r.Chosen.Name, fallback, r.Notes, c.chosen, c.fallback)
		}
		slot := 0
		if strings.HasPrefix(r.Chosen.Version, "1.1") {
			slot = 1
		}
		if r.Chosen.RootHash != f.hashes[slot] || r.Chosen.Slot != rootPart(slot) {
			t.Errorf("%v: chosen %x in partition %d", c.names, r.Chosen.RootHash, r.Chosen.Slot)
		}
	}
}

// edit finds places on the ESP of a fixture.
type edit struct {
	t *testing.T
	f *fixture
	v *volume
}

func (e edit) file(path string) *fatFile {
	f := e.v.find(path)
	if f == nil {
		e.t.Fatalf("%s is missing", path)
	}
	return f
}

// setFAT changes the entry of a cluster, in both copies of the table.
func (e edit) setFAT(cluster, value uint32) {
	fatSize := len(e.v.fat)
	at := espAt + int(e.v.data) - 2*fatSize + int(4*cluster)
	binary.LittleEndian.PutUint32(e.f.memory[at:], value)
	binary.LittleEndian.PutUint32(e.f.memory[at+fatSize:], value)
}

// dirEntry returns the short entry of the file in /EFI/Linux whose short name begins with name.
func (e edit) dirEntry(name string) []byte {
	dir := e.file("/EFI/Linux").extent[0]
	b := e.f.memory[espAt+dir.offset : espAt+dir.offset+dir.length]
	for ; len(b) >= 32; b = b[32:] {
		if b[11] != attrLong && strings.HasPrefix(string(b), name) {
			return b[:32]
		}
	}
	e.t.Fatalf("no entry %s", name)
	return nil
}

func TestFindings(t *testing.T) {
	const first, second = "/EFI/Linux/semper_1.0.0.efi", "/EFI/Linux/semper_1.1.0+3-0.efi"
	for name, c := range map[string]struct {
		damage func(edit)
		want   string // "": no finding
		note   string
	}{
		"nothing":                       {func(edit) {}, "", ""},
		"primary table":                 {func(e edit) { e.f.memory[512+40]++ }, "", "only the backup"},
		"entries of primary table":      {func(e edit) { e.f.memory[1024+8]++ }, "", "only the backup"},
		"backup table":                  {func(e edit) { e.f.memory[len(e.f.memory)-512]++ }, "", "backup of the partition table is damaged"},
		"both tables":                   {func(e edit) { e.f.memory[512]++; e.f.memory[len(e.f.memory)-512]++ }, "partition table", ""},
		"boot sector":                   {func(e edit) { e.f.memory[espAt+510] = 0 }, "boot sector", ""},
		"dirty":                         {func(e edit) { e.f.memory[espAt+65] |= 1 }, "", "in use"},
		"second allocation table":       {func(e edit) { e.f.memory[espAt+int(e.v.data)-8]++ }, "", "copies of the allocation table"},
		"lost cluster":                  {func(e edit) { e.setFAT(5000, 0x0fffffff) }, "", "clusters are lost"},
		"loader's chain is cut":         {func(e edit) { e.setFAT(e.file("/EFI/BOOT/BOOTX64.EFI").first+1, 0) }, "BOOTX64.EFI: its chain is cut", ""},
		"folder's chain is a ring":      {func(e edit) { d := e.file("/EFI/Linux"); e.setFAT(d.first, d.first) }, "/EFI/Linux: its chain is a ring", ""},
		"folder's chain leads away":     {func(e edit) { e.setFAT(e.file("/EFI/Linux").first, 0x0ffffff0) }, "/EFI/Linux: its chain leads", ""},
		"chosen one's chain is cut":     {func(e edit) { e.setFAT(e.file(second).first+20, 0) }, "semper_1.1.0+3-0.efi, which the boot loader chooses: its chain is cut", ""},
		"chosen one's chain is short":   {func(e edit) { e.setFAT(e.file(second).first+20, 0x0fffffff) }, "chooses: it has 10752 bytes", ""},
		"chosen one shares clusters":    {func(e edit) { e.setFAT(e.file(second).first+20, e.file(first).first+21) }, "belong to another file", ""},
		"fallback's chain is cut":       {func(e edit) { e.setFAT(e.file(first).first+20, 0) }, "goes back to: its chain is cut", ""},
		"chosen one is empty":           {func(e edit) { clear(e.dirEntry("SEMPER~2")[26:32]) }, "", "without content"},
		"chosen one is no UKI":          {func(e edit) { e.f.memory[espAt+e.file(second).extent[0].offset] = 'X' }, "", "cannot read"},
		"one file, two names":           {func(e edit) { copy(e.dirEntry("SEMPER~1")[20:], e.dirEntry("SEMPER~2")[20:]) }, "", "two names"},
		"a byte of the UKI":             {func(e edit) { e.f.memory[espAt+e.file(second).extent[0].offset+5000]++ }, "none of the releases'", ""},
		"a byte of the root":            {func(e edit) { e.f.memory[slotAt(1)+777777]++ }, "slot of partition 5: the data has the root hash", ""},
		"a byte of the fallback's root": {func(e edit) { e.f.memory[slotAt(0)+777777]++ }, "slot of partition 2: the data has the root hash", ""},
		"a byte of the tree":            {func(e edit) { e.f.memory[slotAt(1)+2*mib+8192+5]++ }, "the hash tree is wrong", ""},
		"superblock":                    {func(e edit) { e.f.memory[slotAt(1)+2*mib]++ }, "superblock", ""},
		"signature":                     {func(e edit) { clear(e.f.memory[slotAt(1)+3*mib : slotAt(1)+4*mib]) }, "does not hold the signature", ""},
		"the default is set": {func(e edit) {
			copy(e.f.memory[espAt+e.file("/loader/loader.conf").extent[0].offset:], "default a\n")
		}, "not understood", ""},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, "semper_1.0.0.efi", "semper_1.1.0+3-0.efi")
			c0 := NewChecker()
			c0.UKIs = map[[32]byte]string{sha256.Sum256(f.ukis[0]): "1.0.0", sha256.Sum256(f.ukis[1]): "1.1.0"}
			v, err := readVolume(bytes.NewReader(f.memory[espAt:espAt+espSize]), espSize)
			if err != nil {
				t.Fatal(err)
			}
			c.damage(edit{t, f, v})
			r, err := c0.Check(f)
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Fatalf("finding: %v, want %q", err, c.want)
			}
			if err == nil {
				if r.Loader != sha256.Sum256(bytes.Repeat([]byte("boot"), 500)) {
					t.Error("the boot loader is another one")
				}
				if (c.note == "") != (len(r.Notes) == 0) || c.note != "" && !slices.ContainsFunc(r.Notes, func(n string) bool { return strings.Contains(n, c.note) }) {
					t.Errorf("notes %q, want %q", r.Notes, c.note)
				}
			}
		})
	}
}

func TestParseTries(t *testing.T) {
	for name, want := range map[string][2]int{
		"a.efi": {-1, -1}, "a+3.efi": {3, 0}, "a+3-0.efi": {3, 0}, "a+2-1.efi": {2, 1}, "a+0-3.efi": {0, 3}, "a+1+2-3.efi": {2, 3}, "a+x.efi": {-1, -1}, "a+3-.efi": {-1, -1},
		"a+3-x.efi": {-1, -1}, "a+-1.efi": {-1, -1}, "a+3 .efi": {-1, -1}, ".efi": {-1, -1},
	} {
		if left, done := parseTries(name); left != want[0] || done != want[1] {
			t.Errorf("%s: %d, %d, want %v", name, left, done, want)
		}
	}
}

// TestCompareVersions has the order of the UAPI version format specification's examples.
func TestCompareVersions(t *testing.T) {
	for _, chain := range []string{
		"122.1 123~rc1-1 123 123-a 123-a.1 123-1 123-1.1 123^post1 123.a-1 123.1-1 123a-1 124-1",
		"1.0.0 1.0.1 1.1.0 1.2.0~rc1 1.2.0 1.10.0 2",
		"~ ~a ~1", "a ab b", "01 2 10",
	} {
		names := strings.Fields(chain)
		for i, a := range names {
			for j, b := range names {
				if got := compareVersions(a, b); got != sgn(i-j) {
					t.Errorf("%s against %s: %d, want %d", a, b, got, sgn(i-j))
				}
			}
		}
	}
	for _, same := range [][2]string{{"1.0", "1.0"}, {"001", "1"}, {"1_", "1"}, {"", ""}} {
		if got := compareVersions(same[0], same[1]); got != 0 {
			t.Errorf("%q against %q: %d", same[0], same[1], got)
		}
	}
}

func sgn(n int) int {
	switch {
	case n < 0:
		return -1
	case n > 0:
		return 1
	}
	return 0
}

// counted is a disk that tells what changed, and counts what is read.
type counted struct {
	memory
	read int64
}

func (c *counted) ReadAt(p []byte, off int64) (int, error) {
	c.read += int64(len(p))
	return c.memory.ReadAt(p, off)
}

func (c *counted) Fingerprint(off, length int64) [32]byte {
	return sha256.Sum256(c.memory[off : off+length])
}

// TestRemembers checks that an unchanged disk is not read again, and that a changed one is.
func TestRemembers(t *testing.T) {
	f := newFixture(t, "semper_1.0.0.efi", "semper_1.1.0+3-0.efi")
	d, c := &counted{memory: f.memory}, NewChecker()
	if _, err := c.Check(d); err != nil {
		t.Fatal(err)
	}
	all := d.read
	d.read = 0
	if _, err := c.Check(d); err != nil || c.Verifications != 2 {
		t.Fatal(err, c.Verifications)
	}
	if d.read > all/4 {
		t.Errorf("the second check reads %d bytes, the first read %d", d.read, all)
	}
	d.memory[slotAt(1)+1*mib+5]++
	if _, err := c.Check(d); err == nil {
		t.Error("a changed byte of the root was not seen")
	}
	d.memory[slotAt(1)+1*mib+5]--
	d.memory[espAt+510]++
	if _, err := c.Check(d); err == nil {
		t.Error("a changed byte of the ESP was not seen")
	}
	d.memory[espAt+510]--
	if _, err := c.Check(d); err != nil {
		t.Error(err)
	}
}

func FuzzVolume(f *testing.F) {
	// A small one by hand, since the tools want 33 MiB: two tables of one sector, 60 clusters.
	b := make([]byte, 64*512)
	copy(b[11:], []byte{0, 2, 1, 1, 0, 2})
	b[510], b[511] = 0x55, 0xaa
	b[32], b[36], b[44] = 64, 1, 2
	copy(b[512:], []byte{0xf8, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0x0f, 0xff, 0xff, 0xff, 0x0f, 4, 0, 0, 0, 0xff, 0xff, 0xff, 0x0f})
	copy(b[3*512:], "A          \x20")
	b[3*512+26], b[3*512+29] = 3, 3
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		v, err := readVolume(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		for _, file := range v.files {
			_, _ = v.content(file, min(file.size, 1<<16)) // a chain may be too short
		}
	})
}

func FuzzImage(f *testing.F) {
	f.Add(uki("ID=a\nNAME=b\n", "roothash="+strings.Repeat("0", 64)))
	f.Fuzz(func(_ *testing.T, b []byte) { readImage(b) })
}

func FuzzTable(f *testing.F) {
	f.Add(make([]byte, 4096))
	f.Fuzz(func(t *testing.T, b []byte) {
		// With the checksums right, so that what is behind them is reached.
		if len(b) >= 20*512 && binary.LittleEndian.Uint32(b[524:]) <= 512 {
			h := b[512:1024]
			copy(h, "EFI PART")
			binary.LittleEndian.PutUint64(h[24:], 1)
			size := max(92, binary.LittleEndian.Uint32(h[12:]))
			binary.LittleEndian.PutUint32(h[12:], size)
			binary.LittleEndian.PutUint32(h[16:], 0)
			binary.LittleEndian.PutUint32(h[16:], crc(h[:size]))
		}
		_, _ = readTable(memory(b))
	})
}

func crc(b []byte) uint32 { return crc32.ChecksumIEEE(b) }
