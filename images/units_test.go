// Package images_test checks the units that images bring.
package images_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const units = "semper/tree/usr/lib/systemd/system"

// analyze runs systemd's own judgement over a unit. It knows fewer settings than the image's systemd where it is older; those do not count then.
func analyze(t *testing.T, unit string, args ...string) []byte {
	t.Helper()
	c := exec.Command("systemd-analyze", append([]string{"security", "--offline=true", "--no-pager"}, append(args, filepath.Join(units, unit))...)...)
	c.Env = append(os.Environ(), "LC_ALL=C.UTF-8", "SYSTEMD_COLORS=0")
	var out, problems bytes.Buffer
	c.Stdout, c.Stderr = &out, &problems
	if err := c.Run(); err != nil {
		t.Fatalf("systemd-analyze security %s: %v %s (Debian package systemd, 252 or newer)", unit, err, problems.String())
	}
	return out.Bytes()
}

// The two programs that stand between the network and the disk are shut in: systemd's exposure level is at most 1.5 for each.
func TestExposure(t *testing.T) {
	level := regexp.MustCompile(`Overall exposure level for (\S+): ([0-9.]+) `)
	for _, unit := range []string{"semperd.service", "semper-installd.service"} {
		t.Run(unit, func(t *testing.T) {
			m := level.FindSubmatch(analyze(t, unit))
			if m == nil || string(m[1]) != unit {
				t.Fatal("no exposure level in the output")
			}
			exposure, err := strconv.ParseFloat(string(m[2]), 64)
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("exposure %.1f", exposure)
			if exposure > 1.5 {
				t.Errorf("exposure is %.1f, at most 1.5 is allowed:\n%s", exposure, open(t, unit))
			}
		})
	}
}

// open lists what is not shut.
func open(t *testing.T, unit string) string {
	t.Helper()
	var b strings.Builder
	for _, f := range findings(t, unit) {
		if f.Exposure != nil {
			b.WriteString(f.Name + " (" + *f.Exposure + "): " + f.Description + "\n")
		}
	}
	return b.String()
}

type finding struct {
	Set         *bool   `json:"set"`
	Name        string  `json:"name"`
	Description string  `json:"description"`
	Exposure    *string `json:"exposure"`
}

func findings(t *testing.T, unit string) []finding {
	t.Helper()
	var list []finding
	if err := json.Unmarshal(analyze(t, unit, "--json=short"), &list); err != nil {
		t.Fatalf("systemd-analyze security %s: %v", unit, err)
	}
	return list
}

// What stays open is what the programs need, and nothing else: each row has its reason.
func TestWhatStaysOpen(t *testing.T) {
	for unit, allowed := range map[string]map[string]string{
		"semperd.service": {
			"RootDirectory=/RootImage=":                "the root is read-only and verified",
			"RestrictAddressFamilies=~AF_UNIX":         "D-Bus, semperctl, semper-installd",
			"RestrictAddressFamilies=~AF_(INET|INET6)": "it has the network",
			"PrivateNetwork=":                          "it has the network",
			"IPAddressDeny=":                           "the server may be anywhere",
			"ProcSubset=":                              "it reads the boot id",
			"DeviceAllow=":                             "char-rtc: comes with ProtectClock=, for reading",
		},
		"semper-installd.service": {
			"RootDirectory=/RootImage=":           "the root is read-only and verified",
			"RestrictAddressFamilies=~AF_UNIX":    "D-Bus, semperd, the drain service",
			"User=/DynamicUser=":                  "the disk and the ESP are root's",
			"PrivateUsers=":                       "the same",
			"PrivateDevices=":                     "it writes the disk",
			"DeviceAllow=":                        "it writes the disk",
			"CapabilityBoundingSet=~CAP_SYS_BOOT": "logind asks for it of who wants a reboot",
			"ProcSubset=":                         "it reads the boot id and the kernel's command line",
		},
	} {
		t.Run(unit, func(t *testing.T) {
			for _, f := range findings(t, unit) {
				if f.Exposure != nil && allowed[f.Name] == "" {
					t.Errorf("%s (%s): %s", f.Name, *f.Exposure, f.Description)
				}
			}
		})
	}
}

// Settings that systemd's judgement does not weigh, and that others rely on.
func TestUnitSettings(t *testing.T) {
	for unit, want := range map[string][]string{
		"semper-installd.service": {
			"PrivateNetwork=yes", "IPAddressDeny=any", "Nice=10", "IOSchedulingClass=idle", "Environment=GOMEMLIMIT=36MiB", "NoExecPaths=/", "ReadWritePaths=-/efi",
			"CapabilityBoundingSet=CAP_SYS_BOOT", "DevicePolicy=closed", "DeviceAllow=block-* rw",
		},
		// It is the last one before systemd goes on in the next root; what goes wrong is a full reboot.
		"semper-next-root.service": {
			"DefaultDependencies=no", "After=shutdown.target umount.target", "Before=final.target systemd-soft-reboot.service", "FailureAction=reboot-force",
			"CapabilityBoundingSet=CAP_SYS_ADMIN CAP_DAC_OVERRIDE", "NoNewPrivileges=yes", "IPAddressDeny=any", "RestrictAddressFamilies=AF_UNIX",
		},
		"soft-reboot.target.d/10-semper.conf": {"JobTimeoutAction=reboot-force"},
		"semper-installd.socket":              {"SocketUser=root", "SocketGroup=semperd", "SocketMode=0660"},
		"semperd.service": {
			"User=semperd", "CapabilityBoundingSet=", "PrivateDevices=yes", "NoNewPrivileges=yes", "Environment=GOMEMLIMIT=20MiB", "NoExecPaths=/",
		},
	} {
		data, err := os.ReadFile(filepath.Join(units, unit))
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(data), "\n")
		for _, w := range want {
			if !slices.Contains(lines, w) {
				t.Errorf("%s: no line %q", unit, w)
			}
		}
	}
}
