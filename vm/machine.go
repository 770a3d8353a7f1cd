package vm

import (
	"context"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/semper-os/semper/fault"
)

// Firmware is what the machine starts with.
type Firmware uint8

// The firmwares. The zero value is UEFI.
const (
	UEFI Firmware = iota
	BIOS          // SeaBIOS, amd64 only
)

// The machine one gets by default.
const (
	DefaultMemoryMiB  = 1024
	DefaultCPUs       = 2 // with KVM
	DefaultDiskSerial = "semper-disk"

	// translatedCPUs is the default without KVM. QEMU's translator wakes a halted processor late when the host is busy; a guest with two of them then waits for
	// the other one at each change of its own code, and loading modules took minutes.
	translatedCPUs = 1
)

// Machine describes a virtual machine. Only Disk (or NBDSocket) has to be set.
type Machine struct {
	Arch string // Debian's name, "amd64" or "arm64"; empty: the host's

	Disk      string // a raw or qcow2 image, only read
	Overlay   string // qcow2 file that takes the guest's writes: made when missing, kept afterwards; empty: a temporary one
	DiskSize  int64  // bytes the guest sees, at least the image's own size; 0: the image's own size
	NBDSocket string // instead of Disk: the Unix socket of an NBD server with the export "disk", which takes reads and writes itself
	Durable   bool   // whether the guest's flushes reach the host's disk; without, the host may lose what it has not written yet when it crashes

	// WriteLog is a file, made anew, that takes every write and flush of the guest, and the data, in the format of dm-log-writes. The guest sees the same disk
	// as without; what it asks to be zeroed is written out.
	WriteLog string

	// DiskErrors are errors of the disk that the guest sees, each once.
	DiskErrors []DiskError

	DiskSerial string // up to 20 characters, /dev/disk/by-id/virtio-SERIAL in the guest; empty: DefaultDiskSerial

	Firmware     Firmware
	SecureBoot   bool   // UEFI with Secure Boot; needs VarsTemplate (or existing Vars) with the image's certificates enrolled
	Vars         string // qcow2 file with the firmware's variables: made when missing, kept afterwards; empty: a temporary one
	VarsTemplate string // what a new variable store starts as; empty: the firmware's own, which has no keys

	MemoryMiB int // 0: DefaultMemoryMiB
	CPUs      int // 0: DefaultCPUs with KVM, 1 without
	Accel     Accel
	CPU       string // QEMU's name of the processor's model without KVM; empty: the one that has all it can do

	Credentials  []Credential
	KernelArgs   string // added to the kernel's command line by the stub of a UKI, which listens to it unless Secure Boot is on
	ForwardPorts []int  // TCP ports of the guest that VM.Addr finds on the host's 127.0.0.1

	Console      io.Writer // what the guest prints on its serial port; nil: dropped
	ConsoleInput io.Reader // what is typed there; nil: nothing

	Snapshot string // start from this internal snapshot of Overlay and Vars, see VM.SaveSnapshot
}

// DiskError is an input/output error that the guest gets for the first request that touches a sector.
type DiskError struct {
	Write  bool // of a write, else of a read
	Sector int64
}

// ConsoleDevice returns the name of the serial port inside the guest, "ttyS0" on amd64.
func (m Machine) ConsoleDevice() (string, error) {
	a, err := archOf(m.Arch)
	if err != nil {
		return "", err
	}
	return a.console, nil
}

// check refuses what cannot work before anything is started.
func (m *Machine) check(a *arch) error {
	switch {
	case m.Disk == "" && m.NBDSocket == "":
		return fault.New(fault.Usage, "a virtual machine needs a disk")
	case m.NBDSocket != "" && (m.Disk != "" || m.Overlay != "" || m.DiskSize != 0):
		return fault.New(fault.Usage, "a disk behind an NBD server has no image, overlay or size of its own")
	case m.Snapshot != "" && (m.Overlay == "" || m.Firmware == UEFI && m.Vars == ""):
		return fault.New(fault.Usage, "starting from a snapshot needs the overlay and variables that hold it")
	case m.Firmware == BIOS && !a.bios:
		return fault.New(fault.Usage, "%s machines have no BIOS", a.name)
	case m.Firmware == BIOS && m.SecureBoot:
		return fault.New(fault.Usage, "Secure Boot is a feature of UEFI firmware, a BIOS has none")
	case len(m.DiskSerial) > 20:
		return fault.New(fault.Usage, "disk serial %q is longer than 20 characters", m.DiskSerial)
	case m.MemoryMiB < 0 || m.MemoryMiB > 0 && m.MemoryMiB < 128:
		return fault.New(fault.Usage, "memory of %d MiB: must be at least 128", m.MemoryMiB)
	case m.CPUs < 0 || m.CPUs > 64:
		return fault.New(fault.Usage, "%d processors: must be 1 to 64", m.CPUs)
	case m.SecureBoot && m.VarsTemplate == "" && (m.Vars == "" || !isFile(m.Vars)):
		return fault.New(fault.Usage, "Secure Boot needs a variable store in which the image's certificates are enrolled (virt-fw-vars of the "+
			"package python3-virt-firmware makes one); without it the firmware would start anything")
	case len(m.Credentials) > 0 && !a.smbios:
		return fault.New(fault.Usage, "%s machines take no credentials", a.name)
	case m.KernelArgs != "" && (m.Firmware == BIOS || m.SecureBoot):
		return fault.New(fault.Usage, "what is added to the kernel's command line reaches it by UEFI without Secure Boot only")
	case strings.ContainsFunc(m.KernelArgs, unicode.IsControl):
		return fault.New(fault.Usage, "kernel arguments %q: control characters cannot be passed", m.KernelArgs)
	}
	return nil
}

// setDefaults fills in the zero values that have one.
func (m *Machine) setDefaults() {
	if m.MemoryMiB == 0 {
		m.MemoryMiB = DefaultMemoryMiB
	}
	if m.DiskSerial == "" {
		m.DiskSerial = DefaultDiskSerial
	}
}

// files makes the overlay and the variable store in dir unless the caller named places for them.
func (m *Machine) files(ctx context.Context, a *arch, dir string) (code string, err error) {
	if m.NBDSocket == "" {
		if m.Overlay == "" {
			m.Overlay = filepath.Join(dir, "overlay.qcow2")
		}
		if isFile(m.Overlay) {
			err = checkOverlay(ctx, m.Disk, m.Overlay, m.DiskSize)
		} else {
			err = createOverlay(ctx, m.Disk, m.Overlay, m.DiskSize)
		}
		if err != nil {
			return "", err
		}
	}
	if m.Firmware == BIOS {
		return "", nil
	}
	fw, err := a.firmwareFiles(m.SecureBoot)
	if err != nil {
		return "", err
	}
	template := m.VarsTemplate
	if template == "" {
		template = fw.vars
	}
	if m.Vars == "" {
		m.Vars = filepath.Join(dir, "vars.qcow2")
	}
	if !isFile(m.Vars) {
		if err := createVars(ctx, template, m.Vars); err != nil {
			return "", fmt.Errorf("make the firmware's variable store: %w", err)
		}
	}
	return fw.code, nil
}

// args returns QEMU's command line. Drives are named "disk" and "vars", the monitor listens in dir, the serial port is stdin and stdout.
func (m *Machine) args(a *arch, accel Accel, code, dir string) ([]string, error) {
	args := accel.args(a, m.CPU)
	machine := a.machine
	cpus := m.CPUs
	switch {
	case cpus == 0 && accel == KVM:
		cpus = DefaultCPUs
	case cpus == 0:
		cpus = translatedCPUs
	}
	if m.SecureBoot && a.name == "amd64" {
		// The variable store may be written in system management mode only, else the guest's kernel could enrol keys.
		machine += ",smm=on"
		args = append(args, "-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1")
	}
	if m.Firmware == UEFI {
		machine += ",pflash0=code,pflash1=vars"
	}
	args = append(args,
		"-machine", machine, "-m", fmt.Sprint(m.MemoryMiB), "-smp", fmt.Sprint(cpus),
		"-nodefaults", "-no-user-config", "-display", "none",
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "socket,id=qmp,server=on,wait=off,path="+escape(monitorSocket(dir)), "-mon", "chardev=qmp,mode=control",
		"-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
	)
	if m.Firmware == UEFI {
		args = append(args,
			"-blockdev", "driver=raw,node-name=code,read-only=on,file.driver=file,file.filename="+escape(code),
			"-blockdev", "driver=qcow2,node-name=vars,file.driver=file,file.filename="+escape(m.Vars))
	}
	args = append(args, "-blockdev", m.blockdev())
	drive := "disk"
	if m.WriteLog != "" {
		drive = "guarded"
		args = append(args, m.logArgs()...)
	}
	if len(m.DiskErrors) > 0 {
		args = append(args, m.errorArgs(drive)...)
		drive = "failing"
	}
	args = append(args, "-device", "virtio-blk-pci,drive="+drive+",bootindex=1,serial="+escape(m.DiskSerial))
	network := "user,id=net"
	for _, port := range m.ForwardPorts {
		if port < 1 || port > 65535 {
			return nil, fault.New(fault.Usage, "port %d: must be 1 to 65535", port)
		}
		network += fmt.Sprintf(",hostfwd=tcp:127.0.0.1:0-:%d", port) // 0: QEMU takes a free port, see VM.forwards
	}
	args = append(args, "-netdev", network, "-device", "virtio-net-pci,netdev=net")
	smbios, err := smbiosArgs(m.Credentials)
	if err != nil {
		return nil, err
	}
	args = append(args, smbios...)
	if m.KernelArgs != "" {
		args = append(args, "-smbios", "type=11,value="+escape("io.systemd.stub.kernel-cmdline-extra="+m.KernelArgs))
	}
	if m.Snapshot != "" {
		// Paused, so that nothing runs before the snapshot is loaded. The memory is touched before: loading leaves pages that are zero to the kernel one by
		// one, which would keep it from using huge pages, and the translator runs at half the speed without them.
		args[slices.Index(args, "-machine")+1] += ",memory-backend=" + a.ram
		args = append(args, "-S", "-object", fmt.Sprintf("memory-backend-ram,id=%s,prealloc=on,size=%dM", a.ram, m.MemoryMiB))
	}
	return args, nil
}

func (m *Machine) blockdev() string {
	if m.NBDSocket != "" {
		return "driver=nbd,node-name=disk,server.type=unix,server.path=" + escape(m.NBDSocket) + ",export=disk"
	}
	flush := ""
	if !m.Durable {
		flush = ",cache.no-flush=on"
	}
	return "driver=qcow2,node-name=disk,discard=unmap" + flush + ",file.driver=file,file.filename=" + escape(m.Overlay)
}

// logArgs puts two drivers between the guest and its disk: one that logs, and in front of it one that refuses to write zeroes, since before QEMU 9.0 the log
// is garbled by them; QEMU then writes them like any other data. The log's count of entries is kept with every entry.
func (m *Machine) logArgs() []string {
	return []string{
		"-blockdev", "driver=blklogwrites,node-name=logged,discard=unmap,file=disk,log-super-update-interval=1,log.driver=file,log.cache.no-flush=on,log.filename=" + escape(m.WriteLog),
		"-blockdev", "driver=blkdebug,node-name=guarded,discard=unmap,image=logged,inject-error.0.event=none,inject-error.0.iotype=write-zeroes," +
			fmt.Sprintf("inject-error.0.errno=%d,inject-error.0.immediately=on", int(syscall.ENOTSUP)),
	}
}

// errorArgs puts a driver that fails in front of a disk.
func (m *Machine) errorArgs(disk string) []string {
	driver := "driver=blkdebug,node-name=failing,discard=unmap,image=" + disk
	for i, e := range m.DiskErrors {
		kind := "read"
		if e.Write {
			kind = "write"
		}
		driver += fmt.Sprintf(",inject-error.%[1]d.event=none,inject-error.%[1]d.iotype=%[2]s,inject-error.%[1]d.errno=%[3]d,inject-error.%[1]d.sector=%[4]d,inject-error.%[1]d.once=on",
			i, kind, int(syscall.EIO), e.Sector)
	}
	return []string{"-blockdev", driver}
}

// drives lists the nodes that an internal snapshot covers; the first one holds the memory.
func (m *Machine) drives() []string {
	if m.Firmware == BIOS {
		return []string{"disk"}
	}
	return []string{"disk", "vars"}
}

func monitorSocket(dir string) string { return filepath.Join(dir, "qmp") }

func commandLine(program string, args []string) string {
	quoted := make([]string, 0, len(args)+1)
	for _, a := range append([]string{program}, args...) {
		if strings.ContainsAny(a, " '\"$\\;&|<>()") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		quoted = append(quoted, a)
	}
	return strings.Join(quoted, " ")
}
