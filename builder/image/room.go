package image

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/progress"
)

// roomFactor times the size of the locked packages is what a build writes to each of its folders at most, by experience: a release has the compressed root three
// times (as itself, on the disk, in the payload), and the cache has the packages, and the tree and the kernel unpacked. Empty parts of the disk image are
// holes and take no room.
const roomFactor = 3

// place is a folder that a build fills.
type place struct {
	flag, dir string
	need      int64 // bytes
}

// roomFor reports on which file system dir is, or will be when it is made, and how many bytes are free there.
type roomFor func(dir string) (device uint64, free int64, err error)

// checkRoom refuses a build for which there is not enough room. Folders on one file system share what is free there.
func checkRoom(places []place, room roomFor) error {
	type disk struct {
		free, need int64
		names      []string
	}
	var order []uint64
	disks := map[uint64]*disk{}
	for _, p := range places {
		device, free, err := room(p.dir)
		if err != nil {
			return fault.New(fault.IO, "free space at %s %s: %w", p.flag, p.dir, err)
		}
		d := disks[device]
		if d == nil {
			d = &disk{free: free}
			disks[device] = d
			order = append(order, device)
		}
		d.need += p.need
		d.names = append(d.names, p.flag+" "+p.dir)
	}
	for _, device := range order {
		if d := disks[device]; d.free < d.need {
			return fault.New(fault.IO, "not enough room for a build at %s: %s are free, about %s are needed",
				strings.Join(d.names, " and "), progress.Size(d.free), progress.Size(d.need))
		}
	}
	return nil
}

// statRoom is roomFor by the kernel's figures.
func statRoom(dir string) (device uint64, free int64, err error) {
	dir, err = filepath.Abs(dir)
	if err != nil {
		return 0, 0, err
	}
	for {
		_, err := os.Stat(dir)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrNotExist) || dir == filepath.Dir(dir) {
			return 0, 0, err
		}
		dir = filepath.Dir(dir)
	}
	var st unix.Stat_t
	var sfs unix.Statfs_t
	if err := errors.Join(unix.Stat(dir, &st), unix.Statfs(dir, &sfs)); err != nil {
		return 0, 0, err
	}
	return st.Dev, int64(sfs.Bavail) * sfs.Bsize, nil
}
