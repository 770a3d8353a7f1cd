package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/vm"
)

func newVMCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "vm",
		Short: "Boot a disk or release in a virtual machine",
		Args:  noArgs,
		RunE:  func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	c.AddCommand(newVMRunCommand())
	return c
}

// vmRunFlags are the flags of "semper vm run" as typed.
type vmRunFlags struct {
	bios, secureBoot bool
	server           string
	memory           int
	cpus             int
	sshKey           string
	credentials      []string
	diskSize         string
	persist          string
	kernelArgs       string
	uefiVars         string
	ports            []int
}

func newVMRunCommand() *cobra.Command {
	var f vmRunFlags
	c := &cobra.Command{
		Use:   "run DISK|RELEASE",
		Short: "Boot with the serial console on this terminal; " + vm.EscapeHelp,
		Long: "Boots a disk image or a release directory in QEMU, with KVM where it works. The image is never changed: what the guest writes goes to\n" +
			"a copy-on-write overlay, which is thrown away unless --persist names a file for it. The guest's console is this terminal.\n\n" +
			vm.EscapeHelp + ".",
		Args: exactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			m, notes, err := f.machine(args[0])
			if err != nil {
				return err
			}
			for _, n := range notes {
				fmt.Fprintln(c.ErrOrStderr(), n)
			}
			fmt.Fprintln(c.ErrOrStderr(), vm.EscapeHelp+".")
			return m.Interactive(c.Context(), os.Stdin, os.Stdout, func(v *vm.VM) {
				for _, port := range m.ForwardPorts {
					fmt.Fprintf(c.ErrOrStderr(), "The guest's port %d is %s.\n", port, v.Addr(port))
				}
			})
		},
	}
	flags := c.Flags()
	flags.BoolVar(&f.bios, "bios", false, "start with a BIOS (SeaBIOS) instead of UEFI")
	flags.BoolVar(&f.secureBoot, "secure-boot", false, "enforce Secure Boot; needs --uefi-vars with the image's certificates enrolled")
	flags.StringVar(&f.uefiVars, "uefi-vars", "", "variable store that the firmware starts with (raw or qcow2, copied)")
	flags.StringVar(&f.server, "server", "", "update server that the guest asks; a loopback address is rewritten to the host's as the guest sees it")
	flags.IntVar(&f.memory, "memory", vm.DefaultMemoryMiB, "memory in MiB")
	flags.IntVar(&f.cpus, "cpus", 0, "number of processors (default 2 with KVM, 1 without)")
	flags.StringVar(&f.sshKey, "ssh-key", "", "public key `FILE` that may log in as root; the guest's port 22 is then forwarded")
	flags.StringArrayVar(&f.credentials, "credential", nil, "systemd credential `NAME=VALUE` for the guest (may be given several times)")
	flags.StringVar(&f.kernelArgs, "kernel-args", "", "added to the kernel's command line, such as \"systemd.log_level=debug\" (UEFI without Secure Boot)")
	flags.IntSliceVar(&f.ports, "port", nil, "TCP port of the guest to forward to a free port of 127.0.0.1")
	flags.StringVar(&f.diskSize, "disk-size", "", "size of the guest's disk, such as 20G (default: the image's own)")
	flags.StringVar(&f.persist, "persist", "", "keep what the guest writes in this qcow2 `FILE`, and go on from there next time")
	return c
}

// machine turns the flags into a machine, and says what the person should know about it.
func (f vmRunFlags) machine(path string) (vm.Machine, []string, error) {
	var notes []string
	disk, err := vm.FindDisk(path)
	if err != nil {
		return vm.Machine{}, nil, err
	}
	m := vm.Machine{Disk: disk, SecureBoot: f.secureBoot, VarsTemplate: f.uefiVars, MemoryMiB: f.memory, CPUs: f.cpus, KernelArgs: f.kernelArgs, ForwardPorts: f.ports}
	if f.bios {
		m.Firmware = vm.BIOS
	}
	if f.persist != "" {
		m.Overlay, m.Durable = f.persist, true
		if m.Firmware == vm.UEFI {
			m.Vars = f.persist + ".vars"
		}
	}
	if f.diskSize != "" {
		if m.DiskSize, err = parseSize(f.diskSize); err != nil {
			return m, nil, fault.New(fault.Usage, "--disk-size: %w", err)
		}
	}
	for _, s := range f.credentials {
		c, err := vm.ParseCredential(s)
		if err != nil {
			return m, nil, err
		}
		m.Credentials = append(m.Credentials, c)
	}
	if f.server != "" {
		url, rewritten, err := vm.GuestURL(f.server)
		if err != nil {
			return m, nil, fmt.Errorf("--server: %w", err)
		}
		if rewritten {
			notes = append(notes, "The guest reaches "+f.server+" as "+url+".")
		}
		m.Credentials = append(m.Credentials, vm.Credential{Name: "semper.update.toml", Value: fmt.Appendf(nil, "server = %s\n", strconv.Quote(url))})
	}
	if f.sshKey != "" {
		key, err := os.ReadFile(f.sshKey)
		if err != nil {
			return m, nil, fault.New(fault.Input, "--ssh-key: %w", err)
		}
		if strings.Contains(string(key), "PRIVATE KEY") {
			return m, nil, fault.New(fault.Usage, "--ssh-key: %s is a private key; give the public one (%s.pub)", f.sshKey, f.sshKey)
		}
		m.Credentials = append(m.Credentials, vm.Credential{Name: "ssh.authorized_keys.root", Value: key})
		m.ForwardPorts = append(m.ForwardPorts, 22)
	}
	return m, notes, nil
}

// parseSize reads a number of bytes with an optional binary unit: 512M, 20G, 1T.
func parseSize(s string) (int64, error) {
	digits, shift := s, 0
	if s != "" {
		if i := strings.IndexByte("KMGT", s[len(s)-1]); i >= 0 {
			digits, shift = s[:len(s)-1], 10*(i+1)
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > (1<<62)>>shift {
		return 0, fmt.Errorf("%q is not a size such as 20G", s)
	}
	return n << shift, nil
}
