package initramfs

import (
	"crypto/rand"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/initramfs/modules"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/verity"
)

const (
	grace         = 500 * time.Millisecond // for a preferred disk, once one was found; see the package's documentation
	diskPatience  = 30 * time.Second       // since the last new device
	diskLimit     = 2 * time.Minute        // whatever still appears
	watchdogLimit = 4 * time.Minute        // for everything but programs that have limits of their own
	restartDelay  = 5 * time.Second
)

// boot is one boot, from the first line to the exec.
type boot struct {
	console  *Console
	start    time.Time
	watchdog *watchdog
	cmdline  Cmdline
	loader   *modules.Loader
	certs    []*x509.Certificate
	info     Boot
}

// dying makes sure that only one goroutine brings the machine down.
var dying sync.Mutex

// bringDown is what ends the machine; Main sets it before anything can fail.
var bringDown func(err error)

// guarded runs f in a goroutine whose panic ends as every other failure does.
func guarded(f func()) {
	go func() {
		defer recovered()
		f()
	}()
}

func recovered() {
	if r := recover(); r != nil {
		stack := strings.Split(strings.TrimSpace(string(debug.Stack())), "\n")
		bringDown(&Failure{
			What: "semper-init has a fault of its own",
			Err:  fmt.Errorf("%v", r),
			Do:   "please report this: " + strings.Join(strings.Fields(strings.Join(stack[:min(len(stack), 16)], " ")), " "),
		})
	}
}

// watchdog brings the machine down when nothing else did.
type watchdog struct {
	mu    sync.Mutex
	timer *time.Timer
}

func newWatchdog(limit time.Duration, bark func()) *watchdog {
	return &watchdog{timer: time.AfterFunc(limit, bark)}
}

// extend gives one step another limit. The function that it returns sets the usual one again.
func (w *watchdog) extend(limit time.Duration) (restore func()) {
	w.reset(limit)
	return func() { w.reset(watchdogLimit) }
}

func (w *watchdog) reset(limit time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.timer.Stop() { // not while it is barking
		w.timer.Reset(limit)
	}
}

// Main is all of semper-init. It must be process 1 of an initramfs, and it never returns.
func Main() {
	start := time.Now()
	b := &boot{start: start, console: NewConsole(func() time.Duration { return time.Since(start) }, nil)}
	bringDown = b.fail
	defer recovered()
	// What would end this process would panic the kernel.
	signal.Ignore(unix.SIGHUP, unix.SIGINT, unix.SIGPIPE, unix.SIGQUIT, unix.SIGTERM)
	b.watchdog = newWatchdog(watchdogLimit, func() {
		bringDown(&Failure{What: "The start has come to a halt", Err: fmt.Errorf("no end after %d minutes", int(watchdogLimit.Minutes()))})
	})
	if err := b.run(); err != nil {
		b.fail(err)
	}
}

// fail shows what is wrong and restarts the machine.
func (b *boot) fail(err error) {
	dying.Lock() // and never unlock: whoever comes second waits for the end
	b.console.Frame(message(err))
	unix.Sync()
	time.Sleep(restartDelay)
	for {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		time.Sleep(time.Second)
	}
}

func (b *boot) since() int64 { return time.Since(b.start).Milliseconds() }

func (b *boot) run() error {
	if err := b.setup(); err != nil {
		return err
	}
	chosen, err := b.findDisk()
	if err != nil {
		return err
	}
	b.info.Timings.Disk = b.since()
	disk, err := os.OpenFile(chosen.disk.node(), os.O_RDWR|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) {
		err = &Failure{What: "The disk is write-protected", Where: chosen.disk.node(), Err: err}
	}
	if err != nil {
		return err
	}
	defer disk.Close()
	if err := b.mountRoot(chosen, disk); err != nil {
		return err
	}
	if err := b.mountState(chosen, disk); err != nil {
		return err
	}
	b.info.Timings.Total = b.since()
	if err := b.writeRun(); err != nil {
		return &Failure{What: "What the update agent needs to know cannot be written", Where: runDir, Err: err}
	}
	disk.Close()
	b.console.Printf("starting systemd")
	signal.Reset() // ignored signals would stay ignored in systemd and in all that it starts
	return &Failure{What: "systemd cannot be started", Where: "the verified root", Err: switchRoot(sysroot)}
}

// setup mounts the kernel's file systems, opens the consoles and reads what the archive and the command line say.
func (b *boot) setup() error {
	merr := mountAPI()
	_ = os.WriteFile("/proc/sys/kernel/printk_devkmsg", []byte("on\n"), 0)
	// Should this process end against all intentions, the kernel panics: it must then restart, not stand.
	_ = os.WriteFile("/proc/sys/kernel/panic", []byte("10\n"), 0)
	b.console.outs = openConsoles(filepath.Join(sysDir, "class/tty/console/active"), "/dev")
	if f, err := os.OpenFile("/dev/kmsg", os.O_WRONLY|unix.O_CLOEXEC, 0); err == nil {
		b.console.log = f
	}
	if merr != nil {
		return merr
	}
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &now); err == nil {
		b.info.Timings.Kernel = now.Nano()/1e6 - b.since()
	}
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	if b.cmdline, err = ParseCmdline(string(text)); err != nil {
		return &Failure{What: "The boot entry does not say which system to start", Where: "the kernel's command line", Err: err}
	}
	b.console.Debug = b.cmdline.Debug
	b.console.Printf("looking for the system with root hash %s", b.cmdline.RootHash)
	pem, err := os.ReadFile(certPath)
	if err != nil {
		return err
	}
	if b.certs, err = parseCerts(pem); err != nil {
		return err
	}
	return nil
}

// findDisk loads drivers until a disk carries the root hash.
func (b *boot) findDisk() (tableOf, error) {
	text, err := os.ReadFile(indexPath)
	if err != nil {
		return tableOf{}, err
	}
	index, err := modules.Parse(text)
	if err != nil {
		return tableOf{}, err
	}
	b.loader = modules.NewLoader(index, insertModule(b.cmdline.Params))
	bell := newDoorbell()
	if err := uevents(bell.ring); err != nil {
		return tableOf{}, err
	}
	// No device asks for these; they load while the disks are looked for. Who needs one asks again, and hears of its failure.
	guarded(func() { _ = b.load(RootModules) })
	plug := newColdplug(index, b.loader.Load, bell.ring, b.console, sysDir)
	disks := newReader(b.cmdline.RootHash, readTable, bell.ring)
	retry := time.NewTicker(time.Second)
	defer retry.Stop()
	quietSince, said := time.Now(), time.Now()
	var firstFound time.Time
	for known := -1; ; {
		if plug.round() {
			quietSince = time.Now()
		}
		present := listDisks(sysDir)
		if len(present) != known {
			known, quietSince = len(present), time.Now()
		}
		disks.scan(present)
		found, idle := disks.found()
		if len(found) > 0 && firstFound.IsZero() {
			firstFound = time.Now()
			time.AfterFunc(grace, bell.ring)
		}
		if len(found) > 0 && (idle && plug.idle() || time.Since(firstFound) >= grace) {
			b.console.Debugf("%d modules loaded", b.loader.Loaded())
			return b.choose(found), nil
		}
		if waited := time.Since(b.start); time.Since(quietSince) > diskPatience || waited > diskLimit {
			for _, err := range plug.failures() {
				b.console.Printf("%v", err)
			}
			return tableOf{}, errNoDisk(b.cmdline.RootHash, disks.report(), waited)
		}
		select {
		case <-bell:
		case <-retry.C:
			disks.forget()
		}
		if time.Since(said) > 5*time.Second {
			said = time.Now()
			b.console.Printf("still waiting for the system's disk; %d disk(s) seen", len(present))
		}
	}
}

// choose takes the preferred disk of several.
func (b *boot) choose(found []tableOf) tableOf {
	chosen := found[0]
	b.console.Printf("found it on %s: slot %s, version %s", chosen.disk.node(), chosen.slot.Name, chosen.slot.Version)
	for _, other := range found[1:] {
		b.info.OtherDisks = append(b.info.OtherDisks, other.disk.node())
	}
	if len(found) > 1 {
		b.console.Printf("WARNING: the same system is on %s too; the root is the same, but /var is not: %s is used",
			strings.Join(b.info.OtherDisks, ", "), chosen.disk.node())
	}
	return chosen
}

func (b *boot) load(names []string) error {
	for _, n := range names {
		if err := b.loader.Load(n); err != nil {
			return err
		}
	}
	return nil
}

// mountRoot verifies and mounts the root.
func (b *boot) mountRoot(chosen tableOf, disk *os.File) error {
	sb, err := checkSlot(disk, chosen, b.cmdline.RootHash, b.certs)
	if err != nil {
		return err
	}
	b.console.Debugf("signature and hash tree are good")
	slot := chosen.slot
	where := fmt.Sprintf("slot %s (version %s) of disk %s", slot.Name, slot.Version, chosen.disk.node())
	nodes := map[int]string{}
	for _, n := range []int{slot.Root, slot.Verity} {
		if nodes[n], err = tellKernel(blkpg{}, disk, chosen.disk.name, n, chosen.table.Partitions[n-1]); err != nil {
			return &Failure{What: "The system's partitions cannot be used", Where: where, Err: err}
		}
	}
	if err := b.load(RootModules); err != nil {
		return &Failure{What: "The kernel lacks what it needs to mount the system", Err: err}
	}
	guarded(func() { _ = b.load(StateModules) })
	device, err := verityDevice(rootDM, nodes[slot.Root], nodes[slot.Verity], sb, b.cmdline.RootHash)
	if err != nil {
		return &Failure{What: "The system cannot be verified", Where: where, Err: err}
	}
	node, err := activate(device)
	if err != nil {
		return &Failure{What: "The system cannot be verified", Where: where, Err: err}
	}
	if err := mountRoot(node, sysroot); err != nil {
		if !isErofs(disk, chosen.table.Partitions[slot.Root-1]) {
			err = fmt.Errorf("%w: it is no erofs file system", err)
		}
		return &Failure{What: "The system cannot be mounted", Where: where, Err: err}
	}
	b.info.Timings.Root = b.since()
	b.console.Printf("root mounted: %s (%s), version %s", where, size(int64(sb.DataBlocks)*verity.BlockSize), slot.Version)
	return nil
}

// mountState mounts /var and /etc.
func (b *boot) mountState(chosen tableOf, disk *os.File) error {
	if err := b.load(StateModules); err != nil {
		return &Failure{What: "The kernel lacks what it needs to mount /var and /etc", Err: err}
	}
	if err := bindInto(sysroot); err != nil {
		return &Failure{What: "The system's root lacks a folder", Where: "the verified root", Err: err}
	}
	var guid gpt.GUID
	if _, err := io.ReadFull(rand.Reader, guid[:]); err != nil {
		return err
	}
	guid[6], guid[8] = guid[6]&0x0f|0x40, guid[8]&0x3f|0x80 // RFC 9562, version 4
	v := &varDisk{
		table: chosen.table, found: chosen.found, size: chosen.disk.size, device: disk, guid: guid, console: b.console, name: chosen.disk.name,
		machine: realMachine{disk: disk, name: chosen.disk.name, console: b.console, watchdog: b.watchdog},
	}
	node, created, err := v.prepare()
	if err != nil {
		return err
	}
	etc, err := mountEtc(sysroot)
	if err != nil {
		return &Failure{What: "/etc cannot be mounted", Where: node, Err: err}
	}
	if !etc {
		b.console.Printf("this image has no /etc: nothing is laid over it")
	}
	b.info.describe(chosen, b.cmdline.RootHash, node, created)
	b.info.Timings.Var = b.since()
	b.console.Printf("/var and /etc mounted: %s", node)
	return nil
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// describe fills in what is known of the disk.
func (b *Boot) describe(t tableOf, rootHash verity.RootHash, varNode string, created bool) {
	node := func(number int) string {
		if number == 0 {
			return ""
		}
		return "/dev/" + partitionName(t.disk.name, number)
	}
	b.Disk = t.disk.node()
	b.Slot, b.Version, b.RootHash = slotName(t.slot.Name), t.slot.Version, rootHash.String()
	b.VarCreated = created
	b.Partitions = Partitions{
		Root: node(t.slot.Root), Verity: node(t.slot.Verity), VeritySig: node(t.slot.Sig), Var: varNode,
	}
	for n, p := range t.table.Partitions {
		if p.Type == gpt.TypeESP && b.Partitions.ESP == "" {
			b.Partitions.ESP = node(n + 1)
		}
	}
	if other, err := layout.Idle(t.table, rootHash); err == nil {
		b.Partitions.OtherRoot, b.Partitions.OtherVerity, b.Partitions.OtherVeritySig = node(other.Root), node(other.Verity), node(other.Sig)
	}
}

// writeRun leaves what the system needs to know in /run.
func (b *boot) writeRun() error {
	if err := os.MkdirAll(filepath.Dir(BootPath), 0o755); err != nil {
		return err
	}
	text, err := b.info.Bytes()
	if err != nil {
		return err
	}
	if err := os.WriteFile(BootPath, text, 0o644); err != nil {
		return err
	}
	if !isDir(sysroot+espMount) || b.info.Partitions.ESP == "" {
		b.console.Printf("the EFI system partition is not mounted: the image has no %s, or the disk no such partition", espMount)
		return nil
	}
	b.tidyESP(b.info.Partitions.ESP)
	return writeESPUnits(runDir, b.info.Partitions.ESP)
}

// tidyESP makes good what a power cut in the middle of a rename left on the ESP. What it cannot do is no reason not to start.
func (b *boot) tidyESP(node string) {
	esp, err := os.OpenFile(node, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err == nil {
		defer esp.Close()
		var dropped []string
		dropped, err = dropSecondNames(esp)
		for _, name := range dropped {
			b.console.Printf("%s: took away the second name of a boot entry, %s", node, name)
		}
	}
	if err != nil {
		b.console.Printf("%s: cannot look for second names of boot entries: %v", node, err)
	}
}
