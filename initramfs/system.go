package initramfs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/initramfs/modules"
)

// Places in the initramfs.
const (
	modulesDir  = "/modules"
	indexPath   = "/modules/index"
	certPath    = "/verity.crt"
	sysroot     = "/sysroot"
	sysDir      = "/sys"
	runDir      = "/run"
	rootDM      = "root"
	stateInRoot = "var/lib/semper/etc"
)

// Names of files in the archive, for the builder.
const (
	InitName    = "init"
	ModulesName = "modules"
	IndexName   = "modules/index"
	CertName    = "verity.crt"
	SysrootName = "sysroot"
)

// RootModules must be in the kernel before the root can be mounted, StateModules before /var and /etc can. No device asks for them.
var (
	RootModules  = []string{"dm_verity", "erofs"}
	StateModules = []string{"ext4", "overlay"}
)

// mountPoint is one of the kernel's own file systems.
type mountPoint struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

// apiMounts move on to the new root.
var apiMounts = []mountPoint{
	{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
	{"proc", "/proc", "proc", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"sysfs", sysDir, "sysfs", unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC, ""},
	{"tmpfs", runDir, "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755,size=20%,nr_inodes=800k"},
}

func mountAPI() error {
	for _, m := range apiMounts {
		if err := os.MkdirAll(m.target, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m.target, err)
		}
	}
	return nil
}

// insertModule hands a module to the kernel, signature and all.
func insertModule(params map[string]string) func(file string, m modules.Module) error {
	return func(file string, m modules.Module) error {
		f, err := os.OpenFile(filepath.Join(modulesDir, file), os.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.FinitModule(int(f.Fd()), params[m.Name], 0); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
		return nil
	}
}

// blkpg is kernelTable for real disks (linux/blkpg.h).
type blkpg struct{}

func (blkpg) Lookup(disk string, number int) (kernelPartition, bool) {
	return lookupPartition(sysDir, disk, number)
}

func (blkpg) Add(f *os.File, number int, p kernelPartition) error {
	return blkpgIoctl(f, unix.BLKPG_ADD_PARTITION, number, p)
}

func (blkpg) Resize(f *os.File, number int, p kernelPartition) error {
	return blkpgIoctl(f, unix.BLKPG_RESIZE_PARTITION, number, p)
}

func blkpgIoctl(f *os.File, op int32, number int, p kernelPartition) error {
	part := unix.BlkpgPartition{Start: int64(p.start) * 512, Length: int64(p.sectors) * 512, Pno: int32(number)}
	arg := unix.BlkpgIoctlArg{Op: op, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	runtime.KeepAlive(&part)
	if errno != 0 {
		return errno
	}
	return nil
}

// bindInto makes the kernel's file systems visible in the new root, for the programs that run there and for what follows.
func bindInto(root string) error {
	for _, m := range apiMounts {
		if err := unix.Mount(m.target, root+m.target, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("bind %s into the root: %w", m.target, err)
		}
	}
	return nil
}

// runInRoot runs a program of the verified root, chrooted, and returns its exit status.
func runInRoot(ctx context.Context, out io.Writer, name string, args ...string) (int, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin", "LC_ALL=C.UTF-8", "TERM=dumb"}
	cmd.SysProcAttr = &unix.SysProcAttr{Chroot: sysroot}
	cmd.Stdout, cmd.Stderr = out, out
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case ctx.Err() != nil:
		return 0, fmt.Errorf("%s: stopped: it took too long", name)
	case errors.As(err, &exit) && exit.Exited():
		return exit.ExitCode(), nil
	case err != nil:
		return 0, fmt.Errorf("%s: %w", name, err)
	default:
		return 0, nil
	}
}

// switchRoot makes root the root file system and becomes systemd. It returns only if that fails.
func switchRoot(root string) error {
	for _, m := range apiMounts {
		// Bound into the new root already; what is left here would only hide below it.
		if err := unix.Unmount(m.target, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", m.target, err)
		}
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	removeInitramfs()
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	var errs []error
	for _, init := range []string{"/sbin/init", "/usr/lib/systemd/systemd"} {
		err := unix.Exec(init, []string{init}, []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin", "TERM=linux"})
		errs = append(errs, fmt.Errorf("%s: %w", init, err))
	}
	return errors.Join(errs...)
}

// removeInitramfs gives the archive's memory back. It never leaves the initramfs's own file system, so that a mount that is still there keeps its files.
func removeInitramfs() {
	var st unix.Stat_t
	if unix.Lstat("/", &st) != nil {
		return
	}
	var fs unix.Statfs_t
	const ramfs, tmpfs = 0x858458f6, 0x01021994
	if unix.Statfs("/", &fs) != nil || fs.Type != ramfs && fs.Type != tmpfs {
		return // not an initramfs: delete nothing
	}
	removeBelow("/", st.Dev)
}

func removeBelow(dir string, dev uint64) {
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		var st unix.Stat_t
		if unix.Lstat(path, &st) != nil || st.Dev != dev {
			continue
		}
		if e.IsDir() {
			removeBelow(path, dev)
			_ = unix.Rmdir(path)
			continue
		}
		_ = unix.Unlink(path)
	}
}
