package spelling

import (
	"strings"
	"testing"
)

func TestNearest(t *testing.T) {
	names := []string{"podman", "podman-docker", "postman", "openssh-server", "openssh-client", "nano", "vim", "libpod1"}
	for _, c := range []struct {
		word string
		want string
	}{
		{"podmn", "podman"},
		{"podmann", "podman"},
		{"vmi", "vim"},
		{"openssh-servr", "openssh-server"},
		{"openssh", "openssh-client openssh-server"},
		{"docker", "podman-docker"},
		{"vi", "vim"},
		{"", ""},
		{"emacs", ""},
		{strings.Repeat("x", 500), ""},
	} {
		if got := strings.Join(Nearest(c.word, names, 2), " "); got != c.want {
			t.Errorf("Nearest(%q) = %q, want %q", c.word, got, c.want)
		}
	}
}
