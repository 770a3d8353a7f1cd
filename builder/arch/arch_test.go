package arch

import (
	"debug/pe"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
)

func TestLookup(t *testing.T) {
	a, err := Lookup("amd64")
	if err != nil {
		t.Fatal(err)
	}
	if a.PEMachine != pe.IMAGE_FILE_MACHINE_AMD64 || a.Go != "amd64" || a.Board != "amd64-usr" || a.EFIBoot != "BOOTX64.EFI" {
		t.Errorf("the amd64 row is wrong: %+v", a)
	}
	_, err = Lookup("vax")
	if !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), `"vax" is not supported (known: amd64`) {
		t.Errorf("unknown architecture: %v", err)
	}
}

// A row with a gap would fail far away, as a file that is not found.
func TestRowsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, a := range table {
		if seen[a.Debian] {
			t.Errorf("%s is there twice", a.Debian)
		}
		seen[a.Debian] = true
		for _, s := range []string{a.Debian, a.Go, a.DPS, a.Board, a.Triplet, a.Loader, a.Kernel, a.EFIBoot, a.SDBoot, a.Stub, a.QEMU} {
			if s == "" {
				t.Errorf("%s has an empty field: %+v", a.Debian, a)
			}
		}
		if a.PEMachine == 0 {
			t.Errorf("%s has no PE machine", a.Debian)
		}
	}
}
