package fat

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/diskfs/go-diskfs"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/semper-os/semper/fault"
)

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC)

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	r := rand.New(rand.NewPCG(seed, 1))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

func file(path string, b []byte) File {
	return File{Path: path, Size: int64(len(b)), Data: bytes.NewReader(b)}
}

// esp is the ESP of a released disk, with files of odd sizes.
func esp(size int64) Params {
	uki := random(1, 3<<20+777)
	copy(uki[1<<20:2<<20], make([]byte, 1<<20)) // zeros in the middle
	return Params{
		Size: size, VolumeID: 0x1234abcd, Label: "ESP", Time: testTime, HiddenSectors: 2048,
		Files: []File{
			file("loader/loader.conf", []byte("timeout 0\n")),
			file("EFI/Linux/semper_1.2.0+3-0.efi", uki),
			file("EFI/systemd/systemd-bootx64.efi", random(2, 4096)),
			file("EFI/BOOT/BOOTX64.EFI", random(2, 4097)),
			file("EFI/Linux/empty.efi", nil),
			{Path: "loader/entries/"},
		},
	}
}

func write(t testing.TB, p Params) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "esp.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(p.Size); err != nil {
		t.Fatal(err)
	}
	if err := Write(f, p); err != nil {
		t.Fatal(err)
	}
	return path
}

func tool(t testing.TB, debianPackage, name string, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath(name); err != nil {
		t.Fatalf("%s is missing: install the Debian package %s", name, debianPackage)
	}
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "TZ=UTC")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// unglob is for mtools, which take patterns.
var unglob = strings.NewReplacer("[", "?", "]", "?")

// check has fsck.fat look at a file system, and reads every file back with mtools and go-diskfs.
func check(t *testing.T, path string, p Params) {
	t.Helper()
	out := tool(t, "dosfstools", "fsck.fat", "-n", "-v", path)
	for _, bad := range []string{"differ", "wrong", "rror", "ncorrect", "irty", "nvalid", "ad short", "rphan"} {
		if strings.Contains(out, bad) {
			t.Errorf("fsck.fat says %q:\n%s", bad, out)
		}
	}
	if want := fmt.Sprintf("%10d hidden sectors", p.HiddenSectors); !strings.Contains(out, want) {
		t.Errorf("fsck.fat does not say %q:\n%s", want, out)
	}
	d, err := diskfs.Open(path, diskfs.WithOpenMode(diskfs.ReadOnly))
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	var fs filesystem.FileSystem
	if fs, err = d.GetFilesystem(0); err != nil {
		t.Fatal(err)
	}
	for _, f := range p.Files {
		if strings.HasSuffix(f.Path, "/") {
			continue
		}
		want := make([]byte, f.Size)
		if f.Size > 0 {
			if _, err := f.Data.ReadAt(want, 0); err != nil {
				t.Fatal(err)
			}
		}
		if got := tool(t, "mtools", "mtype", "-i", path, "::/"+unglob.Replace(f.Path)); got != string(want) {
			t.Errorf("mtools reads %d bytes of %q, want %d", len(got), f.Path, len(want))
		}
		if f.Size == 0 {
			continue // go-diskfs cannot open a file without clusters, which is how every FAT has empty ones
		}
		h, err := fs.OpenFile("/"+f.Path, os.O_RDONLY)
		if err != nil {
			t.Errorf("go-diskfs: %q: %v", f.Path, err)
			continue
		}
		got, err := io.ReadAll(h)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("go-diskfs reads %d bytes of %q, want %d: %v", len(got), f.Path, len(want), err)
		}
	}
}

func TestESP(t *testing.T) {
	p := esp(1 << 30)
	path := write(t, p)
	check(t, path, p)
	out := tool(t, "mtools", "mdir", "-i", path, "-/", "-a", "::")
	for _, want := range []string{
		"Volume in drive : is ESP", "Volume Serial Number is 1234-ABCD",
		"SEMPER~1 EFI   3146505 2026-03-04   5:06  semper_1.2.0+3-0.efi",
		"BOOTX64  EFI      4097 2026-03-04   5:06 \n",
		"SYSTEM~1 EFI      4096 2026-03-04   5:06  systemd-bootx64.efi",
		"LOADER~1 CON        10 2026-03-04   5:06  loader.conf",
		"entries",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("mdir does not show %q:\n%s", want, out)
		}
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 2500<<10 {
		t.Errorf("%d bytes on disk for 2 MiB of data: zeros were written", used)
	}
	if out := tool(t, "dosfstools", "fsck.fat", "-n", "-v", path); !strings.Contains(out, "4096 bytes per cluster") {
		t.Errorf("clusters are not 4096 bytes:\n%s", out)
	}
}

// The same input gives the same bytes, in whatever order the files come; and these are the bytes of before.
func TestSameBytes(t *testing.T) {
	p := esp(64 << 20)
	sum := func() string {
		b, err := os.ReadFile(write(t, p))
		if err != nil {
			t.Fatal(err)
		}
		h := sha256.Sum256(b)
		return hex.EncodeToString(h[:])
	}
	first := sum()
	slices.Reverse(p.Files)
	p.Time = p.Time.In(time.FixedZone("elsewhere", 9000))
	if again := sum(); again != first {
		t.Error("another order of the files or another time zone changes the bytes")
	}
	const golden = "3081e7800b53f40b37b1dc9819b547c27a11969095f03a0ce730e5a0e5d599ed"
	if first != golden {
		t.Errorf("the bytes have changed: %s. If that is meant, releases are no longer rebuilt bit for bit by this version", first)
	}
}

func TestSizes(t *testing.T) {
	for _, size := range []int64{34 << 20, 64<<20 + 512, 260 << 20, 260<<20 + 512, 300<<20 + 1536, 4 << 30, 9 << 30, 20 << 30, 100 << 30} {
		p := Params{Size: size, VolumeID: 1, Time: testTime, HiddenSectors: 2048, Files: []File{file("a/b/c.txt", []byte("hello"))}}
		path := write(t, p)
		if size <= 4<<30 { // fsck.fat reads whole tables
			check(t, path, p)
			continue
		}
		if got := tool(t, "mtools", "mtype", "-i", path, "::/a/b/c.txt"); got != "hello" {
			t.Errorf("%d bytes: mtools reads %q", size, got)
		}
	}
	for _, size := range []int64{-512, 0, 512, 16384, 1 << 20, 32 << 20, 64<<20 + 1, 2 << 40} {
		if err := Write(nil, Params{Size: size}); !fault.Is(err, fault.Input) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

// The last cluster can be used, and one byte more is refused.
func TestFull(t *testing.T) {
	const size = 34 << 20
	g, err := geometryFor(size)
	if err != nil {
		t.Fatal(err)
	}
	room := int(g.clusters-1) * int(g.clusterSize) // one cluster is the root folder
	p := Params{Size: size, Time: testTime, Files: []File{file("FULL.BIN", random(1, room))}}
	path := write(t, p)
	check(t, path, p)
	p.Files[0] = file("FULL.BIN", make([]byte, room+1))
	w := &counter{}
	if err := Write(w, p); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), `"FULL.BIN" needs`) || w.n != 0 {
		t.Errorf("one byte too many: %v, %d writes", err, w.n)
	}
}

type counter struct{ n int }

func (c *counter) WriteAt(b []byte, _ int64) (int, error) { c.n++; return len(b), nil }

func TestNames(t *testing.T) {
	names := []string{
		"A", "lower", "MIXED.Txt", "BOOTX64.EFI", "longer than eight.and more", "with.many.dots.txt", ".hidden", "..x", "+,;=[].txt",
		"a b.c d", "ends~1", "SEMPER~1.EFI", "semper_1.2.0+3-0.efi", "semper_1.1.0.efi", "semper_1.0.0+0-3.efi",
		"grün.txt", "ÄÖÜ", "日本語のファイル.bin", "exactly13char", "exactly14chars", "twenty-six-characters-long", "NOEXT", "UPPERCASE.LONG",
		strings.Repeat("x", 255), strings.Repeat("語", 255), "{curly}", "a'b`c!#$%&()-@^_~",
	}
	p := Params{Size: 64 << 20, VolumeID: 7, Label: "ODD NAMES", Time: testTime, Files: []File{}}
	for i, n := range names {
		p.Files = append(p.Files, file("dir/"+n, []byte(fmt.Sprintf("%d %s", i, n))))
	}
	path := write(t, p)
	check(t, path, p)

	root, err := buildTree(p.Files)
	if err != nil {
		t.Fatal(err)
	}
	short := make(map[[11]byte]string)
	for _, n := range root.children[0].children {
		if other, twice := short[n.short]; twice {
			t.Errorf("%q and %q have the same short name %q", other, n.name, n.short)
		}
		short[n.short] = n.name
		if strings.Trim(string(n.short[:]), "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789!#$%&'()-@^_`{}~ ") != "" || n.short[0] == ' ' {
			t.Errorf("%q has the short name %q", n.name, n.short)
		}
	}
	for name, want := range map[string]string{
		"A": "A          ", "lower": "LOWER      ", "BOOTX64.EFI": "BOOTX64 EFI", "MIXED.Txt": "MIXED   TXT",
		"SEMPER~1.EFI": "SEMPER~1EFI", "semper_1.0.0+0-3.efi": "SEMPER~2EFI", "semper_1.1.0.efi": "SEMPER~3EFI", "semper_1.2.0+3-0.efi": "SEMPER~4EFI",
		".hidden": "HIDDEN~1   ", "with.many.dots.txt": "WITHMA~1TXT",
	} {
		if short[[11]byte([]byte(want))] != name {
			t.Errorf("the short name %q belongs to %q, want %q", want, short[[11]byte([]byte(want))], name)
		}
	}
	for _, n := range root.children[0].children {
		if plain := n.name == "A" || n.name == "BOOTX64.EFI" || n.name == "NOEXT" || n.name == "SEMPER~1.EFI"; plain != (n.long == nil) {
			t.Errorf("%q: long name %v", n.name, n.long != nil)
		}
	}
}

// A folder of more entries than a cluster holds, with so many names of one beginning that the numbers grow.
func TestManyNames(t *testing.T) {
	p := Params{Size: 64 << 20, Time: testTime}
	for i := range 1200 {
		p.Files = append(p.Files, file(fmt.Sprintf("the same beginning/entry number %d.conf", i), []byte{byte(i)}))
	}
	path := write(t, p)
	out := tool(t, "dosfstools", "fsck.fat", "-n", "-v", path)
	if !strings.Contains(out, "1201 files") {
		t.Errorf("fsck.fat:\n%s", out)
	}
	out = tool(t, "mtools", "mdir", "-b", "-i", path, "::/the same beginning")
	if got := strings.Count(out, ".conf"); got != 1200 {
		t.Errorf("mdir shows %d files", got)
	}
	if got := tool(t, "mtools", "mtype", "-i", path, "::/the same beginning/entry number 1199.conf"); got != string([]byte{byte(1199 % 256)}) {
		t.Errorf("the last one reads %q", got)
	}
}

func TestRefuses(t *testing.T) {
	one := []byte("x")
	tests := []struct {
		name  string
		files []File
		label string
		says  string
	}{
		{"no name", []File{file("", one)}, "", "empty name"},
		{"leading slash", []File{file("/a", one)}, "", "empty name"},
		{"two slashes", []File{file("a//b", one)}, "", "empty name"},
		{"dots", []File{file("a/../b", one)}, "", "meaning of its own"},
		{"backslash", []File{file(`a\b`, one)}, "", `holds '\\'`},
		{"colon", []File{file("a:b", one)}, "", "holds ':'"},
		{"control character", []File{file("a\nb", one)}, "", "does not allow"},
		{"NUL", []File{file("a\x00b", one)}, "", "does not allow"},
		{"not UTF-8", []File{file("a\xff", one)}, "", "not UTF-8"},
		{"trailing dot", []File{file("a.", one)}, "", "ends with"},
		{"trailing space", []File{file("a ", one)}, "", "ends with"},
		{"too long", []File{file(strings.Repeat("x", 256), one)}, "", "longer than 255"},
		{"beyond UCS-2", []File{file("🐧", one)}, "", "does not allow"},
		{"twice", []File{file("a", one), file("a", one)}, "", "there already"},
		{"twice but for case", []File{file("Größe", one), file("gRÖSSE", nil), file("grÖße", one)}, "", "there already"},
		{"file and folder", []File{file("a", one), file("a/b", one)}, "", "there already"},
		{"folder and file", []File{file("a/b", one), file("A", one)}, "", "there already"},
		{"folder in two cases", []File{file("EFI/a", one), file("efi/b", one)}, "", "upper from lower case"},
		{"folder with data", []File{{Path: "a/", Size: 1, Data: bytes.NewReader(one)}}, "", "want 0"},
		{"no data", []File{{Path: "a", Size: 1}}, "", "data for it"},
		{"negative", []File{{Path: "a", Size: -1}}, "", "want 0"},
		{"4 GiB", []File{{Path: "a", Size: 1 << 32, Data: bytes.NewReader(one)}}, "", "want 0 to 4294967295"},
		{"label", nil, "lower", "FAT label"},
		{"long label", nil, "ABCDEFGHIJKL", "FAT label"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := &counter{}
			err := Write(w, Params{Size: 64 << 20, Label: tt.label, Files: tt.files})
			if err == nil || !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), tt.says) || w.n != 0 {
				t.Errorf("got %v, want %q", err, tt.says)
			}
		})
	}
	err := Write(&counter{}, Params{Size: 64 << 20, Files: []File{{Path: "short", Size: 10, Data: bytes.NewReader(one)}}})
	if !fault.Is(err, fault.IO) || !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), `"short"`) {
		t.Errorf("a file that ends early: %v", err)
	}
}

func TestStamp(t *testing.T) {
	for _, tt := range []struct {
		time time.Time
		want stamp
	}{
		{testTime, stamp{46<<9 | 3<<5 | 4, 5<<11 | 6<<5 | 3}},
		{time.Unix(0, 0), stamp{1<<5 | 1, 0}},
		{time.Time{}, stamp{1<<5 | 1, 0}},
		{time.Date(3000, 1, 1, 0, 0, 0, 0, time.UTC), stamp{127<<9 | 12<<5 | 31, 23<<11 | 59<<5 | 29}},
	} {
		if got := newStamp(tt.time); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.time, got, tt.want)
		}
	}
}

// FuzzNames makes a folder of three names. What is accepted must be told apart, and by short names too.
func FuzzNames(f *testing.F) {
	f.Add("semper_1.2.0+3-0.efi", "semper_1.1.0.efi", "SEMPER~1.EFI")
	f.Add(".a", "a.", "...")
	f.Add("ſ", "S", "s")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		root, err := buildTree([]File{{Path: a}, {Path: b}, {Path: c}})
		if err != nil {
			return
		}
		var walk func(n *node)
		walk = func(n *node) {
			seen := make(map[[11]byte]bool)
			for _, c := range n.children {
				if seen[c.short] || strings.TrimSpace(string(c.short[:8])) == "" || c.short[0] == ' ' {
					t.Fatalf("%q has the short name %q", c.path, c.short)
				}
				seen[c.short] = true
				if c.long == nil && displayed(c.short) != c.name {
					t.Fatalf("%q is shown as %q", c.name, displayed(c.short))
				}
				walk(c)
			}
		}
		walk(root)
	})
}
