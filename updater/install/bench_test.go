package install_test

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/wire"
)

// BenchmarkApply installs a full payload of a root of 512 MiB (SEMPER_BENCH_MIB changes that) through the socket onto a file in TMPDIR, past the page cache.
// In each round `zstd -d | dd oflag=direct` writes another root of the same size and kind to the same place before. It reports
//
//	write/dd   the installer's rate from begin to the root's last byte, signatures, hashes and checkpoints included, as a part of that of zstd and dd
//	all/dd     the same with what dd does not do: everything read back and hashed into the tree, the boot entry
//	peak-MiB   resident memory of this process, which is both ends of the socket
//
// It needs the Debian packages zstd and coreutils.
func BenchmarkApply(b *testing.B) {
	mib := 512
	if s := os.Getenv("SEMPER_BENCH_MIB"); s != "" {
		var err error
		if mib, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	size := int64(mib) << 20
	dir := b.TempDir()
	keys := installtest.NewKeys(b)
	running := keys.Release(b, "1.0.0")
	plan, err := layout.NewPlan(size+size/16, 64<<20, "amd64")
	if err != nil {
		b.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	run(b, "fallocate", "-l", strconv.FormatInt(plan.DiskSize, 10), disk)
	at := plan.Part("root-b").Offset()
	run(b, "dd", "if=/dev/zero", "of="+disk, "bs=4M", "oflag=direct,seek_bytes", "iflag=count_bytes", fmt.Sprint("seek=", at), fmt.Sprint("count=", size), "conv=notrunc", "status=none")

	packed := filepath.Join(dir, "other.zst")
	pack(b, installtest.Image(int(size), 1), packed)
	release := keys.Make(b, installtest.Spec{Version: "1.1.0", Root: installtest.Image(int(size), 2), ChunkSize: 4 << 20})
	file := filepath.Join(dir, "payload")
	if err := os.WriteFile(file, release.Payload, 0o600); err != nil {
		b.Fatal(err)
	}
	begin := wire.Begin{SHA256: release.SHA256Hex(), Size: int64(len(release.Payload)), Version: release.Version}
	b.Logf("the payload has %.2f of the root's size", float64(begin.Size)/float64(size))
	release = installtest.Release{}

	debug.SetMemoryLimit(36 << 20) // as semper-installd.service does
	defer debug.SetMemoryLimit(-1)
	b.SetBytes(size)
	var dd, write, all, work time.Duration
	var peak int64
	for b.Loop() {
		b.StopTimer()
		start := time.Now()
		run(b, "sh", "-c", fmt.Sprintf("zstd -dcq %s | dd of=%s bs=4M iflag=fullblock oflag=direct,seek_bytes seek=%d conv=notrunc,fdatasync status=none", packed, disk, at))
		dd += time.Since(start)

		d, err := install.OpenDisk(disk)
		if err != nil {
			b.Fatal(err)
		}
		installtest.Place(b, d, plan, running)
		target := &lastWrite{Disk: d, from: at, to: at + size}
		core := benchCore(b, keys, running, target)
		runtime.GC()
		debug.FreeOSMemory()
		if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0o200); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		begun, worked := time.Now(), processorTime(b)
		stream(b, core, begin, file)
		all += time.Since(begun)
		work += processorTime(b) - worked
		write += target.at.Sub(begun)
		peak = max(peak, highWater(b))
	}
	mbs := func(d time.Duration) float64 { return float64(size) * float64(b.N) / d.Seconds() / 1e6 }
	b.ReportMetric(mbs(dd), "dd-MB/s")
	b.ReportMetric(mbs(write)/mbs(dd), "write/dd")
	b.ReportMetric(mbs(all)/mbs(dd), "all/dd")
	b.ReportMetric(float64(peak)/(1<<20), "peak-MiB")
	b.ReportMetric(work.Seconds()/float64(b.N), "cpu-s")
}

// processorTime is what this process has used so far.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// lastWrite notes when the root's last byte was written.
type lastWrite struct {
	install.Disk
	from, to int64
	at       time.Time
}

func (d *lastWrite) WriteAt(p []byte, off int64) (int, error) {
	n, err := d.Disk.WriteAt(p, off)
	if off >= d.from && off < d.to {
		d.at = time.Now()
	}
	return n, err
}

func run(b *testing.B, name string, args ...string) {
	b.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		b.Fatalf("%s: %v %s (Debian packages zstd, coreutils, util-linux)", name, err, out)
	}
}

func pack(b *testing.B, data []byte, to string) {
	b.Helper()
	c := exec.Command("zstd", "-1", "-q", "-o", to)
	c.Stdin = strings.NewReader(string(data))
	if out, err := c.CombinedOutput(); err != nil {
		b.Fatalf("zstd: %v %s (Debian package zstd)", err, out)
	}
}

// benchCore is an installer of a disk file, with a real state folder.
func benchCore(b *testing.B, keys installtest.Keys, running installtest.Release, d install.Disk) *install.Core {
	b.Helper()
	state, err := durable.MakeDir(filepath.Join(b.TempDir(), "state"), 0o700)
	if err != nil {
		b.Fatal(err)
	}
	espDir := b.TempDir()
	if err := os.WriteFile(filepath.Join(espDir, "semper_1.0.0.efi"), running.UKI, 0o600); err != nil {
		b.Fatal(err)
	}
	return install.New(install.Options{
		Machine: install.Machine{RootHash: running.RootHash, Image: running.Image, BootID: "bench"},
		Storage: func() (install.Storage, error) {
			return install.Storage{Disk: d, ESP: durable.At(espDir), State: state}, nil
		},
		Trust: func() (install.Trust, error) {
			return install.Trust{Payload: keys.Trust(), Verity: []*x509.Certificate{keys.VerityCert}}, nil
		},
		Reboot: func() error { return nil },
		Now:    time.Now,
		Log:    discard,
	})
}

// stream sends the payload through a socket, as semperd does.
func stream(b *testing.B, core *install.Core, begin wire.Begin, file string) {
	b.Helper()
	path := filepath.Join(b.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	s := install.Server{Core: core, Allowed: []uint32{uint32(os.Getuid())}, Idle: time.Hour, Log: discard}
	go func() { done <- s.Serve(ctx, l) }()
	c, err := wire.Dial(ctx, path)
	if err != nil {
		b.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	if _, err := c.Begin(begin); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, wire.MaxFrame)
	for {
		n, err := f.Read(buf)
		if n == 0 {
			break
		}
		if err == nil {
			err = c.Data(buf[:n])
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Finish(); err != nil {
		b.Fatal(err)
	}
	c.Close()
	stop()
	if err := <-done; err != nil {
		b.Fatal(err)
	}
}

// highWater is the most memory that this process had resident since clear_refs, in bytes.
func highWater(b *testing.B) int64 {
	b.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if v, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			n, err := strconv.ParseInt(strings.Fields(v)[0], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return n << 10
		}
	}
	b.Fatal("no VmHWM")
	return 0
}
