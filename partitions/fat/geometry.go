package fat

import (
	"encoding/binary"

	"github.com/semper-os/semper/fault"
)

const (
	sectorSize      = 512
	reservedSectors = 32
	minClusters     = 65525 // fewer would make it FAT16
	maxClusters     = 0x0ffffff5
	copies          = 2
	rootCluster     = 2
	infoSector      = 1
	backupSector    = 6
)

// geometry is where things are.
type geometry struct {
	sectors     uint32
	clusterSize uint32 // bytes
	tableSize   uint32 // of one file allocation table, in sectors
	clusters    uint32
}

// clusterSizes is Microsoft's table: up to this many bytes, these clusters.
var clusterSizes = []struct {
	upTo int64
	size uint32
}{
	{260 << 20, 512},
	{8 << 30, 4 << 10},
	{16 << 30, 8 << 10},
	{32 << 30, 16 << 10},
	{2 << 40, 32 << 10},
}

func geometryFor(size int64) (geometry, error) {
	if size <= 0 || size%sectorSize != 0 || size >= 2<<40 {
		return geometry{}, fault.New(fault.Input, "FAT file system: a size of %d bytes: want a multiple of %d below 2 TiB", size, sectorSize)
	}
	g := geometry{sectors: uint32(size / sectorSize)}
	for i := len(clusterSizes) - 1; i >= 0 && size <= clusterSizes[i].upTo; i-- {
		g.clusterSize = clusterSizes[i].size
	}
	perCluster := g.clusterSize / sectorSize
	if g.sectors > reservedSectors {
		// Each cluster costs its sectors and 4 bytes in each table.
		room := uint64(g.sectors-reservedSectors) * sectorSize
		most := room / uint64(g.clusterSize+4*copies)
		g.tableSize = uint32(((most+2)*4 + sectorSize - 1) / sectorSize)
		// The first cluster is put at a multiple of 4 KiB, or less where clusters are smaller, as flash memory likes it.
		for (reservedSectors+copies*g.tableSize)%perCluster != 0 {
			g.tableSize++
		}
		if used := reservedSectors + copies*g.tableSize; used < g.sectors {
			g.clusters = (g.sectors - used) / perCluster
		}
	}
	if g.clusters < minClusters || g.clusters > maxClusters {
		return geometry{}, fault.New(fault.Input, "FAT file system: %d bytes make %d clusters; FAT32 has at least %d: make it 34 MiB or more", size, g.clusters, minClusters)
	}
	return g, nil
}

// offset returns where a cluster begins, in bytes.
func (g geometry) offset(cluster uint32) int64 {
	first := int64(reservedSectors+copies*g.tableSize) * sectorSize
	return first + int64(cluster-2)*int64(g.clusterSize)
}

// writeTables writes both file allocation tables as far as they are in use.
func (v *volume) writeTables() error {
	const end = 0x0fffffff
	le := binary.LittleEndian
	table := le.AppendUint32(nil, 0x0ffffff8) // the media type
	table = le.AppendUint32(table, end)       // cleanly unmounted, no errors
	for _, r := range v.runs {
		for i := range r.count - 1 {
			table = le.AppendUint32(table, r.first+i+1)
		}
		table = le.AppendUint32(table, end)
	}
	for i := range int64(copies) {
		if err := v.writeAt(table, (reservedSectors+i*int64(v.tableSize))*sectorSize); err != nil {
			return err
		}
	}
	return nil
}

// writeReserved writes boot sector and free space information, and their copies.
func (v *volume) writeReserved() error {
	le := binary.LittleEndian
	boot := make([]byte, sectorSize)
	copy(boot, "\xeb\x58\x90MSWIN4.1") // a jump over the fields; the name that most readers are known to accept
	le.PutUint16(boot[11:], sectorSize)
	boot[13] = byte(v.clusterSize / sectorSize)
	le.PutUint16(boot[14:], reservedSectors)
	boot[16] = copies
	boot[21] = 0xf8              // fixed disk
	le.PutUint16(boot[24:], 63)  // sectors a track and
	le.PutUint16(boot[26:], 255) // heads, where anyone still counts so
	le.PutUint32(boot[28:], v.p.HiddenSectors)
	le.PutUint32(boot[32:], v.sectors)
	le.PutUint32(boot[36:], v.tableSize)
	le.PutUint32(boot[44:], rootCluster)
	le.PutUint16(boot[48:], infoSector)
	le.PutUint16(boot[50:], backupSector)
	boot[64] = 0x80 // BIOS drive number
	boot[66] = 0x29 // the next three fields are there
	le.PutUint32(boot[67:], v.p.VolumeID)
	label := v.p.Label
	if label == "" {
		label = "NO NAME"
	}
	copy(boot[71:82], pad(label, 11))
	copy(boot[82:90], "FAT32   ")
	copy(boot[90:], "\xcd\x18\xf4\xeb\xfd") // started by a BIOS: go on with the next disk, else halt
	boot[510], boot[511] = 0x55, 0xaa

	info := make([]byte, sectorSize)
	le.PutUint32(info, 0x41615252)
	le.PutUint32(info[484:], 0x61417272)
	le.PutUint32(info[488:], v.clusters-(v.next-2)) // free
	next := v.next                                  // where to look for a free one
	if v.next-2 == v.clusters {
		next = 0xffffffff
	}
	le.PutUint32(info[492:], next)
	info[510], info[511] = 0x55, 0xaa

	both := append(boot, info...)
	for _, sector := range []int64{backupSector, 0} {
		if _, err := v.w.WriteAt(both, sector*sectorSize); err != nil {
			return fault.New(fault.IO, "FAT boot sector: write at sector %d: %w", sector, err)
		}
	}
	return nil
}
