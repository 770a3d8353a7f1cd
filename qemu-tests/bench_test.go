package qemutests

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/semper-os/semper/initramfs"
	"github.com/semper-os/semper/qemu-tests/guest"
)

var userspace = regexp.MustCompile(`= (?:([0-9]+)min )?([0-9.]+)s`)

// BenchmarkBoot boots a release for the first time, alone, and reports guest times: root-s is from semper-init's first line to the mounted root,
// boot-s from the kernel's start to the last unit. SEMPER_BENCH_RELEASE names another release than 1.0.0.
func BenchmarkBoot(b *testing.B) {
	dir := os.Getenv("SEMPER_BENCH_RELEASE")
	if dir == "" {
		dir = releasePath(first)
	}
	for i := range b.N {
		c := guest.Config{
			Name: "bench", Dir: filepath.Join(world.dir, "bench"+strconv.Itoa(i)), Disk: filepath.Join(dir, "disk.raw"),
			DiskSize: diskSize, Key: world.key, CPUs: 1,
		}
		g, err := guest.Boot(b.Context(), c)
		if err != nil {
			b.Fatal(err)
		}
		out, err := g.WaitFor(b.Context(), "systemctl is-system-running --wait >/dev/null; systemd-analyze time", func(s string) bool { return userspace.MatchString(s) })
		if err != nil {
			b.Fatal(err)
		}
		text, err := g.Run(b.Context(), "cat /run/semper/boot.json")
		if err != nil {
			b.Fatal(err)
		}
		g.Kill()
		var boot initramfs.Boot
		if err := json.Unmarshal([]byte(text), &boot); err != nil {
			b.Fatal(err)
		}
		f := userspace.FindStringSubmatch(out)
		seconds, err := strconv.ParseFloat(f[2], 64)
		if err != nil {
			b.Fatal(err)
		}
		if f[1] != "" {
			minutes, err := strconv.Atoi(f[1])
			if err != nil {
				b.Fatal(err)
			}
			seconds += float64(60 * minutes)
		}
		b.ReportMetric(float64(boot.Timings.Root)/1000, "root-s")
		b.ReportMetric(seconds, "boot-s")
	}
}
