package vm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/semper-os/semper/fault"
)

const qemuImg, qemuImgPkg = "qemu-img", "qemu-utils"

// FindDisk returns the disk image that path means: path itself, or disk.raw in it when path is a release directory.
func FindDisk(path string) (string, error) {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", fault.New(fault.Input, "no disk or release %s", path)
	case err != nil:
		return "", fault.Wrap(fault.IO, err)
	case st.IsDir():
		disk := filepath.Join(path, "disk.raw")
		if !isFile(disk) {
			return "", fault.New(fault.Input, "%s is not a release: it has no disk.raw", path)
		}
		return disk, nil
	case !st.Mode().IsRegular():
		return "", fault.New(fault.Input, "%s is neither a disk image nor a release directory", path)
	}
	return path, nil
}

// diskFormat tells qcow2 from raw by the magic. Only these two are ever handed to QEMU: letting it guess would let a guest that
// wrote a qcow2 header into its raw disk name any file of the host as its backing file.
func diskFormat(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fault.Wrap(fault.IO, fmt.Errorf("open the disk: %w", err))
	}
	defer f.Close()
	var magic [4]byte
	if _, err := io.ReadFull(f, magic[:]); err != nil {
		return "", fault.New(fault.Input, "disk %s is too short to be one", path)
	}
	if magic == [4]byte{'Q', 'F', 'I', 0xfb} {
		return "qcow2", nil
	}
	return "raw", nil
}

type imageInfo struct {
	Format      string `json:"format"`
	VirtualSize int64  `json:"virtual-size"`
	Backing     string `json:"full-backing-filename"`
}

func inspect(ctx context.Context, path, format string) (imageInfo, error) {
	var info imageInfo
	out, err := img(ctx, "info", "--output=json", "-f", format, path)
	if err != nil {
		return info, err
	}
	if err := json.Unmarshal(out, &info); err != nil {
		return info, fmt.Errorf("read what qemu-img says of %s: %w", path, err)
	}
	return info, nil
}

// createOverlay makes a qcow2 file at path that reads from the disk where it was not written. Size is in bytes; 0 keeps the disk's own.
// It appears under its name only when complete.
func createOverlay(ctx context.Context, disk, path string, size int64) error {
	format, err := diskFormat(disk)
	if err != nil {
		return err
	}
	abs, err := filepath.Abs(disk)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	info, err := inspect(ctx, abs, format)
	if err != nil {
		return err
	}
	if st, err := os.Stat(abs); err != nil {
		return fault.Wrap(fault.IO, err)
	} else if format == "raw" && st.Size()%512 != 0 { // qemu-img rounds it up silently
		return fault.New(fault.Input, "disk %s is not a whole number of 512-byte sectors", disk)
	}
	args := []string{"create", "-q", "-f", "qcow2", "-b", abs, "-F", format, path + ".part"}
	if size != 0 {
		if size < info.VirtualSize || size%512 != 0 {
			return fault.New(fault.Usage, "disk size %d: must be a multiple of 512 and at least %d, the size of %s", size, info.VirtualSize, disk)
		}
		args = append(args, strconv.FormatInt(size, 10))
	}
	return createAt(ctx, path, args)
}

// createVars makes a qcow2 copy of a raw variable store.
func createVars(ctx context.Context, template, path string) error {
	format, err := diskFormat(template)
	if err != nil {
		return err
	}
	return createAt(ctx, path, []string{"convert", "-f", format, "-O", "qcow2", template, path + ".part"})
}

func createAt(ctx context.Context, path string, args []string) error {
	if _, err := img(ctx, args...); err != nil {
		os.Remove(path + ".part")
		return err
	}
	return fault.Wrap(fault.IO, os.Rename(path+".part", path))
}

// checkOverlay makes sure that an existing overlay belongs to the disk: over any other disk it would be garbage.
func checkOverlay(ctx context.Context, disk, overlay string, size int64) error {
	if format, err := diskFormat(overlay); err != nil {
		return err
	} else if format != "qcow2" {
		return fault.New(fault.Input, "%s exists and is not a qcow2 overlay", overlay)
	}
	info, err := inspect(ctx, overlay, "qcow2")
	if err != nil {
		return err
	}
	want, err := os.Stat(disk)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	have, err := os.Stat(info.Backing)
	if err != nil || !os.SameFile(want, have) {
		return fault.New(fault.Input, "%s is an overlay of %q, not of %s", overlay, info.Backing, disk)
	}
	if size != 0 && size != info.VirtualSize {
		return fault.New(fault.Usage, "%s exists with a size of %d bytes, which is not changed to %d", overlay, info.VirtualSize, size)
	}
	return nil
}

// Flatten writes what an overlay (or any qcow2 file) shows the guest to a raw, sparse file. The VM has to be stopped.
func Flatten(ctx context.Context, overlay, raw string) error {
	return createAt(ctx, raw, []string{"convert", "-f", "qcow2", "-O", "raw", overlay, raw + ".part"})
}

// FlattenSnapshot is Flatten for the moment of a snapshot.
func FlattenSnapshot(ctx context.Context, overlay, snapshot, raw string) error {
	return createAt(ctx, raw, []string{"convert", "-f", "qcow2", "-l", "snapshot.name=" + snapshot, "-O", "raw", overlay, raw + ".part"})
}

func img(ctx context.Context, args ...string) ([]byte, error) {
	program, err := hostProgram(qemuImg, qemuImgPkg)
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, fault.New(fault.IO, "qemu-img %s: %s", args[0], strings.TrimSpace(stderr.String()))
	}
	return stdout.Bytes(), nil
}
