package offline

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

const (
	maxFAT        = 64 << 20
	maxFiles      = 65536
	maxDepth      = 16
	maxDirClust   = 4096
	attrHidden    = 0x02
	attrVolume    = 0x08
	attrDirectory = 0x10
	attrLong      = 0x0f
)

// fatFile is a file or folder on the ESP.
type fatFile struct {
	path   string // with / in front; long names where there are any
	attr   byte
	size   int64
	first  uint32
	extent []extent // where it lies, bytes of the partition; the last one is whole clusters
	err    error    // why its content cannot be read

	double bool // another name has the same clusters, all of them
	shared bool // another file has some of its clusters
}

type extent struct{ offset, length int64 }

func (f *fatFile) isDir() bool { return f.attr&attrDirectory != 0 }

// volume is a FAT32 file system that was read whole, except for the files' content.
type volume struct {
	r       io.ReaderAt
	cluster int64 // bytes
	data    int64 // where cluster 2 begins
	fat     []byte
	count   uint32 // clusters end before this number
	owner   map[uint32]int
	files   []*fatFile

	mirrorDiffers bool
	dirty         bool
	lost          int // clusters that are taken and belong to nothing
}

// readVolume reads the allocation table as firmware and Linux do, which is the first one, and walks all folders. Damage of a single file is that file's error;
// an error of readVolume is damage of the file system.
func readVolume(r io.ReaderAt, size int64) (*volume, error) {
	b := make([]byte, sectorSize)
	if _, err := r.ReadAt(b, 0); err != nil {
		return nil, err
	}
	le := binary.LittleEndian
	perCluster, reserved, fats := int64(b[13]), int64(le.Uint16(b[14:])), int64(b[16])
	sectors, fatSectors := int64(le.Uint32(b[32:])), int64(le.Uint32(b[36:]))
	switch {
	case b[510] != 0x55 || b[511] != 0xaa:
		return nil, errors.New("the boot sector has no signature")
	case le.Uint16(b[11:]) != sectorSize || perCluster == 0 || perCluster&(perCluster-1) != 0 || reserved == 0 || fats < 1 || fats > 2 ||
		le.Uint16(b[17:]) != 0 || le.Uint16(b[19:]) != 0 || le.Uint16(b[22:]) != 0:
		return nil, errors.New("the boot sector is not one of FAT32")
	case sectors*sectorSize > size || fatSectors == 0 || fatSectors*sectorSize > maxFAT || reserved+fats*fatSectors >= sectors:
		return nil, fmt.Errorf("the boot sector speaks of %d sectors and tables of %d", sectors, fatSectors)
	}
	v := &volume{r: r, cluster: perCluster * sectorSize, data: (reserved + fats*fatSectors) * sectorSize, owner: map[uint32]int{}}
	v.count = uint32((sectors*sectorSize-v.data)/v.cluster) + 2
	if int64(v.count)*4 > fatSectors*sectorSize {
		return nil, errors.New("the allocation table is too short for its clusters")
	}
	v.fat = make([]byte, fatSectors*sectorSize)
	active := int64(0)
	if flags := le.Uint16(b[40:]); flags&0x80 != 0 {
		active = int64(flags & 0xf)
		if active >= fats {
			return nil, fmt.Errorf("the active allocation table is number %d of %d", active, fats)
		}
	}
	if _, err := r.ReadAt(v.fat, (reserved+active*fatSectors)*sectorSize); err != nil {
		return nil, err
	}
	if fats == 2 && le.Uint16(b[40:])&0x80 == 0 {
		second := make([]byte, len(v.fat))
		if _, err := r.ReadAt(second, (reserved+fatSectors)*sectorSize); err != nil {
			return nil, err
		}
		v.mirrorDiffers = !bytes.Equal(v.fat, second)
	}
	v.dirty = b[65]&1 != 0
	root := &fatFile{path: "", attr: attrDirectory, first: le.Uint32(b[44:])}
	if err := v.add(root); err != nil {
		return nil, err
	}
	if root.err != nil {
		return nil, fmt.Errorf("root folder: %w", root.err)
	}
	if err := v.walk(root, 0); err != nil {
		return nil, err
	}
	for c := uint32(2); c < v.count; c++ {
		if n := v.next(c); n != 0 && n != 0x0ffffff7 {
			if _, ok := v.owner[c]; !ok {
				v.lost++
			}
		}
	}
	return v, nil
}

func (v *volume) next(c uint32) uint32 { return binary.LittleEndian.Uint32(v.fat[4*c:]) & 0x0fffffff }

// add follows the chain of a file.
func (v *volume) add(f *fatFile) error {
	if len(v.files) == maxFiles {
		return errors.New("too many files")
	}
	number := len(v.files)
	v.files = append(v.files, f)
	if f.isDir() || f.first != 0 {
		f.err = v.follow(f, number)
	}
	if f.isDir() || f.broken() {
		return nil
	}
	var length int64
	for _, e := range f.extent {
		length += e.length
	}
	if length < f.size {
		f.err = fmt.Errorf("it has %d bytes of clusters and should have %d", length, f.size)
	}
	return nil
}

func (v *volume) follow(f *fatFile, number int) error {
	sharedFrom := -1
	clusters := 0
	for c := f.first; ; {
		if c < 2 || c >= v.count {
			return fmt.Errorf("its chain leads to cluster %d after %d clusters", c, clusters)
		}
		if owner, ok := v.owner[c]; ok {
			if owner == number {
				return errors.New("its chain is a ring")
			}
			other := v.files[owner]
			if clusters == 0 && other.first == f.first && !f.isDir() && !other.isDir() {
				f.double, other.double = true, true
			} else if sharedFrom < 0 && !f.double {
				f.shared, other.shared, sharedFrom = true, true, clusters
			}
		} else {
			v.owner[c] = number
		}
		clusters++
		if int64(clusters) > int64(v.count) || f.isDir() && clusters > maxDirClust {
			return errors.New("its chain has no end")
		}
		at := v.data + int64(c-2)*v.cluster
		if k := len(f.extent); k > 0 && f.extent[k-1].offset+f.extent[k-1].length == at {
			f.extent[k-1].length += v.cluster
		} else {
			f.extent = append(f.extent, extent{at, v.cluster})
		}
		n := v.next(c)
		switch {
		case n >= 0x0ffffff8:
			return nil
		case n == 0:
			return fmt.Errorf("its chain is cut: cluster %d, the %dth, is free", c, clusters)
		case n == 0x0ffffff7:
			return fmt.Errorf("its chain leads to a bad cluster after %d clusters", clusters)
		}
		c = n
	}
}

// content reads a file's bytes from its extents.
func (v *volume) content(f *fatFile, size int64) ([]byte, error) {
	b := make([]byte, size)
	done := int64(0)
	for _, e := range f.extent {
		if done == size {
			break
		}
		n := min(e.length, size-done)
		if _, err := v.r.ReadAt(b[done:done+n], e.offset); err != nil {
			return nil, err
		}
		done += n
	}
	if done < size {
		return nil, io.ErrUnexpectedEOF
	}
	return b, nil
}

// broken reports whether the file's chain could not be followed, which is a finding of its own.
func (f *fatFile) broken() bool { return f.err != nil }

func (v *volume) walk(dir *fatFile, depth int) error {
	if depth > maxDepth {
		return errors.New("folders are too deep")
	}
	if dir.broken() {
		return nil
	}
	var size int64
	for _, e := range dir.extent {
		size += e.length
	}
	b, err := v.content(dir, size)
	if err != nil {
		return err
	}
	var long longName
	for ; len(b) >= 32; b = b[32:] {
		e := b[:32]
		if e[0] == 0 {
			break
		}
		if e[0] == 0xe5 {
			long = longName{}
			continue
		}
		if e[11]&0x3f == attrLong {
			long.add(e)
			continue
		}
		name := long.of(e)
		long = longName{}
		if e[11]&attrVolume != 0 || name == "." || name == ".." {
			continue
		}
		f := &fatFile{
			path: dir.path + "/" + name, attr: e[11], size: int64(binary.LittleEndian.Uint32(e[28:])),
			first: uint32(binary.LittleEndian.Uint16(e[20:]))<<16 | uint32(binary.LittleEndian.Uint16(e[26:])),
		}
		if err := v.add(f); err != nil {
			return err
		}
		if f.isDir() {
			if err := v.walk(f, depth+1); err != nil {
				return err
			}
		}
	}
	return nil
}

// longName collects the entries in front of a short one. They count only if they are whole and have the short name's checksum.
type longName struct {
	units []uint16
	next  byte // the number that the next entry must have
	sum   byte
}

func (l *longName) add(e []byte) {
	number := e[0] & 0x1f
	if e[0]&0x40 != 0 {
		*l = longName{next: number, sum: e[13]}
	}
	if number == 0 || number != l.next || e[13] != l.sum {
		*l = longName{}
		return
	}
	var units []uint16
	for _, part := range [][]byte{e[1:11], e[14:26], e[28:32]} {
		for i := 0; i < len(part); i += 2 {
			units = append(units, binary.LittleEndian.Uint16(part[i:]))
		}
	}
	l.units = append(units, l.units...)
	l.next--
	if l.next == 0 {
		l.next = 0xff // whole
	}
}

func (l *longName) of(e []byte) string {
	var sum byte
	for _, c := range e[:11] {
		sum = sum>>1 | sum<<7
		sum += c
	}
	if l.next == 0xff && l.sum == sum {
		units := l.units
		for i, u := range units {
			if u == 0 {
				units = units[:i]
				break
			}
		}
		return string(utf16.Decode(units))
	}
	name := strings.TrimRight(string(e[:8]), " ")
	if ext := strings.TrimRight(string(e[8:11]), " "); ext != "" {
		name += "." + ext
	}
	return name
}

// find returns a file by its path, in any case.
func (v *volume) find(path string) *fatFile {
	for _, f := range v.files {
		if strings.EqualFold(f.path, path) {
			return f
		}
	}
	return nil
}
