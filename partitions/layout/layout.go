// Package layout knows Semper's disk: partition order, types, labels, slots.
package layout

import (
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
)

var errNotBuilt = fault.New(fault.Internal, "layout: not built")

// Labels of partitions.
const (
	LabelBIOS       = "bios"
	LabelESP        = "esp"
	LabelEmpty      = "_empty"
	LabelVar        = "var"
	LabelVarPartial = "PRT#var"
)

// Part is one partition of a plan.
type Part struct {
	Number     int
	Label      string // "bios", "esp", "root-a", "verity-a", "verity-sig-a", "root-b", … (names within the plan, not GPT labels)
	Type       gpt.GUID
	First      uint64 // sector
	Last       uint64 // sector, inclusive
	Attributes uint64
}

// Offset and Size are in bytes.
func (p Part) Offset() int64 { return int64(p.First) * gpt.SectorSize }

// Size returns the length in bytes.
func (p Part) Size() int64 { return int64(p.Last-p.First+1) * gpt.SectorSize }

// Plan is the layout of a released disk.
type Plan struct {
	Arch     string
	Parts    []Part
	DiskSize int64 // bytes
}

// NewPlan lays out a disk.
func NewPlan(slotSize, espSize int64, arch string) (Plan, error) { return Plan{}, errNotBuilt }

// Part returns the partition with a plan label.
func (p Plan) Part(label string) Part { return Part{} }

// NewTable returns the table of a released disk: slot A filled, slot B empty. guid gives the identifiers of "disk", "bios", "esp".
func NewTable(p Plan, version string, rootHash [32]byte, guid func(label string) [16]byte) (*gpt.Table, error) {
	return nil, errNotBuilt
}

// PartUUIDs returns the PARTUUIDs of root and verity.
func PartUUIDs(rootHash [32]byte) (root, verity gpt.GUID) { return gpt.GUID{}, gpt.GUID{} }

// SigUUID returns the PARTUUID of the signature partition.
func SigUUID(rootHash [32]byte) gpt.GUID { return gpt.GUID{} }

// CheckVersion reports why a version cannot name a slot and a boot entry.
func CheckVersion(version string) error { return errNotBuilt }

// Name of a slot: "A" or "B".
type Name string

// The slots.
const (
	A Name = "A"
	B Name = "B"
)

// State of a slot.
type State uint8

// States.
const (
	Empty State = iota
	Writing
	Complete
)

// Slot is three partitions.
type Slot struct {
	Name     Name
	State    State
	Version  string   // of Writing and Complete
	RootHash [32]byte // of Complete
	Root     int      // partition numbers
	Verity   int
	Sig      int
}

// Slots finds A and B.
func Slots(t *gpt.Table) ([2]Slot, error) { return [2]Slot{}, errNotBuilt }

// Running returns the slot with the running root hash.
func Running(t *gpt.Table, running [32]byte) (Slot, error) { return Slot{}, errNotBuilt }

// Idle returns the other slot.
func Idle(t *gpt.Table, running [32]byte) (Slot, error) { return Slot{}, errNotBuilt }

// FindByRootHash finds a slot by the PARTUUIDs.
func FindByRootHash(t *gpt.Table, rootHash [32]byte) (Slot, error) { return Slot{}, errNotBuilt }

// MarkWriting labels a slot PRT#semper_VERSION and takes away its PARTUUIDs.
func MarkWriting(t *gpt.Table, slot Name, running [32]byte, version string) error { return errNotBuilt }

// MarkComplete labels a slot semper_VERSION and gives it the PARTUUIDs.
func MarkComplete(t *gpt.Table, slot Name, running [32]byte, version string, rootHash [32]byte) error {
	return errNotBuilt
}

// MarkEmpty labels a slot _empty.
func MarkEmpty(t *gpt.Table, slot Name, running [32]byte) error { return errNotBuilt }

// Var finds /var's partition: its number (0: none), and whether its file system exists.
func Var(t *gpt.Table) (number int, ready bool, err error) { return 0, false, errNotBuilt }

// AddVar adds PRT#var up to the end of a disk of diskSize bytes.
func AddVar(t *gpt.Table, guid gpt.GUID, diskSize int64) (number int, err error) { return 0, errNotBuilt }

// VarReady renames PRT#var to var.
func VarReady(t *gpt.Table) error { return errNotBuilt }

// GrowVar grows var to the end of a disk of diskSize bytes.
func GrowVar(t *gpt.Table, diskSize int64) (grown bool, err error) { return false, errNotBuilt }
