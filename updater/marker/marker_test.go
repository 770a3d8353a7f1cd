package marker

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/semper-os/semper/fault"
)

// content is what the folder holds: name, mode, text.
func content(t *testing.T, folder string) string {
	t.Helper()
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(folder, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		b.WriteString(e.Name() + " " + info.Mode().String() + " " + string(data))
	}
	return b.String()
}

func TestSetAndClear(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077)) // as semper-installd's is
	folder := t.TempDir()
	const required = "reboot-required -rw-r--r-- *** System restart required ***\nreboot-required.pkgs -rw-r--r-- "
	for _, c := range []struct {
		name string
		do   func() error
		want string
	}{
		{"clear what is not there", func() error { return Clear(folder) }, ""},
		{"clear where no folder is", func() error { return Clear(filepath.Join(folder, "none")) }, ""},
		{"set", func() error { return Set(folder, "semper 1.1.0") }, required + "semper 1.1.0\n"},
		{"set again", func() error { return Set(folder, "semper 1.2.0", "tools 7") }, required + "semper 1.2.0\ntools 7\n"},
		{"set over a leftover", func() error {
			return errors.Join(os.WriteFile(filepath.Join(folder, "reboot-required.new"), []byte("half"), 0o600), Set(folder, "semper 1.2.0"))
		}, required + "semper 1.2.0\n"},
		{"clear", func() error { return Clear(folder) }, ""},
	} {
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := content(t, folder); got != c.want {
			t.Errorf("%s: the folder holds\n%swant\n%s", c.name, got, c.want)
		}
	}
}

// A link that somebody put there is replaced, not followed.
func TestLinks(t *testing.T) {
	folder, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("whole"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"reboot-required", "reboot-required.new", "reboot-required.pkgs", "reboot-required.pkgs.new"} {
		if err := os.Symlink(victim, filepath.Join(folder, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := Set(folder, "semper 1.1.0"); err != nil {
		t.Fatal(err)
	}
	if err := Clear(folder); err != nil {
		t.Fatal(err)
	}
	if data, err := os.ReadFile(victim); err != nil || string(data) != "whole" {
		t.Errorf("the link's target holds %q (%v)", data, err)
	}
	if got := content(t, folder); got != "" {
		t.Errorf("left over: %s", got)
	}
}

func TestRefused(t *testing.T) {
	for _, c := range []struct {
		name   string
		folder string
		names  []string
		kind   fault.Kind
	}{
		{"no name", t.TempDir(), nil, fault.Input},
		{"an empty name", t.TempDir(), []string{"a", ""}, fault.Input},
		{"two lines in a name", t.TempDir(), []string{"a\nb"}, fault.Input},
		{"a long name", t.TempDir(), []string{strings.Repeat("a", 201)}, fault.Input},
		{"many names", t.TempDir(), strings.Split(strings.Repeat("a", 65), ""), fault.Input},
		{"no folder", filepath.Join(t.TempDir(), "none"), []string{"a"}, fault.IO},
	} {
		if err := Set(c.folder, c.names...); !fault.Is(err, c.kind) || !strings.HasPrefix(err.Error(), "reboot-required: ") {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// Something in the way that is not a file: nothing is half done without a word.
	folder := t.TempDir()
	if err := os.MkdirAll(filepath.Join(folder, File, "full"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := Set(folder, "a"); !fault.Is(err, fault.IO) {
		t.Errorf("over a folder: %v", err)
	}
	if err := Clear(folder); !fault.Is(err, fault.IO) {
		t.Errorf("clear a folder: %v", err)
	}
}
