package initramfs

import (
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/initramfs/devmapper"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/verity"
)

// A soft-reboot does without semper-init: systemd ends everything, and goes on in the root that is mounted at NextRoot. What semper-init would have done
// for that root is done here, by the same functions, in the last moments of the system that is left (semper-next-root.service):
//
//	order of semper-installd ─► root hash; none: the root that runs is mounted once more
//	signature of the root hash, superblock, top of the hash tree      wrong: stop
//	/dev/mapper/root_HASH = dm-verity, restart_on_corruption
//	/run/nextroot      = erofs, read-only; it must say that it knows soft-reboots, and have this kernel's modules
//	/run/nextroot/var  = ext4; of the same device as before, so nothing needs a check
//	/run/nextroot/etc  = overlay: lower the new image's, upper as ever
//	/run/semper/boot.json
//	the old root's device goes when nobody uses it any more
//
// It is so late because a mount at NextRoot turns every "systemctl reboot" into a soft-reboot, and because the overlay of /etc must not be mounted twice
// while anybody writes through it: by now systemd has ended all services and unmounted what it could.
//
// An error means a full reboot. Nothing that was done here outlives that, since all of it is in the kernel's memory and in /run.
const (
	// NextRoot is where systemd looks for the root to go on in.
	NextRoot = "/run/nextroot"
	// OrderFolder is the installer's, below /run.
	OrderFolder = "/run/semper/next"
	orderFile   = "root.json"

	// SoftRebootField of os-release says that an image knows what it runs after a soft-reboot. One that does not would take the slot of the command
	// line for the one that runs, and write over the other.
	SoftRebootField = "SEMPER_SOFT_REBOOT"
	softRebootValue = "1"
)

// stale are files below /run that speak of the system that is left.
var stale = []string{"semper/health.json", "semper/health-later.json"}

// order is what the next soft-reboot leads to.
type order struct {
	RootHash string `json:"root_hash"`
}

// WriteOrder says which root the next soft-reboot leads to. Folder is OrderFolder.
func WriteOrder(folder string, rootHash verity.RootHash) error {
	data, err := json.Marshal(order{RootHash: rootHash.String()})
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	return replaceFile(filepath.Join(folder, orderFile), append(data, '\n'))
}

// DropOrder takes an order back.
func DropOrder(folder string) error {
	if err := os.Remove(filepath.Join(folder, orderFile)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.IO, "take the order for a soft-reboot back: %w", err)
	}
	return nil
}

// readOrder returns nil where there is none.
func readOrder(folder string) (*verity.RootHash, error) {
	text, err := readLimited(filepath.Join(folder, orderFile), 4096)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var o order
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		return nil, fault.New(fault.Input, "order for a soft-reboot: %w", err)
	}
	hash, err := verity.ParseRootHash(o.RootHash)
	if err != nil {
		return nil, fault.New(fault.Input, "order for a soft-reboot: %w", err)
	}
	return &hash, nil
}

// KnowsSoftReboot reports whether the fields of an image's os-release say so.
func KnowsSoftReboot(osRelease map[string]string) bool {
	return osRelease[SoftRebootField] == softRebootValue
}

// nextRoot is one preparation.
type nextRoot struct {
	boot    Boot
	running verity.RootHash
	certs   []*x509.Certificate
	logf    func(format string, args ...any)
}

// PrepareNextRoot mounts what the soft-reboot that is under way leads to at NextRoot. Certs are those that may have signed its root hash; there must be one.
func PrepareNextRoot(certs []*x509.Certificate, logf func(format string, args ...any)) error {
	running, _, err := Running("/")
	if err != nil {
		return err
	}
	boot, err := ReadBoot(BootPath)
	if err != nil {
		return err
	}
	if boot.RootHash != running.String() {
		return fault.New(fault.Verification, "%s speaks of the root hash %s, and %s runs", BootPath, boot.RootHash, running)
	}
	target, err := readOrder(OrderFolder)
	if err != nil {
		return err
	}
	n := &nextRoot{boot: boot, running: running, certs: certs, logf: logf}
	if target == nil || *target == running {
		target = &n.running
		err = n.again()
	} else {
		err = n.mountOther(*target)
	}
	if err != nil {
		return err
	}
	if err := n.mountState(); err != nil {
		return err
	}
	return n.leave(*target)
}

// again mounts the running root, without what is mounted in it. Its device is open already, and verifies what it reads.
func (n *nextRoot) again() error {
	n.logf("the next root is the one that runs")
	if err := os.MkdirAll(NextRoot, 0o755); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if err := unix.Mount("/", NextRoot, "", unix.MS_BIND, ""); err != nil {
		return fault.New(fault.IO, "mount the running root at %s: %w", NextRoot, err)
	}
	return nil
}

// mountOther verifies the other slot as semper-init does, and mounts it.
func (n *nextRoot) mountOther(target verity.RootHash) error {
	if len(n.certs) == 0 {
		return fault.New(fault.Verification, "this image has no certificate by which the next root's signature could be checked")
	}
	f, err := os.OpenFile(n.boot.Disk, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer f.Close()
	t, err := n.find(target)
	if err != nil {
		return err
	}
	sb, err := checkSlot(f, t, target, n.certs)
	if err != nil {
		return err
	}
	nodes := map[int]string{}
	for _, number := range []int{t.slot.Root, t.slot.Verity} {
		if nodes[number], err = tellKernel(blkpg{}, f, t.disk.name, number, t.table.Partitions[number-1]); err != nil {
			return err
		}
	}
	device, err := verityDevice(softDM+target.String(), nodes[t.slot.Root], nodes[t.slot.Verity], sb, target)
	if err != nil {
		return err
	}
	node, err := activate(device)
	if err != nil {
		return err
	}
	if err := mountRoot(node, NextRoot); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if err := fit(NextRoot, unix.ByteSliceToString(name.Release[:])); err != nil {
		return err
	}
	n.describe(t, target)
	n.logf("the next root is version %s in slot %s", t.slot.Version, t.slot.Name)
	return nil
}

// find reads the disk's table and looks for the slot of target, which must not be the one that runs.
func (n *nextRoot) find(target verity.RootHash) (tableOf, error) {
	name := strings.TrimPrefix(n.boot.Disk, "/dev/")
	for _, d := range listDisks(sysDir) {
		if d.name != name {
			continue
		}
		t := readTable(d, target)
		if t.err == nil && (t.slot.State != layout.Complete || t.slot.Name == "") {
			t.err = fault.New(fault.Verification, "the slot of root hash %s is not complete", target)
		}
		if t.err != nil {
			return t, fmt.Errorf("find the next root: %w", t.err)
		}
		return t, nil
	}
	return tableOf{}, fault.New(fault.IO, "%s is not there", n.boot.Disk)
}

// describe makes boot.json speak of the next root. What the machine was booted with stays known.
func (n *nextRoot) describe(t tableOf, target verity.RootHash) {
	b := &n.boot
	if b.Soft == nil {
		b.Soft = &Soft{KernelVersion: b.Version, KernelSlot: b.Slot}
	}
	b.describe(t, target, b.Partitions.Var, b.VarCreated)
}

// fit checks what the verified root says of itself.
func fit(root, release string) error {
	text, err := readLimited(filepath.Join(root, "usr/lib/os-release"), 64<<10)
	if err != nil {
		return err
	}
	known := false
	for line := range strings.Lines(text) {
		known = known || strings.TrimSpace(line) == SoftRebootField+"="+softRebootValue
	}
	if !known {
		return fault.New(fault.Verification, "the next root does not say that it knows soft-reboots")
	}
	if modules := filepath.Join(root, "usr/lib/modules", release); !isDir(modules) {
		return fault.New(fault.Verification, "the next root has no modules for the kernel that runs, %s", release)
	}
	return nil
}

// mountState mounts /var and /etc into the next root.
func (n *nextRoot) mountState() error {
	if err := mountVar(n.boot.Partitions.Var, NextRoot); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	// What still hangs on the old overlay keeps it; nobody finds it by its path any more.
	if overlayAt("/etc") {
		if err := unix.Unmount("/etc", unix.MNT_DETACH); err != nil {
			return fault.New(fault.IO, "unmount /etc: %w", err)
		}
	}
	if _, err := mountEtc(NextRoot); err != nil {
		return fault.New(fault.IO, "/etc of the next root: %w", err)
	}
	return nil
}

func overlayAt(path string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(path, &fs) == nil && fs.Type == unix.OVERLAYFS_SUPER_MAGIC
}

// leave writes down what comes, and lets go of what is left. From here on /run speaks of the next root, so whatever fails must lead to a full reboot.
func (n *nextRoot) leave(target verity.RootHash) error {
	if n.boot.Soft == nil {
		n.boot.Soft = &Soft{KernelVersion: n.boot.Version, KernelSlot: n.boot.Slot}
	}
	n.boot.Soft.Count++
	data, err := n.boot.Bytes()
	if err != nil {
		return err
	}
	if err := replaceFile(BootPath, data); err != nil {
		return err
	}
	for _, name := range stale {
		if err := os.Remove(filepath.Join(runDir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fault.Wrap(fault.IO, err)
		}
	}
	if err := DropOrder(OrderFolder); err != nil || target == n.running {
		return err
	}
	name, err := runningDM()
	if err != nil {
		return err
	}
	control, err := os.OpenFile(devmapper.Control, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer control.Close()
	return devmapper.RemoveUnused(control, name)
}

// runningDM is the device-mapper name of what is mounted at /.
func runningDM() (string, error) {
	text, err := readLimited("/proc/self/mountinfo", maxMountinfo)
	if err != nil {
		return "", err
	}
	device, err := rootDevice(text)
	if err != nil {
		return "", err
	}
	name, err := readLimited(filepath.Join(sysDir, "dev/block", device, "dm/name"), 4096)
	return strings.TrimSpace(name), err
}

// replaceFile writes a file of /run, which nobody sees half written. It need not outlive a power cut.
func replaceFile(path string, data []byte) error {
	if err := os.WriteFile(path+".new", data, 0o644); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	return fault.Wrap(fault.IO, os.Rename(path+".new", path))
}
