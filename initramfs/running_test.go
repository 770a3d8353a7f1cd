package initramfs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/verity"
)

const (
	otherHashText = "00e7b7a1f2c65aa0b8e8e8f0c7d5a3be91d2f4c6a8b0e1d3f5a7c9ebd0f2a4ff"
	testMountinfo = "23 1 253:0 / / ro,relatime shared:1 - erofs /dev/dm-0 ro\n24 23 0:6 / /dev rw,nosuid - devtmpfs devtmpfs rw\n"
	bootedUUID    = "CRYPT-VERITY-01020000000000000000000000000000-root\n"
	softUUID      = "CRYPT-VERITY-01020000000000000000000000000000-root_" + otherHashText + "\n"
)

// place writes files below a folder that stands for /.
func place(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestRunning(t *testing.T) {
	const line = "ro roothash=" + hashText + " quiet\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  string // of the root that runs
		err   string
	}{
		"booted": {map[string]string{
			"proc/cmdline": line, "proc/self/mountinfo": testMountinfo, "sys/dev/block/253:0/dm/uuid": bootedUUID,
		}, hashText, ""},
		"soft-rebooted": {map[string]string{
			"proc/cmdline": line, "proc/self/mountinfo": testMountinfo, "sys/dev/block/253:0/dm/uuid": softUUID,
		}, otherHashText, ""},
		"another device is soft-rebooted": {map[string]string{
			"proc/cmdline": line, "proc/self/mountinfo": testMountinfo, "sys/dev/block/253:0/dm/uuid": bootedUUID, "sys/dev/block/253:1/dm/uuid": softUUID,
		}, hashText, ""},
		"covered": {map[string]string{
			"proc/cmdline": line, "proc/self/mountinfo": testMountinfo + "30 1 253:1 / / ro - erofs /dev/dm-1 ro\n",
			"sys/dev/block/253:0/dm/uuid": bootedUUID, "sys/dev/block/253:1/dm/uuid": softUUID,
		}, otherHashText, ""},
		"no device-mapper":     {map[string]string{"proc/cmdline": line, "proc/self/mountinfo": testMountinfo}, hashText, ""},
		"other device-mapper":  {map[string]string{"proc/cmdline": line, "proc/self/mountinfo": testMountinfo, "sys/dev/block/253:0/dm/uuid": "LVM-x-root_y"}, hashText, ""},
		"half a name":          {map[string]string{"proc/cmdline": line, "proc/self/mountinfo": testMountinfo, "sys/dev/block/253:0/dm/uuid": softUUID[:90]}, "", "device-mapper UUID"},
		"no mounts":            {map[string]string{"proc/cmdline": line}, "", "mountinfo"},
		"nothing at /":         {map[string]string{"proc/cmdline": line, "proc/self/mountinfo": "24 23 0:6 / /dev rw - devtmpfs devtmpfs rw\n"}, "", "no device at /"},
		"a number that climbs": {map[string]string{"proc/cmdline": line, "proc/self/mountinfo": "23 1 ../.. / / ro - erofs x ro\n"}, "", "no device at /"},
		"no command line":      {map[string]string{"proc/self/mountinfo": testMountinfo}, "", "cmdline"},
	} {
		t.Run(name, func(t *testing.T) {
			hash, booted, err := Running(place(t, c.files))
			if c.err != "" {
				if err == nil || !strings.Contains(err.Error(), c.err) || fault.KindOf(err) == fault.Internal {
					t.Errorf("error %v, want one with %q", err, c.err)
				}
				return
			}
			if err != nil || hash.String() != c.want || booted.String() != hashText {
				t.Errorf("runs %s, booted %s, %v, want %s", hash, booted, err, c.want)
			}
		})
	}
}

// What verityDevice calls a root is what Running finds.
func TestRunningKnowsTheName(t *testing.T) {
	hash, err := verity.ParseRootHash(otherHashText)
	if err != nil {
		t.Fatal(err)
	}
	dev, err := verityDevice(softDM+hash.String(), "/dev/vda6", "/dev/vda7", verity.Superblock{DataBlocks: 8}, hash)
	if err != nil {
		t.Fatal(err)
	}
	if len(dev.UUID) > 128 || len(dev.Name) > 127 {
		t.Errorf("device-mapper takes no UUID of %d and name of %d bytes", len(dev.UUID), len(dev.Name))
	}
	if got, err := hashOfUUID(dev.UUID, verity.RootHash{}); err != nil || got != hash {
		t.Errorf("%s: %s, %v", dev.UUID, got, err)
	}
}

func FuzzRootDevice(f *testing.F) {
	f.Add(testMountinfo, softUUID)
	f.Add("", "")
	f.Add("1 2 3 4 /", "CRYPT-VERITY--root_")
	f.Fuzz(func(t *testing.T, mountinfo, uuid string) {
		if number, err := rootDevice(mountinfo); err == nil && filepath.Base(number) != number {
			t.Errorf("%q leads elsewhere", number)
		}
		if hash, err := hashOfUUID(uuid, verity.RootHash{1}); err == nil && hash != (verity.RootHash{1}) && !strings.HasSuffix(uuid, hash.String()) {
			t.Errorf("%q gives %s", uuid, hash)
		}
	})
}
