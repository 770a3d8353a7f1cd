package initramfs

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/semper-os/semper/partitions/bootentry"
)

// A rename on FAT takes more than one write. A power cut between them leaves one file under two names, with the same clusters; whoever then deletes one name
// frees the content of the other, and the boot entry that runs is gone with the next restart. So before anybody mounts the ESP, one of two such names in
// /EFI/Linux is taken out of the folder, and the clusters stay.

const (
	fatSector    = 512
	fatMaxFolder = 1 << 20 // bytes; FAT allows 2 MiB

	fatDeleted   = 0xe5
	fatLongName  = 0x0f
	fatVolume    = 0x08
	fatDirectory = 0x10
)

// espDevice is the partition.
type espDevice interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// fatName is a file in a folder: where its entries are, the short one last.
type fatName struct {
	name    string
	cluster uint32
	slots   []int64
}

// dropSecondNames takes the second names of files in /EFI/Linux away and returns them.
func dropSecondNames(esp espDevice) (dropped []string, err error) {
	fs, root, err := openFAT(esp)
	if err != nil {
		return nil, err
	}
	folder := root
	for _, name := range []string{"EFI        ", "LINUX      "} {
		if folder, err = fs.subfolder(folder, name); err != nil {
			return nil, err
		}
	}
	names, err := fs.files(folder)
	if err != nil {
		return nil, err
	}
	// The one to keep comes first.
	slices.SortStableFunc(names, func(a, b fatName) int { return rank(b.name) - rank(a.name) })
	seen := map[uint32]bool{}
	for _, n := range names {
		if n.cluster == 0 {
			continue // a file without content
		}
		if seen[n.cluster] {
			if err := fs.drop(n); err != nil {
				return dropped, err
			}
			dropped = append(dropped, n.name)
		}
		seen[n.cluster] = true
	}
	return dropped, nil
}

// rank is higher the later a name comes in the life of a boot entry: temporary, tries used up one by one, blessed. Blessed outranks a bad mark, since only a
// healthy version is blessed, and a bad one never loses its mark.
func rank(name string) int {
	e, err := bootentry.Parse(name)
	switch {
	case err != nil:
		return 0
	case e.Counting:
		return 1000 - min(e.Left, 998)
	default:
		return 1001
	}
}

// fat32 is as much of a file system as is needed to find and change a folder.
type fat32 struct {
	dev      espDevice
	cluster  int64 // bytes
	table    int64 // where the first allocation table begins
	data     int64 // where cluster 2 begins
	clusters uint32
}

func openFAT(dev espDevice) (fs *fat32, root uint32, err error) {
	b := make([]byte, fatSector)
	if _, err := dev.ReadAt(b, 0); err != nil {
		return nil, 0, err
	}
	le := binary.LittleEndian
	per, reserved, copies := int64(b[13]), int64(le.Uint16(b[14:])), int64(b[16])
	total, table := int64(le.Uint32(b[32:])), int64(le.Uint32(b[36:]))
	fs = &fat32{dev: dev, cluster: per * fatSector, table: reserved * fatSector, data: (reserved + copies*table) * fatSector}
	if b[510] != 0x55 || b[511] != 0xaa || le.Uint16(b[11:]) != fatSector || le.Uint16(b[22:]) != 0 || per == 0 || table == 0 || fs.data >= total*fatSector {
		return nil, 0, errors.New("it is no FAT32 file system")
	}
	if flags := le.Uint16(b[40:]); flags&0x80 != 0 {
		fs.table += int64(flags&0xf) * table * fatSector
	}
	fs.clusters = uint32(min((total*fatSector-fs.data)/fs.cluster, table*fatSector/4-2)) + 2
	return fs, le.Uint32(b[44:]), nil
}

// folder reads a folder, and tells where each of its sectors is.
func (fs *fat32) folder(first uint32) (b []byte, sectors []int64, err error) {
	c := first
	for len(b) < fatMaxFolder {
		if c < 2 || c >= fs.clusters {
			return nil, nil, fmt.Errorf("a folder leads to cluster %d", c)
		}
		at := fs.data + int64(c-2)*fs.cluster
		part := make([]byte, fs.cluster)
		if _, err := fs.dev.ReadAt(part, at); err != nil {
			return nil, nil, err
		}
		b = append(b, part...)
		for off := int64(0); off < fs.cluster; off += fatSector {
			sectors = append(sectors, at+off)
		}
		var next [4]byte
		if _, err := fs.dev.ReadAt(next[:], fs.table+int64(c)*4); err != nil {
			return nil, nil, err
		}
		if c = binary.LittleEndian.Uint32(next[:]) & 0x0fffffff; c >= 0x0ffffff8 {
			return b, sectors, nil
		}
	}
	return nil, nil, fmt.Errorf("a folder has more than %d bytes", fatMaxFolder)
}

// each calls f for every short entry of a folder; slots are the places of it and of the entries of its long name in front.
func (fs *fat32) each(first uint32, f func(entry []byte, long [][]byte, slots []int64)) error {
	b, sectors, err := fs.folder(first)
	if err != nil {
		return err
	}
	var long [][]byte
	var slots []int64
	for i := 0; i+32 <= len(b) && b[i] != 0; i += 32 {
		e, at := b[i:i+32], sectors[i/fatSector]+int64(i%fatSector)
		switch {
		case e[0] == fatDeleted:
			long, slots = nil, nil
		case e[11]&0x3f == fatLongName:
			if e[0]&0x40 != 0 {
				long, slots = nil, nil
			}
			long, slots = append(long, e), append(slots, at)
		default:
			if sum := checksum(e[:11]); slices.ContainsFunc(long, func(l []byte) bool { return l[13] != sum }) {
				long, slots = nil, nil // of a file that is gone
			}
			f(e, long, append(slots, at))
			long, slots = nil, nil
		}
	}
	return nil
}

// checksum ties a long name to its short one.
func checksum(short []byte) (sum byte) {
	for _, c := range short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	return sum
}

func firstCluster(e []byte) uint32 {
	return uint32(binary.LittleEndian.Uint16(e[20:]))<<16 | uint32(binary.LittleEndian.Uint16(e[26:]))
}

func (fs *fat32) subfolder(first uint32, short string) (found uint32, err error) {
	err = fs.each(first, func(e []byte, _ [][]byte, _ []int64) {
		if e[11]&fatDirectory != 0 && string(e[:11]) == short {
			found = firstCluster(e)
		}
	})
	if err == nil && found == 0 {
		err = fmt.Errorf("it has no folder %s", strings.TrimSpace(short))
	}
	return found, err
}

func (fs *fat32) files(first uint32) (all []fatName, err error) {
	err = fs.each(first, func(e []byte, long [][]byte, slots []int64) {
		if e[11]&(fatDirectory|fatVolume) == 0 {
			all = append(all, fatName{nameOf(e, long), firstCluster(e), slots})
		}
	})
	return all, err
}

func nameOf(e []byte, long [][]byte) string {
	if len(long) == 0 {
		return strings.TrimRight(string(e[:8]), " ") + "." + strings.TrimRight(string(e[8:11]), " ")
	}
	var units []uint16
	for _, l := range slices.Backward(long) {
		for _, part := range [][]byte{l[1:11], l[14:26], l[28:32]} {
			for i := 0; i < len(part); i += 2 {
				units = append(units, binary.LittleEndian.Uint16(part[i:]))
			}
		}
	}
	if end := slices.Index(units, 0); end >= 0 {
		units = units[:end]
	}
	return string(utf16.Decode(units))
}

// drop marks a name's entries as deleted, the short one first: a long name without its short one is nothing, the reverse would be a file of another name.
func (fs *fat32) drop(n fatName) error {
	for _, at := range slices.Backward(n.slots) {
		sector := make([]byte, fatSector)
		start := at / fatSector * fatSector
		if _, err := fs.dev.ReadAt(sector, start); err != nil {
			return err
		}
		sector[at-start] = fatDeleted
		if _, err := fs.dev.WriteAt(sector, start); err != nil {
			return err
		}
		if at == n.slots[len(n.slots)-1] {
			if err := fs.dev.Sync(); err != nil {
				return err
			}
		}
	}
	return fs.dev.Sync()
}
