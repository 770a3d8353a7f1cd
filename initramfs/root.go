package initramfs

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/initramfs/devmapper"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/rootsig"
	"github.com/semper-os/semper/partitions/verity"
)

// verityUUID begins the device-mapper UUID of a dm-verity device: CRYPT-VERITY-UUID-NAME.
const verityUUID = "CRYPT-VERITY-"

// parseCerts reads the certificates of /verity.crt. At least one must be there.
func parseCerts(b []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fault.New(fault.Input, "%s: %w", certPath, err)
		}
		certs = append(certs, c)
	}
	if len(certs) == 0 {
		return nil, fault.New(fault.Input, "%s: no certificate", certPath)
	}
	return certs, nil
}

// readPart reads the first n bytes of a partition, or all of a smaller one. Reads go to the whole disk, as the partition table has it: what the kernel believes
// of partitions is set right later.
func readPart(disk io.ReaderAt, p gpt.Partition, n int64) ([]byte, error) {
	return io.ReadAll(io.NewSectionReader(disk, p.Offset(), min(n, p.Size())))
}

// checkSlot checks a slot's signature and the top of its hash tree before the kernel sees it, for the sake of a message that says what is wrong; all blocks
// are checked by the kernel as they are read.
func checkSlot(disk io.ReaderAt, t tableOf, rootHash verity.RootHash, certs []*x509.Certificate) (verity.Superblock, error) {
	part := func(number int) gpt.Partition { return t.table.Partitions[number-1] }
	where := func(number int) string {
		return fmt.Sprintf("slot %s (version %s), partition %s of disk %s", t.slot.Name, t.slot.Version, partitionName(t.disk.name, number), t.disk.node())
	}
	if t.slot.Sig == 0 {
		return verity.Superblock{}, &Failure{What: "The system's signature is missing", Where: where(t.slot.Root), Err: errors.New("the slot has no signature partition")}
	}
	sig, err := readPart(disk, part(t.slot.Sig), rootsig.MaxSize)
	if err != nil {
		return verity.Superblock{}, &Failure{What: "The disk cannot be read", Where: where(t.slot.Sig), Err: err}
	}
	if _, err := rootsig.Verify(sig, rootHash, certs); err != nil {
		return verity.Superblock{}, &Failure{
			What: "The system's signature is wrong: it was not made by the owner of this system's key, or it is damaged", Where: where(t.slot.Sig), Err: err,
		}
	}
	data, hash := part(t.slot.Root), part(t.slot.Verity)
	sb, err := verity.CheckTop(
		io.NewSectionReader(disk, data.Offset(), data.Size()), data.Size(),
		io.NewSectionReader(disk, hash.Offset(), hash.Size()), hash.Size(), rootHash)
	if err != nil {
		what, at, do := "The system is damaged: it does not match its root hash", where(t.slot.Verity), "if this comes back after an update, the disk is failing"
		var block *verity.BlockError
		if errors.As(err, &block) && block.Level < 0 {
			at = where(t.slot.Root)
		}
		if !fault.Is(err, fault.Verification) && !fault.Is(err, fault.Input) {
			what, do = "The disk cannot be read", ""
		}
		return verity.Superblock{}, &Failure{What: what, Where: at, Err: err, Do: do}
	}
	return sb, nil
}

// verityDevice describes /dev/mapper/NAME. The UUID has the form by which cryptsetup's tools recognise a device as dm-verity's.
func verityDevice(name, dataNode, hashNode string, sb verity.Superblock, rootHash verity.RootHash) (devmapper.Device, error) {
	target, err := devmapper.Verity{Data: dataNode, Hash: hashNode, DataBlocks: sb.DataBlocks, Salt: sb.Salt, RootHash: rootHash}.Target()
	if err != nil {
		return devmapper.Device{}, err
	}
	return devmapper.Device{
		Name: name, UUID: fmt.Sprintf("%s%x-%s", verityUUID, sb.UUID, name), ReadOnly: true, Table: []devmapper.Target{target},
	}, nil
}

// activate makes a device-mapper device and returns its node.
func activate(d devmapper.Device) (string, error) {
	if err := waitFor(devmapper.Control, 5*time.Second); err != nil {
		return "", err
	}
	control, err := os.OpenFile(devmapper.Control, os.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer control.Close()
	number, err := d.Activate(control)
	if err != nil {
		return "", err
	}
	node := fmt.Sprintf("/dev/dm-%d", unix.Minor(number))
	if err := waitFor(node, 5*time.Second); err != nil {
		return "", err
	}
	// udev makes this link only in images that have dmsetup's rules.
	if err := os.Symlink("../"+node[len("/dev/"):], "/dev/mapper/"+d.Name); err != nil && !errors.Is(err, os.ErrExist) {
		return "", err
	}
	return node, nil
}

// waitFor waits until a node exists. The kernel makes nodes before an ioctl returns; this is for the day when it does not.
func waitFor(path string, patience time.Duration) error {
	for end := time.Now().Add(patience); ; time.Sleep(2 * time.Millisecond) {
		_, err := os.Stat(path)
		if err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("did not appear within %d seconds: %w", int(patience.Seconds()), err)
		}
	}
}

// mountRoot mounts the verified root.
func mountRoot(node, at string) error {
	if err := os.MkdirAll(at, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(node, at, "erofs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("mount %s (erofs): %w", node, err)
	}
	return nil
}

// isErofs is for a message that is better than "invalid argument".
func isErofs(disk io.ReaderAt, p gpt.Partition) bool {
	b := make([]byte, 4)
	_, err := disk.ReadAt(b, p.Offset()+1024)
	return err == nil && bytes.Equal(b, []byte{0xe2, 0xe1, 0xf5, 0xe0})
}
