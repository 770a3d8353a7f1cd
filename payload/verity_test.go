package payload

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/verity"
)

// TestTree ships a partition without its hash tree, and lets veritysetup judge the tree that the host makes from the manifest.
func TestTree(t *testing.T) {
	tool(t, "veritysetup", "cryptsetup-bin")
	contents := testContents()
	root := contents["root"]
	params := verity.Params{UUID: [16]byte{1, 2, 3, 15: 16}, Salt: []byte("salt of a test, 32 bytes, or so.")}
	dir := t.TempDir()
	built, err := os.Create(filepath.Join(dir, "built"))
	if err != nil {
		t.Fatal(err)
	}
	defer built.Close()
	res, err := verity.Format(bytes.NewReader(root), int64(len(root)), built, params)
	if err != nil {
		t.Fatal(err)
	}
	o := testOptions(contents, keyA)
	o.Partitions[0].Verity = &Verity{RootHash: res.RootHash, Superblock: res.Superblock}
	disks := testDisks(contents)
	hash, err := os.Create(filepath.Join(dir, "hash"))
	if err != nil {
		t.Fatal(err)
	}
	defer hash.Close()
	ao := applyOptions(disks, trust(1, keyA))
	target := ao.Targets["root"]
	target.Tree = hash
	ao.Targets["root"] = target
	file := write(t, o)
	applied, err := apply(file, ao)
	if err != nil {
		t.Fatal(err)
	}
	part := applied.Manifest.Partition("root")
	a, errA := os.ReadFile(built.Name())
	b, errB := os.ReadFile(hash.Name())
	if errA != nil || errB != nil || !bytes.Equal(a, b) {
		t.Errorf("the host's hash area (%d bytes) is not the builder's (%d bytes)", len(b), len(a))
	}
	data := filepath.Join(dir, "data")
	if err := os.WriteFile(data, disks["root"].now[:part.Size], 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("veritysetup", "verify", data, hash.Name(), part.Verity.RootHash.String()).CombinedOutput(); err != nil {
		t.Errorf("veritysetup verify: %v\n%s", err, out)
	}

	// Another root hash than that of what was written.
	o.Partitions[0].Verity.RootHash[0] ^= 1
	if _, err := apply(write(t, o), applyOptions(testDisks(contents), trust(1, keyA))); ReasonOf(err) != PartitionHash || !fault.Is(err, fault.Verification) {
		t.Errorf("another root hash: %v", err)
	}
}
