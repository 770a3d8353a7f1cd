package install

import (
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/rootsig"
	"github.com/semper-os/semper/partitions/uki"
	"github.com/semper-os/semper/partitions/verity"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/wire"
)

// finish waits for the payload's last operation, checks the slot as the initramfs will, and makes it bootable.
func (s *session) finish() error {
	_ = s.pipe.Close() // whatever is missing now does not come any more
	<-s.done
	if s.err != nil {
		return s.err
	}
	if err := s.complete(s.result.Manifest); err != nil {
		// The payload is what its signers made; if it does not fit here it will not at a second try either.
		s.err = err
		return err
	}
	return nil
}

func (s *session) complete(m *payload.Manifest) error {
	root := m.Partition(partRoot)
	if err := s.checkSignature(m.Partition(partSig).Size, root.Verity.RootHash); err != nil {
		return withCode(err, omaha.CodeRootVerification)
	}
	size := m.Partition(partUKI).Size
	if err := s.checkUKI(size, m); err != nil {
		return withCode(err, omaha.CodeKernelVerification)
	}
	if err := s.s.Disk.Sync(); err != nil {
		return &coded{fault.New(fault.IO, "flush slot %s: %w", s.idle.Name, err), omaha.CodeWrite}
	}
	if err := layout.MarkComplete(s.table, s.idle.Name, s.c.o.Machine.RootHash, m.Image.Version, root.Verity.RootHash); err != nil {
		return withCode(fmt.Errorf("label slot %s: %w", s.idle.Name, err), omaha.CodeSetBootable)
	}
	if err := s.writeTable(); err != nil {
		return withCode(err, omaha.CodeSetBootable)
	}
	return withCode(s.activate(m, size), omaha.CodeSetBootable)
}

// checkSignature checks the signature partition as the initramfs will see it, after clearing what an older, longer one left behind.
func (s *session) checkSignature(size int64, rootHash [32]byte) error {
	window := min(s.parts.sig.Size(), rootsig.MaxSize)
	if rest := window - size; rest > 0 {
		if _, err := s.parts.sig.WriteAt(make([]byte, rest), size); err != nil {
			return &coded{fault.New(fault.IO, "clear the end of the signature partition: %w", err), omaha.CodeWrite}
		}
	}
	data := make([]byte, window)
	if _, err := s.parts.sig.ReadAt(data, 0); err != nil && !errors.Is(err, io.EOF) {
		return &coded{fault.New(fault.IO, "read the signature partition: %w", err), omaha.CodeWrite}
	}
	return checkRootSignature(data, rootHash, s.trust.Verity)
}

func checkRootSignature(data []byte, rootHash [32]byte, certs []*x509.Certificate) error {
	if len(certs) > 0 {
		if _, err := rootsig.Verify(data, rootHash, certs); err != nil {
			return fmt.Errorf("the new root's signature: %w", err)
		}
		return nil
	}
	var sig struct {
		RootHash string `json:"rootHash"`
	}
	end := len(data)
	for end > 0 && data[end-1] == 0 {
		end--
	}
	if err := json.Unmarshal(data[:end], &sig); err != nil {
		return fault.New(fault.Input, "the new root's signature: %w", err)
	}
	if sig.RootHash != hex.EncodeToString(rootHash[:]) {
		return fault.New(fault.Verification, "the new root's signature is for the root hash %.64q, not for %x", sig.RootHash, rootHash)
	}
	return nil
}

// checkUKI checks that the new kernel starts the new root, and that the boot loader will sort it as the version it is.
func (s *session) checkUKI(size int64, m *payload.Manifest) error {
	f, err := uki.Open(s.uki, size)
	if err != nil {
		return fmt.Errorf("the new kernel: %w", err)
	}
	hash, err := f.RootHash()
	if err != nil {
		return fmt.Errorf("the new kernel: %w", err)
	}
	if want := m.Partition(partRoot).Verity.RootHash; verity.RootHash(hash) != want {
		return refuse(omaha.CodeKernelVerification, "the new kernel is for the root hash %x, the payload's root has %s", hash, want)
	}
	release, err := f.OSRelease()
	if err != nil {
		return fmt.Errorf("the new kernel: %w", err)
	}
	for key, want := range map[string]string{"IMAGE_ID": m.Image.ID, "IMAGE_VERSION": m.Image.Version} {
		if release[key] != want {
			return refuse(omaha.CodeKernelVerification, "the new kernel's %s is %.80q, the payload's %q", key, release[key], want)
		}
	}
	return nil
}

// activate makes the boot loader see the new version. The slot is complete and durable.
func (s *session) activate(m *payload.Manifest, size int64) error {
	machine := s.c.o.Machine
	entry, err := bootentry.New(machine.Image.ID, m.Image.Version, Tries)
	if err != nil {
		return err
	}
	if err := s.copyUKI(size); err != nil {
		return fault.New(fault.IO, "write the new kernel to the ESP: %w", err)
	}
	rootHash := m.Partition(partRoot).Verity.RootHash
	record := pending{
		Pending: wire.Pending{
			Version: m.Image.Version, From: machine.Image.Version, At: s.c.now(),
			Back: bootentry.Compare(m.Image.Version, machine.Image.Version) < 0,
		},
		RootHash: hex.EncodeToString(rootHash[:]),
		BootID:   machine.BootID,
	}
	record.Full = s.c.whyFull(s.s, record, func() (*uki.File, func(), error) {
		f, err := uki.Open(s.uki, size)
		return f, func() {}, err
	})
	if err := durable.WriteJSON(s.s.State, pendingFile, record); err != nil {
		return err
	}
	if err := s.s.ESP.Rename(tempUKI, entry.Name()); err != nil {
		return fault.New(fault.IO, "add the boot entry %s: %w", entry.Name(), err)
	}
	if err := s.s.ESP.Sync(); err != nil {
		// The caller gives the slot up, so its entry must not stay: the boot loader would try it in vain.
		gone := removeFiles(s.s.ESP, entry.Name())
		return fault.New(fault.IO, "add the boot entry %s: %w", entry.Name(), errors.Join(err, gone))
	}
	if record.Back {
		if err := s.c.chooseOlder(s.s, record); err != nil {
			gone := removeFiles(s.s.ESP, entry.Name())
			return errors.Join(err, gone)
		}
	}
	s.c.mark(&record.Pending)
	s.c.o.Log.Info("installed", "version", m.Image.Version, "slot", s.idle.Name, "entry", entry.Name(), "written", s.root.written, "skipped", s.root.skipped)
	// The update exists from here on; what is left is only tidiness.
	if err := durable.WriteJSON(s.s.State, writtenFile, wire.Written{
		Version: m.Image.Version, Bytes: s.root.written, Skipped: s.root.skipped, At: record.At,
	}); err != nil {
		s.c.o.Log.Warn("record of the installation", "error", err)
	}
	s.uki.file.Close()
	if err := removeFiles(s.s.State, checkpointFile, ukiFile, allowedFile); err != nil {
		s.c.o.Log.Warn("remains of the installation", "error", err)
	}
	return nil
}

// chooseOlder makes the boot loader prefer an older version that was allowed over the running one.
func (c *Core) chooseOlder(s *Storage, to pending) error {
	all, err := entries(s.ESP, c.o.Machine.Image.ID)
	if err != nil {
		return err
	}
	return c.lead(s, all, to)
}

// copyUKI writes the UKI to its temporary name and reads it back, since nothing else on FAT would notice a bad sector.
func (s *session) copyUKI(size int64) error {
	f, err := s.s.ESP.Create(tempUKI)
	if err != nil {
		return err
	}
	err = func() error {
		buf := make([]byte, 256<<10)
		if _, err := io.CopyBuffer(&writerAt{w: f}, onlyReader{io.NewSectionReader(s.uki, 0, size)}, buf); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		return same(s.uki, f, size, buf)
	}()
	return errors.Join(err, f.Close())
}

// onlyReader hides SectionReader's WriterTo, so that the copy uses the buffer it is given.
type onlyReader struct{ io.Reader }

// writerAt turns a file that is written at offsets into a stream.
type writerAt struct {
	w   io.WriterAt
	off int64
}

func (w *writerAt) Write(p []byte) (int, error) {
	n, err := w.w.WriteAt(p, w.off)
	w.off += int64(n)
	return n, err
}

func same(a, b io.ReaderAt, size int64, buf []byte) error {
	x, y := buf[:len(buf)/2], buf[len(buf)/2:]
	for off := int64(0); off < size; off += int64(len(x)) {
		n := min(int64(len(x)), size-off)
		for _, r := range []struct {
			from io.ReaderAt
			to   []byte
		}{{a, x[:n]}, {b, y[:n]}} {
			if m, err := r.from.ReadAt(r.to, off); int64(m) < n {
				return err
			}
		}
		if string(x[:n]) != string(y[:n]) {
			return fmt.Errorf("reads back different near byte %d", off)
		}
	}
	return nil
}
