package gpt

// Partition types that are the same on every architecture (UEFI specification; UAPI Discoverable Partitions Specification).
var (
	TypeBIOSBoot = mustGUID("21686148-6449-6e6f-744e-656564454649")
	TypeESP      = mustGUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")
	TypeXBOOTLDR = mustGUID("bc13c2ff-59e6-4262-a352-b275fd6f7172")
	TypeVar      = mustGUID("4d21b016-b534-45c2-a9fb-5c16e091fd2d")
	TypeLinux    = mustGUID("0fc63daf-8483-4772-8e79-3d69d8477de4")
)

// Attribute bits (UAPI Discoverable Partitions Specification).
const (
	AttrGrowFS   uint64 = 1 << 59 // the file system may be grown to the partition's size
	AttrReadOnly uint64 = 1 << 60
	AttrNoAuto   uint64 = 1 << 63 // systemd's generators leave it alone
)

// ArchTypes are the partition types that depend on the architecture.
type ArchTypes struct {
	Arch          string // as Debian and Go call it
	Root          GUID
	RootVerity    GUID
	RootVeritySig GUID
}

// Archs is the table of architectures; a new one is a row.
var Archs = []ArchTypes{
	{
		Arch:          "amd64",
		Root:          mustGUID("4f68bce3-e8cd-4db1-96e7-fbcaf984b709"),
		RootVerity:    mustGUID("2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"),
		RootVeritySig: mustGUID("41092b05-9fc8-4523-994f-2def0408b176"),
	},
	{
		Arch:          "arm64",
		Root:          mustGUID("b921b045-1df0-41c3-af44-4c6f280d3fae"),
		RootVerity:    mustGUID("df3300ce-d69f-4c92-978c-9bfb0f38d820"),
		RootVeritySig: mustGUID("6db69de6-29f4-4758-a7a5-962190f00ce3"),
	},
}

// TypesOf returns the row of an architecture.
func TypesOf(arch string) (ArchTypes, bool) {
	for _, a := range Archs {
		if a.Arch == arch {
			return a, true
		}
	}
	return ArchTypes{}, false
}
