package image

import (
	"context"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"

	"github.com/semper-os/semper/builder/initrd"
	"github.com/semper-os/semper/builder/kernel"
	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/progress"
)

// assemble makes every file of the release and gives it its name.
func (b *build) assemble(ctx context.Context, made *base) error {
	w, err := release.NewWriter(b.Out, b.recipe.Name, b.Version)
	if err != nil {
		return err
	}
	defer func() { _ = w.Abort() }() // after a failure, which is what gets reported; after Commit it does nothing
	size, err := b.root(ctx, made, w.Path(release.Root))
	if err != nil {
		return err
	}
	root, err := os.Open(w.Path(release.Root))
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer root.Close()
	tree, err := os.OpenFile(w.Path(release.Verity), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer tree.Close()
	hashed, err := b.hash(root, size, tree)
	if err != nil {
		return err
	}
	bt, err := b.sign(hashed.RootHash, made.kernel, made.initrd)
	if err != nil {
		return err
	}
	group, inGroup := errgroup.WithContext(ctx)
	group.Go(func() error { return b.seal(inGroup, w, release.Root, release.Verity) })
	group.Go(func() error {
		if err := b.writeDisk(bt, hashed.RootHash, root, tree, w.Path(release.Disk)); err != nil {
			return err
		}
		return b.seal(inGroup, w, release.Disk)
	})
	group.Go(func() error { return b.writePayload(inGroup, bt, hashed, root, size, w.Path(release.Payload)) })
	group.Go(func() error { return b.writeSmallFiles(w, bt, hashed.RootHash) })
	if err := group.Wait(); err != nil {
		return err
	}
	return b.commit(ctx, w, hashed.RootHash)
}

// seal hashes and flushes finished files while others are being made: a disk image takes seconds of both.
func (b *build) seal(ctx context.Context, w *release.Writer, names ...string) error {
	defer b.step("hash and flush "+names[0], nil)()
	return w.Seal(ctx, names...)
}

func (b *build) initrd(kern *kernel.Result) ([]byte, error) {
	defer b.step("initrd", nil)()
	init, err := os.ReadFile(b.programs[initProgram].file)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	archive, err := initrd.Build(initrd.Options{
		Arch: b.recipe.Arch.Debian, Init: init, ModulesDir: kern.ModulesDir(), Certs: b.keys.Public.VerityPEM(),
	})
	if err != nil {
		return nil, err
	}
	return archive.Bytes, nil
}

// hash makes the dm-verity tree over the root.
func (b *build) hash(root *os.File, size int64, tree *os.File) (verity.Result, error) {
	defer b.step("dm-verity", nil)()
	salt := b.seed.Bytes("verity-salt")
	return verity.Format(root, size, tree, verity.Params{UUID: b.seed.UUID("verity"), Salt: salt[:]})
}

func (b *build) writeSmallFiles(w *release.Writer, bt *boot, hash verity.RootHash) error {
	bill, err := b.sbom(hash)
	if err != nil {
		return err
	}
	for name, content := range map[string][]byte{
		release.UKI: bt.uki, release.RootSig: bt.signature, release.SBOM: bill, release.Packages: b.lock.Encode(),
	} {
		if err := w.WriteFile(name, content); err != nil {
			return err
		}
	}
	return nil
}

// commit hashes, signs and publishes the release.
func (b *build) commit(ctx context.Context, w *release.Writer, hash verity.RootHash) error {
	defer b.step("hash and sign the list", nil)()
	m := b.manifest()
	m.RootHash = hash.String()
	bar := progress.New(b.Terminal, "hash the release", 0)
	defer bar.Done()
	dir, err := w.Commit(ctx, m, release.CommitOptions{Signers: b.keys.PayloadSigners(), Replace: b.Replace, Bar: bar})
	if err != nil {
		return err
	}
	b.result.Release, b.result.Version, b.result.RootHash = dir, b.Version, hash.String()
	b.result.Files = map[string]int64{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fault.Wrap(fault.IO, fmt.Errorf("list the release: %w", err))
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return fault.Wrap(fault.IO, err)
		}
		b.result.Files[e.Name()] = info.Size()
	}
	return nil
}
