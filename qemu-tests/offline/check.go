// Package offline judges a disk that nobody runs, as what a power cut left behind: would the machine start, and what?
//
//	partition table ─▶ ESP (FAT32) ─▶ the entry that systemd-boot 257 chooses ─▶ its UKI is whole ─▶ roothash= ─▶ the slot's data and hash tree match
//
// It shares no code with what writes disks: tables, FAT, PE, boot entries and dm-verity are read by readers of its own, after the formats' specifications and
// systemd's source. A test sees to that.
//
// What is a finding (an error), and what is noted only:
//
//	partition table   no copy is whole                                 one copy is not whole, or older
//	ESP               boot sector, a folder or the boot loader is      copies of the allocation table differ, dirty flag, lost clusters,
//	                  damaged; clusters of the loader, of a folder     names that share one chain (a rename that was cut: "double"),
//	                  or of the chosen entry belong to something else  files that the boot loader passes over
//	entries           none that can be tried; the chosen one or the    others
//	                  one behind it is not whole or its slot does not
//	                  verify
//
// A Disk that knows which of its ranges changed (writelog.State does) is checked in little more than the time of the change: what was read before is
// remembered by the ranges' fingerprints.
//
// Limits: amd64, sectors of 512 bytes; variables of the firmware (LoaderEntryOneShot and the like) are not on the disk; no entries of type 1; the signatures of
// UKI and root hash are not checked, their bytes are instead, where Checker.UKIs is set. UKIs of up to 256 MiB.
package offline

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// The partition types of the Discoverable Partitions Specification, amd64.
const (
	typeESP    = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"
	typeRoot   = "4f68bce3-e8cd-4db1-96e7-fbcaf984b709"
	typeVerity = "2c7357ed-ebd2-46d9-aec1-23d437ec2bf5"
	typeSig    = "41092b05-9fc8-4523-994f-2def0408b176"
	typeVar    = "4d21b016-b534-45c2-a9fb-5c16e091fd2d"
)

const maxUKI = 256 << 20

// Disk is what is checked.
type Disk interface {
	io.ReaderAt
	Size() int64
}

// Fingerprinter is a Disk that can say whether a range holds what it held in an earlier state.
type Fingerprinter interface {
	Fingerprint(offset, length int64) [sha256.Size]byte
}

// Result is what would be started.
type Result struct {
	Chosen Entry
	// Fallback is what would be started if the chosen entry were used up; nil where there is nothing.
	Fallback *Entry
	// Loader is the SHA-256 of /EFI/BOOT/BOOTX64.EFI.
	Loader [sha256.Size]byte
	// Partitions of the table that counts.
	Partitions []Partition
	// Notes are what is not as it should be and does no harm.
	Notes []string
}

// Checker checks disks, and remembers what it saw.
type Checker struct {
	// UKIs are the SHA-256 of the kernels that there may be, with their versions; nil: any.
	UKIs map[[sha256.Size]byte]string
	// Verifications counts how often a slot was read whole or in part.
	Verifications int

	esps     map[string]*esp
	images   map[string]image
	verified map[string]error
	hashed   map[string][]byte
}

// NewChecker returns a Checker that has seen nothing.
func NewChecker() *Checker {
	return &Checker{esps: map[string]*esp{}, images: map[string]image{}, verified: map[string]error{}, hashed: map[string][]byte{}}
}

func (c *Checker) prints(d Disk) bool {
	_, ok := d.(Fingerprinter)
	return ok
}

func (c *Checker) print(d Disk, offset, length int64) [sha256.Size]byte {
	if f, ok := d.(Fingerprinter); ok {
		return f.Fingerprint(offset, length)
	}
	return [sha256.Size]byte{}
}

// Check says what the disk would start. An error is a finding: the disk is in a state that a power cut must not leave.
func (c *Checker) Check(d Disk) (*Result, error) {
	table, err := readTable(d)
	if err != nil {
		return nil, err
	}
	r := &Result{Partitions: table.partitions}
	if table.backup {
		r.Notes = append(r.Notes, "only the backup of the partition table is whole")
	} else if table.oneCopy {
		r.Notes = append(r.Notes, "the backup of the partition table is damaged or older")
	}
	part, err := only(table.partitions, func(p Partition) bool { return p.Type == typeESP })
	if err != nil {
		return nil, fmt.Errorf("ESP: %w", err)
	}
	e, err := c.esp(d, part)
	if err != nil {
		return nil, fmt.Errorf("ESP: %w", err)
	}
	r.Notes, r.Loader = append(r.Notes, e.notes...), e.loader
	if len(e.entries) == 0 {
		return nil, errors.New("ESP: there is nothing to start")
	}
	chosen := *e.entries[0]
	if chosen.Left == 0 {
		return nil, fmt.Errorf("all entries are used up, the first is %s", chosen.Name)
	}
	if err := c.bootable(d, table, &chosen); err != nil {
		return nil, fmt.Errorf("%s, which the boot loader chooses: %w", chosen.Name, err)
	}
	r.Chosen = chosen
	for _, next := range e.entries[1:] {
		if next.Left == 0 || next.image.rootHash == chosen.RootHash && next.image.err == nil {
			continue
		}
		fallback := *next
		if err := c.bootable(d, table, &fallback); err != nil {
			if chosen.Counting() { // it is needed
				return nil, fmt.Errorf("%s, which the boot loader goes back to: %w", fallback.Name, err)
			}
			r.Notes = append(r.Notes, "the entry behind the chosen one cannot be started")
			continue
		}
		r.Fallback = &fallback
		break
	}
	return r, nil
}

func only(partitions []Partition, match func(Partition) bool) (Partition, error) {
	var found []Partition
	for _, p := range partitions {
		if match(p) {
			found = append(found, p)
		}
	}
	if len(found) != 1 {
		return Partition{}, fmt.Errorf("%d partitions, not one", len(found))
	}
	return found[0], nil
}

// bootable checks everything between an entry and its verified root.
func (c *Checker) bootable(d Disk, t *table, e *Entry) error {
	switch {
	case e.file.err != nil:
		return e.file.err
	case e.file.shared:
		return errors.New("some of its clusters belong to another file too")
	case e.image.err != nil:
		return e.image.err
	}
	if c.UKIs != nil {
		version, ok := c.UKIs[e.image.sum]
		if !ok {
			return fmt.Errorf("its SHA-256 is %x, which is none of the releases'", e.image.sum)
		}
		if version != e.Version {
			return fmt.Errorf("it says that it is %s and is %s", e.Version, version)
		}
	}
	e.RootHash = e.image.rootHash
	text := fmt.Sprintf("%x", e.RootHash)
	root, err := only(t.partitions, func(p Partition) bool { return p.Type == typeRoot && plain(p.UUID) == text[:32] })
	if err != nil {
		return fmt.Errorf("root partition of %s: %w", text, err)
	}
	tree, err := only(t.partitions, func(p Partition) bool { return p.Type == typeVerity && plain(p.UUID) == text[32:] })
	if err != nil {
		return fmt.Errorf("verity partition of %s: %w", text, err)
	}
	e.Slot = root.Number
	i := slices.IndexFunc(t.partitions, func(p Partition) bool { return p.Number == root.Number+2 && p.Type == typeSig })
	if i < 0 || tree.Number != root.Number+1 {
		return fmt.Errorf("partition %d is not followed by its hash tree and its signature", root.Number)
	}
	sig := make([]byte, 64<<10)
	n, err := d.ReadAt(sig, t.partitions[i].Offset)
	if err != nil && n == 0 {
		return err
	}
	if !strings.Contains(string(sig[:n]), `"rootHash":"`+text+`"`) {
		return fmt.Errorf("partition %d does not hold the signature of %s", root.Number+2, text)
	}
	if err := c.verify(d, root, tree, e.RootHash); err != nil {
		return fmt.Errorf("slot of partition %d: %w", root.Number, err)
	}
	return nil
}

func plain(uuid string) string { return strings.ReplaceAll(uuid, "-", "") }

// esp is what the boot loader finds.
type esp struct {
	entries []*Entry // in its order
	notes   []string
	loader  [sha256.Size]byte
	err     error
}

func (c *Checker) esp(d Disk, p Partition) (*esp, error) {
	key := fmt.Sprintf("%d %x", p.Offset, c.print(d, p.Offset, p.Length))
	if e, ok := c.esps[key]; ok && c.prints(d) {
		return e, e.err
	}
	e := c.readESP(d, p)
	c.esps[key] = e
	return e, e.err
}

// needed are folders and files without which nothing starts.
var needed = []string{"/EFI", "/EFI/BOOT", "/EFI/BOOT/BOOTX64.EFI", "/EFI/Linux", "/loader", "/loader/loader.conf"}

func (c *Checker) readESP(d Disk, p Partition) *esp {
	e := &esp{}
	v, err := readVolume(io.NewSectionReader(d, p.Offset, p.Length), p.Length)
	if err != nil {
		e.err = err
		return e
	}
	for _, path := range needed {
		f := v.find(path)
		switch {
		case f == nil:
			e.err = fmt.Errorf("%s is missing", path)
		case f.err != nil:
			e.err = fmt.Errorf("%s: %w", path, f.err)
		case f.shared || f.double:
			e.err = fmt.Errorf("%s: its clusters belong to something else too", path)
		}
		if e.err != nil {
			return e
		}
	}
	if e.loader, e.err = checkLoader(v); e.err != nil {
		return e
	}
	for _, f := range v.files {
		c.addFile(d, p, v, e, f)
		if e.err != nil {
			return e
		}
	}
	slices.SortStableFunc(e.entries, compare)
	for note, is := range map[string]bool{
		"the copies of the allocation table differ": v.mirrorDiffers, "the ESP is marked as in use": v.dirty, "clusters are lost": v.lost > 0,
	} {
		if is {
			e.notes = append(e.notes, note)
		}
	}
	slices.Sort(e.notes)
	e.notes = slices.Compact(e.notes)
	return e
}

func checkLoader(v *volume) (sum [sha256.Size]byte, err error) {
	loader := v.find("/EFI/BOOT/BOOTX64.EFI")
	b, err := v.content(loader, min(loader.size, maxUKI))
	if err != nil {
		return sum, err
	}
	sum = sha256.Sum256(b)
	conf := v.find("/loader/loader.conf")
	if b, err = v.content(conf, min(conf.size, 64<<10)); err != nil {
		return sum, err
	}
	for line := range strings.Lines(string(b)) {
		if key, _, _ := strings.Cut(strings.TrimSpace(line), " "); key == "default" || key == "preferred" {
			return sum, fmt.Errorf("loader.conf has %q, which is not understood here", line)
		}
	}
	for _, f := range v.files {
		if strings.HasPrefix(strings.ToLower(f.path), "/loader/entries/") {
			return sum, fmt.Errorf("%s: entries of type 1 are not understood here", f.path)
		}
	}
	return sum, nil
}

// addFile takes a file for what the boot loader takes it.
func (c *Checker) addFile(d Disk, p Partition, v *volume, e *esp, f *fatFile) {
	if f.double {
		e.notes = append(e.notes, "a file has two names")
	}
	if f.isDir() {
		if f.err != nil || f.shared {
			e.err = fmt.Errorf("folder %s: %w", f.path, cmp.Or(f.err, errors.New("its clusters belong to something else too")))
		}
		return
	}
	dir, name := f.path[:strings.LastIndexByte(f.path, '/')], f.path[strings.LastIndexByte(f.path, '/')+1:]
	lower := strings.ToLower(name)
	if !strings.EqualFold(dir, "/EFI/Linux") || !strings.HasSuffix(lower, ".efi") {
		if f.err != nil || f.shared {
			e.notes = append(e.notes, "a file that does not matter is damaged")
		}
		return
	}
	if strings.HasPrefix(lower, "auto-") || f.attr&attrHidden != 0 {
		return
	}
	if f.size == 0 {
		e.notes = append(e.notes, "the boot loader passes over an entry without content")
		return
	}
	m := c.image(d, p, v, f)
	if m.skip != nil {
		e.notes = append(e.notes, "the boot loader passes over an entry that it cannot read")
		return
	}
	entry := &Entry{Name: name, Version: pick(m.osRelease, "IMAGE_VERSION", "VERSION", "VERSION_ID", "BUILD_ID"), sortKey: pick(m.osRelease, "IMAGE_ID", "ID"), image: m, file: f}
	entry.Left, entry.Done = parseTries(name)
	e.entries = append(e.entries, entry)
}

// image reads a UKI, unless it did before. Of a file whose chain is cut the beginning is read, as the boot loader would.
func (c *Checker) image(d Disk, p Partition, v *volume, f *fatFile) image {
	var have int64
	key := fmt.Sprint(f.size)
	for _, x := range f.extent {
		have += x.length
		key += fmt.Sprintf(" %d+%d %x", x.offset, x.length, c.print(d, p.Offset+x.offset, x.length))
	}
	if m, ok := c.images[key]; ok && c.prints(d) {
		return m
	}
	b, err := v.content(f, min(f.size, have, maxUKI))
	m := image{skip: err}
	if err == nil {
		m = readImage(b)
	}
	c.images[key] = m
	return m
}
