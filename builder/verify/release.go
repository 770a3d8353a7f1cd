package verify

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/progress"
)

// manifest is the release that a disk is compared with.
type manifest struct {
	*release.Release
	ctx context.Context
}

// required are the files that every release has.
var required = []string{release.Disk, release.Root, release.Verity, release.RootSig, release.UKI, release.Payload, release.Packages}

// release checks a release directory, and the disk in it.
func (i *inspector) release(dir string) {
	var r *release.Release
	signed := len(i.options.Trust.Keys) > 0
	if !signed {
		i.skip("manifest signatures", "no --payload-key was given: who made the list of files is not known")
	}
	if !i.check("manifest", func() (string, error) {
		var err error
		if signed {
			r, err = release.Open(dir, i.options.Trust)
		} else {
			r, err = release.OpenUnverified(dir)
		}
		if err != nil {
			return "", err
		}
		m := &r.Manifest
		for _, name := range required {
			if _, ok := m.File(name); !ok {
				return "", fault.New(fault.Verification, "it does not list %s", name)
			}
		}
		detail := fmt.Sprintf("%s %s for %s, epoch %d, %s", m.Name, m.Version, m.Architecture, m.Epoch, plural(len(m.Files), "file"))
		if signed {
			detail += fmt.Sprintf(", signed by %s", plural(len(r.Signers), "trusted key"))
		}
		return detail, nil
	}) {
		return
	}
	if !i.check("files of the release", func() (string, error) {
		bar := progress.New(i.options.Terminal, "files of the release", r.Size())
		defer bar.Done()
		if err := r.CheckFiles(i.ctx, bar); err != nil {
			return "", err
		}
		return fmt.Sprintf("%s have the size and SHA-256 of the manifest", progress.Size(r.Size())), nil
	}) {
		return
	}
	i.payload(r)
	i.from = &manifest{Release: r, ctx: i.ctx}
	i.disk(r.Path(release.Disk))
	i.check("disk and manifest agree", func() (string, error) {
		m := r.Manifest
		if i.first.rootHash.String() != m.RootHash || i.first.version != m.Version {
			return "", fault.New(fault.Verification, "the disk boots version %q with root hash %s, the manifest says %s and %s", i.first.version, i.first.rootHash,
				m.Version, m.RootHash)
		}
		return fmt.Sprintf("version %s, root hash %s", m.Version, m.RootHash), nil
	})
}

// payload checks the update payload against the manifest.
func (i *inspector) payload(r *release.Release) {
	i.check("update payload", func() (string, error) {
		f, err := os.Open(r.Path(release.Payload))
		if err != nil {
			return "", fault.New(fault.IO, "%w", err)
		}
		defer f.Close()
		entry, _ := r.Manifest.File(release.Payload)
		var m *payload.Manifest
		how := "not verified without --payload-key"
		if len(i.options.Trust.Keys) == 0 {
			if m, err = payload.Inspect(i.ctx, f, entry.Size); err != nil {
				return "", err
			}
		} else {
			bar := progress.New(i.options.Terminal, "update payload", entry.Size)
			defer bar.Done()
			checked, err := payload.Check(i.ctx, f, entry.Size, i.options.Trust, func(n int) { bar.Add(int64(n)) })
			if err != nil {
				return "", err
			}
			m = checked.Manifest
			how = fmt.Sprintf("every operation's hash, metadata and contents signed by %s", plural(len(checked.Signers), "trusted key"))
		}
		root := m.Partition("root")
		if root == nil || root.Verity == nil || root.Verity.RootHash.String() != r.Manifest.RootHash {
			return "", fault.New(fault.Verification, "it does not install the root hash of the manifest")
		}
		if m.Image.MinVersion != r.Manifest.MinVersion {
			return "", fault.New(fault.Verification, "it can be installed from version %q on, the manifest says %q", m.Image.MinVersion, r.Manifest.MinVersion)
		}
		if m.Image.ID != r.Manifest.Name || m.Image.Version != r.Manifest.Version || m.Image.Epoch != r.Manifest.Epoch || m.Image.Architecture != r.Manifest.Architecture {
			return "", fault.New(fault.Verification, "it installs %s %s (epoch %d, %s), the manifest is of %s %s (epoch %d, %s)", m.Image.ID, m.Image.Version, m.Image.Epoch,
				m.Image.Architecture, r.Manifest.Name, r.Manifest.Version, r.Manifest.Epoch, r.Manifest.Architecture)
		}
		for part, name := range map[string]string{"root": release.Root, "uki": release.UKI, "rootsig": release.RootSig} {
			file, _ := r.Manifest.File(name)
			p := m.Partition(part)
			if p == nil || p.Size != file.Size || fmt.Sprintf("%x", p.SHA256) != file.SHA256 {
				return "", fault.New(fault.Verification, "its partition %s is not %s", part, name)
			}
		}
		return fmt.Sprintf("%s, installs what the manifest lists; %s", progress.Size(entry.Size), how), nil
	})
}

// read returns a whole file of the release. The files' hashes have been checked.
func (m *manifest) read(name string, limit int64) ([]byte, error) {
	f, err := os.Open(m.Path(name))
	if err != nil {
		return nil, fault.New(fault.IO, "%w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fault.New(fault.IO, "read %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fault.New(fault.Verification, "%s has more than %d bytes", name, limit)
	}
	return b, nil
}

// sameSlot compares the files of the release with the partitions of the slot. What follows in a partition must be zero.
func (i *inspector) sameSlot(disk *os.File, root, tree, sig gpt.Partition) {
	i.check("root.erofs, root.verity and root.verity-sig are on the disk", func() (string, error) {
		for _, pair := range []struct {
			name string
			part gpt.Partition
		}{{release.Root, root}, {release.Verity, tree}, {release.RootSig, sig}} {
			if err := i.samePartition(disk, pair.name, pair.part); err != nil {
				return "", fmt.Errorf("%s and partition %q: %w", pair.name, strings.TrimSpace(pair.part.Name), err)
			}
		}
		return "byte for byte, and zeros behind them", nil
	})
}

func (i *inspector) samePartition(disk *os.File, name string, p gpt.Partition) error {
	f, err := os.Open(i.from.Path(name))
	if err != nil {
		return fault.New(fault.IO, "%w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fault.New(fault.IO, "%w", err)
	}
	if info.Size() > p.Size() {
		return fault.New(fault.Verification, "the file has %d bytes, the partition %d", info.Size(), p.Size())
	}
	if err := sameBytes(i.ctx, f, section(disk, p), info.Size()); err != nil {
		return err
	}
	end := p.Offset() + p.Size()
	at, err := firstNonZero(i.ctx, disk, p.Offset()+info.Size(), end)
	if err != nil {
		return err
	}
	if at != end {
		return fault.New(fault.Verification, "byte %d of the partition, behind the file's end, is not zero", at-p.Offset())
	}
	return nil
}
