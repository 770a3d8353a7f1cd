package verify_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/builder/keys"
	"github.com/semper-os/semper/builder/keys/keystest"
	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/builder/verify"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/fat"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/uki/ukitest"
	"github.com/semper-os/semper/payload"
)

var diskChecks = []string{
	"disk", "partition table", "partition table by go-diskfs", "disk layout", "EFI system partition", "loader.conf",
	"signature of EFI/BOOT/BOOTX64.EFI", "signature of EFI/Linux/semper_1.2.0+3-0.efi", "kernel image semper_1.2.0+3-0.efi",
	"signature of EFI/systemd/systemd-bootx64.efi", "boot loader", "boot order",
	"slot A", "dm-verity of slot A", "root hash signature of slot A", "slot B is empty",
}

// expect compares names of checks, in order; those in failed must have failed with the given text, all others be ok.
func expect(t *testing.T, r *verify.Report, names []string, failed map[string]string) {
	t.Helper()
	var got []string
	for _, c := range r.Checks {
		got = append(got, c.Name)
		want, bad := failed[c.Name]
		switch {
		case bad && (c.Status != verify.Failed || !strings.Contains(c.Detail, want)):
			t.Errorf("%s: %s (%s), want it failed with %q", c.Name, c.Status, c.Detail, want)
		case !bad && c.Status != verify.OK:
			t.Errorf("%s: %s (%s), want ok", c.Name, c.Status, c.Detail)
		}
	}
	if names != nil && !slices.Equal(got, names) {
		t.Errorf("checks %q, want %q", got, names)
	}
	for name := range failed {
		if !slices.Contains(got, name) {
			t.Errorf("check %q was not made, only %q", name, got)
		}
	}
	if err := r.Err(); (err != nil) != (len(failed) > 0) || err != nil && !fault.Is(err, fault.Verification) {
		t.Errorf("the report's error is %v", err)
	}
}

func TestGoodDisk(t *testing.T) {
	s := newSmall(t)
	r := run(t, s.disk(t, ""), s.options())
	expect(t, r, diskChecks, nil)
	if r.Kind != "disk" || r.Version != "1.2.0" || r.RootHash != s.hashed.RootHash.String() {
		t.Errorf("%+v", r)
	}
	for _, c := range r.Checks {
		if c.Name == "dm-verity of slot A" && !strings.HasPrefix(c.Detail, "all 300 blocks (1.2 MiB)") {
			t.Errorf("%s", c.Detail)
		}
		if strings.HasPrefix(c.Name, "signature of") && c.Detail != "by CN=Test verify Secure Boot" {
			t.Errorf("%s: %s", c.Name, c.Detail)
		}
	}
}

func TestGoodVariants(t *testing.T) {
	t.Run("packed initrd", func(t *testing.T) {
		s := newSmall(t)
		s.initrd = packed(t, s.initrd)
		expect(t, run(t, s.disk(t, ""), s.options()), diskChecks, nil)
	})
	t.Run("blessed", func(t *testing.T) {
		s := newSmall(t)
		s.uki = "EFI/Linux/semper_1.2.0.efi"
		expect(t, run(t, s.disk(t, ""), s.options()), nil, nil)
	})
	t.Run("several certificates", func(t *testing.T) {
		s := newSmall(t)
		o := s.options()
		o.Certificates = []*x509.Certificate{keystest.Load(t, "stranger").SecureBoot.Certificate, s.keys.Verity.Certificate, s.keys.SecureBoot.Certificate}
		expect(t, run(t, s.disk(t, ""), o), diskChecks, nil)
	})
	t.Run("a machine's disk with /var and remains in slot B", func(t *testing.T) {
		s := newSmall(t)
		s.after = func(f *os.File, plan layout.Plan) error {
			if _, err := f.WriteAt([]byte("old"), plan.Part("root-b").Offset()+77); err != nil {
				return err
			}
			size := plan.DiskSize + 80*mib
			if err := f.Truncate(size); err != nil {
				return err
			}
			table, _, err := gpt.Read(f, size)
			if err != nil {
				return err
			}
			if err := table.Resize(size); err != nil {
				return err
			}
			if _, err := layout.AddVar(table, gpt.GUID{1}, size); err != nil {
				return err
			}
			return table.Write(f)
		}
		r := run(t, s.disk(t, ""), s.options())
		expect(t, r, diskChecks, nil)
		if c := r.Checks[len(r.Checks)-1]; !strings.Contains(c.Detail, "remains") {
			t.Errorf("%+v", c)
		}
	})
}

// After an update both slots hold a version, and the newer one with tries left boots first.
func TestUpdatedDisk(t *testing.T) {
	next := newSmall(t)
	next.version, next.uki = "1.10.0", "EFI/Linux/semper_1.10.0+2-1.efi"
	next.root = bytes.Repeat([]byte("next"), 100*1024)
	next.disk(t, "")

	s := newSmall(t)
	s.uki = "EFI/Linux/semper_1.2.0.efi"
	s.more = []fat.File{memory(next.uki, next.signedUKI)}
	s.after = func(f *os.File, plan layout.Plan) error {
		table, _, err := gpt.Read(f, plan.DiskSize)
		if err != nil {
			return err
		}
		if err := layout.MarkWriting(table, layout.B, s.hashed.RootHash, "1.10.0"); err != nil {
			return err
		}
		if err := layout.MarkComplete(table, layout.B, s.hashed.RootHash, "1.10.0", next.hashed.RootHash); err != nil {
			return err
		}
		for label, b := range map[string][]byte{"root-b": next.root, "verity-b": next.tree, "verity-sig-b": next.signature} {
			if _, err := f.WriteAt(b, plan.Part(label).Offset()); err != nil {
				return err
			}
		}
		return table.Write(f)
	}
	path := s.disk(t, "")
	r := run(t, path, s.options())
	expect(t, r, nil, nil)
	if r.Version != "1.10.0" || r.RootHash != next.hashed.RootHash.String() || r.Checks[len(r.Checks)-1].Name != "root hash signature of slot B" {
		t.Errorf("%+v", r)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	plan, err := layout.NewPlan(slotSize, espSize, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("x"), plan.Part("root-b").Offset()+4096); err != nil {
		t.Fatal(err)
	}
	expect(t, run(t, path, s.options()), nil, map[string]string{"dm-verity of slot B": "block 1 "})
}

func TestBadDisks(t *testing.T) {
	stranger := keystest.Load(t, "stranger")
	// at returns a function that writes bytes into a partition of the plan.
	at := func(label string, off int64, b ...byte) func(*os.File, layout.Plan) error {
		return func(f *os.File, plan layout.Plan) error {
			_, err := f.WriteAt(b, plan.Part(label).Offset()+off)
			return err
		}
	}
	const (
		signUKI = "signature of EFI/Linux/semper_1.2.0+3-0.efi"
		kernel  = "kernel image semper_1.2.0+3-0.efi"
		order   = "boot order"
		slot    = "slot A"
		rootSig = "root hash signature of slot A"
		noUKI   = "no kernel image on the ESP"
	)
	for name, c := range map[string]struct {
		change func(s *small)
		failed map[string]string
	}{
		"one bit of the first block": {func(s *small) { s.after = at("root-a", 5, 0xff) }, map[string]string{"dm-verity of slot A": "block 0"}},
		"one bit of the last block":  {func(s *small) { s.after = at("root-a", 300*4096-1, 0xff) }, map[string]string{"dm-verity of slot A": "block 299"}},
		"hash tree":                  {func(s *small) { s.after = at("verity-a", 4096+100, 0xff) }, map[string]string{"dm-verity of slot A": ""}},
		"signature partition":        {func(s *small) { s.after = at("verity-sig-a", 0, 'x') }, map[string]string{rootSig: ""}},
		"signature by a stranger":    {func(s *small) { s.signDM = stranger.Verity }, map[string]string{rootSig: ""}},
		"slot B not empty":           {func(s *small) { s.after = at("verity-b", 5000, 1) }, map[string]string{"slot B is empty": "partition 7 is labelled empty, but its byte 5000 is not zero"}},
		"unsigned kernel image": {
			func(s *small) { s.signUKI = keys.Pair{} },
			map[string]string{signUKI: "it is not signed", order: "no good kernel image", slot: noUKI, rootSig: noUKI},
		},
		"stranger's kernel image": {
			func(s *small) { s.signUKI = stranger.SecureBoot },
			map[string]string{signUKI: "another certificate, of \"CN=Test stranger Secure Boot\"", order: "", slot: noUKI, rootSig: noUKI},
		},
		"stranger's boot loader": {
			func(s *small) { s.signSD = stranger.SecureBoot },
			map[string]string{"signature of EFI/BOOT/BOOTX64.EFI": "another certificate", "signature of EFI/systemd/systemd-bootx64.efi": "another certificate"},
		},
		"unsigned program beside": {
			func(s *small) { s.more = []fat.File{memory("EFI/tools/shell.efi", s.sdBoot)} },
			map[string]string{"signature of EFI/tools/shell.efi": "it is not signed"},
		},
		"no program at all": {
			func(s *small) { s.more = []fat.File{memory("EFI/x.EFI", []byte("text"))} },
			map[string]string{"signature of EFI/x.EFI": "not a usable EFI program"},
		},
		"another root hash": {
			func(s *small) { s.cmdline = "roothash=" + strings.Repeat("11", 32) },
			map[string]string{kernel: "no partition of this disk", order: "", slot: noUKI, rootSig: noUKI},
		},
		"no root hash":      {func(s *small) { s.cmdline = "ro" }, map[string]string{kernel: "roothash= 0 times", order: "", slot: noUKI, rootSig: noUKI}},
		"misnamed":          {func(s *small) { s.uki = "EFI/Linux/semper_1.3.0+3-0.efi" }, map[string]string{"kernel image semper_1.3.0+3-0.efi": "its os-release says semper_1.2.0", order: "", slot: noUKI, rootSig: noUKI}},
		"no certificate":    {func(s *small) { s.initrd = cpio("other", nil) }, map[string]string{kernel: "it has no file /verity.crt", order: "", slot: noUKI, rootSig: noUKI}},
		"initrd is rubbish": {func(s *small) { s.initrd = []byte("rubbish") }, map[string]string{kernel: "initrd: entry 1", order: "", slot: noUKI, rootSig: noUKI}},
		"two boot loaders": {func(s *small) {
			s.second = ukitest.Kernel(10, true)
		}, map[string]string{"boot loader": "EFI/BOOT/BOOTX64.EFI and EFI/systemd/systemd-bootx64.efi differ"}},
		"another boot loader": {func(s *small) {
			s.sdBoot = ukitest.Kernel(10, true)
		}, map[string]string{"boot loader": "EFI/BOOT/BOOTX64.EFI is not systemd-boot"}},
		"no editor setting": {func(s *small) { s.conf = "" }, map[string]string{"loader.conf": "editor no"}},
		"editor allowed":    {func(s *small) { s.conf = "editor yes\n" }, map[string]string{"loader.conf": "editor no"}},
		"default entry":     {func(s *small) { s.conf += "default semper_1.2.0.efi\n" }, map[string]string{"loader.conf": "default entry"}},
		"set twice":         {func(s *small) { s.conf += "editor yes\n" }, map[string]string{"loader.conf": "line 4 sets editor again"}},
		"other label":       {func(s *small) { s.table = func(t *gpt.Table) { t.Partitions[2].Name = "PRT#semper_1.2.0" } }, map[string]string{slot: "it is being written"}},
		"label of a version": {func(s *small) {
			s.table = func(t *gpt.Table) {
				for n := 2; n < 5; n++ {
					t.Partitions[n].Name = "semper_9"
				}
			}
		}, map[string]string{slot: "labelled 9, but EFI/Linux/semper_1.2.0+3-0.efi, which boots it, is of version 1.2.0"}},
		"other PARTUUID": {
			func(s *small) { s.table = func(t *gpt.Table) { t.Partitions[3].GUID[0] ^= 1 } },
			map[string]string{kernel: "missing", order: "", slot: "it is being written"},
		},
		"writable root": {func(s *small) { s.table = func(t *gpt.Table) { t.Partitions[2].Attributes = 0 } }, map[string]string{"disk layout": "partition 3 (root-a)"}},
		"one partition more": {func(s *small) {
			s.table = func(t *gpt.Table) {
				last := t.Partitions[7].Last
				t.Partitions = append(t.Partitions, gpt.Partition{Type: gpt.TypeLinux, GUID: gpt.GUID{9}, First: last + 1, Last: last + 100, Name: "extra"})
			}
		}, map[string]string{"disk layout": "1 partition more"}},
		"backup table": {func(s *small) {
			s.after = func(f *os.File, plan layout.Plan) error {
				_, err := f.WriteAt(make([]byte, 512), plan.DiskSize-512)
				return err
			}
		}, map[string]string{"partition table": "only the primary copy is good"}},
		"primary table": {func(s *small) {
			s.after = func(f *os.File, plan layout.Plan) error { _, err := f.WriteAt(make([]byte, 512), 512); return err }
		}, map[string]string{"partition table": "only the backup copy is good"}},
		"grown disk": {func(s *small) {
			s.after = func(f *os.File, plan layout.Plan) error { return f.Truncate(plan.DiskSize + mib) }
		}, map[string]string{"partition table": "goes on behind the backup"}},
		"not FAT": {
			func(s *small) { s.after = at("esp", 0, make([]byte, 512)...) },
			map[string]string{"EFI system partition": "FAT32", slot: noUKI, rootSig: noUKI},
		},
		"tables differ": {func(s *small) {
			s.after = func(f *os.File, plan layout.Plan) error {
				esp := plan.Part("esp")
				var boot [512]byte
				if _, err := f.ReadAt(boot[:], esp.Offset()); err != nil {
					return err
				}
				first := int64(binary.LittleEndian.Uint16(boot[14:])) * 512
				return at("esp", first+4*4000, 1, 2, 3, 4)(f, plan)
			}
		}, map[string]string{"EFI system partition": "the two tables differ", slot: noUKI, rootSig: noUKI}},
		"ring of clusters": {
			func(s *small) { s.after = chain(60000, 60001, 60000) },
			map[string]string{"EFI system partition": "is a ring", slot: noUKI, rootSig: noUKI},
		},
		"chain into itself": {
			func(s *small) { s.after = chain(60000, 60001, 60002, 60001) },
			map[string]string{"EFI system partition": "cluster 60001 follows two others", slot: noUKI, rootSig: noUKI},
		},
		"chain behind the table": {
			func(s *small) { s.after = chain(lastEntry, 5) },
			map[string]string{"EFI system partition": "clusters that there are not", slot: noUKI, rootSig: noUKI},
		},
		"chain out of the table": {
			func(s *small) { s.after = chain(60000, 0x0ffffff0) },
			map[string]string{"EFI system partition": "cluster 60000 is followed by 268435440", slot: noUKI, rootSig: noUKI},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSmall(t)
			c.change(s)
			expect(t, run(t, s.disk(t, ""), s.options()), nil, c.failed)
		})
	}
}

const lastEntry = 0xffffffff // of the table, behind the last cluster

// chain writes a chain of clusters into both tables of the ESP.
func chain(clusters ...uint32) func(*os.File, layout.Plan) error {
	return func(f *os.File, plan layout.Plan) error {
		base := plan.Part("esp").Offset()
		var boot [512]byte
		if _, err := f.ReadAt(boot[:], base); err != nil {
			return err
		}
		first, size := int64(binary.LittleEndian.Uint16(boot[14:]))*512, int64(binary.LittleEndian.Uint32(boot[36:]))*512
		if clusters[0] == lastEntry {
			clusters[0] = uint32(size/4) - 1
		}
		for k := range len(clusters) - 1 {
			next := binary.LittleEndian.AppendUint32(nil, clusters[k+1])
			for _, table := range []int64{first, first + size} {
				if _, err := f.WriteAt(next, base+table+4*int64(clusters[k])); err != nil {
					return err
				}
			}
		}
		return nil
	}
}

func TestNoDisk(t *testing.T) {
	s := newSmall(t)
	path := tempDisk(t)
	if err := os.WriteFile(path, bytes.Repeat([]byte("not a disk "), 100000), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(t, run(t, path, s.options()), []string{"disk", "partition table"}, map[string]string{"partition table": ""})
	if _, err := verify.Run(context.Background(), filepath.Join(t.TempDir(), "nowhere"), s.options()); !fault.Is(err, fault.Input) {
		t.Errorf("no file: %v", err)
	}
	if _, err := verify.Run(context.Background(), path, verify.Options{}); !fault.Is(err, fault.Usage) {
		t.Errorf("no certificate: %v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := verify.Run(ctx, path, s.options()); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

const sameSlot = "root.erofs, root.verity and root.verity-sig are on the disk"

var releaseChecks = slices.Concat(
	[]string{"manifest", "files of the release", "update payload"}, diskChecks[:12], []string{"uki.efi is the one on the disk"},
	diskChecks[12:15], []string{sameSlot}, diskChecks[15:], []string{"disk and manifest agree"})

func TestGoodRelease(t *testing.T) {
	s := newSmall(t)
	dir := s.release(t, t.TempDir(), nil)
	r := run(t, dir, s.options())
	expect(t, r, releaseChecks, nil)
	if r.Kind != "release" || r.Version != "1.2.0" || r.RootHash != s.hashed.RootHash.String() {
		t.Errorf("%+v", r)
	}

	o := s.options()
	o.Trust = payload.Trust{}
	r = run(t, dir, o)
	if r.Err() != nil || r.Checks[0].Name != "manifest signatures" || r.Checks[0].Status != verify.Skipped || r.Count(verify.OK) != len(releaseChecks) {
		t.Errorf("without payload keys: %v, %+v", r.Err(), r.Checks)
	}
}

func TestBadReleases(t *testing.T) {
	stranger := keystest.Load(t, "stranger")
	overwrite := func(w *release.Writer, name string, off int64, b ...byte) error {
		f, err := os.OpenFile(w.Path(name), os.O_RDWR, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteAt(b, off)
		return errors.Join(err, f.Close())
	}
	for name, c := range map[string]struct {
		change func(w *release.Writer, m *release.Manifest) error // before it is signed
		after  func(dir string) error                             // behind the signer's back
		trust  *payload.Trust
		failed map[string]string
	}{
		"changed file": {
			after: func(dir string) error {
				return os.WriteFile(filepath.Join(dir, "packages.lock"), []byte("kcol"), 0o600)
			},
			failed: map[string]string{"files of the release": "packages.lock has the SHA-256"},
		},
		"file more": {
			after:  func(dir string) error { return os.WriteFile(filepath.Join(dir, "readme"), nil, 0o600) },
			failed: map[string]string{"files of the release": "readme is not in the manifest"},
		},
		"stranger's signature": {
			trust:  &payload.Trust{Keys: stranger.Public.PayloadKeys(), Threshold: 1},
			failed: map[string]string{"manifest": "0 are by trusted keys"},
		},
		"payload not listed": {
			change: func(w *release.Writer, _ *release.Manifest) error { return os.Remove(w.Path("full.crau")) },
			failed: map[string]string{"manifest": "it does not list full.crau"},
		},
		"other root hash": {
			change: func(_ *release.Writer, m *release.Manifest) error { m.RootHash = strings.Repeat("00", 32); return nil },
			failed: map[string]string{"update payload": "does not install the root hash", "disk and manifest agree": "the manifest says 1.2.0 and 0000"},
		},
		"other epoch": {
			change: func(_ *release.Writer, m *release.Manifest) error { m.Epoch = 7; return nil },
			failed: map[string]string{"update payload": "epoch 0, amd64), the manifest is of semper 1.2.0 (epoch 7"},
		},
		"other oldest version": {
			change: func(_ *release.Writer, m *release.Manifest) error { m.MinVersion = "1.1.0"; return nil },
			failed: map[string]string{"update payload": `installed from version "" on, the manifest says "1.1.0"`},
		},
		"disk written over": {change: func(w *release.Writer, _ *release.Manifest) error {
			plan, err := layout.NewPlan(slotSize, espSize, "amd64")
			if err != nil {
				return err
			}
			return overwrite(w, "disk.raw", plan.Part("root-a").Offset()+300*4096+9, 1) // behind what dm-verity covers
		}, failed: map[string]string{sameSlot: "byte 1228809 of the partition, behind the file's end, is not zero"}},
		"payload spoilt": {
			change: func(w *release.Writer, _ *release.Manifest) error {
				return overwrite(w, "full.crau", 3000, 1, 2, 3, 4, 5, 6, 7, 8)
			},
			failed: map[string]string{"update payload": ""},
		},
		"/var on a released disk": {change: func(w *release.Writer, _ *release.Manifest) error {
			f, err := os.OpenFile(w.Path("disk.raw"), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			defer f.Close()
			info, err := f.Stat()
			if err != nil {
				return err
			}
			size := info.Size() + 80*mib
			table, _, err := gpt.Read(f, info.Size())
			if err != nil {
				return err
			}
			if err := errors.Join(f.Truncate(size), table.Resize(size)); err != nil {
				return err
			}
			if _, err := layout.AddVar(table, gpt.GUID{1}, size); err != nil {
				return err
			}
			return table.Write(f)
		}, failed: map[string]string{"disk layout": "a released disk has no /var", "disk and manifest agree": ""}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSmall(t)
			dir := s.release(t, t.TempDir(), c.change)
			if c.after != nil {
				if err := c.after(dir); err != nil {
					t.Fatal(err)
				}
			}
			o := s.options()
			if c.trust != nil {
				o.Trust = *c.trust
			}
			expect(t, run(t, dir, o), nil, c.failed)
		})
	}

	// Files that are listed and signed, but are not what the disk holds.
	for file, check := range map[string]string{
		release.Root: sameSlot, release.Verity: sameSlot, release.RootSig: sameSlot, release.UKI: "uki.efi is the one on the disk",
	} {
		t.Run("another "+file, func(t *testing.T) {
			s := newSmall(t)
			dir := s.release(t, t.TempDir(), func(w *release.Writer, _ *release.Manifest) error {
				if err := os.Remove(w.Path(file)); err != nil {
					return err
				}
				var b []byte
				switch file {
				case release.Root:
					b = bytes.Clone(s.root)
				case release.Verity:
					b = bytes.Clone(s.tree)
				case release.RootSig:
					b = bytes.Clone(s.signature)
				default:
					b = bytes.Clone(s.signedUKI)
				}
				b[len(b)/2] ^= 0x40
				return os.WriteFile(w.Path(file), b, 0o600)
			})
			failed := map[string]string{check: ""}
			if file != release.Verity { // the tree is not part of the payload
				failed["update payload"] = "is not " + file
			}
			expect(t, run(t, dir, s.options()), nil, failed)
		})
	}
}

func TestParseCertificates(t *testing.T) {
	k := keystest.Load(t, "verify")
	two := append(k.Public.SecureBootPEM(), k.Public.VerityPEM()...)
	if certs, err := verify.ParseCertificates(two, two); err != nil || len(certs) != 4 {
		t.Errorf("%d certificates, %v", len(certs), err)
	}
	for name, b := range map[string][]byte{
		"empty": nil, "a key": k.Public.Payload[0].PEM, "rubbish": []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
	} {
		if _, err := verify.ParseCertificates(b); !fault.Is(err, fault.Input) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
