package verity

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

const testUUIDText = "12345678-9abc-8ef0-8102-030405060708"

func veritysetup(t testing.TB, args ...string) string {
	t.Helper()
	if _, err := exec.LookPath("veritysetup"); err != nil {
		t.Fatal("veritysetup is missing: install the Debian package cryptsetup-bin")
	}
	out, err := exec.Command("veritysetup", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("veritysetup %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

var rootLine = regexp.MustCompile(`(?m)^Root hash:\s+([0-9a-f]{64})$`)

// veritysetupFormat returns the root hash.
func veritysetupFormat(t testing.TB, data, hash string, salt []byte) string {
	t.Helper()
	out := veritysetup(t, "format", "--salt", hexOf(salt), "--uuid", testUUIDText, data, hash)
	m := rootLine.FindStringSubmatch(out)
	if m == nil {
		t.Fatalf("veritysetup prints no root hash:\n%s", out)
	}
	return m[1]
}

// TestSameBytesAsVeritysetup formats data of many sizes with both and compares every byte; then veritysetup verifies ours.
func TestSameBytesAsVeritysetup(t *testing.T) {
	const three = 128 * 128
	tests := []struct {
		blocks int
		salt   int
	}{
		{1, 32},
		{2, 32},
		{3, 0},
		{127, 32},
		{128, 1},
		{129, 32},
		{255, 256},
		{256, 64},
		{257, 31},
		{three - 1, 32},
		{three, 32},
		{three + 1, 32},
		{2*three + 777, 32},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprintf("%d blocks, salt of %d", tt.blocks, tt.salt), func(t *testing.T) {
			dir := t.TempDir()
			dataPath, theirs, ours := filepath.Join(dir, "data"), filepath.Join(dir, "theirs"), filepath.Join(dir, "ours")
			salt := random(9, tt.salt)
			data, err := os.Create(dataPath)
			if err != nil {
				t.Fatal(err)
			}
			defer data.Close()
			size := int64(tt.blocks) * BlockSize
			if err := data.Truncate(size); err != nil {
				t.Fatal(err)
			}
			// Sparse: something at the start, in the middle, at the end.
			for i, at := range []int64{0, size / 2 / BlockSize * BlockSize, size - BlockSize} {
				if _, err := data.WriteAt(random(uint64(i), BlockSize), at); err != nil {
					t.Fatal(err)
				}
			}
			hash, err := os.Create(ours)
			if err != nil {
				t.Fatal(err)
			}
			defer hash.Close()
			res, err := Format(data, size, hash, Params{UUID: testUUID, Salt: salt})
			if err != nil {
				t.Fatal(err)
			}
			if want := veritysetupFormat(t, dataPath, theirs, salt); res.RootHash.String() != want {
				t.Errorf("root hash %s, veritysetup says %s", res.RootHash, want)
			}
			a, err := os.ReadFile(ours)
			if err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(theirs)
			if err != nil {
				t.Fatal(err)
			}
			if tt.blocks == 1 && len(b) == SuperblockSize {
				b = append(b, make([]byte, BlockSize-SuperblockSize)...) // veritysetup does not fill up the block when no tree follows
			}
			if !bytes.Equal(a, b) {
				t.Errorf("the hash areas differ: ours has %d bytes, theirs %d", len(a), len(b))
			}
			veritysetup(t, "verify", dataPath, ours, res.RootHash.String())
			if _, err := VerifyAll(data, size, bytes.NewReader(b), int64(len(b)), res.RootHash); err != nil {
				t.Errorf("VerifyAll of veritysetup's: %v", err)
			}
		})
	}
}

const benchSize = 512 << 20

// benchData is a file of benchSize bytes, in the page cache.
func benchData(b *testing.B) (dir, path string) {
	dir = b.TempDir()
	path = filepath.Join(dir, "data")
	piece := random(1, 64<<20)
	f, err := os.Create(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for off := int64(0); off < benchSize; off += int64(len(piece)) {
		if _, err := f.WriteAt(piece, off); err != nil {
			b.Fatal(err)
		}
	}
	return dir, path
}

func formatFile(b *testing.B, dataPath, hashPath string) (*os.File, *os.File, Result) {
	data, err := os.Open(dataPath)
	if err != nil {
		b.Fatal(err)
	}
	hash, err := os.Create(hashPath)
	if err != nil {
		b.Fatal(err)
	}
	res, err := Format(data, benchSize, hash, Params{UUID: testUUID, Salt: random(2, 32)})
	if err != nil {
		b.Fatal(err)
	}
	return data, hash, res
}

func BenchmarkFormat(b *testing.B) {
	dir, data := benchData(b)
	b.SetBytes(benchSize)
	for b.Loop() {
		d, h, _ := formatFile(b, data, filepath.Join(dir, "hash"))
		d.Close()
		h.Close()
	}
}

func BenchmarkVerifyAll(b *testing.B) {
	dir, data := benchData(b)
	d, h, res := formatFile(b, data, filepath.Join(dir, "hash"))
	defer d.Close()
	defer h.Close()
	b.SetBytes(benchSize)
	for b.Loop() {
		if _, err := VerifyAll(d, benchSize, h, res.HashAreaSize, res.RootHash); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkAgainstVeritysetup formats the same file with both in turn and reports how many times faster ours is, by the
// fastest run of each, so that what else the machine does counts less.
func BenchmarkAgainstVeritysetup(b *testing.B) {
	dir, data := benchData(b)
	ours, theirs := time.Hour, time.Hour
	for b.Loop() {
		start := time.Now()
		d, h, res := formatFile(b, data, filepath.Join(dir, "ours"))
		ours = min(ours, time.Since(start))
		d.Close()
		h.Close()

		start = time.Now()
		want := veritysetupFormat(b, data, filepath.Join(dir, "theirs"), random(2, 32))
		theirs = min(theirs, time.Since(start))
		if res.RootHash.String() != want {
			b.Fatal("the root hashes differ")
		}
	}
	b.ReportMetric(theirs.Seconds()/ours.Seconds(), "x_veritysetup")
	b.ReportMetric(0, "ns/op")
}
