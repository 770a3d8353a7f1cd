package payload

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/semper-os/semper/partitions/verity"
)

var update = flag.Bool("update", false, "write testdata/tiny.crau and the keys beside it anew")

// vectorContents are the partitions in testdata/tiny.crau.
func vectorContents() map[string][]byte {
	return map[string][]byte{
		"root":    append(bytes.Repeat([]byte("Semper idem. 123"), 512), make([]byte, 4096)...),
		"uki":     bytes.Repeat([]byte("kernel, or so. "), 333),
		"rootsig": append([]byte(`{"rootHash":"…"}`), make([]byte, 4096-18)...),
	}
}

// TestVector applies a payload of an earlier day: machines in the field must understand every payload that was ever published.
func TestVector(t *testing.T) {
	contents := vectorContents()
	path := filepath.Join("testdata", "tiny.crau")
	if *update {
		res, err := verity.Format(bytes.NewReader(contents["root"]), int64(len(contents["root"])), newDisk(1<<20), verity.Params{UUID: [16]byte{8: 0x80}, Salt: []byte("salt")})
		if err != nil {
			t.Fatal(err)
		}
		o := testOptions(contents, keyA, keyB)
		o.ChunkSize = 8192
		o.Partitions[0].Verity = &Verity{RootHash: res.RootHash, Superblock: res.Superblock}
		for name, b := range map[string][]byte{path: write(t, o), "testdata/a.pem": publicPEM(t, keyA.Public()), "testdata/b.pem": publicPEM(t, keyB.Public()), "testdata/c.pem": publicPEM(t, keyC.Public())} {
			if err := os.WriteFile(name, b, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	disks := testDisks(contents)
	res, err := apply(b, applyOptions(disks, trust(2, keyA, keyB)))
	if err != nil {
		t.Fatal(err)
	}
	checkDisks(t, disks, contents)
	if res.Manifest.Image != testImage || res.Manifest.Timestamp.Unix() != 1760000000 {
		t.Errorf("%+v, made %v", res.Manifest.Image, res.Manifest.Timestamp)
	}
}
