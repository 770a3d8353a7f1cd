package vm

import (
	"slices"
	"strings"
	"testing"

	"github.com/semper-os/semper/fault"
)

func TestCredentialStrings(t *testing.T) {
	args, err := smbiosArgs([]Credential{
		{Name: "plain", Value: []byte(`a = "b, c"`)},
		{Name: "lines", Value: []byte("one\ntwo\n")},
		{Name: "empty"},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"-smbios", `type=11,value=io.systemd.credential:plain=a = "b,, c"`,
		"-smbios", "type=11,value=io.systemd.credential.binary:lines=b25lCnR3bwo=",
		"-smbios", "type=11,value=io.systemd.credential:empty=",
	}
	if !slices.Equal(args, want) {
		t.Errorf("got %q\nwant %q", args, want)
	}
}

func TestParseCredential(t *testing.T) {
	c, err := ParseCredential("ssh.authorized_keys.root=ssh-ed25519 AAAA= x")
	if err != nil || c.Name != "ssh.authorized_keys.root" || string(c.Value) != "ssh-ed25519 AAAA= x" {
		t.Errorf("got %+v, %v", c, err)
	}
	for _, bad := range []string{"", "x", "=x", "..=x", "a b=x", strings.Repeat("n", 256) + "=x"} {
		if _, err := ParseCredential(bad); !fault.Is(err, fault.Usage) {
			t.Errorf("%q: got %v", bad, err)
		}
	}
}

func TestGuestURL(t *testing.T) {
	for _, c := range []struct {
		in, want string
		changed  bool
	}{
		{"http://127.0.0.1:8000", "http://10.0.2.2:8000", true},
		{"http://localhost:8000/v1/update/", "http://10.0.2.2:8000/v1/update/", true},
		{"http://[::1]:80", "http://10.0.2.2:80", true},
		{"https://localhost", "https://10.0.2.2", true},
		{"https://updates.example.org/x", "https://updates.example.org/x", false},
	} {
		got, changed, err := GuestURL(c.in)
		if err != nil || got != c.want || changed != c.changed {
			t.Errorf("GuestURL(%q) = %q, %v, %v", c.in, got, changed, err)
		}
	}
	for _, bad := range []string{"", "localhost:80", "ftp://x", "http://", "http://%zz"} {
		if _, _, err := GuestURL(bad); !fault.Is(err, fault.Usage) {
			t.Errorf("GuestURL(%q): got %v", bad, err)
		}
	}
}
