package payload

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// benchContent is n bytes that compress about as well as programs do.
func benchContent(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 2))
	words := make([][]byte, 4096)
	for i := range words {
		words[i] = make([]byte, 3+rng.IntN(12))
		for j := range words[i] {
			words[i][j] = byte(rng.Uint32())
		}
	}
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = append(b, words[rng.IntN(len(words))]...)
		b = append(b, byte(rng.Uint32()))
	}
	return b[:n]
}

// benchPartition is the content of BenchmarkWrite: the file that SEMPER_BENCH_IMAGE names, for instance a root.erofs, or 64 MiB of benchContent.
func benchPartition(b *testing.B) Partition {
	if path := os.Getenv("SEMPER_BENCH_IMAGE"); path != "" {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { f.Close() })
		info, err := f.Stat()
		if err != nil {
			b.Fatal(err)
		}
		return Partition{Name: "root", Data: f, Size: info.Size()}
	}
	data := benchContent(64 << 20)
	return Partition{Name: "root", Data: bytes.NewReader(data), Size: int64(len(data))}
}

// BenchmarkWrite shows what the encoder's four levels cost and gain. Size is that of the payload as a part of its contents.
func BenchmarkWrite(b *testing.B) {
	part := benchPartition(b)
	for _, level := range []int{1, 3, 7, 11} {
		b.Run(fmt.Sprintf("level=%d", level), func(b *testing.B) {
			o := testOptions(nil, keyA)
			o.Partitions, o.Level, o.ChunkSize = []Partition{part}, level, 0
			b.SetBytes(part.Size)
			b.ReportAllocs()
			for b.Loop() {
				spool, err := os.CreateTemp(b.TempDir(), "")
				if err != nil {
					b.Fatal(err)
				}
				sum, err := Write(context.Background(), io.Discard, spool, o)
				if err != nil {
					b.Fatal(err)
				}
				spool.Close()
				b.ReportMetric(float64(sum.Manifest.Size)/float64(part.Size), "size")
			}
		})
	}
}

// BenchmarkApply applies a payload to a file and reads it back.
func BenchmarkApply(b *testing.B) {
	for _, mib := range []int{16, 128} {
		b.Run(fmt.Sprintf("MiB=%d", mib), func(b *testing.B) {
			data := benchContent(mib << 20)
			raw, o := memoryCase(b, data)
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := apply(raw, o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// memoryCase returns a payload with chunks of the usual size, and options that apply it to a file.
func memoryCase(t testing.TB, data []byte) ([]byte, Options) {
	t.Helper()
	o := testOptions(map[string][]byte{"root": data}, keyA)
	o.ChunkSize, o.Level = 0, 1
	raw := write(t, o)
	f, err := os.Create(filepath.Join(t.TempDir(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return raw, Options{
		Trust: trust(1, keyA), Accept: AcceptAny, Targets: map[string]Target{"root": {Storage: f, Limit: int64(len(data))}},
		Checkpoint: func(c *Checkpoint) error { _, err := c.MarshalBinary(); return err },
	}
}

// TestMemory makes sure that applying needs little memory, and not more for a larger image. It counts every byte that is ever allocated,
// so the most that is in use at a time can only be less.
func TestMemory(t *testing.T) {
	allocated := func(mib int) uint64 {
		raw, o := memoryCase(t, benchContent(mib<<20))
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, err := apply(raw, o); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	small, large := allocated(12), allocated(32)
	t.Logf("allocated in all: %.1f MiB for an image of 12 MiB, %.1f MiB for one of 32 MiB", float64(small)/(1<<20), float64(large)/(1<<20))
	if large > 16<<20 {
		t.Errorf("applying 32 MiB allocated %d bytes, allowed are 16 MiB", large)
	}
	if large > small+1<<20 {
		t.Errorf("applying 32 MiB allocated %d bytes, 12 MiB only %d: memory grows with the image", large, small)
	}
}
