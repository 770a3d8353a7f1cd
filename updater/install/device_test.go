package install

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// testDevice makes a file that stands for a disk. Direct false: one that refuses O_DIRECT.
func testDevice(t *testing.T, size int64, direct bool) *device {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	f.Close()
	d, err := openDisk(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	if !direct {
		d.refused.Store(true)
	}
	return d
}

// Reads and writes of all lengths, offsets and alignments of memory are those of a file.
func TestDeviceIsAFile(t *testing.T) {
	for name, direct := range map[string]bool{"direct": true, "cached": false} {
		t.Run(name, func(t *testing.T) {
			const size = 6<<20 + 512
			d, model := testDevice(t, size, direct), make([]byte, size)
			rng := rand.New(rand.NewPCG(1, 2))
			lengths := []int{1, 511, 512, 4096, 33 * 512, directMin - 1, directMin, directMin + 4096, 1 << 20, 3<<20 + 77, 4 << 20}
			memory := aligned(5 << 20)
			for i := range 120 {
				n := lengths[rng.IntN(len(lengths))]
				off := rng.Int64N(size - int64(n) + 1)
				if rng.IntN(2) == 0 {
					off &^= directAlign - 1
				}
				p := memory[rng.IntN(2)*512:][:n]
				if rng.IntN(2) == 0 {
					for j := range p {
						p[j] = byte(rng.Uint32())
					}
					if m, err := d.WriteAt(p, off); err != nil || m != n {
						t.Fatalf("%d: write of %d at %d: %d, %v", i, n, off, m, err)
					}
					copy(model[off:], p)
				} else if m, err := d.ReadAt(p, off); err != nil || m != n || !bytes.Equal(p, model[off:off+int64(n)]) {
					t.Fatalf("%d: read of %d at %d: %d, %v, or other bytes", i, n, off, m, err)
				}
				if rng.IntN(20) == 0 {
					if err := d.Sync(); err != nil {
						t.Fatal(err)
					}
				}
			}
			if d.refused.Load() == direct {
				t.Fatalf("O_DIRECT was refused: %v; the folder for temporary files must be on a file system that has it", direct)
			}
			for _, off := range []int64{size - 10, size, size + 4096} {
				if n, err := d.ReadAt(make([]byte, 128<<10), off); err == nil || n > 10 {
					t.Errorf("read at %d: %d, %v", off, n, err)
				}
			}
		})
	}
}

// What is written and read back is not in the page cache afterwards, and never much of it is dirty there.
func TestDeviceSparesThePageCache(t *testing.T) {
	const size = 64 << 20
	for name, direct := range map[string]bool{"direct": true, "cached": false} {
		t.Run(name, func(t *testing.T) {
			d := testDevice(t, size, direct)
			chunk := aligned(4 << 20)
			for off := int64(0); off < size; off += int64(len(chunk)) {
				for i := range chunk {
					chunk[i] = byte(i ^ int(off>>20))
				}
				if _, err := d.WriteAt(chunk, off); err != nil {
					t.Fatal(err)
				}
				if d.dirty > dirtyLimit+int64(len(chunk)) {
					t.Fatalf("%d bytes wait in the cache", d.dirty)
				}
				// The hash tree: block by block.
				if _, err := d.WriteAt(chunk[:4096], off); err != nil {
					t.Fatal(err)
				}
			}
			if err := d.Sync(); err != nil {
				t.Fatal(err)
			}
			for off := int64(0); off < size; off += int64(len(chunk)) {
				if _, err := d.ReadAt(chunk, off); err != nil {
					t.Fatal(err)
				}
			}
			if n := resident(t, d, size); n > 4<<20 {
				t.Errorf("%d of %d bytes are in the page cache", n, size)
			}
		})
	}
}

// resident asks the kernel how much of the file is in the page cache.
func resident(t *testing.T, d *device, size int) (n int) {
	t.Helper()
	m, err := unix.Mmap(int(d.cached.Fd()), 0, size, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(m) }()
	pages := make([]byte, size/os.Getpagesize())
	if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(size), uintptr(unsafe.Pointer(&pages[0]))); e != 0 {
		t.Fatal(e)
	}
	for _, p := range pages {
		n += int(p&1) * os.Getpagesize()
	}
	return n
}
