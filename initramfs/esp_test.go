package initramfs

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/partitions/fat"
)

type espFile struct{ *os.File }

// newESP makes an ESP whose folder /EFI/Linux has files of these names.
func newESP(t *testing.T, names ...string) *espFile {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "esp"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	p := fat.Params{Size: 40 << 20, Time: time.Unix(1700000000, 0)}
	for _, n := range names {
		data := bytes.Repeat([]byte(n), 100)
		p.Files = append(p.Files, fat.File{Path: "EFI/Linux/" + n, Size: int64(len(data)), Data: bytes.NewReader(data)})
	}
	if err := f.Truncate(p.Size); err != nil {
		t.Fatal(err)
	}
	if err := fat.Write(f, p); err != nil {
		t.Fatal(err)
	}
	return &espFile{f}
}

func (f *espFile) names(t *testing.T) []fatName {
	t.Helper()
	fs, root, err := openFAT(f)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"EFI        ", "LINUX      "} {
		if root, err = fs.subfolder(root, n); err != nil {
			t.Fatal(err)
		}
	}
	names, err := fs.files(root)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// share gives the file b the content of the file a, as a rename from a to b that was cut leaves it. What b had is lost.
func (f *espFile) share(t *testing.T, a, b string) {
	t.Helper()
	var from, to fatName
	for _, n := range f.names(t) {
		switch n.name {
		case a:
			from = n
		case b:
			to = n
		}
	}
	var e [32]byte
	if _, err := f.ReadAt(e[:], from.slots[len(from.slots)-1]); err != nil {
		t.Fatal(err)
	}
	at := to.slots[len(to.slots)-1]
	for _, part := range [][2]int64{{20, 22}, {26, 32}} {
		if _, err := f.WriteAt(e[part[0]:part[1]], at+part[0]); err != nil {
			t.Fatal(err)
		}
	}
	if to.cluster != 0 {
		// Its clusters are free: one run, written by package fat.
		fs, _, err := openFAT(f)
		if err != nil {
			t.Fatal(err)
		}
		var boot [fatSector]byte
		if _, err := f.ReadAt(boot[:], 0); err != nil {
			t.Fatal(err)
		}
		length := int64(binary.LittleEndian.Uint32(boot[36:])) * fatSector
		for c := to.cluster; c < 0x0ffffff8; {
			var entry [4]byte
			if _, err := f.ReadAt(entry[:], fs.table+4*int64(c)); err != nil {
				t.Fatal(err)
			}
			for _, table := range []int64{fs.table, fs.table + length} {
				if _, err := f.WriteAt(make([]byte, 4), table+4*int64(c)); err != nil {
					t.Fatal(err)
				}
			}
			c = binary.LittleEndian.Uint32(entry[:]) & 0x0fffffff
		}
	}
}

func TestDropSecondNames(t *testing.T) {
	const old = "semper_1.0.0.efi"
	for _, c := range []struct {
		names   []string
		double  [2]string
		dropped string
	}{
		{[]string{old, "semper_1.1.0+3-0.efi"}, [2]string{}, ""},
		{[]string{old, "semper-update.part", "semper_1.1.0+3-0.efi"}, [2]string{"semper-update.part", "semper_1.1.0+3-0.efi"}, "semper-update.part"},
		{[]string{old, "semper_1.1.0+3-0.efi", "semper_1.1.0+2-1.efi"}, [2]string{"semper_1.1.0+3-0.efi", "semper_1.1.0+2-1.efi"}, "semper_1.1.0+3-0.efi"},
		{[]string{old, "semper_1.1.0+2-1.efi", "semper_1.1.0.efi"}, [2]string{"semper_1.1.0+2-1.efi", "semper_1.1.0.efi"}, "semper_1.1.0+2-1.efi"},
		{[]string{old, "semper_1.1.0.efi", "semper_1.1.0+2-1.efi"}, [2]string{"semper_1.1.0.efi", "semper_1.1.0+2-1.efi"}, "semper_1.1.0+2-1.efi"},
		{[]string{old, "semper_1.1.0+2-1.efi", "semper_1.1.0+0-1.efi"}, [2]string{"semper_1.1.0+2-1.efi", "semper_1.1.0+0-1.efi"}, "semper_1.1.0+2-1.efi"},
	} {
		f := newESP(t, c.names...)
		if c.double[0] != "" {
			f.share(t, c.double[0], c.double[1])
		}
		for round, want := range []string{c.dropped, ""} {
			dropped, err := dropSecondNames(f)
			if err != nil || strings.Join(dropped, " ") != want {
				t.Errorf("%v, round %d: dropped %q, %v, want %q", c.names, round, dropped, err, want)
			}
		}
		var left, want []string
		for _, n := range f.names(t) {
			left = append(left, n.name)
		}
		for _, n := range c.names {
			if n != c.dropped {
				want = append(want, n)
			}
		}
		slices.Sort(left)
		slices.Sort(want)
		if !slices.Equal(left, want) {
			t.Errorf("%v: %v are left, want %v", c.names, left, want)
		}
		fsck(t, f.Name())
	}
}

func fsck(t *testing.T, path string) {
	t.Helper()
	program, err := exec.LookPath("fsck.fat")
	if err != nil {
		if program = "/usr/sbin/fsck.fat"; !isFile(program) {
			t.Fatal("fsck.fat is missing: install the package dosfstools")
		}
	}
	out, err := exec.Command(program, "-n", path).CombinedOutput()
	// The free space is counted in a place that nobody has to keep.
	if err != nil && !strings.Contains(string(out), "Free cluster summary wrong") || strings.Contains(string(out), "share clusters") {
		t.Errorf("fsck.fat: %v: %s", err, out)
	}
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

func TestDropSecondNamesOfNothing(t *testing.T) {
	f := newESP(t, "a.efi")
	if _, err := f.WriteAt([]byte{0, 0}, 510); err != nil {
		t.Fatal(err)
	}
	if _, err := dropSecondNames(f); err == nil || !strings.Contains(err.Error(), "FAT32") {
		t.Errorf("of what is no FAT: %v", err)
	}
}

// espBytes is a device in memory.
type espBytes []byte

func (b espBytes) ReadAt(p []byte, off int64) (int, error) { return bytes.NewReader(b).ReadAt(p, off) }

func (b espBytes) WriteAt(p []byte, off int64) (int, error) {
	return copy(b[off:], p), nil
}
func (b espBytes) Sync() error { return nil }

func FuzzDropSecondNames(f *testing.F) {
	// Two tables of one sector, root, EFI and Linux in clusters 2 to 4, and two names of cluster 5.
	b := make([]byte, 64*512)
	copy(b[11:], []byte{0, 2, 1, 1, 0, 2})
	b[510], b[511] = 0x55, 0xaa
	b[32], b[36], b[44] = 64, 1, 2
	for c := range 6 {
		copy(b[512+4*c:], []byte{0xff, 0xff, 0xff, 0x0f})
	}
	entry := func(cluster, slot int, name string, attr, first byte) {
		at := (3+cluster-2)*512 + 32*slot
		copy(b[at:], name)
		b[at+11], b[at+26] = attr, first
	}
	entry(2, 0, "EFI        ", fatDirectory, 3)
	entry(3, 0, "LINUX      ", fatDirectory, 4)
	entry(4, 0, "A       EFI", 0, 5)
	entry(4, 1, "B       EFI", 0, 5)
	f.Add(b)
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = dropSecondNames(espBytes(bytes.Clone(b)))
	})
}
