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
	for _, bus := range buses {
		dir := filepath.Join(sys, "bus", bus.Name(), "devices")
		devices, _ := os.ReadDir(dir)
		for _, d := range devices {
			b, err := os.ReadFile(filepath.Join(dir, d.Name(), "modalias"))
			if err != nil || len(b) > maxModalias {
				continue // most devices of some buses have none
			}
			if s := strings.TrimSpace(string(b)); s != "" {
				all = append(all, s)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// coldplug loads the drivers of the devices that are there, and of those that appear because a driver was loaded.
type coldplug struct {
	index   *modules.Index
	loader  *modules.Loader
	console *Console
	sys     string
	asked   map[string]bool // modaliases seen
	errs    []error
}

// round loads what the devices ask for that were not there in the last round, modules of different devices at the same time, and reports whether there
// were any. Errors are kept: a driver that refuses its device is worth a line only if the disk does not appear.
func (c *coldplug) round() (fresh bool) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	limit := make(chan struct{}, 8)
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
		wg.Add(1)
		limit <- struct{}{}
		guarded(func() {
			defer func() { <-limit; wg.Done() }()
			for _, n := range names {
				err := c.loader.Load(n)
				c.console.Debugf("%s wants %s: %s", alias, n, outcome(err))
				if err != nil && !errors.Is(err, unix.ENODEV) {
					mu.Lock()
					c.errs = append(c.errs, fmt.Errorf("%w (for %s)", err, alias))
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return fresh
}

func outcome(err error) string {
	if err != nil {
		return err.Error()
	}
	return "loaded"
}

// uevents opens the kernel's channel of device events and returns a channel that has a value when something happened since it was last read. Which
// device it was does not matter: a round costs a few milliseconds.
func uevents() (<-chan struct{}, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("device events: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("device events: %w", err)
	}
	happened := make(chan struct{}, 1)
	guarded(func() {
		b := make([]byte, 64<<10)
		for {
			_, _, err := unix.Recvfrom(fd, b, 0)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case err != nil && !errors.Is(err, unix.ENOBUFS): // ENOBUFS: events were lost, which is an event
				return
			}
			select {
			case happened <- struct{}{}:
			default:
			}
		}
	})
	return happened, nil
}
