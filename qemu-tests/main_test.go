package qemutests

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/semper-os/semper/qemu-tests/guest"
	"github.com/semper-os/semper/qemu-tests/programs"
	"github.com/semper-os/semper/vm"
)

// The versions of make-releases.
const (
	first    = "1.0.0"
	second   = "1.1.0"
	sick     = "1.2.0" // its health check fails
	third    = "1.3.0"
	panicked = "1.4.0" // its kernel panics
)

// diskSize is that of the machines' disks, larger than the released one.
const diskSize = 8 << 30

// kernelArgs keep programs at the same addresses in every process. QEMU without KVM finds code that it has translated before by its address: a boot takes 58 s instead
// of 74 s. And root, who comes by SSH, gets no service manager of its own: a machine is at rest after 83 s instead of 102 s.
const kernelArgs = "norandmaps systemd.mask=user@0.service"

// cpu is QEMU's model without KVM: vectors and long string instructions cost more translated than what programs do without them. A boot takes 75 s instead of
// 81 s, an update 87 s instead of 90 s (the means of pairs of machines side by side).
const cpu = "max,-avx,-avx2,-fma,-erms"

// How long things may take: several times what they need without KVM, with two machines on two cores.
const (
	bootTime    = 10 * time.Minute
	updateTime  = 20 * time.Minute // download, write, reboot, health checks
	commandTime = 2 * time.Minute
)

// world is what all tests share.
var world struct {
	ctx      context.Context // of machines that outlive a test
	bin      programs.Folder
	releases string
	dir      string // for disks and logs
	key      *guest.Key
	slots    chan struct{} // a machine takes one
}

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	world.ctx = ctx
	if err := prepare(); err != nil {
		fmt.Fprintln(os.Stderr, "qemu-tests:", err)
		return 1
	}
	code := m.Run()
	if code != 0 {
		fmt.Fprintln(os.Stderr, "qemu-tests: disks and logs are in", world.dir)
		return code
	}
	if err := os.RemoveAll(world.dir); err != nil {
		fmt.Fprintln(os.Stderr, "qemu-tests:", err)
		return 1
	}
	return 0
}

func prepare() (err error) {
	if world.releases, err = fromEnv("SEMPER_TEST_RELEASES", "../out/test"); err != nil {
		return err
	}
	bin, err := fromEnv("SEMPER_TEST_BIN", "../bin")
	if err != nil {
		return err
	}
	world.bin = programs.Folder(bin)
	if err := world.bin.Check("semper", "semper-server"); err != nil {
		return err
	}
	for _, version := range []string{first, second, sick, third, panicked} {
		if _, err := os.Stat(filepath.Join(releasePath(version), "manifest.json")); err != nil {
			return fmt.Errorf("release %s is missing in %s: run 'make test', or qemu-tests/make-releases as the package's documentation says", version, world.releases)
		}
	}
	if world.key, err = guest.NewKey(); err != nil {
		return err
	}
	// What an earlier run left behind is of no use to this one.
	world.dir = filepath.Join(world.releases, "qemu")
	if err := errors.Join(os.RemoveAll(world.dir), os.MkdirAll(world.dir, 0o755)); err != nil {
		return err
	}
	// A machine without KVM keeps a core busy.
	world.slots = make(chan struct{}, min(max(2, runtime.NumCPU()/2), 4))
	if err := vm.ProbeKVM(world.ctx, "amd64"); err != nil {
		fmt.Fprintln(os.Stderr, "qemu-tests: KVM does not work here, machines will be slow:", err)
	}
	return nil
}

func fromEnv(name, otherwise string) (string, error) {
	dir := os.Getenv(name)
	if dir == "" {
		dir = otherwise
	}
	return filepath.Abs(dir)
}

// releasePath is the folder of a release of make-releases: what machines start with is whole, what they are updated to is lean.
func releasePath(version string) string {
	if version == first {
		return wholePath(version)
	}
	return filepath.Join(world.releases, "lean", "semper-"+version)
}

// wholePath is the folder of a release with all that the image has.
func wholePath(version string) string { return filepath.Join(world.releases, "semper-"+version) }

func keysFolder() string { return filepath.Join(world.releases, "keys") }
