package verify

import (
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
)

// Limits of the ESP.
const (
	maxESPFiles = 512
	maxFolders  = 512
	maxESPDepth = 8
	maxConfig   = 64 << 10

	spareEntries = 1 << 20 // of a table, more than there are clusters: 4 MiB
)

// esp is the file system of the EFI system partition, as go-diskfs sees it.
type esp struct {
	fs    *fat32.FileSystem
	files map[string]int64 // size by path: "EFI/BOOT/BOOTX64.EFI"
	seen  int              // folders
}

// openESP reads the file system. The library trusts what it reads, so boot sector and cluster chains are checked first: no division by zero, no
// endless chain, no table larger than the partition.
func openESP(f *os.File, p gpt.Partition) (*esp, error) {
	if err := checkFAT(io.NewSectionReader(f, p.Offset(), p.Size())); err != nil {
		return nil, err
	}
	system, err := fat32.Read(file.New(f, true), p.Size(), p.Offset(), gpt.SectorSize)
	if err != nil {
		return nil, fault.New(fault.Verification, "file system: %w", err)
	}
	e := &esp{fs: system, files: map[string]int64{}}
	return e, e.walk(".", 0)
}

func (e *esp) walk(dir string, depth int) error {
	// A folder may hold itself, on a disk that somebody has prepared.
	if e.seen++; depth > maxESPDepth || e.seen > maxFolders {
		return fault.New(fault.Verification, "at %s: folders more than %d deep, or more than %d", dir, maxESPDepth, maxFolders)
	}
	entries, err := e.fs.ReadDir(dir)
	if err != nil {
		return fault.New(fault.Verification, "list %s: %w", dir, err)
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		if entry.IsDir() {
			if err := e.walk(name, depth+1); err != nil {
				return err
			}
			continue
		}
		info, err := entry.Info()
		if err != nil {
			return fault.New(fault.Verification, "%s: %w", name, err)
		}
		if len(e.files) == maxESPFiles {
			return fault.New(fault.Verification, "more than %d files", maxESPFiles)
		}
		e.files[name] = info.Size()
	}
	return nil
}

// read returns a whole file of at most limit bytes.
func (e *esp) read(name string, limit int64) ([]byte, error) {
	size, ok := e.files[name]
	if !ok {
		return nil, fault.New(fault.Verification, "%s is missing", name)
	}
	if size > limit {
		return nil, fault.New(fault.Verification, "%s has %d bytes, at most %d are possible", name, size, limit)
	}
	f, err := e.fs.OpenFile(name, os.O_RDONLY)
	if err != nil {
		return nil, fault.New(fault.Verification, "%s: %w", name, err)
	}
	defer f.Close()
	b := make([]byte, size)
	if _, err := io.ReadFull(f, b); err != nil && size > 0 {
		return nil, fault.New(fault.Verification, "read %s: %w", name, err)
	}
	return b, nil
}

// find returns the path of a file by its path in any case, as FAT has it.
func (e *esp) find(name string) (string, bool) {
	for have := range e.files {
		if strings.EqualFold(have, name) {
			return have, true
		}
	}
	return name, false
}

// programs returns the EFI programs: every file that firmware could start.
func (e *esp) programs() []string {
	var names []string
	for _, name := range sorted(e.files) {
		if strings.EqualFold(path.Ext(name), ".efi") {
			names = append(names, name)
		}
	}
	return names
}

// Fields of a FAT32 boot sector, in bytes.
const (
	bpbSectorSize  = 11
	bpbPerCluster  = 13
	bpbReserved    = 14
	bpbTables      = 16
	bpbRootEntries = 17
	bpbSectors16   = 19
	bpbTable16     = 22
	bpbSectors     = 32
	bpbTable       = 36
	bpbRoot        = 44
	bpbInfo        = 48
)

// checkFAT checks a FAT32 file system's boot sector, that both tables are equal, and that no chain of clusters runs into itself or into another.
func checkFAT(r *io.SectionReader) error {
	wrong := func(format string, args ...any) error {
		return fault.New(fault.Verification, "FAT32: "+format, args...)
	}
	le := binary.LittleEndian
	b := make([]byte, gpt.SectorSize)
	if _, err := r.ReadAt(b, 0); err != nil {
		return fault.New(fault.IO, "FAT32: read the boot sector: %w", err)
	}
	if le.Uint16(b[510:]) != 0xaa55 || le.Uint16(b[bpbSectorSize:]) != gpt.SectorSize || le.Uint16(b[bpbRootEntries:]) != 0 ||
		le.Uint16(b[bpbSectors16:]) != 0 || le.Uint16(b[bpbTable16:]) != 0 || b[bpbTables] != 2 {
		return wrong("the boot sector is not that of FAT32 with sectors of %d bytes and two tables", gpt.SectorSize)
	}
	perCluster, reserved := int64(b[bpbPerCluster]), int64(le.Uint16(b[bpbReserved:]))
	sectors, table := int64(le.Uint32(b[bpbSectors:])), int64(le.Uint32(b[bpbTable:]))
	info := int64(le.Uint16(b[bpbInfo:]))
	data := reserved + 2*table
	if perCluster == 0 || perCluster&(perCluster-1) != 0 || reserved < 2 || info == 0 || info >= reserved || sectors*gpt.SectorSize > r.Size() || data >= sectors {
		return wrong("%d sectors, %d reserved, tables of %d, clusters of %d in a partition of %d bytes", sectors, reserved, table, perCluster, r.Size())
	}
	clusters := (sectors - data) / perCluster // numbered from 2
	if entries := table * gpt.SectorSize / 4; clusters < 65525 || clusters+2 > entries || entries > clusters+spareEntries || le.Uint32(b[bpbRoot:]) != 2 {
		return wrong("%d clusters in tables of %d sectors, the root folder in cluster %d", clusters, table, le.Uint32(b[bpbRoot:]))
	}
	tables := make([]byte, 2*table*gpt.SectorSize)
	if _, err := io.ReadFull(io.NewSectionReader(r, reserved*gpt.SectorSize, int64(len(tables))), tables); err != nil {
		return fault.New(fault.IO, "FAT32: read the tables: %w", err)
	}
	first, second := tables[:len(tables)/2], tables[len(tables)/2:]
	if string(first) != string(second) {
		return wrong("the two tables differ")
	}
	if strings.Trim(string(first[(clusters+2)*4:]), "\x00") != "" {
		return wrong("the tables say something of clusters that there are not")
	}
	if err := checkChains(first, clusters); err != nil {
		return wrong("%w", err)
	}
	return nil
}

// checkChains follows every chain of clusters once. Each cluster has at most one predecessor and no chain is a ring.
func checkChains(table []byte, clusters int64) error {
	const end, bad = 0x0ffffff8, 0x0ffffff7
	next := func(c int64) int64 { return int64(binary.LittleEndian.Uint32(table[c*4:]) & 0x0fffffff) }
	entered := make([]bool, clusters+2)
	for c := int64(2); c < clusters+2; c++ {
		n := next(c)
		if n == 0 || n == bad || n >= end {
			continue
		}
		if n < 2 || n >= clusters+2 {
			return fmt.Errorf("cluster %d is followed by %d, the last one is %d", c, n, clusters+1)
		}
		if entered[n] {
			return fmt.Errorf("cluster %d follows two others", n)
		}
		if next(n) == 0 {
			return fmt.Errorf("cluster %d is followed by %d, which is free", c, n)
		}
		entered[n] = true
	}
	// With one predecessor at most, what cannot be reached from a cluster without one is a ring.
	reached := make([]bool, clusters+2)
	for c := int64(2); c < clusters+2; c++ {
		for n := c; !entered[c] && n >= 2 && n < clusters+2 && !reached[n]; n = next(n) {
			reached[n] = true
		}
	}
	for c := int64(2); c < clusters+2; c++ {
		if next(c) != 0 && !reached[c] {
			return fmt.Errorf("the chain of cluster %d is a ring", c)
		}
	}
	return nil
}

// loaderConf checks systemd-boot's configuration: what it must not do, and what it must.
func loaderConf(b []byte) (string, error) {
	settings := map[string]string{}
	for n, line := range strings.Split(string(b), "\n") {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		key, value, _ := strings.Cut(strings.ReplaceAll(line, "\t", " "), " ")
		if _, twice := settings[key]; twice {
			return "", fault.New(fault.Verification, "line %d sets %s again", n+1, key)
		}
		settings[key] = strings.TrimSpace(value)
	}
	if _, ok := settings["default"]; ok {
		return "", fault.New(fault.Verification, "it sets a default entry, which systemd-boot starts even when no tries are left")
	}
	if v := settings["editor"]; v != "no" && v != "0" && v != "false" && v != "off" {
		return "", fault.New(fault.Verification, "it does not say 'editor no': without Secure Boot anybody at the console could change the command line")
	}
	var parts []string
	for _, key := range sorted(settings) {
		parts = append(parts, key+" "+settings[key])
	}
	return strings.Join(parts, ", "), nil
}

// checkESP reads the ESP and returns it, nil when it cannot be read.
func (i *inspector) checkESP(f *os.File, p gpt.Partition) *esp {
	var e *esp
	if !i.check("EFI system partition", func() (string, error) {
		var err error
		if e, err = openESP(f, p); err != nil {
			return "", err
		}
		return fmt.Sprintf("FAT32, %s: %s", plural(len(e.files), "file"), strings.Join(sorted(e.files), ", ")), nil
	}) {
		return nil
	}
	i.check("loader.conf", func() (string, error) {
		name, _ := e.find("loader/loader.conf")
		b, err := e.read(name, maxConfig)
		if err != nil {
			return "", err
		}
		return loaderConf(b)
	})
	return e
}
