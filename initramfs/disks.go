package initramfs

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/verity"
)

// disk is a whole block device as sysfs shows it.
type disk struct {
	name      string // "vda"
	path      string // its folder below /sys/devices: the way through the buses
	size      int64  // bytes
	sector    int64  // bytes of a logical sector
	removable bool
}

// node is the device node.
func (d disk) node() string { return "/dev/" + d.name }

// key changes when the medium does, so that a disk is read again.
func (d disk) key() string { return fmt.Sprintf("%s %s %d", d.name, d.path, d.size) }

// notDisks are the names of block devices that are no disks, or that are made of others.
var notDisks = []string{"loop", "ram", "zram", "dm-", "md", "sr", "fd", "nbd"}

// listDisks returns the disks below sys (which is /sys) in the order of preference, see the package's documentation.
func listDisks(sys string) []disk {
	entries, _ := os.ReadDir(filepath.Join(sys, "block"))
	var disks []disk
	for _, e := range entries {
		if slices.ContainsFunc(notDisks, func(p string) bool { return strings.HasPrefix(e.Name(), p) }) {
			continue
		}
		dir := filepath.Join(sys, "block", e.Name())
		d := disk{name: e.Name(), path: dir, sector: 512}
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			d.path = real
		}
		sectors, err := readNumber(filepath.Join(dir, "size")) // in 512 bytes, whatever the sector is
		if err != nil || sectors <= 0 || sectors > 1<<53 {
			continue // an empty drive
		}
		d.size = sectors * 512
		if n, err := readNumber(filepath.Join(dir, "queue/logical_block_size")); err == nil {
			d.sector = n
		}
		if hidden, _ := readNumber(filepath.Join(dir, "hidden")); hidden != 0 {
			continue // one path of a multi-path NVMe device; the device itself is shown too
		}
		removable, _ := readNumber(filepath.Join(dir, "removable"))
		d.removable = removable != 0 || strings.Contains(d.path, "/usb")
		disks = append(disks, d)
	}
	slices.SortFunc(disks, compareDisks)
	return disks
}

func compareDisks(a, b disk) int {
	if a.removable != b.removable {
		if a.removable {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(pathKey(a.path), pathKey(b.path)), cmp.Compare(a.name, b.name))
}

// pathKey makes sysfs paths comparable as text: numbers are padded, so that "target0:0:2" comes before "target0:0:10". PCI addresses are hexadecimal and of a
// fixed width already.
func pathKey(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if pciAddress.MatchString(p) {
			continue
		}
		parts[i] = number.ReplaceAllStringFunc(p, func(n string) string {
			return strings.Repeat("0", max(0, 20-len(n))) + n
		})
	}
	return strings.Join(parts, "/")
}

var (
	pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	number     = regexp.MustCompile(`[0-9]+`)
)

func readNumber(path string) (int64, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
}

// tableOf is a disk with its partition table, or the reason why there is none.
type tableOf struct {
	disk  disk
	table *gpt.Table
	found gpt.Found
	slot  layout.Slot // the one with the root hash
	err   error
}

// readTable reads a disk's table and looks for the slot with a root hash.
func readTable(d disk, rootHash verity.RootHash) tableOf {
	r := tableOf{disk: d}
	if d.sector != gpt.SectorSize {
		r.err = fault.New(fault.Input, "sectors of %d bytes are not supported", d.sector)
		return r
	}
	f, err := os.OpenFile(d.node(), os.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		r.err = err
		return r
	}
	defer f.Close()
	if r.table, r.found, r.err = gpt.Read(f, d.size); r.err != nil {
		return r
	}
	r.slot, r.err = layout.FindByRootHash(r.table, rootHash)
	return r
}

// reader reads tables in the background: a disk that is broken can block its reader for minutes, which must not keep the others from being found.
type reader struct {
	rootHash verity.RootHash
	read     func(disk, verity.RootHash) tableOf
	wake     func() // called after every answer

	mu      sync.Mutex
	known   map[string]tableOf // by disk.key
	pending map[string]disk
	stale   map[string]bool
}

func newReader(rootHash verity.RootHash, read func(disk, verity.RootHash) tableOf, wake func()) *reader {
	return &reader{rootHash: rootHash, read: read, wake: wake, known: map[string]tableOf{}, pending: map[string]disk{}, stale: map[string]bool{}}
}

// scan starts to read the disks that it has not seen.
func (r *reader) scan(disks []disk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range disks {
		k := d.key()
		_, known := r.known[k]
		if _, pending := r.pending[k]; known && !r.stale[k] || pending {
			continue
		}
		delete(r.stale, k)
		r.pending[k] = d
		guarded(func() {
			t := r.read(d, r.rootHash)
			r.mu.Lock()
			delete(r.pending, k)
			r.known[k] = t
			r.mu.Unlock()
			r.wake()
		})
	}
}

// found returns the disks that carry the root hash, the preferred one first, and whether all have answered.
func (r *reader) found() (found []tableOf, idle bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, t := range r.known {
		if t.err == nil {
			found = append(found, t)
		}
	}
	slices.SortFunc(found, func(a, b tableOf) int { return compareDisks(a.disk, b.disk) })
	return found, len(r.pending) == 0
}

// forget lets the disks whose table could not be read, or is not the one, be read again: a disk may say that it is there before it can be read. What is known of
// them stays known until then.
func (r *reader) forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, t := range r.known {
		if t.err != nil {
			r.stale[k] = true
		}
	}
}

// report says for each disk why it is not the one.
func (r *reader) report() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var lines []string
	for _, t := range r.known {
		if t.err != nil {
			lines = append(lines, fmt.Sprintf("%s (%s): %s", t.disk.node(), size(t.disk.size), whyNot(t)))
		}
	}
	for k, d := range r.pending {
		if _, ok := r.known[k]; ok {
			continue
		}
		lines = append(lines, fmt.Sprintf("%s (%s): does not answer", d.node(), size(d.size)))
	}
	slices.Sort(lines)
	return lines
}

func whyNot(t tableOf) string {
	if t.table == nil {
		return t.err.Error()
	}
	slots, err := layout.Slots(t.table)
	if err != nil {
		return "not a disk of Semper's, or one that lacks a partition: " + err.Error()
	}
	var has []string
	for _, s := range slots {
		if s.State == layout.Complete {
			has = append(has, fmt.Sprintf("slot %s holds version %s with root hash %x…", s.Name, s.Version, s.RootHash[:4]))
		}
	}
	if has == nil {
		return "both slots are empty"
	}
	return strings.Join(has, ", ")
}

// size prints bytes for people: "20.0 GB", as disks are sold.
func size(n int64) string {
	if n < 1e9 {
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(n)/1e9)
}

// errNoDisk is the failure after the last scan.
func errNoDisk(rootHash verity.RootHash, report []string, waited time.Duration) error {
	root, hash := layout.PartUUIDs(rootHash)
	seen := "no disk at all was found"
	if len(report) > 0 {
		seen = strings.Join(report, "; ")
	}
	return &Failure{
		What: "No disk has the system that was to be started",
		Err: errors.New(fmt.Sprintf("the partitions %s (root) and %s (its hashes) were not found within %d seconds. ", root, hash, int(waited.Seconds())) +
			"Seen: " + seen),
		Do: "check that the disk is connected, and that its controller is one that this kernel has a driver for",
	}
}
