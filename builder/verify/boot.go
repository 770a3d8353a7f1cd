package verify

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/semper-os/semper/builder/arch"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/uki/authenticode"
	"github.com/semper-os/semper/partitions/verity"
)

// kernelImage is a UKI of /EFI/Linux whose signature is good.
type kernelImage struct {
	path        string
	entry       bootentry.Entry
	version     string // IMAGE_VERSION
	rootHash    verity.RootHash
	content     []byte
	verityCerts []*x509.Certificate // from its initrd
}

const folderUKI = "EFI/Linux"

// programs checks every EFI program of the ESP and returns the kernel images among them.
func (i *inspector) programs(e *esp, t *gpt.Table) []kernelImage {
	var kernels []kernelImage
	for _, name := range e.programs() {
		var content []byte
		if !i.check("signature of "+name, func() (string, error) {
			var err error
			if content, err = e.read(name, uki.MaxSize); err != nil {
				return "", err
			}
			f, err := uki.Open(bytes.NewReader(content), int64(len(content)))
			if err != nil {
				return "", err
			}
			cert, err := authenticode.Verify(f, i.options.Certificates)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("by %s", cert.Subject), nil
		}) || !strings.EqualFold(path.Dir(name), folderUKI) {
			continue
		}
		var k kernelImage
		if i.check("kernel image "+path.Base(name), func() (string, error) {
			var err error
			if k, err = readKernelImage(name, content); err != nil {
				return "", err
			}
			slot, err := layout.FindByRootHash(t, k.rootHash)
			if err != nil {
				return "", err
			}
			return fmt.Sprintf("version %s, roothash=%s is slot %s", k.version, k.rootHash, slot.Name), nil
		}) {
			kernels = append(kernels, k)
		}
	}
	i.check("boot loader", func() (string, error) { return bootLoader(e, t) })
	i.check("boot order", func() (string, error) {
		if len(kernels) == 0 {
			return "", fault.New(fault.Verification, "%s holds no good kernel image", folderUKI)
		}
		var entries []bootentry.Entry
		for _, k := range kernels {
			entries = append(entries, k.entry)
		}
		bootentry.Sort(entries)
		for _, k := range kernels {
			if k.entry == entries[0] {
				i.first = k
			}
		}
		i.report.Version, i.report.RootHash = i.first.version, i.first.rootHash.String()
		return i.first.path + " first", nil
	})
	return kernels
}

// readKernelImage reads what a signed UKI says of itself.
func readKernelImage(name string, content []byte) (kernelImage, error) {
	k := kernelImage{path: name, content: content}
	var err error
	if k.entry, err = bootentry.Parse(path.Base(name)); err != nil {
		return k, err
	}
	f, err := uki.Open(bytes.NewReader(content), int64(len(content)))
	if err != nil {
		return k, err
	}
	if k.rootHash, err = f.RootHash(); err != nil {
		return k, err
	}
	fields, err := f.OSRelease()
	if err != nil {
		return k, err
	}
	k.version = fields["IMAGE_VERSION"]
	if stem := fields["IMAGE_ID"] + "_" + k.version; k.entry.Stem != stem {
		return k, fault.New(fault.Verification, "its name begins with %s, but its os-release says %s", k.entry.Stem, stem)
	}
	initrd, err := f.Section(uki.Initrd, uki.MaxSize)
	if err != nil {
		return k, err
	}
	pem, err := initrdFile(initrd, "verity.crt")
	if err != nil {
		return k, err
	}
	if k.verityCerts, err = certificates(pem); err != nil {
		return k, fmt.Errorf("/verity.crt of its initrd: %w", err)
	}
	return k, nil
}

// bootLoader checks that systemd-boot is in both of its places, and the same in both.
func bootLoader(e *esp, t *gpt.Table) (string, error) {
	slots, err := layout.Slots(t)
	if err != nil {
		return "", err
	}
	name, err := archOf(t, slots[0])
	if err != nil {
		return "", err
	}
	row, err := arch.Lookup(name)
	if err != nil {
		return "", err
	}
	var contents [2][]byte
	places := []string{"EFI/BOOT/" + row.EFIBoot, "EFI/systemd/" + row.SDBoot}
	for n, place := range places {
		found, _ := e.find(place)
		if contents[n], err = e.read(found, uki.MaxSize); err != nil {
			return "", err
		}
	}
	if !bytes.Equal(contents[0], contents[1]) {
		return "", fault.New(fault.Verification, "%s and %s differ", places[0], places[1])
	}
	f, err := uki.Open(bytes.NewReader(contents[0]), int64(len(contents[0])))
	if err != nil {
		return "", err
	}
	// systemd's programs say what they are in a section of this name.
	magic, err := f.Section(".sdmagic", 256)
	if errors.Is(err, uki.ErrNoSection) {
		return "", fault.New(fault.Verification, "%s is not systemd-boot: it has no .sdmagic section", places[0])
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s and %s are the same: %s", places[0], places[1], strings.Trim(string(magic), "# \x00")), nil
}

// sameUKI compares the release's uki.efi with the one on the disk.
func (i *inspector) sameUKI(e *esp, kernels []kernelImage) {
	i.check("uki.efi is the one on the disk", func() (string, error) {
		want, err := i.from.read("uki.efi", uki.MaxSize)
		if err != nil {
			return "", err
		}
		if len(kernels) != 1 {
			return "", fault.New(fault.Verification, "%s on the ESP, not one", plural(len(kernels), "kernel image"))
		}
		if !bytes.Equal(kernels[0].content, want) {
			return "", fault.New(fault.Verification, "%s has other bytes", kernels[0].path)
		}
		return kernels[0].path, nil
	})
}
