package install_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/payload/updatemetadata"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/wire"
)

type (
	forgery = installtest.Forgery
)

// Whatever a payload that is signed by the right keys says: outside of the idle slot not one byte of the disk changes, nor one file of the ESP, and what
// boots next is what ran. The order of the partitions is bios, ESP, slot A (running), slot B (idle): extents that leave root-b backwards would hit
// the running slot.
func TestSignedAndHostile(t *testing.T) {
	keys := installtest.NewKeys(t)
	running := keys.Release(t, "1.1.0")
	good := keys.Release(t, "1.2.0")
	forge := func(change func(*forgery)) installtest.Release { return keys.Forge(t, good, change) }
	op := func(f *forgery, part string, i int) *updatemetadata.InstallOperation {
		return f.Part(part).GetOperations()[i]
	}
	extent := func(start, n uint64) func(*forgery) {
		return func(f *forgery) {
			op(f, "root", 0).DstExtents = []*updatemetadata.Extent{{StartBlock: proto.Uint64(start), NumBlocks: proto.Uint64(n)}}
		}
	}
	size := func(part string, n uint64) func(*forgery) {
		return func(f *forgery) { f.Part(part).NewPartitionInfo.Size = proto.Uint64(n) }
	}
	rename := func(part, name string) func(*forgery) {
		return func(f *forgery) { f.Part(part).PartitionName = proto.String(name) }
	}
	image := func(change func(*updatemetadata.Image)) func(*forgery) {
		return func(f *forgery) { change(f.Manifest.GetImage()) }
	}
	version := func(v string) func(*forgery) {
		return image(func(i *updatemetadata.Image) { i.Version = proto.String(v) })
	}
	// kernel makes a release whose UKI is another one; the payload is consistent in itself.
	kernel := func(change func(*uki.Parts)) installtest.Release {
		return keys.Make(t, installtest.Spec{Version: "1.2.0", UKI: change})
	}
	zeroRoot := func(blocks uint64) func(*forgery) {
		return func(f *forgery) {
			root := f.Part("root")
			root.Operations = []*updatemetadata.InstallOperation{{
				Type: updatemetadata.InstallOperation_ZERO.Enum(), DstExtents: []*updatemetadata.Extent{{StartBlock: proto.Uint64(0), NumBlocks: proto.Uint64(blocks)}},
			}}
			root.NewPartitionInfo.Size, root.Verity.DataBlocks = proto.Uint64(blocks*4096), proto.Uint64(blocks)
			f.Blobs = nil
			*f.Manifest.SignaturesOffset = 0
			for _, name := range []string{"uki", "rootsig"} {
				n := (f.Part(name).NewPartitionInfo.GetSize() + 4095) / 4096
				f.Part(name).Operations = []*updatemetadata.InstallOperation{{
					Type: updatemetadata.InstallOperation_ZERO.Enum(), DstExtents: []*updatemetadata.Extent{{StartBlock: proto.Uint64(0), NumBlocks: proto.Uint64(n)}},
				}}
			}
		}
	}
	const slotBlocks = (2 << 20) / 4096 // of root-b

	for _, c := range []struct {
		name    string
		release installtest.Release
		code    int
		want    string
	}{
		// Where bytes would go.
		{"extent behind root-b", forge(extent(slotBlocks, 4)), 23, "is not within the partition's"},
		{"extent across the end of root-b", forge(extent(slotBlocks-1, 4)), 23, "is not within the partition's"},
		{"extent that wraps round to slot A", forge(extent(math.MaxUint64-1023, 4)), 23, "is not within the partition's"},
		{"extent whose byte offset wraps round", forge(extent(1<<52, 4)), 23, "is not within the partition's"},
		{"extent whose length wraps round", forge(extent(0, math.MaxUint64)), 23, "is not within the partition's"},
		{"extent at the hole marker", forge(extent(math.MaxUint64, 1)), 23, "is not within the partition's"},
		{"extent of nothing", forge(extent(0, 0)), 23, "is not within the partition's"},
		{"operations that overlap", forge(func(f *forgery) { op(f, "root", 1).DstExtents = op(f, "root", 0).DstExtents }), 23, "is written twice"},
		{"operation that writes a block twice", forge(func(f *forgery) {
			o := op(f, "root", 0)
			o.DstExtents = append(o.DstExtents, o.DstExtents[0])
		}), 23, ""},
		{"hole in the root", forge(func(f *forgery) {
			root := f.Part("root")
			i := slices.IndexFunc(root.GetOperations(), func(o *updatemetadata.InstallOperation) bool {
				return o.GetType() == updatemetadata.InstallOperation_ZERO
			})
			root.Operations = slices.Delete(root.Operations, i, i+1)
		}), 23, "is not written"},
		{"no operation at all", forge(func(f *forgery) { f.Part("root").Operations = nil }), 23, ""},
		{"root of 1 TiB", forge(size("root", 1<<40)), 23, ""},
		{"root of 2^63 bytes", forge(size("root", 1<<63)), 23, "bytes, allowed are 1 to"},
		{"root of 2^64-1 bytes", forge(size("root", math.MaxUint64)), 23, "bytes, allowed are 1 to"},
		{"root of no bytes", forge(size("root", 0)), 23, "bytes, allowed are 1 to"},
		{"root of zeros, one block larger than the slot", forge(zeroRoot(slotBlocks + 1)), 13, "fit into slot B"},
		{"root of zeros as large as the slot", forge(zeroRoot(slotBlocks)), 15, "root hash"},
		{"root of zeros of 1 TiB", forge(zeroRoot(1 << 28)), 13, "fit into slot B"},
		{"kernel of 1 TiB", forge(size("uki", 1<<40)), 23, "is not written"},
		{"signature of 1 TiB", forge(size("rootsig", 1<<40)), 23, "is not written"},
		{"hash tree larger than its partition", keys.Make(t, installtest.Spec{Version: "1.2.0", Verity: func(v *payload.Verity) {
			v.Superblock.Salt = make([]byte, 256)
			v.RootHash[0] ^= 1
		}}), 15, "root hash"},

		// What it would be called.
		{"partition that climbs", forge(rename("root", "../root-a")), 23, "partition name"},
		{"partition with a path", forge(rename("root", "/dev/vda")), 23, "partition name"},
		{"partition of the running slot", forge(rename("root", "root-a")), 13, "exactly the partitions"},
		{"partition called esp", forge(rename("uki", "esp")), 13, "exactly the partitions"},
		{"partition without a name", forge(rename("root", "")), 23, "partition name"},
		{"partition twice", forge(rename("uki", "root")), 23, "is there twice"},
		{"a fourth partition, that of the running slot", forge(func(f *forgery) {
			p := proto.Clone(f.Part("rootsig")).(*updatemetadata.PartitionUpdate)
			p.PartitionName = proto.String("root-a")
			p.Operations = []*updatemetadata.InstallOperation{{
				Type:       updatemetadata.InstallOperation_ZERO.Enum(),
				DstExtents: []*updatemetadata.Extent{{StartBlock: proto.Uint64(0), NumBlocks: proto.Uint64((p.NewPartitionInfo.GetSize() + 4095) / 4096)}},
			}}
			f.Manifest.Partitions = append(f.Manifest.Partitions, p)
		}), 13, "exactly the partitions"},
		{"no partition", forge(func(f *forgery) {
			f.Manifest.Partitions, f.Blobs = nil, nil
			*f.Manifest.SignaturesOffset = 0
		}), 23, ""},
		{"version that climbs", forge(version("../../EFI/BOOT/BOOTX64")), 23, "version"},
		{"version with a slash", forge(version("1.2.0/x")), 23, "version"},
		{"version with a counter", forge(version("1.2.0+9-0")), 23, "version"},
		{"version with an underscore", forge(version("1.2.0_x")), 23, "version"},
		{"version with a NUL", forge(version("1.2.0\x00.efi")), 23, "version"},
		{"version too long for a label", forge(version("1.2." + strings.Repeat("1", 40))), 13, "cannot be installed"},
		{"version that FAT takes for the running one", keys.Make(t, installtest.Spec{Version: "1.1.0-rc"}), 13, "by the case of its letters only"},
		{"product that climbs", forge(image(func(i *updatemetadata.Image) { i.Id = proto.String("../semper") })), 23, ""},
		{"another product", forge(image(func(i *updatemetadata.Image) { i.Id = proto.String("other") })), 35, `for image "other"`},
		{"another architecture", forge(image(func(i *updatemetadata.Image) { i.Architecture = proto.String("arm64") })), 35, `for architecture "arm64"`},
		{"the same version with other contents", keys.Make(t, installtest.Spec{Version: "1.1.0", RootSize: 80 << 10}), 35, "is not newer than 1.1.0"},
		{"the same version, written otherwise", forge(version("1.01.0")), 35, "is not newer than 1.1.0"},
		{"an older version of a higher epoch", forge(image(func(i *updatemetadata.Image) { i.Version, i.Epoch = proto.String("1.0.0"), proto.Uint64(9) })), 35, "is not newer than 1.1.0"},

		// What would start.
		{"kernel of the running root", kernel(func(p *uki.Parts) { p.Cmdline = "roothash=" + hex.EncodeToString(running.RootHash[:]) + " ro" }), 16, "is for the root hash"},
		{"kernel of both roots", kernel(func(p *uki.Parts) { p.Cmdline += " roothash=" + hex.EncodeToString(running.RootHash[:]) }), 16, "holds roothash= 2 times"},
		{"kernel that says the running version", kernel(func(p *uki.Parts) {
			p.OSRelease = bytes.ReplaceAll(p.OSRelease, []byte("1.2.0"), []byte("1.1.0"))
		}), 16, `IMAGE_VERSION is "1.1.0"`},
		{"kernel that says a version far ahead", kernel(func(p *uki.Parts) {
			p.OSRelease = bytes.ReplaceAll(p.OSRelease, []byte("1.2.0"), []byte("9999"))
		}), 16, `IMAGE_VERSION is "9999"`},
		{"kernel of another product", kernel(func(p *uki.Parts) {
			p.OSRelease = bytes.ReplaceAll(p.OSRelease, []byte("IMAGE_ID=semper"), []byte("IMAGE_ID=aaa"))
		}), 16, `IMAGE_ID is "aaa"`},
		{"the running root", keys.Make(t, installtest.Spec{Version: "1.2.0", Verity: func(v *payload.Verity) { v.RootHash = verity.RootHash(running.RootHash) }}), 35, "is the one that runs"},
		{"the running root's signature", keys.Make(t, installtest.Spec{Version: "1.2.0", Sig: func([]byte) []byte { return running.Sig }}), 15, "signature"},

		// What it would cost.
		{"bomb", forge(func(f *forgery) { f.SetBlob(zstdOp(f), installtest.Compress(t, make([]byte, 64<<20))) }), 28, "decode zstd"},
		{"bomb of many frames", forge(func(f *forgery) {
			f.SetBlob(zstdOp(f), bytes.Repeat(installtest.Compress(t, make([]byte, 64<<10)), 2000))
		}), 28, "decode zstd"},
		{"blob that decodes to too little", forge(func(f *forgery) { f.SetBlob(zstdOp(f), installtest.Compress(t, make([]byte, 4096))) }), 28, "decodes to 4096 bytes"},
		{"manifest of many operations", forge(func(f *forgery) {
			root := f.Part("root")
			root.Operations = append(root.Operations, slices.Repeat(root.Operations[:1], 100_000)...)
		}), 23, ""},
		{"data behind the end", forge(func(f *forgery) { f.Tail = make([]byte, 100_000) }), 11, ""},
		{"blobs that nobody refers to", forge(func(f *forgery) {
			f.Blobs = append(f.Blobs, make([]byte, 100_000)...)
			*f.Manifest.SignaturesOffset += 100_000
		}), 23, ""},
		{"signatures said to be elsewhere", forge(func(f *forgery) { f.Manifest.SignaturesOffset = proto.Uint64(math.MaxUint64) }), 23, ""},

		// What it would be read as.
		{"a minor version of another kind", forge(func(f *forgery) { f.Manifest.MinorVersion = proto.Uint32(7) }), 28, ""},
		{"an operation of another kind", forge(func(f *forgery) {
			op(f, "root", 0).Type = updatemetadata.InstallOperation_SOURCE_COPY.Enum()
		}), 28, ""},
		{"an operation that reads another place", forge(func(f *forgery) { op(f, "root", 0).SrcExtents = op(f, "root", 0).DstExtents }), 23, "has a source"},
		{"kernel's hash of other bytes", forge(func(f *forgery) { sum := sha256.Sum256(nil); f.Part("uki").NewPartitionInfo.Hash = sum[:] }), 15, "SHA-256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := running
			if c.name == "version that FAT takes for the running one" {
				from = keys.Release(t, "1.1.0-RC")
			}
			m := installtest.NewMachine(t, keys, from)
			m.ESP.Put("other_9.efi", []byte("another product's"))
			m.ESP.Put("loader.conf", []byte("timeout 0"))
			before := m.Outside(t)
			entries := m.Entries()
			b := wire.Begin{SHA256: c.release.SHA256Hex(), Size: int64(len(c.release.Payload)), Version: c.release.Version}
			core := m.Core()
			_, err := pushBytes(core, b, c.release.Payload)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("error %v, want one with %q", err, c.want)
			}
			var coded wire.Coded
			if !errors.As(err, &coded) || coded.OmahaCode() != c.code {
				t.Errorf("error %v: code %v, want %d", err, coded, c.code)
			}
			same(t, m.Outside(t), before)
			equal(t, "entries", m.Entries(), entries)
			if left := m.State.Files(); len(left) != 0 && c.code != 11 {
				t.Errorf("left in the state folder: %q", slices.Sorted(maps.Keys(left)))
			}
			if st := status(t, core); st.Pending != nil || st.RolledBack != nil || st.Trial {
				t.Errorf("status %+v", st)
			}
			if err := reboot(core.Handler(agentUID)); err == nil {
				t.Error("the machine would have rebooted")
			}
			equal(t, "boot", m.Boot(t).Version, from.Version)
			same(t, m.Outside(t), before)
		})
	}
}

func zstdOp(f *forgery) *updatemetadata.InstallOperation {
	for _, p := range f.Manifest.GetPartitions() {
		for _, o := range p.GetOperations() {
			if o.GetType() == updatemetadata.InstallOperation_REPLACE_ZSTD {
				return o
			}
		}
	}
	panic("no compressed operation")
}

// same compares what Outside saw.
func same(t *testing.T, got, want map[string]string) {
	t.Helper()
	for _, place := range slices.Sorted(maps.Keys(want)) {
		if got[place] != want[place] {
			t.Errorf("%s has changed", place)
		}
	}
	for place := range got {
		if _, ok := want[place]; !ok {
			t.Errorf("%s is new", place)
		}
	}
}

// The comparison sees what it is there for: each byte that is changed outside of the idle slot, and none inside.
func TestOutsideSeesChanges(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	before := m.Outside(t)
	end := m.Disk.Size()
	for _, c := range []struct {
		name string
		at   int64
		seen bool
	}{
		{"MBR", 0, true},
		{"primary header's last usable sector", 512 + 48, true},
		{"entry of root-a: PARTUUID", 1024 + 2*128 + 16, true},
		{"entry of root-a: label", 1024 + 2*128 + 56, true},
		{"entry of root-b: type", 1024 + 5*128, true},
		{"entry of root-b: first sector", 1024 + 5*128 + 32, true},
		{"entry of root-b: PARTUUID", 1024 + 5*128 + 16, false},
		{"entry of root-b: label", 1024 + 5*128 + 56, false},
		{"backup entry of root-a: PARTUUID", end - 33*512 + 2*128 + 16, true},
		{"backup entry of root-b: PARTUUID", end - 33*512 + 5*128 + 16, false},
		{"before the first partition", 1<<20 - 1, true},
		{"ESP", 1 << 20, true},
		{"first byte of root-a", 2 << 20, true},
		{"last byte of slot A", slotB - 1, true},
		{"first byte of root-b", slotB, false},
		{"last byte of slot B", slotB + 4<<20 - 1, false},
		{"behind slot B", slotB + 4<<20, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var old [1]byte
			must(t, second(m.Disk.ReadAt(old[:], c.at)))
			table := m.Clone() // the table is read from a clone that is whole
			must(t, second(table.Disk.WriteAt([]byte{old[0] ^ 0x55}, c.at)))
			after := table.OutsideOf(t, m)
			if seen := !maps.Equal(before, after); seen != c.seen {
				t.Errorf("seen: %v, want %v", seen, c.seen)
			}
		})
	}
	m.ESP.Put("loader.conf", []byte("x"))
	if maps.Equal(before, m.Outside(t)) {
		t.Error("a new file of the ESP was not seen")
	}
}
