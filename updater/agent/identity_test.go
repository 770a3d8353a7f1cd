package agent

import (
	"bytes"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
)

// The vectors were printed by systemd 252's "systemd-id128 machine-id --app-specific=5e3e2f0a-9d1b-4c58-8f53-7d1f0c6b7a11" with the first value
// in /etc/machine-id.
func TestMachineID(t *testing.T) {
	for _, c := range []struct{ etc, want string }{
		{"3d1219c7c4c5404aaa1f6d2a48adfda4\n", "69be7b6580144f82b395e5cb325f9586"},
	} {
		got, err := MachineID(c.etc)
		if err != nil || got != c.want {
			t.Errorf("%q: got %q, %v; want %q", c.etc, got, err, c.want)
		}
	}
	for _, bad := range []string{"", "uninitialized\n", "3d1219c7", strings.Repeat("g", 32)} {
		if got, err := MachineID(bad); !fault.Is(err, fault.Input) {
			t.Errorf("%q gave %q, %v", bad, got, err)
		}
	}
}

func TestPlatform(t *testing.T) {
	for _, c := range []struct{ vendor, product, want string }{
		{"QEMU\n", "Standard PC (Q35 + ICH9, 2009)\n", "QEMU Standard PC (Q35 + ICH9, 2009)"},
		{"Amazon EC2\n", "m7i.large\n", "Amazon EC2 m7i.large"},
		{"HP", "HP  ProLiant\tX  ", "HP ProLiant X"},
		{"", "", ""},
		{"Lenovo\n", "", "Lenovo"},
		{"", "KVM", "KVM"},
		{"\x1b[31mEvil\x00", "ä\x7f\"<x>", "[31mEvil \"<x>"},
		{strings.Repeat("v", 79), "product", strings.Repeat("v", 79)},
		{strings.Repeat("v", 500), strings.Repeat("p", 500), strings.Repeat("v", 80)},
	} {
		if got := Platform(c.vendor, c.product); got != c.want {
			t.Errorf("%q, %q: %q, want %q", c.vendor, c.product, got, c.want)
		}
	}
}

func TestClip(t *testing.T) {
	for _, c := range []struct {
		in   string
		n    int
		want string
	}{{"abc", 3, "abc"}, {"abcdef", 5, "ab…"}, {"aää", 4, "a…"}} {
		if got := clip(c.in, c.n); got != c.want {
			t.Errorf("clip(%q, %d) = %q, want %q", c.in, c.n, got, c.want)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add([]byte("{\"verb\":\"status\"}\n"))
	f.Add([]byte("{\"verb\":\"update\",\"retry\":true}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if q, err := readRequest(bytes.NewReader(data)); err == nil && q.Verb == "" {
			t.Fatal("a request without a verb")
		}
	})
}
