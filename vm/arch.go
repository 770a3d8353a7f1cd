package vm

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

// arch is all that differs between architectures: one row a machine type.
type arch struct {
	name       string // Debian's name
	goarch     string // runtime.GOARCH of a host that can run it with KVM
	program    string // the emulator
	programPkg string // the Debian package that brings it
	machine    string // -machine
	ram        string // the name of the machine type's memory, the same in all its snapshots
	console    string // the first serial port's name inside the guest
	smbios     bool   // whether the machine hands SMBIOS tables to the guest
	// Firmware code and the empty variable store that belongs to it, in the order tried: Debian 13 and 12.
	uefi    []firmware
	uefiPkg string
	secure  []firmware // code that keeps the variable store from the operating system's hands; nil where there is none
	bios    bool       // whether QEMU's built-in SeaBIOS can boot it
	kvmROM  []byte     // 64 KiB program that proves KVM works, nil: only that QEMU starts is checked
}

type firmware struct{ code, vars string }

var arches = []arch{
	{
		name: "amd64", goarch: "amd64", program: "qemu-system-x86_64", programPkg: "qemu-system-x86",
		machine: "q35,sata=off,smbus=off", ram: "pc.ram", console: "ttyS0", smbios: true,
		uefi:    []firmware{{"/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"}},
		uefiPkg: "ovmf",
		secure:  []firmware{{"/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"}},
		bios:    true,
		kvmROM:  kvmProbeAMD64(),
	},
	{
		name: "arm64", goarch: "arm64", program: "qemu-system-aarch64", programPkg: "qemu-system-arm",
		machine: "virt", ram: "mach-virt.ram", console: "ttyAMA0", smbios: true,
		uefi:    []firmware{{"/usr/share/AAVMF/AAVMF_CODE.no-secboot.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"}, {"/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"}},
		uefiPkg: "qemu-efi-aarch64",
	},
}

// archOf returns the row called name; an empty name is the host's own architecture, or amd64 where the host's is not in the table.
func archOf(name string) (*arch, error) {
	if name == "" {
		for i := range arches {
			if arches[i].goarch == runtime.GOARCH {
				return &arches[i], nil
			}
		}
		name = "amd64"
	}
	known := make([]string, len(arches))
	for i := range arches {
		if arches[i].name == name {
			return &arches[i], nil
		}
		known[i] = arches[i].name
	}
	return nil, fault.New(fault.Usage, "no virtual machine of architecture %q (there are: %s)", name, strings.Join(known, ", "))
}

// emulator returns the path of the architecture's QEMU.
func (a *arch) emulator() (string, error) {
	return hostProgram(a.program, a.programPkg)
}

// firmwareFiles returns the UEFI code and the template of its variable store.
func (a *arch) firmwareFiles(secureBoot bool) (firmware, error) {
	list := a.uefi
	if secureBoot {
		list = a.secure
	}
	if len(list) == 0 {
		return firmware{}, fault.New(fault.Usage, "no Secure Boot firmware is known for %s", a.name)
	}
	if i := slices.IndexFunc(list, func(f firmware) bool { return isFile(f.code) && isFile(f.vars) }); i >= 0 {
		return list[i], nil
	}
	return firmware{}, fault.New(fault.Input, "the UEFI firmware %s is missing: install the package %s", list[0].code, a.uefiPkg)
}

func hostProgram(name, pkg string) (string, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return "", fault.New(fault.Input, "the host program %s is missing: install the package %s", name, pkg)
	}
	return path, nil
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}
