package initrd

import "github.com/semper-os/semper/initramfs"

// driver is a module that the initramfs must hold, with all that it needs.
type driver struct {
	name string
	arch string // Debian architecture, empty for all
	why  string
}

// first are modules that must be tried before another one that does not say so itself.
var first = map[string][]string{
	// dm-verity takes the best SHA-256 that is there when the device is made, and keeps it.
	"dm_verity": {"sha256_ssse3"},
}

// drivers is the one table of what can be a system's disk. Everything else is loaded out of the root, where all modules are.
var drivers = []driver{
	{"virtio_blk", "", "QEMU/KVM, most clouds: virtio disks"},
	{"virtio_scsi", "", "QEMU/KVM, Google, OpenStack, DigitalOcean: virtio SCSI controllers"},
	{"virtio_mmio", "", "microVMs without PCI (the PCI transport is built in)"},
	{"nvme", "", "AWS Nitro, Azure from v6 on, bare metal: NVMe"},
	{"vmd", "amd64", "bare metal: NVMe behind Intel's volume management device"},
	{"ahci", "", "bare metal, QEMU q35, VirtualBox: SATA"},
	{"ata_piix", "amd64", "QEMU i440fx, VMware, Hyper-V generation 1: IDE"},
	{"ata_generic", "amd64", "other IDE controllers"},
	{"sd_mod", "", "disks of every SCSI, SATA and USB controller"},
	{"usb_storage", "", "bare metal: USB sticks"},
	{"uas", "", "bare metal: USB disks that speak SCSI"},
	{"xhci_pci", "", "USB 3 controllers"},
	{"ehci_pci", "", "USB 2 controllers"},
	{"ohci_pci", "", "USB 1 controllers"},
	{"uhci_hcd", "amd64", "USB 1 controllers of Intel and VIA, QEMU i440fx"},
	{"xen_blkfront", "", "Xen, older AWS instances: paravirtual disks"},
	{"hv_vmbus", "", "Hyper-V and Azure: the bus"},
	{"hv_storvsc", "", "Hyper-V and Azure: disks"},
	{"pci_hyperv", "", "Azure: NVMe passed through"},
	{"vmw_pvscsi", "amd64", "VMware: paravirtual SCSI"},
	{"mptspi", "amd64", "VMware, VirtualBox: LSI Logic parallel SCSI"},
	{"mptsas", "amd64", "VMware, VirtualBox: LSI Logic SAS"},
	{"megaraid_sas", "", "bare metal: Broadcom MegaRAID, Dell PERC"},
	{"mpt3sas", "", "bare metal: Broadcom SAS-2 and SAS-3 host adapters"},
	{"mpi3mr", "", "bare metal: Broadcom SAS-4, newer Dell PERC"},
	{"hpsa", "", "bare metal: HPE Smart Array"},
	{"smartpqi", "", "bare metal: HPE and Microchip Smart controllers"},
	{"aacraid", "", "bare metal: Adaptec"},
	{"mmc_block", "", "small machines: eMMC and SD cards"},
	{"sdhci_pci", "", "small machines: SD host controllers on PCI"},
	{"sdhci_acpi", "", "small machines: SD host controllers in ACPI"},
	{"crc32c_generic", "", "checksum that erofs and ext4 ask the kernel's crypto for"},
	{"crc32c_intel", "amd64", "the same, by the processor's own instruction"},
	{"sha256_ssse3", "amd64", "SHA-256 of dm-verity, by the processor's vector or SHA instructions"},
}

// wanted lists the names for an architecture: the table and what semper-init asks for by name.
func wanted(arch string) []string {
	var names []string
	for _, d := range drivers {
		if d.arch == "" || d.arch == arch {
			names = append(names, d.name)
		}
	}
	names = append(names, initramfs.RootModules...)
	return append(names, initramfs.StateModules...)
}
