package initramfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/initramfs/modules"
)

const maxModalias = 4096

// modaliases returns what the devices of all buses below sys (which is /sys) ask for, sorted, each once.
func modaliases(sys string) []string {
	buses, _ := os.ReadDir(filepath.Join(sys, "bus"))
	var all []string
	add := func(file string) {
		b, err := os.ReadFile(file)
		if err != nil || len(b) > maxModalias {
			return // most devices of some buses have none
		}
		if s := strings.TrimSpace(string(b)); s != "" {
			all = append(all, s)
		}
	}
	add(filepath.Join(sys, "devices/system/cpu/modalias")) // one for all processors
	for _, bus := range buses {
		dir := filepath.Join(sys, "bus", bus.Name(), "devices")
		devices, _ := os.ReadDir(dir)
		for _, d := range devices {
			add(filepath.Join(dir, d.Name(), "modalias"))
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// coldplug loads the drivers of the devices that are there, and of those that appear because a driver was loaded.
type coldplug struct {
	index   *modules.Index
	load    func(name string) error
	wake    func() // called when the last of several drivers is loaded
	console *Console
	sys     string
	asked   map[string]bool // modaliases seen

	mu   sync.Mutex
	busy int // devices whose drivers are being loaded
	errs []error
}

func newColdplug(index *modules.Index, load func(string) error, wake func(), console *Console, sys string) *coldplug {
	return &coldplug{index: index, load: load, wake: wake, console: console, sys: sys, asked: map[string]bool{}}
}

// round starts to load what the devices ask for that were not there in the last round, drivers of different devices at the same time, and reports whether there
// were any such devices.
func (c *coldplug) round() (fresh bool) {
	for _, alias := range modaliases(c.sys) {
		if c.asked[alias] {
			continue
		}
		c.asked[alias] = true
		fresh = true
		names := c.index.ForDevice(alias)
		if len(names) == 0 {
			continue
		}
		c.mu.Lock()
		c.busy++
		c.mu.Unlock()
		guarded(func() { c.loadFor(alias, names) })
	}
	return fresh
}

// loadFor loads a device's drivers one after the other. Errors are kept: a driver that refuses its device is worth a line only if the disk does not appear.
func (c *coldplug) loadFor(alias string, names []string) {
	for _, n := range names {
		err := c.load(n)
		c.console.Debugf("%s wants %s: %s", alias, n, outcome(err))
		if err != nil && !errors.Is(err, unix.ENODEV) {
			c.mu.Lock()
			c.errs = append(c.errs, fmt.Errorf("%w (for %s)", err, alias))
			c.mu.Unlock()
		}
	}
	c.mu.Lock()
	c.busy--
	idle := c.busy == 0
	c.mu.Unlock()
	if idle {
		c.wake()
	}
}

// idle reports whether no driver is being loaded.
func (c *coldplug) idle() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.busy == 0
}

func (c *coldplug) failures() []error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.errs)
}

func outcome(err error) string {
	if err != nil {
		return err.Error()
	}
	return "loaded"
}

// doorbell wakes the one who waits, however often it is rung before.
type doorbell chan struct{}

func newDoorbell() doorbell { return make(doorbell, 1) }

func (d doorbell) ring() {
	select {
	case d <- struct{}{}:
	default:
	}
}

// uevents rings whenever the kernel tells of a device. Which one it is does not matter: to look at all of them costs a few milliseconds.
func uevents(ring func()) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return fmt.Errorf("device events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return fmt.Errorf("device events: %w", err)
	}
	guarded(func() {
		b := make([]byte, 64<<10)
		for {
			_, _, err := unix.Recvfrom(fd, b, 0)
			switch {
			case errors.Is(err, unix.EINTR):
			case err != nil && !errors.Is(err, unix.ENOBUFS): // ENOBUFS: events were lost, which is an event
				return
			default:
				ring()
			}
		}
	})
	return nil
}
