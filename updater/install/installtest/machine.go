package installtest

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/rootsig"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/powercut"
	"github.com/semper-os/semper/updater/wire"
)

// Start is the machines' time when they are made.
var Start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// Machine is a computer in memory: a disk with two slots, an ESP's /EFI/Linux, and /var/lib/semper/install.
type Machine struct {
	World *powercut.World
	Disk  *powercut.Disk
	ESP   *powercut.Folder
	State *powercut.Folder
	Keys  Keys
	Now   time.Time

	Running payload.Image // what was booted last
	Hash    [32]byte
	boots   int

	Reboots int // how often the installer asked for one
	// Next is where the soft-reboot leads that the installer asked for last.
	Next [32]byte
	Soft *wire.Soft // since the last Boot
	// Tune, if not nil, changes the options of every Core.
	Tune func(*install.Options)
}

const mib = 1 << 20

// NewMachine installs a release in slot A, blessed, and boots it.
func NewMachine(t testing.TB, k Keys, r Release) *Machine {
	t.Helper()
	w := powercut.NewWorld()
	plan, err := layout.NewPlan(2*mib, mib, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	m := &Machine{World: w, Disk: w.NewDisk(plan.DiskSize), ESP: w.NewFolder(4 * mib), State: w.NewFolder(8 * mib), Keys: k, Now: Start}
	Place(t, m.Disk, plan, r)
	m.ESP.Put("semper_"+r.Version+".efi", r.UKI)
	m.ESP.Put("windows.efi", []byte("somebody else's"))
	m.Boot(t)
	return m
}

// Place makes a disk of a plan with a release in slot A.
func Place(t testing.TB, d install.Disk, plan layout.Plan, r Release) {
	t.Helper()
	table, err := layout.NewTable(plan, r.Version, r.RootHash, func(label string) [16]byte {
		return [16]byte{0: 1, 15: byte(len(label))}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := table.Write(d); err != nil {
		t.Fatal(err)
	}
	for label, data := range map[string][]byte{"root-a": r.Root, "verity-a": r.Verity, "verity-sig-a": r.Sig} {
		if _, err := d.WriteAt(data, plan.Part(label).Offset()); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Sync(); err != nil {
		t.Fatal(err)
	}
}

// Clone copies the machine, as it is while nothing is under way.
func (m *Machine) Clone() *Machine {
	c := *m
	w, disks, folders := m.World.Clone()
	c.World, c.Disk, c.ESP, c.State = w, disks[0], folders[0], folders[1]
	return &c
}

// Core is semper-installd, freshly started.
func (m *Machine) Core() *install.Core {
	o := install.Options{
		Machine: install.Machine{RootHash: m.Hash, Image: m.Running, BootID: m.BootID(), Soft: m.Soft},
		Storage: func() (install.Storage, error) {
			return install.Storage{Disk: m.Disk, ESP: m.ESP, State: m.State}, nil
		},
		Trust: func() (install.Trust, error) {
			return install.Trust{Payload: m.Keys.Trust(), Verity: []*x509.Certificate{m.Keys.VerityCert}}, nil
		},
		Reboot:     func() error { m.Reboots++; return nil },
		SoftReboot: func(rootHash [32]byte) error { m.Next = rootHash; return nil },
		Now:        func() time.Time { return m.Now },
		Log:        slog.New(slog.DiscardHandler),
	}
	if m.Tune != nil {
		m.Tune(&o)
	}
	return install.New(o)
}

// BootID differs from boot to boot.
func (m *Machine) BootID() string { return fmt.Sprintf("boot-%d", m.boots) }

// Booted is a finding of Boot.
type Booted struct {
	Version string
	Slot    layout.Name
	Entry   string // the name of its entry after the boot loader counted
}

// Boot does what the boot loader and the initramfs do: choose an entry, count, find the slot by the root hash of the UKI's command line, verify all of it
// and its signature. It fails the test if what the boot loader chooses does not verify, or if any entry that could still be chosen does not.
func (m *Machine) Boot(t testing.TB) Booted {
	t.Helper()
	files := m.ESP.Files()
	var list []bootentry.Entry
	for name := range files {
		if e, err := bootentry.Parse(name); err == nil && strings.HasPrefix(name, "semper_") {
			list = append(list, e)
		}
	}
	bootentry.Sort(list)
	if len(list) == 0 {
		t.Fatal("boot: no entry on the ESP")
	}
	for _, e := range list {
		if !e.Counting || e.Left > 0 {
			if _, _, err := m.verify(files[e.File]); err != nil {
				t.Fatalf("boot: entry %s can be chosen, but %v (entries %v)", e.File, err, names(list))
			}
		}
	}
	for i, e := range list {
		for _, other := range list[:i] {
			if e.Stem == other.Stem {
				t.Fatalf("boot: %s and %s are the same version twice", e.File, other.File)
			}
		}
	}
	e := list[0]
	slot, hash, err := m.verify(files[e.File])
	if err != nil {
		t.Fatalf("boot: %s: %v", e.File, err)
	}
	epoch, err := epochOf(files[e.File])
	if err != nil {
		t.Fatalf("boot: %s: %v", e.File, err)
	}
	if e.Counting && e.Left > 0 {
		old := e.File
		e.Left, e.Done = e.Left-1, e.Done+1
		if err := m.ESP.Rename(old, e.Name()); err != nil {
			t.Fatal(err)
		}
		if err := m.ESP.Sync(); err != nil {
			t.Fatal(err)
		}
	}
	m.boots++
	m.Hash, m.Soft, m.Next = hash, nil, [32]byte{}
	m.Running = payload.Image{ID: "semper", Version: slot.Version, Architecture: "amd64", Epoch: epoch}
	return Booted{Version: slot.Version, Slot: slot.Name, Entry: e.Name()}
}

// SoftReboot does what semper-next-root does, and systemd after it: the boot loader does not hear of it. Booted.Entry is the running root's.
func (m *Machine) SoftReboot(t testing.TB) Booted {
	t.Helper()
	name, kernel, err := m.entryOf(m.Next)
	if err != nil {
		t.Fatalf("soft-reboot: %v", err)
	}
	slot, hash, err := m.verify(kernel)
	if err != nil {
		t.Fatalf("soft-reboot: %s: %v", name, err)
	}
	epoch, err := epochOf(kernel)
	if err != nil {
		t.Fatalf("soft-reboot: %s: %v", name, err)
	}
	soft := wire.Soft{Version: m.Running.Version, Slot: "A"}
	if slot.Name == layout.A {
		soft.Slot = "B"
	}
	if m.Soft != nil {
		soft = *m.Soft
	}
	soft.Count++
	m.Hash, m.Soft, m.Next = hash, &soft, [32]byte{}
	m.Running = payload.Image{ID: "semper", Version: slot.Version, Architecture: "amd64", Epoch: epoch}
	return Booted{Version: slot.Version, Slot: slot.Name, Entry: name}
}

func rootHashOf(kernel []byte) (hash [32]byte, err error) {
	f, err := uki.Open(strings.NewReader(string(kernel)), int64(len(kernel)))
	if err != nil {
		return hash, err
	}
	return f.RootHash()
}

// epochOf reads what the running system would read of itself.
func epochOf(kernel []byte) (uint64, error) {
	f, err := uki.Open(strings.NewReader(string(kernel)), int64(len(kernel)))
	if err != nil {
		return 0, err
	}
	release, err := f.OSRelease()
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(release["SEMPER_EPOCH"], 10, 64)
}

func names(list []bootentry.Entry) []string {
	var out []string
	for _, e := range list {
		out = append(out, e.File)
	}
	return out
}

// verify checks the slot that a UKI starts.
func (m *Machine) verify(kernel []byte) (slot layout.Slot, hash [32]byte, err error) {
	f, err := uki.Open(strings.NewReader(string(kernel)), int64(len(kernel)))
	if err != nil {
		return slot, hash, err
	}
	if hash, err = f.RootHash(); err != nil {
		return slot, hash, err
	}
	table, _, err := gpt.Read(m.Disk, m.Disk.Size())
	if err != nil {
		return slot, hash, err
	}
	if slot, err = layout.FindByRootHash(table, hash); err != nil {
		return slot, hash, err
	}
	if slot.State != layout.Complete {
		return slot, hash, fmt.Errorf("slot %s is %s", slot.Name, slot.State)
	}
	root, tree, sig := section(m.Disk, table, slot.Root), section(m.Disk, table, slot.Verity), section(m.Disk, table, slot.Sig)
	head := make([]byte, 512)
	if _, err := tree.ReadAt(head, 0); err != nil {
		return slot, hash, err
	}
	blocks := int64(0)
	for i := range 8 {
		blocks |= int64(head[72+i]) << (8 * i)
	}
	if blocks <= 0 || blocks*verity.BlockSize > root.Size() {
		return slot, hash, fmt.Errorf("slot %s: the superblock says %d blocks", slot.Name, blocks)
	}
	if _, err := verity.VerifyAll(root, blocks*verity.BlockSize, tree, tree.Size(), hash); err != nil {
		return slot, hash, fmt.Errorf("slot %s: %w", slot.Name, err)
	}
	data := make([]byte, rootsig.MaxSize)
	if _, err := sig.ReadAt(data, 0); err != nil {
		return slot, hash, err
	}
	if _, err := rootsig.Verify(data, hash, []*x509.Certificate{m.Keys.VerityCert}); err != nil {
		return slot, hash, fmt.Errorf("slot %s: %w", slot.Name, err)
	}
	return slot, hash, nil
}

func section(d *powercut.Disk, t *gpt.Table, number int) *io.SectionReader {
	p := t.Partitions[number-1]
	return io.NewSectionReader(d, p.Offset(), p.Size())
}

// Protected is everything that an update must not change: the running slot's bytes and table entries, what lies between partitions, the files of others
// and the running UKI, by name.
func (m *Machine) Protected(t testing.TB) map[string]string {
	t.Helper()
	table, _, err := gpt.Read(m.Disk, m.Disk.Size())
	if err != nil {
		t.Fatal(err)
	}
	slot, err := layout.Running(table, m.Hash)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for i, p := range table.Partitions {
		number := i + 1
		ours := number == slot.Root || number == slot.Verity || number == slot.Sig
		if !p.Used() || !ours && number > 2 {
			continue
		}
		data := make([]byte, p.Size())
		if _, err := m.Disk.ReadAt(data, p.Offset()); err != nil {
			t.Fatal(err)
		}
		out[fmt.Sprintf("partition %d", number)] = fmt.Sprintf("%+v %s", p, sum(data))
	}
	for name, data := range m.ESP.Files() {
		if f, err := uki.Open(strings.NewReader(string(data)), int64(len(data))); err == nil {
			if hash, err := f.RootHash(); err != nil || hash != m.Hash {
				continue
			}
			// The boot loader and blessing change the counter, never the content.
			e, err := bootentry.Parse(name)
			if err != nil {
				t.Fatal(err)
			}
			name = e.Stem
		}
		if name != "semper-update.part" {
			out["ESP "+name] = sum(data)
		}
	}
	return out
}

func sum(b []byte) string {
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:])
}

// Entries lists the product's files on the ESP, sorted.
func (m *Machine) Entries() []string {
	var out []string
	for name := range m.ESP.Files() {
		if strings.HasPrefix(name, "semper") {
			out = append(out, name)
		}
	}
	slices.Sort(out)
	return out
}
