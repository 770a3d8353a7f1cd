// Package devmapper makes device-mapper devices with the kernel's ioctl interface (linux/dm-ioctl.h, version 4), just as much as a verified root needs:
// create a device, give it a table, let it run.
//
// Every ioctl takes one buffer, in the byte order of the machine:
//
//	  0  version      3 x uint32: 4, 0, 0 (what we need; the kernel writes what it has)
//	 12  data_size    uint32: the length of the whole buffer
//	 16  data_start   uint32: 312, where the targets begin
//	 20  target_count uint32
//	 24  open_count   int32
//	 28  flags        uint32
//	 32  event_nr     uint32, then 4 bytes of padding
//	 40  dev          uint64: the device's number, written by the kernel
//	 48  name         128 bytes, NUL padded
//	176  uuid         129 bytes, NUL padded, then 7 bytes to the end of the header at 312
//	312  targets, each: sector_start uint64, length uint64, status int32, next uint32 (bytes from this target to the next),
//	     target_type 16 bytes; then the parameters with a NUL, padded to 8 bytes
//
// Sectors are 512 bytes, whatever the disk's are.
//
// Limits: names of 127 bytes, UUIDs of 128, target types of 15, parameters of 4096 bytes, 16 targets.
package devmapper

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

// Control is the node through which the ioctls go.
const Control = "/dev/mapper/control"

const (
	headerSize = 312
	targetSize = 40
	maxParams  = 4096
	maxTargets = 16
)

// Device is a device-mapper device to be made.
type Device struct {
	Name     string // as in /dev/mapper
	UUID     string // for tools such as dmsetup and cryptsetup, which tell by its prefix what a device is
	ReadOnly bool
	Table    []Target
}

// Target is one line of a table.
type Target struct {
	Start   uint64 // in sectors of 512 bytes
	Sectors uint64
	Type    string
	Params  string
}

// request returns the buffer of an ioctl about d. Only a table load carries the targets.
func request(d Device, flags uint32, targets []Target) ([]byte, error) {
	switch {
	case d.Name == "" || len(d.Name) > 127 || strings.ContainsAny(d.Name, "/\x00"):
		return nil, fault.New(fault.Input, "device-mapper: %q cannot be a name", d.Name)
	case len(d.UUID) > 128 || strings.ContainsAny(d.UUID, "/\x00"):
		return nil, fault.New(fault.Input, "device-mapper: %q cannot be a UUID", d.UUID)
	case len(targets) > maxTargets:
		return nil, fault.New(fault.Input, "device-mapper: %d targets, at most %d are allowed", len(targets), maxTargets)
	}
	e := binary.NativeEndian
	b := make([]byte, headerSize)
	e.PutUint32(b[0:], 4)
	e.PutUint32(b[16:], headerSize)
	e.PutUint32(b[20:], uint32(len(targets)))
	e.PutUint32(b[28:], flags)
	copy(b[48:], d.Name)
	copy(b[176:], d.UUID)
	for _, t := range targets {
		if t.Type == "" || len(t.Type) > 15 || len(t.Params) > maxParams || strings.Contains(t.Type+t.Params, "\x00") {
			return nil, fault.New(fault.Input, "device-mapper: target %q with %d bytes of parameters does not fit", t.Type, len(t.Params))
		}
		next := (targetSize + len(t.Params) + 1 + 7) &^ 7
		spec := make([]byte, next)
		e.PutUint64(spec[0:], t.Start)
		e.PutUint64(spec[8:], t.Sectors)
		e.PutUint32(spec[20:], uint32(next))
		copy(spec[24:], t.Type)
		copy(spec[targetSize:], t.Params)
		b = append(b, spec...)
	}
	e.PutUint32(b[12:], uint32(len(b)))
	return b, nil
}

// step is one ioctl of Activate.
type step struct {
	name    string
	op      uintptr
	buffer  []byte
	refused string // what a refusal most likely means
}

func (d Device) steps() ([]step, error) {
	var flags uint32
	if d.ReadOnly {
		flags = unix.DM_READONLY_FLAG
	}
	create, err := request(d, 0, nil)
	if err != nil {
		return nil, err
	}
	// Once a device exists, the kernel knows it by name alone and refuses a request that gives the UUID as well.
	load, err := request(Device{Name: d.Name}, flags, d.Table)
	if err != nil {
		return nil, err
	}
	resume, err := request(Device{Name: d.Name}, flags, nil)
	if err != nil {
		return nil, err
	}
	return []step{
		{"create", unix.DM_DEV_CREATE, create, "is the name taken?"},
		{"load the table", unix.DM_TABLE_LOAD, load, "the line above from the kernel says what is wrong with the table"},
		{"resume", unix.DM_DEV_SUSPEND, resume, ""},
	}, nil
}

// Activate makes the device and returns its number, as in stat's st_rdev. Control is an open /dev/mapper/control. After a failure nothing is left of it.
func (d Device) Activate(control *os.File) (number uint64, err error) {
	steps, err := d.steps()
	if err != nil {
		return 0, err
	}
	for i, s := range steps {
		if err := ioctl(control, s.op, s.buffer); err != nil {
			if i > 0 {
				if b, rerr := request(Device{Name: d.Name}, 0, nil); rerr == nil {
					_ = ioctl(control, unix.DM_DEV_REMOVE, b) // the first error is the one that matters
				}
			}
			hint := ""
			if s.refused != "" && (errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EBUSY)) {
				hint = " (" + s.refused + ")"
			}
			return 0, fault.New(fault.IO, "device-mapper %s: %s: %w%s", d.Name, s.name, err, hint)
		}
		if i == 0 {
			number = binary.NativeEndian.Uint64(s.buffer[40:])
		}
	}
	return number, nil
}

// RemoveUnused removes the device of a name: at once if nobody has it open, otherwise as soon as the last one closes it, a mount included.
func RemoveUnused(control *os.File, name string) error {
	b, err := request(Device{Name: name}, unix.DM_DEFERRED_REMOVE, nil)
	if err != nil {
		return err
	}
	if err := ioctl(control, unix.DM_DEV_REMOVE, b); err != nil {
		return fault.New(fault.IO, "device-mapper %s: remove: %w", name, err)
	}
	return nil
}

func ioctl(f *os.File, op uintptr, b []byte) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, op, uintptr(unsafe.Pointer(&b[0])))
	})
	runtime.KeepAlive(b)
	switch {
	case err != nil:
		return fmt.Errorf("%s: %w", f.Name(), err)
	case errno != 0:
		return errno
	default:
		return nil
	}
}
