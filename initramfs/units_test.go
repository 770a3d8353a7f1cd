package initramfs

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/partitions/layout"
)

func TestESPUnits(t *testing.T) {
	run := t.TempDir()
	if err := writeESPUnits(run, "/dev/nvme0n1p2"); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"efi.mount": `# Written by semper-init at boot.
[Unit]
Description=EFI system partition of the disk this system was started from

[Mount]
What=/dev/nvme0n1p2
Where=/efi
Type=vfat
Options=umask=0077,nodev,nosuid,noexec,dirsync
`,
		"efi.automount": `# Written by semper-init at boot.
[Unit]
Description=EFI system partition, mounted while it is used

[Automount]
Where=/efi
TimeoutIdleSec=10
`,
	} {
		got, err := os.ReadFile(filepath.Join(run, "systemd/system", name))
		if err != nil || string(got) != want {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
	link := filepath.Join(run, "systemd/system/local-fs.target.wants/efi.automount")
	if st, err := os.Stat(link); err != nil || !st.Mode().IsRegular() {
		t.Errorf("nothing wants the automount: %v", err)
	}
}

func sampleBoot() Boot {
	return Boot{
		Schema: 1, Disk: "/dev/vda", OtherDisks: []string{"/dev/sdb"}, Slot: "b", Version: "1.2.0", RootHash: hashText, VarCreated: true,
		Partitions: Partitions{
			ESP: "/dev/vda2", Root: "/dev/vda6", Verity: "/dev/vda7", VeritySig: "/dev/vda8",
			OtherRoot: "/dev/vda3", OtherVerity: "/dev/vda4", OtherVeritySig: "/dev/vda5", Var: "/dev/vda9",
		},
		Timings: Timings{Kernel: 2310, Disk: 310, Root: 620, Var: 1100, Total: 1150},
	}
}

// TestBootBytes pins the format: the update agent and people's scripts read it.
func TestBootBytes(t *testing.T) {
	b, err := sampleBoot().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	want := `{
  "schema": 1,
  "disk": "/dev/vda",
  "other_disks": [
    "/dev/sdb"
  ],
  "partitions": {
    "esp": "/dev/vda2",
    "root": "/dev/vda6",
    "verity": "/dev/vda7",
    "verity_sig": "/dev/vda8",
    "other_root": "/dev/vda3",
    "other_verity": "/dev/vda4",
    "other_verity_sig": "/dev/vda5",
    "var": "/dev/vda9"
  },
  "slot": "b",
  "version": "1.2.0",
  "root_hash": "` + hashText + `",
  "var_created": true,
  "timings_ms": {
    "kernel": 2310,
    "disk": 310,
    "root": 620,
    "var": 1100,
    "total": 1150
  }
}
`
	if string(b) != want {
		t.Errorf("boot.json\n%s\nwant\n%s", b, want)
	}
	path := filepath.Join(t.TempDir(), "boot.json")
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := ReadBoot(path)
	if err != nil || !reflect.DeepEqual(got, sampleBoot()) || got.LayoutSlot() != layout.B {
		t.Errorf("read %+v, %v", got, err)
	}
	if _, err := ReadBoot(filepath.Join(t.TempDir(), "none")); !fault.Is(err, fault.IO) {
		t.Errorf("no file: %v", err)
	}
}

func TestParseBootRefuses(t *testing.T) {
	good, err := sampleBoot().Bytes()
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty":        "",
		"other schema": strings.Replace(string(good), `"schema": 1`, `"schema": 2`, 1),
		"slot":         strings.Replace(string(good), `"slot": "b"`, `"slot": "B"`, 1),
		"root hash":    strings.Replace(string(good), "1829abf8", "1829ABF8", 1),
		"no disk":      strings.Replace(string(good), `"disk": "/dev/vda"`, `"disk": ""`, 1),
		"two":          string(good) + "{}",
		"long":         string(good) + strings.Repeat(" ", maxBoot),
		"wrong type":   strings.Replace(string(good), `"/dev/vda6"`, `6`, 1),
	} {
		if _, err := ParseBoot([]byte(text)); !fault.Is(err, fault.Input) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if _, err := (Boot{}).Bytes(); !fault.Is(err, fault.Input) {
		t.Errorf("nothing known: %v", err)
	}
}

func FuzzParseBoot(f *testing.F) {
	good, err := sampleBoot().Bytes()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Fuzz(func(t *testing.T, data []byte) {
		b, err := ParseBoot(data)
		if err != nil {
			return
		}
		out, err := b.Bytes()
		if err != nil {
			t.Fatalf("%q was read, but cannot be written: %v", data, err)
		}
		if again, err := ParseBoot(out); err != nil || !reflect.DeepEqual(again, b) {
			t.Errorf("%+v is read back as %+v, %v", b, again, err)
		}
	})
}
