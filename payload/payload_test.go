package payload

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/verity"
)

// Keys are made once a run: P-256 costs nothing, RSA of 4096 bits a second or more.
var (
	keyA, keyB, keyC = p256Key(1), p256Key(2), p256Key(3)
	rsaKey           = sync.OnceValue(func() crypto.Signer {
		k, err := rsa.GenerateKey(nil, 4096)
		if err != nil {
			panic(err)
		}
		return k
	})
)

// p256Key returns always the same key for the same number: payloads of tests are the same in every run.
func p256Key(n byte) crypto.Signer {
	k, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), append(make([]byte, 31), n))
	if err != nil {
		panic(err)
	}
	return k
}

func trust(threshold int, signers ...crypto.Signer) Trust {
	t := Trust{Threshold: threshold}
	for _, s := range signers {
		t.Keys = append(t.Keys, s.Public())
	}
	return t
}

// content returns n bytes: text that compresses, noise that does not, and zeros, 64 KiB of each in a random order.
func content(seed uint64, n int) []byte {
	rng := rand.New(rand.NewPCG(seed, 7))
	b := make([]byte, n)
	for off := 0; off < n; off += 64 << 10 {
		piece := b[off:min(n, off+64<<10)]
		switch rng.IntN(3) {
		case 0:
			for i := range piece {
				piece[i] = "semper idem "[rng.IntN(12)]
			}
		case 1:
			for i := range piece {
				piece[i] = byte(rng.Uint32())
			}
		}
	}
	return b
}

var testImage = Image{ID: "semper", Version: "1.1.0", Epoch: 3, MinVersion: "1.0.0", Architecture: "amd64"}

// testContents are three partitions that have every kind of operation; the size of uki is odd. Nobody may change them.
var testContents = sync.OnceValue(func() map[string][]byte {
	return map[string][]byte{
		"root":    append(content(1, 1<<20), make([]byte, 256<<10)...),
		"uki":     content(2, 300<<10+123),
		"rootsig": content(5, 4096),
	}
})

func testOptions(contents map[string][]byte, signers ...crypto.Signer) WriteOptions {
	o := WriteOptions{Image: testImage, Timestamp: time.Unix(1760000000, 0).UTC(), Signers: signers, ChunkSize: 64 << 10}
	for _, name := range []string{"root", "uki", "rootsig"} {
		if b, ok := contents[name]; ok {
			o.Partitions = append(o.Partitions, Partition{Name: name, Data: bytes.NewReader(b), Size: int64(len(b))})
		}
	}
	return o
}

func write(t testing.TB, o WriteOptions) []byte {
	t.Helper()
	b, _ := writeSummary(t, o)
	return b
}

func writeSummary(t testing.TB, o WriteOptions) ([]byte, *Summary) {
	t.Helper()
	spool, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	var out bytes.Buffer
	sum, err := Write(context.Background(), &out, spool, o)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), sum
}

// disk is a Storage that remembers what a power cut would leave: what was synced, and of the writes since then whatever lose lets through.
type disk struct {
	durable, now []byte
	pending      []pendingWrite
	syncs        int
	fail         error // of the next write

	mu sync.Mutex // a checkpoint is made durable while the next operation is written
}

type pendingWrite struct {
	off int64
	b   []byte
}

func newDisk(n int) *disk {
	d := &disk{durable: bytes.Repeat([]byte{0xa5}, n)} // not zero, so that a block that was not written shows
	d.now = bytes.Clone(d.durable)
	return d
}

func (d *disk) ReadAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return bytes.NewReader(d.now).ReadAt(p, off)
}

func (d *disk) WriteAt(p []byte, off int64) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail != nil {
		return 0, d.fail
	}
	if off < 0 || off+int64(len(p)) > int64(len(d.now)) {
		return 0, errors.New("write beyond the disk's end")
	}
	d.pending = append(d.pending, pendingWrite{off, bytes.Clone(p)})
	return copy(d.now[off:], p), nil
}

func (d *disk) Sync() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	d.pending = nil
	copy(d.durable, d.now)
	return nil
}

// cut is the power cut: of each write since the last Sync some blocks arrive, some do not.
func (d *disk) cut(rng *rand.Rand) {
	for _, w := range d.pending {
		for off := 0; off < len(w.b); off += 512 {
			if rng.IntN(2) == 0 {
				copy(d.durable[w.off+int64(off):], w.b[off:min(len(w.b), off+512)])
			}
		}
	}
	d.pending = nil
	d.now = bytes.Clone(d.durable)
}

// testDisks returns a disk for each partition, a little larger than needed.
func testDisks(contents map[string][]byte) map[string]*disk {
	disks := map[string]*disk{}
	for name, b := range contents {
		disks[name] = newDisk(len(b) + 8192)
	}
	return disks
}

func applyOptions(disks map[string]*disk, tr Trust) Options {
	o := Options{Trust: tr, Accept: AcceptAny, Targets: map[string]Target{}}
	for name, d := range disks {
		o.Targets[name] = Target{Storage: d, Limit: int64(len(d.now))}
	}
	return o
}

func apply(b []byte, o Options) (*Result, error) {
	a, err := NewApplier(o)
	if err != nil {
		return nil, err
	}
	return a.Apply(context.Background(), bytes.NewReader(b))
}

// checkDisks makes sure that the disks hold the contents, durably, and that nothing was written behind them.
func checkDisks(t testing.TB, disks map[string]*disk, contents map[string][]byte) {
	t.Helper()
	for name, d := range disks {
		want := append(bytes.Clone(contents[name]), bytes.Repeat([]byte{0xa5}, 8192)...)
		if !bytes.Equal(d.durable, want) {
			t.Errorf("partition %q is not what was packed", name)
		}
	}
}

// checkUntouched makes sure that nothing was written.
func checkUntouched(t testing.TB, disks map[string]*disk) {
	t.Helper()
	for name, d := range disks {
		if len(d.pending) != 0 || !bytes.Equal(d.now, bytes.Repeat([]byte{0xa5}, len(d.now))) {
			t.Errorf("partition %q was written to", name)
		}
	}
}

func TestRoundTrip(t *testing.T) {
	for _, c := range []struct {
		name    string
		signers []crypto.Signer
		trust   Trust
		count   int
	}{
		{"one P-256 key", []crypto.Signer{keyA}, trust(1, keyA), 1},
		{"one RSA-4096 key", []crypto.Signer{rsaKey()}, trust(1, rsaKey()), 1},
		{"2 of 3, all signed", []crypto.Signer{keyA, rsaKey(), keyC}, trust(2, keyA, rsaKey(), keyC), 3},
		{"2 of 3, two signed", []crypto.Signer{keyC, keyA}, trust(2, keyA, keyB, keyC), 2},
		{"a signature by a stranger does no harm", []crypto.Signer{keyB, keyA}, trust(1, keyA), 1},
		{"a trusted key listed twice is one key", []crypto.Signer{keyA}, trust(1, keyA, keyA), 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			contents := testContents()
			b, sum := writeSummary(t, testOptions(contents, c.signers...))
			if sum.SHA256 != sha256.Sum256(b) || sum.Manifest.Size != int64(len(b)) {
				t.Errorf("summary says %x, %d bytes; it is %x, %d bytes", sum.SHA256, sum.Manifest.Size, sha256.Sum256(b), len(b))
			}
			disks := testDisks(contents)
			o := applyOptions(disks, c.trust)
			o.Size, o.SHA256 = int64(len(b)), sum.SHA256[:]
			r := bytes.NewReader(append(bytes.Clone(b), "not ours"...))
			a, err := NewApplier(o)
			if err != nil {
				t.Fatal(err)
			}
			res, err := a.Apply(context.Background(), r)
			if err != nil {
				t.Fatal(err)
			}
			if r.Len() != len("not ours") {
				t.Errorf("Apply left %d bytes in the stream, want %d", r.Len(), len("not ours"))
			}
			checkDisks(t, disks, contents)
			if res.SHA256 != sum.SHA256 || len(res.Signers) != c.count || res.Manifest.Image != testImage {
				t.Errorf("result: SHA-256 %x, %d signers, %+v", res.SHA256, len(res.Signers), res.Manifest.Image)
			}
			report, err := Check(context.Background(), bytes.NewReader(b), int64(len(b)), c.trust, nil)
			if err != nil {
				t.Fatal(err)
			}
			if report.SHA256 != sum.SHA256 || len(report.Signers) != c.count || len(report.MetadataSigners) != c.count {
				t.Errorf("Check: SHA-256 %x, %d and %d signers", report.SHA256, len(report.MetadataSigners), len(report.Signers))
			}
		})
	}
}

// TestOperations looks at what the writer makes of the contents: every kind of operation, and the odd end of a partition.
func TestOperations(t *testing.T) {
	contents := testContents()
	_, sum := writeSummary(t, testOptions(contents, keyA))
	kinds := map[string]int{}
	for _, op := range sum.Manifest.operations {
		kinds[op.kind.String()]++
	}
	for _, k := range []string{"ZERO", "REPLACE", "REPLACE_ZSTD"} {
		if kinds[k] == 0 {
			t.Errorf("no operation %s among %v", k, kinds)
		}
	}
	for name, b := range contents {
		p := sum.Manifest.Partition(name)
		if p == nil || p.Size != int64(len(b)) || p.SHA256 != sha256.Sum256(b) {
			t.Errorf("partition %q: %+v", name, p)
		}
	}
}

func TestSameBytes(t *testing.T) {
	contents := testContents()
	o := testOptions(contents, keyA, rsaKey())
	o.Workers = 1
	first := write(t, o)
	o.Workers = 5
	if !bytes.Equal(first, write(t, o)) {
		t.Error("the payload depends on the number of workers")
	}
	cache := DirCache{Dir: filepath.Join(t.TempDir(), "cache")}
	o.Cache = cache
	for _, want := range []struct {
		name string
		hits bool
	}{{"empty", false}, {"filled", true}} {
		b, sum := writeSummary(t, o)
		if !bytes.Equal(first, b) {
			t.Errorf("the payload with a cache that is %s is another one", want.name)
		}
		if (sum.CacheHits > 0) != want.hits {
			t.Errorf("a cache that is %s had %d hits", want.name, sum.CacheHits)
		}
	}
	n := 0
	err := filepath.WalkDir(cache.Dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			n++
			return os.WriteFile(path, []byte("rubbish"), 0o644)
		}
		return err
	})
	if err != nil || n == 0 {
		t.Fatalf("%d files in the cache: %v", n, err)
	}
	if b, sum := writeSummary(t, o); !bytes.Equal(first, b) || sum.CacheHits != 0 {
		t.Error("a damaged cache was believed")
	}
}

func TestWriteRefuses(t *testing.T) {
	small, err := rsa.GenerateKey(nil, 2048)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name   string
		change func(*WriteOptions)
	}{
		{"no signer", func(o *WriteOptions) { o.Signers = nil }},
		{"one key twice", func(o *WriteOptions) { o.Signers = []crypto.Signer{keyA, keyB, keyA} }},
		{"small RSA key", func(o *WriteOptions) { o.Signers = []crypto.Signer{small} }},
		{"P-384", func(o *WriteOptions) { o.Signers = []crypto.Signer{p384} }},
		{"a signer that signs something else", func(o *WriteOptions) { o.Signers = []crypto.Signer{brokenSigner{keyA}} }},
		{"no partition", func(o *WriteOptions) { o.Partitions = nil }},
		{"one partition twice", func(o *WriteOptions) { o.Partitions = append(o.Partitions, o.Partitions[0]) }},
		{"empty partition", func(o *WriteOptions) { o.Partitions[0].Size = 0 }},
		{"partition shorter than it says", func(o *WriteOptions) { o.Partitions[0].Size += BlockSize }},
		{"verity for another size", func(o *WriteOptions) { o.Partitions[0].Verity = &Verity{Superblock: verity.Superblock{DataBlocks: 1}} }},
		{"odd chunks", func(o *WriteOptions) { o.ChunkSize = 4097 }},
		{"huge chunks", func(o *WriteOptions) { o.ChunkSize = MaxOperationSize + BlockSize }},
		{"no such level", func(o *WriteOptions) { o.Level = 23 }},
		{"version with a plus", func(o *WriteOptions) { o.Image.Version = "1.0+3" }},
		{"no architecture", func(o *WriteOptions) { o.Image.Architecture = "" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := testOptions(testContents(), keyA)
			c.change(&o)
			path := filepath.Join(t.TempDir(), "full.crau")
			_, err := WriteFile(context.Background(), path, o)
			if err == nil {
				t.Fatal("no error")
			}
			if fault.KindOf(err) == fault.Internal {
				t.Errorf("%v: kind %v", err, fault.KindOf(err))
			}
			if left, _ := os.ReadDir(filepath.Dir(path)); len(left) != 0 {
				t.Errorf("files left behind: %v", left)
			}
		})
	}
}

type brokenSigner struct{ crypto.Signer }

func (s brokenSigner) Sign(rand io.Reader, _ []byte, opts crypto.SignerOpts) ([]byte, error) {
	return s.Signer.Sign(rand, make([]byte, sha256.Size), opts)
}

func TestWriteFile(t *testing.T) {
	contents := testContents()
	dir := t.TempDir()
	path := filepath.Join(dir, "full.crau")
	if err := os.WriteFile(path, []byte("the one before"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum, err := WriteFile(context.Background(), path, testOptions(contents, keyA))
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if sha256.Sum256(b) != sum.SHA256 {
		t.Error("the file is not what the summary says")
	}
	if left, _ := os.ReadDir(dir); len(left) != 1 {
		t.Errorf("files beside the payload: %v", left)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := WriteFile(ctx, path, testOptions(contents, keyB)); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if again, err := os.ReadFile(path); err != nil || !bytes.Equal(again, b) {
		t.Error("a cancelled run changed the payload that was there")
	}
}
