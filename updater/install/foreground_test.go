package install_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/wire"
)

// BenchmarkForeground measures what a workload keeps of its rate while an update is installed on the same disk: fio reads and writes blocks of 4 KiB at
// random places of a file, past the page cache, first alone and then until the installation has ended. The file and the slot are in TMPDIR. scripts/benchfio
// runs it with the priorities of semper-installd.service; fio gets those of an ordinary service. It needs the Debian package fio.
func BenchmarkForeground(b *testing.B) {
	const size = 256 << 20
	dir := b.TempDir()
	keys := installtest.NewKeys(b)
	running := keys.Release(b, "1.0.0")
	plan, err := layout.NewPlan(size+size/16, 64<<20, "amd64")
	if err != nil {
		b.Fatal(err)
	}
	disk := filepath.Join(dir, "disk")
	run(b, "dd", "if=/dev/zero", "of="+disk, "bs=4M", "oflag=direct", "iflag=count_bytes", fmt.Sprint("count=", plan.DiskSize), "status=none")
	release := keys.Make(b, installtest.Spec{Version: "1.1.0", Root: installtest.Image(size, 2), ChunkSize: 4 << 20})
	file := filepath.Join(dir, "payload")
	if err := os.WriteFile(file, release.Payload, 0o600); err != nil {
		b.Fatal(err)
	}
	begin := wire.Begin{SHA256: release.SHA256Hex(), Size: int64(len(release.Payload)), Version: release.Version}
	work := filepath.Join(dir, "work")
	run(b, "dd", "if=/dev/zero", "of="+work, "bs=4M", "count=128", "oflag=direct", "status=none")

	var kept, took float64
	rounds := 0
	for b.Loop() {
		run(b, "dd", "if=/dev/zero", "of="+disk, "bs=4M", "oflag=direct,seek_bytes", "conv=notrunc", "iflag=count_bytes",
			fmt.Sprint("seek=", plan.Part("root-b").Offset()), fmt.Sprint("count=", int64(size)), "status=none")
		d, err := install.OpenDisk(disk)
		if err != nil {
			b.Fatal(err)
		}
		installtest.Place(b, d, plan, running)
		core := benchCore(b, keys, running, d)
		f := startFio(b, work)
		time.Sleep(10 * time.Second)
		alone := f.stop()
		f = startFio(b, work)
		start := time.Now()
		stream(b, core, begin, file)
		took += time.Since(start).Seconds()
		kept += f.stop() / alone
		rounds++
	}
	b.ReportMetric(kept/float64(rounds), "kept")
	b.ReportMetric(took/float64(rounds), "s/update")
	b.ReportMetric(0, "ns/op")
}

type fio struct {
	b   *testing.B
	cmd *exec.Cmd
	out bytes.Buffer
}

func startFio(b *testing.B, file string) *fio {
	b.Helper()
	nice, err := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if err != nil {
		b.Fatal(err)
	}
	f := &fio{b: b}
	f.cmd = exec.Command("ionice", "-c", "2", "-n", "4", "nice", "-n", strconv.Itoa(nice-20), // the kernel's number counts from 20 down
		"fio", "--name=work", "--filename="+file, "--rw=randrw", "--rwmixread=70", "--bs=4k", "--direct=1", "--ioengine=psync", "--numjobs=4", "--group_reporting",
		"--time_based", "--runtime=600", "--output-format=json")
	f.cmd.Stdout = &f.out
	if err := f.cmd.Start(); err != nil {
		b.Fatalf("fio: %v (Debian packages fio, util-linux)", err)
	}
	return f
}

// stop ends fio and returns its operations per second.
func (f *fio) stop() float64 {
	f.b.Helper()
	if err := f.cmd.Process.Signal(syscall.SIGINT); err != nil {
		f.b.Fatal(err)
	}
	_ = f.cmd.Wait() // interrupted, it says 128
	var r struct {
		Jobs []struct {
			Read, Write struct {
				IOPS float64 `json:"iops"`
			}
		} `json:"jobs"`
	}
	text := f.out.String()
	if at := strings.IndexByte(text, '{'); at > 0 {
		text = text[at:]
	}
	if err := json.NewDecoder(strings.NewReader(text)).Decode(&r); err != nil || len(r.Jobs) == 0 {
		f.b.Fatalf("fio's result: %v: %.500s", err, f.out.String())
	}
	return r.Jobs[0].Read.IOPS + r.Jobs[0].Write.IOPS
}
