package initramfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
)

// varDisk is what preparing /var needs of the disk: its table, and the machine's ways to change things.
type varDisk struct {
	table   *gpt.Table
	found   gpt.Found
	size    int64      // bytes
	device  gpt.Device // the whole disk
	guid    gpt.GUID   // for a new partition
	console *Console   // for progress
	machine varMachine // the rest of the world
	name    string     // "vda"
}

// varMachine are the ways to change things that only a booting machine has.
type varMachine interface {
	// Tell makes the kernel see a partition and returns its node.
	Tell(number int, p gpt.Partition) (node string, err error)
	// Run runs a program of the verified root and returns its exit status.
	Run(limit time.Duration, name string, args ...string) (int, error)
	// Mount mounts /var.
	Mount(node string) error
}

const (
	formatLimit = 10 * time.Minute
	checkLimit  = 2 * time.Hour // of hundreds of millions of files
	growLimit   = 30 * time.Minute

	// slack is how much smaller than its partition a file system may be: ext4 leaves a last block group out that is too small for its own tables.
	slack = 1 << 20 * 128
)

// prepare mounts /var: it makes the partition and the file system if this is the disk's first boot, checks and grows them otherwise.
//
// A power cut at any point is made good by the next boot: a partition that is called PRT#var has no file system that anybody used, and is formatted again; one
// that is called var is never formatted; a table that is half written has its other copy; a file system smaller than its partition is grown.
func (v *varDisk) prepare() (node string, created bool, err error) {
	where := "disk /dev/" + v.name
	number, ready, err := layout.Var(v.table)
	if err != nil {
		return "", false, &Failure{What: "The partition table makes no sense", Where: where, Err: err}
	}
	changed := v.found.Damage != nil || v.found.Used != gpt.Both
	switch number {
	case 0:
		if number, err = layout.AddVar(v.table, v.guid, v.size); err != nil {
			return "", false, &Failure{
				What: "There is no place for /var", Where: where, Err: err,
				Do: "a disk that is at least 1 GiB larger than the image",
			}
		}
		changed = true
		v.console.Printf("first boot: partition %d of /dev/%s becomes /var (%s)", number, v.name, size(v.table.Partitions[number-1].Size()))
	default:
		grown, err := layout.GrowVar(v.table, v.size)
		if err != nil {
			return "", false, &Failure{What: "The partition of /var cannot be grown", Where: where, Err: err}
		}
		if grown {
			v.console.Printf("the disk has grown: partition %d of /dev/%s is now %s", number, v.name, size(v.table.Partitions[number-1].Size()))
		}
		changed = changed || grown
	}
	if v.found.Damage != nil {
		v.console.Printf("the partition table of /dev/%s is repaired from its other copy: %v", v.name, v.found.Damage)
	}
	if changed {
		if err := v.table.Write(v.device); err != nil {
			return "", false, &Failure{What: "The partition table cannot be written", Where: where, Err: err, Do: "a disk that is write-protected or failing must be replaced"}
		}
	}
	p := v.table.Partitions[number-1]
	if node, err = v.machine.Tell(number, p); err != nil {
		return "", false, &Failure{What: "The partition of /var cannot be used", Where: where, Err: err}
	}
	if ready {
		err = v.check(node, p)
	} else {
		err = v.format(node)
	}
	if err != nil {
		return "", false, err
	}
	return node, !ready, nil
}

// format makes the file system and only then gives the partition its name.
func (v *varDisk) format(node string) error {
	v.console.Printf("making the file system of /var on %s", node)
	// No discard: it takes minutes on some disks, and fstrim does it later. Inode tables are zeroed in the background, after the boot.
	code, err := v.machine.Run(formatLimit, "mke2fs", "-q", "-F", "-t", "ext4", "-L", "var", "-m", "1",
		"-E", "nodiscard,lazy_itable_init=1,lazy_journal_init=1", node)
	if err == nil && code != 0 {
		err = fmt.Errorf("mke2fs ended with status %d", code)
	}
	if err == nil {
		err = v.device.Sync()
	}
	if err != nil {
		return &Failure{What: "The file system of /var cannot be made", Where: node, Err: err}
	}
	if err = layout.VarReady(v.table); err == nil {
		err = v.table.Write(v.device)
	}
	if err != nil {
		return &Failure{What: "The partition table cannot be written", Where: "disk /dev/" + v.name, Err: err}
	}
	return v.mount(node)
}

// check repairs what e2fsck repairs without asking, mounts /var and grows it to its partition.
func (v *varDisk) check(node string, p gpt.Partition) error {
	code, err := v.machine.Run(checkLimit, "e2fsck", "-p", node)
	switch {
	case err != nil:
		return &Failure{What: "The file system of /var cannot be checked", Where: node, Err: err}
	case code&^3 != 0: // 1: repaired; 2: restart if it was mounted, which it was not
		return &Failure{
			What: "The file system of /var is damaged, more than can be repaired without losing data", Where: node,
			Err: fmt.Errorf("e2fsck ended with status %d; what it found is printed above", code),
			Do:  "save the disk's data from another system, run e2fsck there, or restore /var from a backup",
		}
	case code != 0:
		v.console.Printf("the file system of /var was repaired")
	}
	if err := v.mount(node); err != nil {
		return err
	}
	have, err := ext4Size(io.NewSectionReader(v.device, p.Offset(), p.Size()))
	if err != nil {
		return &Failure{What: "The file system of /var cannot be read", Where: node, Err: err}
	}
	if p.Size()-have <= slack {
		return nil
	}
	v.console.Printf("growing the file system of /var from %s to %s", size(have), size(p.Size()))
	// While it is mounted: e2fsck -f of everything would have to come first otherwise. A failure costs room, not the boot.
	code, err = v.machine.Run(growLimit, "resize2fs", node)
	if err == nil && code != 0 {
		err = fmt.Errorf("resize2fs ended with status %d", code)
	}
	if err != nil {
		v.console.Printf("/var could not be grown, and stays as it is: %v", err)
	}
	return nil
}

func (v *varDisk) mount(node string) error {
	if err := v.machine.Mount(node); err != nil {
		return &Failure{What: "/var cannot be mounted", Where: node, Err: err}
	}
	return nil
}

// realMachine is varMachine on a machine that boots.
type realMachine struct {
	disk     *os.File
	name     string
	console  *Console
	watchdog *watchdog
}

func (m realMachine) Tell(number int, p gpt.Partition) (string, error) {
	node, err := tellKernel(blkpg{}, m.disk, m.name, number, p)
	if err != nil {
		return "", err
	}
	return node, waitFor(node, 5*time.Second)
}

func (m realMachine) Run(limit time.Duration, name string, args ...string) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	defer m.watchdog.extend(limit + time.Minute)()
	start := time.Now()
	beat := time.NewTicker(30 * time.Second)
	defer beat.Stop()
	done := make(chan struct{})
	defer close(done)
	guarded(func() {
		for {
			select {
			case <-done:
				return
			case <-beat.C:
				m.console.Printf("%s is still at work (%d s)", name, int(time.Since(start).Seconds()))
			}
		}
	})
	out := m.console.Lines(name)
	defer func() { _ = out.Close() }() // the console: nobody is there to hear of it
	return runInRoot(ctx, out, "/usr/sbin/"+name, args...)
}

// Mount mounts /var with what containers need: set-user-ID programs and device nodes live in their images. A file system that finds itself damaged
// stops being written.
func (m realMachine) Mount(node string) error { return mountVar(node, sysroot) }

func mountVar(node, root string) error {
	if err := unix.Mount(node, filepath.Join(root, "var"), "ext4", 0, "errors=remount-ro"); err != nil {
		return fmt.Errorf("mount %s (ext4): %w", node, err)
	}
	return nil
}

// mountEtc lays the machine's own settings over the image's /etc. The features that tie an upper layer to one lower file system are off: the lower one
// changes with every update.
func mountEtc(root string) (bool, error) {
	etc := filepath.Join(root, "etc")
	st, err := os.Lstat(etc)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !st.IsDir() {
		return false, fmt.Errorf("%s is not a folder in this image", etc)
	}
	state := filepath.Join(root, stateInRoot)
	upper, work := filepath.Join(state, "upper"), filepath.Join(state, "work")
	for _, dir := range []string{upper, work} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return false, err
		}
	}
	if err := os.Chmod(upper, st.Mode().Perm()); err != nil { // the merged folder shows the upper one's mode
		return false, err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s,index=off,metacopy=off,redirect_dir=nofollow,xino=off", etc, upper, work)
	if err := unix.Mount("overlay", etc, "overlay", 0, options); err != nil {
		return false, fmt.Errorf("mount the overlay: %w", err)
	}
	return true, nil
}
