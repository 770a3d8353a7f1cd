package image

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/semper-os/semper/builder/kernel"
	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/builder/rootfs"
	"github.com/semper-os/semper/builder/sbom"
	"github.com/semper-os/semper/builder/tree"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/partitions/rootsig"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/uki/authenticode"
	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/progress"
)

// bootTries is how often systemd-boot tries a new entry before it goes back.
const bootTries = 3

// root makes the root file system in the file target and returns its size in bytes.
func (b *build) root(ctx context.Context, made *base, target string) (int64, error) {
	defer b.step("root (erofs)", nil)()
	f, err := os.Open(made.tree)
	if err != nil {
		return 0, fault.Wrap(fault.IO, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return 0, fault.Wrap(fault.IO, err)
	}
	t, err := tree.ReadTar(f, info.Size())
	if err != nil {
		return 0, fmt.Errorf("%s: %w", made.tree, err)
	}
	if err := rootfs.Finish(t, b.finishing(made.kernel)); err != nil {
		return 0, err
	}
	var total int64
	for _, p := range t.Paths() {
		total += t.Lookup(p).Size()
	}
	bar := progress.New(b.Terminal, "root file system", total)
	defer bar.Done()
	e := erofs{uuid: b.seed.UUIDString("root"), epoch: b.epoch, compression: b.recipe.Root.Compression}
	size, err := e.write(ctx, b.tools, t, target, bar)
	if err != nil {
		return 0, err
	}
	if size > b.recipe.Root.SlotSize {
		return 0, fault.New(fault.Input, "the root file system has %s, but %s gives its slot %s: leave packages out, or enlarge the slot before machines are installed",
			progress.Size(size), b.recipe.Where("root.slot-size"), progress.Size(b.recipe.Root.SlotSize))
	}
	return size, nil
}

func (b *build) release() rootfs.Release {
	return rootfs.Release{
		ID: b.recipe.Name, Name: b.recipe.Title, Version: b.Version, Epoch: uint64(b.recipe.Epoch), Debian: b.recipe.Suite,
	}
}

func (b *build) finishing(kern *kernel.Result) rootfs.Finishing {
	f := rootfs.Finishing{
		Release: b.release(), RemovePackages: b.recipe.RemovePackages, RemovePaths: b.recipe.RemovePaths, KeepPaths: b.recipe.KeepPaths,
		Epoch: b.epoch, Overlays: b.Overlays,
		Add: func(t *tree.Tree) error { return b.addOwnFiles(t, kern) },
	}
	if _, err := os.Stat(b.recipe.Tree()); err == nil {
		f.Overlays = slices.Insert(slices.Clone(b.Overlays), 0, b.recipe.Tree())
	}
	for _, u := range b.recipe.Users {
		f.Users = append(f.Users, rootfs.User{Name: u.Name, UID: u.UID, GID: u.GID, Home: u.Home, Shell: u.Shell, Groups: u.Groups})
	}
	return f
}

// addOwnFiles puts kernel modules, Semper's programs, the keys that machines trust and the recipe's health checks into the tree.
func (b *build) addOwnFiles(t *tree.Tree, kern *kernel.Result) error {
	if err := kern.AddTo(t); err != nil {
		return err
	}
	for _, p := range imagePrograms {
		if err := t.PutHostFile(p.path, 0o755, b.programs[p.name].file); err != nil {
			return err
		}
	}
	for name, content := range b.keys.Public.Files() {
		if err := t.PutFile("usr/lib/semper/"+name, 0o644, content); err != nil {
			return err
		}
	}
	if err := t.PutFile("usr/lib/semper/keys/verity.crt", 0o644, b.keys.Public.VerityPEM()); err != nil {
		return err
	}
	for _, h := range b.recipe.Health {
		if err := t.PutFile("usr/lib/semper/health.d/"+h.Name, 0o755, []byte(h.Script())); err != nil {
			return err
		}
	}
	return nil
}

// boot is what boots a root.
type boot struct {
	uki       []byte // signed
	sdBoot    []byte // systemd-boot, signed
	signature []byte // of the root hash
}

// sign makes the UKI for a root hash, and the signatures.
func (b *build) sign(rootHash verity.RootHash, kern *kernel.Result, initrd []byte) (*boot, error) {
	defer b.step("UKI and signatures", nil)()
	linux, err := os.ReadFile(kern.Image())
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	stub, err := b.bootFile(b.recipe.Arch.Stub)
	if err != nil {
		return nil, err
	}
	sdBoot, err := b.bootFile(b.recipe.Arch.SDBoot)
	if err != nil {
		return nil, err
	}
	unsigned, err := uki.Assemble(uki.Parts{
		Stub: stub, Linux: linux, Initrd: initrd, Uname: kern.Release, Timestamp: uint32(b.epoch.Unix()),
		OSRelease: []byte(b.release().Text()),
		Cmdline:   "roothash=" + rootHash.String() + " ro " + b.recipe.Kernel.CommandLine,
	})
	if err != nil {
		return nil, fmt.Errorf("UKI: %w", err)
	}
	var out boot
	key := b.keys.SecureBoot
	if out.uki, err = authenticode.Sign(unsigned, key.Signer, key.Certificate); err != nil {
		return nil, fmt.Errorf("sign the UKI: %w", err)
	}
	if out.sdBoot, err = authenticode.Sign(sdBoot, key.Signer, key.Certificate); err != nil {
		return nil, fmt.Errorf("sign systemd-boot: %w", err)
	}
	if out.signature, err = rootsig.Sign(rootHash, b.keys.Verity.Signer, b.keys.Verity.Certificate); err != nil {
		return nil, fmt.Errorf("sign the root hash: %w", err)
	}
	return &out, nil
}

func (b *build) bootFile(name string) ([]byte, error) {
	p, err := b.tools.Path("usr/lib/systemd/boot/efi/" + name)
	if err != nil {
		return nil, err
	}
	content, err := os.ReadFile(p)
	return content, fault.Wrap(fault.IO, err)
}

// writeDisk writes disk.raw.
func (b *build) writeDisk(bt *boot, hash verity.RootHash, root, tree *os.File, name string) error {
	defer b.step("disk.raw", nil)()
	entry, err := bootentry.New(b.recipe.Name, b.Version, bootTries)
	if err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer f.Close()
	d := disk{
		arch: b.recipe.Arch, version: b.Version, rootHash: hash, slotSize: b.recipe.Root.SlotSize, espSize: b.recipe.ESP.Size,
		seed: b.seed, epoch: b.epoch, bootName: entry.Name(), uki: bt.uki, sdBoot: bt.sdBoot, signature: bt.signature,
		root: root, verity: tree,
	}
	if err := d.write(f); err != nil {
		return err
	}
	return fault.Wrap(fault.IO, f.Close())
}

// writePayload writes full.crau.
func (b *build) writePayload(ctx context.Context, bt *boot, hashed verity.Result, root *os.File, size int64, name string) error {
	defer b.step("full.crau", nil)()
	bar := progress.New(b.Terminal, "update payload", size+int64(len(bt.uki)+len(bt.signature)))
	defer bar.Done()
	_, err := payload.WriteFile(ctx, name, payload.WriteOptions{
		Image:     b.payloadImage(),
		Timestamp: b.epoch,
		Partitions: []payload.Partition{
			{Name: "root", Data: root, Size: size, Verity: &payload.Verity{RootHash: hashed.RootHash, Superblock: hashed.Superblock}},
			{Name: "uki", Data: bytes.NewReader(bt.uki), Size: int64(len(bt.uki))},
			{Name: "rootsig", Data: bytes.NewReader(bt.signature), Size: int64(len(bt.signature))},
		},
		Signers:  b.keys.PayloadSigners(),
		Cache:    payload.DirCache{Dir: filepath.Join(b.cache.dir, "chunks"), Now: b.Clock},
		Progress: bar.Add,
	})
	return err
}

// sbom returns the bill of materials.
func (b *build) sbom(hash verity.RootHash) ([]byte, error) {
	im := sbom.Image{Name: b.recipe.Name, Version: b.Version, RootHash: hash[:], Created: b.epoch, Namespace: b.seed.UUIDString("sbom")}
	for _, p := range b.lock.Packages {
		if slices.Contains(b.recipe.RemovePackages, p.Name) || !p.In(lock.Image) && !p.In(lock.Kernel) {
			continue
		}
		im.Components = append(im.Components, sbom.Component{
			Name: p.Name, Version: p.Version, Architecture: p.Architecture, SHA256: p.SHA256, Distribution: b.lock.Suite,
		})
	}
	for _, name := range slices.Sorted(maps.Keys(b.programs)) {
		im.Components = append(im.Components, sbom.Component{Name: name, Version: b.Version, SHA256: b.programs[name].sha256})
	}
	return sbom.Marshal(im)
}
