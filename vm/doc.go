// Package vm boots a disk image in QEMU the way a machine would boot it: real firmware, a disk behind it, a serial console, a network.
//
//	        Machine ──Start──▶ VM ──▶ qemu-system-…  (its own process group, dies with us)
//	                                    │ ttyS0  ── Machine.Console / ConsoleInput
//	                                    │ QMP    ── VM.Monitor (a Unix socket in the VM's folder)
//	                                    │ 10.0.2.15:22 ◀── VM.Addr(22) on 127.0.0.1
//	disk (never written) ◀── overlay.qcow2   vars.qcow2 ── firmware's variables
//
// The disk given is only read. Everything the guest writes goes to a qcow2 overlay that is thrown away with the VM unless Machine.Overlay
// names a place for it. The firmware's variable store is a qcow2 file of its own, because an internal snapshot (VM.SaveSnapshot) needs every
// writable drive to be able to hold one.
//
// Inside the guest 10.0.2.2 is the host, whose 127.0.0.1 answers there; GuestURL rewrites an address accordingly.
//
// Credentials travel as SMBIOS type 11 strings (systemd's "io.systemd.credential:NAME=VALUE"), so nothing in the image needs to know of QEMU.
//
// Limits: one disk, one network card with IPv4 NAT, no graphics. KVM is used when a probe shows that it runs a guest (see ProbeKVM), otherwise
// QEMU's own translator, which is some ten times slower. Secure Boot needs a variable store with the image's certificates enrolled in it,
// which this package cannot make.
package vm
