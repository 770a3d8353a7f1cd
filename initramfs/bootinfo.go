package initramfs

import (
	"bytes"
	"encoding/json"
	"io"
	"os"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/verity"
)

// BootPath is where Boot is written, for the update agent and for people.
const BootPath = "/run/semper/boot.json"

const (
	bootSchema = 1
	maxBoot    = 64 << 10
)

// Boot says from where this system was started.
//
//	{
//	  "schema": 1,
//	  "disk": "/dev/vda",
//	  "partitions": {
//	    "esp": "/dev/vda2", "var": "/dev/vda9",
//	    "root": "/dev/vda3", "verity": "/dev/vda4", "verity_sig": "/dev/vda5",
//	    "other_root": "/dev/vda6", "other_verity": "/dev/vda7", "other_verity_sig": "/dev/vda8"
//	  },
//	  "slot": "a",
//	  "version": "1.0.0",
//	  "root_hash": "4f…",
//	  "var_created": false,
//	  "timings_ms": {"kernel": 2310, "disk": 310, "root": 620, "var": 1100, "total": 1150},
//	  "soft_reboot": {"count": 1, "kernel_version": "1.0.0", "kernel_slot": "a"}
//	}
//
// A soft-reboot writes it anew for the root that it leads to; the timings stay those of the boot.
//
// Fields may be added; a field that is there keeps its meaning as long as the schema is 1.
type Boot struct {
	Schema     int        `json:"schema"`
	Disk       string     `json:"disk"`
	OtherDisks []string   `json:"other_disks,omitempty"` // disks that carry the same partitions and were not chosen
	Partitions Partitions `json:"partitions"`
	Slot       string     `json:"slot"`      // "a" or "b"
	Version    string     `json:"version"`   // from the slot's label
	RootHash   string     `json:"root_hash"` // 64 lower-case hexadecimal digits
	VarCreated bool       `json:"var_created"`
	Timings    Timings    `json:"timings_ms"`
	Soft       *Soft      `json:"soft_reboot,omitempty"` // nil: none since the machine booted
}

// Soft says that this system was started by a soft-reboot: its kernel, semper-init and command line are those of the version that the machine booted.
type Soft struct {
	Count         int    `json:"count"` // soft-reboots since the boot
	KernelVersion string `json:"kernel_version"`
	KernelSlot    string `json:"kernel_slot"` // "a" or "b"
}

// Partitions are device nodes. The other slot's are empty if the disk has no whole other slot, and ESP if it has no EFI system partition.
type Partitions struct {
	ESP            string `json:"esp,omitempty"`
	Root           string `json:"root"`
	Verity         string `json:"verity"`
	VeritySig      string `json:"verity_sig"`
	OtherRoot      string `json:"other_root,omitempty"`
	OtherVerity    string `json:"other_verity,omitempty"`
	OtherVeritySig string `json:"other_verity_sig,omitempty"`
	Var            string `json:"var"`
}

// Timings are milliseconds. Kernel counts from the kernel's start to semper-init's first line, the others from that line to the end of the step.
type Timings struct {
	Kernel int64 `json:"kernel"`
	Disk   int64 `json:"disk"`  // the disk was found
	Root   int64 `json:"root"`  // the verified root was mounted
	Var    int64 `json:"var"`   // /var and /etc were mounted
	Total  int64 `json:"total"` // just before the root was switched
}

// LayoutSlot returns the slot's name as package layout has it.
func (b Boot) LayoutSlot() layout.Name {
	if b.Slot == slotName(layout.B) {
		return layout.B
	}
	return layout.A
}

func slotName(n layout.Name) string {
	if n == layout.B {
		return "b"
	}
	return "a"
}

// Bytes returns the file's bytes.
func (b Boot) Bytes() ([]byte, error) {
	b.Schema = bootSchema
	if err := b.check(); err != nil {
		return nil, err
	}
	out, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, fault.New(fault.Internal, "boot.json: %w", err)
	}
	return append(out, '\n'), nil
}

// ParseBoot reads the file's bytes.
func ParseBoot(data []byte) (Boot, error) {
	if len(data) > maxBoot {
		return Boot{}, fault.New(fault.Input, "boot.json: more than %d bytes", maxBoot)
	}
	var b Boot
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&b); err != nil {
		return Boot{}, fault.New(fault.Input, "boot.json: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Boot{}, fault.New(fault.Input, "boot.json: something follows the object")
	}
	return b, b.check()
}

// ReadBoot reads the file at path, usually BootPath.
func ReadBoot(path string) (Boot, error) {
	f, err := os.Open(path)
	if err != nil {
		return Boot{}, fault.New(fault.IO, "how this system was started: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxBoot+1))
	if err != nil {
		return Boot{}, fault.New(fault.IO, "%s: %w", path, err)
	}
	b, err := ParseBoot(data)
	if err != nil {
		return Boot{}, fault.New(fault.Input, "%s: %w", path, err)
	}
	return b, nil
}

func (b Boot) check() error {
	p := b.Partitions
	if b.Schema != bootSchema {
		return fault.New(fault.Input, "boot.json: schema %d, want %d", b.Schema, bootSchema)
	}
	if b.Slot != "a" && b.Slot != "b" {
		return fault.New(fault.Input, "boot.json: slot %q", b.Slot)
	}
	if h, err := verity.ParseRootHash(b.RootHash); err != nil || h.String() != b.RootHash {
		return fault.New(fault.Input, "boot.json: root hash %q", b.RootHash)
	}
	if b.Soft != nil && (b.Soft.Count < 1 || b.Soft.KernelVersion == "" || b.Soft.KernelSlot != "a" && b.Soft.KernelSlot != "b") {
		return fault.New(fault.Input, "boot.json: soft-reboot %+v", *b.Soft)
	}
	if b.Disk == "" || p.Root == "" || p.Verity == "" || p.VeritySig == "" || p.Var == "" {
		return fault.New(fault.Input, "boot.json: a device is missing")
	}
	return nil
}
