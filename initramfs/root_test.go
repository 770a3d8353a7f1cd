package initramfs

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/gpt"
	"github.com/semper-os/semper/partitions/layout"
	"github.com/semper-os/semper/partitions/rootsig"
	"github.com/semper-os/semper/partitions/verity"
)

func newCert(t *testing.T) (*rsa.PrivateKey, *x509.Certificate) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root hash"}, NotAfter: time.Unix(1<<32, 0)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return key, cert
}

// verityDisk is a disk with slot A filled and signed.
func verityDisk(t *testing.T, key *rsa.PrivateKey, cert *x509.Certificate) (*memoryDisk, tableOf, verity.RootHash) {
	t.Helper()
	plan, err := layout.NewPlan(2*mib, mib, "amd64")
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("a system "), 2*mib/9+1)[:2*mib]
	copy(data[1024:], "\xe2\xe1\xf5\xe0")
	d := &memoryDisk{size: testDiskSize, sectors: map[int64][512]byte{}, cut: -1}
	d.write(data, plan.Part("root-a").Offset())
	tree := &offsetWriter{d, plan.Part("verity-a").Offset()}
	res, err := verity.Format(bytes.NewReader(data), int64(len(data)), tree, verity.Params{UUID: [16]byte{1, 2}, Salt: []byte{9}})
	if err != nil {
		t.Fatal(err)
	}
	sig, err := rootsig.Sign(res.RootHash, key, cert)
	if err != nil {
		t.Fatal(err)
	}
	d.write(sig, plan.Part("verity-sig-a").Offset())
	n := byte(0)
	table, err := layout.NewTable(plan, "1.0.0", res.RootHash, func(string) [16]byte { n++; return [16]byte{n, 6: 0x80, 8: 0x80} })
	if err != nil {
		t.Fatal(err)
	}
	slot, err := layout.FindByRootHash(table, res.RootHash)
	if err != nil {
		t.Fatal(err)
	}
	return d, tableOf{disk: disk{name: "vda", size: testDiskSize}, table: table, slot: slot}, res.RootHash
}

type offsetWriter struct {
	d  *memoryDisk
	at int64
}

func (w *offsetWriter) WriteAt(p []byte, off int64) (int, error) { return w.d.WriteAt(p, w.at+off) }

type failingDisk struct{ *memoryDisk }

func (failingDisk) ReadAt([]byte, int64) (int, error) { return 0, errors.New("input/output error") }

func TestCheckSlot(t *testing.T) {
	key, cert := newCert(t)
	otherKey, otherCert := newCert(t)
	certs := []*x509.Certificate{otherCert, cert}
	fresh := func() (*memoryDisk, tableOf, verity.RootHash) { return verityDisk(t, key, cert) }
	d, table, hash := fresh()
	sb, err := checkSlot(d, table, hash, certs)
	if err != nil || sb.DataBlocks != 512 {
		t.Fatalf("good slot: %+v, %v", sb, err)
	}
	part := func(n int) int64 { return table.table.Partitions[n-1].Offset() }
	if !isErofs(d, table.table.Partitions[table.slot.Root-1]) || isErofs(d, table.table.Partitions[table.slot.Verity-1]) {
		t.Error("isErofs is wrong")
	}
	for name, tc := range map[string]struct {
		damage func(*memoryDisk, *tableOf)
		certs  []*x509.Certificate
		want   []string
	}{
		"foreign signature": {func(*memoryDisk, *tableOf) {}, []*x509.Certificate{otherCert}, []string{"The system's signature is wrong", "slot A (version 1.0.0), partition vda5 of disk /dev/vda"}},
		"signed by another": {func(d *memoryDisk, _ *tableOf) {
			sig, err := rootsig.Sign(hash, otherKey, otherCert)
			if err != nil {
				t.Fatal(err)
			}
			d.write(sig, part(5))
		}, []*x509.Certificate{cert}, []string{"The system's signature is wrong", "vda5"}},
		"no signature":     {func(d *memoryDisk, _ *tableOf) { d.write(make([]byte, 4096), part(5)) }, certs, []string{"The system's signature is wrong", "vda5"}},
		"no partition":     {func(_ *memoryDisk, t *tableOf) { t.slot.Sig = 0 }, certs, []string{"The system's signature is missing"}},
		"superblock":       {func(d *memoryDisk, _ *tableOf) { d.write(make([]byte, 512), part(4)) }, certs, []string{"does not match its root hash", "vda4"}},
		"top of the tree":  {func(d *memoryDisk, _ *tableOf) { d.write(make([]byte, 512), part(4)+4096) }, certs, []string{"does not match its root hash", "vda4", "hash block"}},
		"first data block": {func(d *memoryDisk, _ *tableOf) { d.write(make([]byte, 512), part(3)) }, certs, []string{"does not match its root hash", "vda3", "data block 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			d, table, hash := fresh()
			tc.damage(d, &table)
			_, err := checkSlot(d, table, hash, tc.certs)
			text := strings.Join(strings.Fields(strings.Join(message(err), " ")), " ")
			for _, w := range tc.want {
				if err == nil || !strings.Contains(text, w) {
					t.Errorf("message %q\nwant %q", text, w)
				}
			}
		})
	}
	if _, err := checkSlot(failingDisk{d}, table, hash, certs); err == nil || !strings.Contains(err.Error(), "The disk cannot be read") {
		t.Errorf("a disk that fails: %v", err)
	}
}

func TestVerityDevice(t *testing.T) {
	dev, err := verityDevice("root", "/dev/vda3", "/dev/vda4", verity.Superblock{UUID: [16]byte{1, 2}, DataBlocks: 512, Salt: []byte{9}}, verity.RootHash{1})
	if err != nil {
		t.Fatal(err)
	}
	want := "1 /dev/vda3 /dev/vda4 4096 4096 512 1 sha256 01" + strings.Repeat("0", 62) + " 09 1 restart_on_corruption"
	if dev.Name != "root" || dev.UUID != "CRYPT-VERITY-01020000000000000000000000000000-root" || !dev.ReadOnly || len(dev.Table) != 1 || dev.Table[0].Params != want {
		t.Errorf("device %+v", dev)
	}
}

func TestParseCerts(t *testing.T) {
	_, one := newCert(t)
	_, two := newCert(t)
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	both := append(block("CERTIFICATE", one.Raw), block("CERTIFICATE", two.Raw)...)
	certs, err := parseCerts(append(both, "rubbish"...))
	if err != nil || len(certs) != 2 || !certs[1].Equal(two) {
		t.Errorf("%d certificates, %v", len(certs), err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"empty": nil, "a key": block("PUBLIC KEY", der), "rubbish": block("CERTIFICATE", []byte{1})} {
		if _, err := parseCerts(b); !fault.Is(err, fault.Input) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestDescribe(t *testing.T) {
	table, hash := testTable(t, testDiskSize)
	slot, err := layout.FindByRootHash(table, hash)
	if err != nil {
		t.Fatal(err)
	}
	var b Boot
	b.describe(tableOf{disk: disk{name: "nvme0n1"}, table: table, slot: slot}, hash, "/dev/nvme0n1p9", true)
	node := func(n int) string { return fmt.Sprintf("/dev/nvme0n1p%d", n) }
	want := Partitions{
		ESP: node(2), Root: node(3), Verity: node(4), VeritySig: node(5), OtherRoot: node(6), OtherVerity: node(7), OtherVeritySig: node(8), Var: node(9),
	}
	if b.Disk != "/dev/nvme0n1" || b.Slot != "a" || b.Version != "1.0.0" || b.RootHash != hashText || !b.VarCreated || b.Partitions != want {
		t.Errorf("%+v", b)
	}
	if _, err := b.Bytes(); err != nil {
		t.Error(err)
	}
	table.Partitions[1].Type = gpt.TypeLinux
	b = Boot{}
	if b.describe(tableOf{disk: disk{name: "vda"}, table: table, slot: slot}, hash, "/dev/vda9", false); b.Partitions.ESP != "" {
		t.Errorf("no ESP: %q", b.Partitions.ESP)
	}
}

func TestWatchdog(t *testing.T) {
	barked := make(chan struct{})
	w := newWatchdog(time.Hour, func() { close(barked) })
	restore := w.extend(2 * time.Hour)
	restore()
	w.reset(0)
	<-barked
	w.reset(time.Hour) // too late: it must not bark twice, which would close the channel again
}

// TestPanicBringsDown panics in a goroutine of semper-init.
func TestPanicBringsDown(t *testing.T) {
	saved := bringDown
	defer func() { bringDown = saved }()
	down := make(chan error, 1)
	bringDown = func(err error) { down <- err }
	guarded(func() { panic("index out of range") })
	err := <-down
	var f *Failure
	if !errors.As(err, &f) || f.What != "semper-init has a fault of its own" || f.Err.Error() != "index out of range" || !strings.Contains(f.Do, "root_test.go") {
		t.Errorf("error %+v", f)
	}
}
