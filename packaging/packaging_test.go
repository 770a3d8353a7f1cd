package packaging

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

func run(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// The package has what it must have, the same bytes each time, and its program runs.
func TestDeb(t *testing.T) {
	one := strings.TrimSpace(run(t, "../scripts/deb", t.TempDir(), "1.2.3"))
	two := strings.TrimSpace(run(t, "../scripts/deb", t.TempDir(), "1.2.3"))
	a, err := os.ReadFile(one)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(two)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(a, b) {
		t.Error("two packages of the same commit differ")
	}
	list := run(t, "dpkg-deb", "--contents", one)
	for _, want := range []string{
		"-rwxr-xr-x root/root", "./usr/bin/semper-server", "./usr/lib/systemd/system/semper-server.service", "./etc/default/semper-server",
		"./usr/share/doc/semper-server/server.md", "./usr/share/doc/semper-server/monitoring/alerts.yml",
	} {
		if !strings.Contains(list, want) {
			t.Errorf("the package lacks %s:\n%s", want, list)
		}
	}
	if got := run(t, "dpkg-deb", "--field", one, "Package", "Version"); got != "Package: semper-server\nVersion: 1.2.3\n" {
		t.Errorf("control file: %s", got)
	}
	tree := t.TempDir()
	run(t, "dpkg-deb", "--extract", one, tree)
	if got := run(t, filepath.Join(tree, "usr/bin/semper-server"), "serve", "--help"); !strings.Contains(got, "--trust-key") {
		t.Errorf("the program says %s", got)
	}
	for _, script := range []string{"postinst", "prerm", "postrm"} {
		run(t, "sh", "-n", script)
	}
}

// systemd finds nothing wrong with the unit, and little that it leaves exposed.
func TestUnit(t *testing.T) {
	// verify wants the program where the unit says that it is.
	dir := t.TempDir()
	unit, err := os.ReadFile("semper-server.service")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "semper-server.service")
	if err := os.WriteFile(path, bytes.ReplaceAll(unit, []byte("/usr/bin/semper-server"), []byte("/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := run(t, "systemd-analyze", "verify", "--man=no", path); strings.Contains(got, "semper-server.service") {
		t.Errorf("systemd-analyze verify: %s", got)
	}
	run(t, "systemd-analyze", "security", "--offline=true", "--threshold=20", path)
}
