// Package arch is the one table of what differs between processor architectures. A new architecture is a new row, not a new branch somewhere.
package arch

import (
	"slices"
	"strings"

	"github.com/semper-os/semper/fault"
)

// Arch is one row: the names that Debian, Go, UEFI, Omaha and QEMU each have for the same processor.
type Arch struct {
	Debian    string // dpkg's name, for instance "amd64"
	Go        string // GOARCH
	DPS       string // the row of the Discoverable Partitions Specification's type table: "x86-64"
	Board     string // the board that machines name in Omaha requests
	Triplet   string // the multiarch folder below /usr/lib
	Loader    string // the dynamic loader, below the root: "usr/lib64/ld-linux-x86-64.so.2"
	Kernel    string // Debian's meta package for the generic kernel
	PEMachine uint16 // the machine field of a PE file
	EFIBoot   string // the name that UEFI firmware looks for in /EFI/BOOT
	SDBoot    string // systemd-boot, below usr/lib/systemd/boot/efi and on the ESP below /EFI/systemd
	Stub      string // systemd-stub, below usr/lib/systemd/boot/efi
	QEMU      string // the system emulator
}

var table = []Arch{
	{
		Debian: "amd64", Go: "amd64", DPS: "x86-64", Board: "amd64-usr",
		Triplet: "x86_64-linux-gnu", Loader: "usr/lib64/ld-linux-x86-64.so.2",
		Kernel: "linux-image-amd64", PEMachine: 0x8664,
		EFIBoot: "BOOTX64.EFI", SDBoot: "systemd-bootx64.efi", Stub: "linuxx64.efi.stub",
		QEMU: "qemu-system-x86_64",
	},
}

// Lookup returns the row of a Debian architecture name. An unknown one is an error of kind Input that lists those that are known.
func Lookup(debian string) (Arch, error) {
	if i := slices.IndexFunc(table, func(a Arch) bool { return a.Debian == debian }); i >= 0 {
		return table[i], nil
	}
	return Arch{}, fault.New(fault.Input, "architecture %q is not supported (known: %s)", debian, strings.Join(Names(), ", "))
}

// Names lists the Debian names of all rows.
func Names() []string {
	names := make([]string, len(table))
	for i, a := range table {
		names[i] = a.Debian
	}
	return names
}
