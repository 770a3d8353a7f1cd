package rootfs

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/builder/tree"
	"github.com/semper-os/semper/fault"
)

var epoch = time.Unix(20_000*86400, 0)

// debian is a tree like a freshly installed one, as small as the steps need it.
func debian(t *testing.T) *tree.Tree {
	t.Helper()
	tr := tree.New()
	for p, text := range map[string]string{
		"etc/passwd":                        "root:x:0:0:root:/root:/bin/bash\n_apt:x:42:65534::/nonexistent:/usr/sbin/nologin\n",
		"etc/group":                         "root:x:0:\nsudo:x:27:\n",
		"etc/shadow":                        "root:*:20411:0:99999:7:::\n_apt:*:20412:0:99999:7:::\n",
		"etc/gshadow":                       "root:*::\nsudo:*::\n",
		"etc/passwd-":                       "old",
		"etc/ssh/ssh_host_rsa_key":          "secret",
		"etc/ssh/ssh_host_rsa_key.pub":      "public",
		"etc/ssh/ssh_config":                "keep",
		"root/.profile":                     "profile",
		"usr/bin/apt":                       "apt",
		"usr/bin/shared":                    "both",
		"usr/lib/apt/methods/http":          "http",
		"usr/share/doc/a/copyright":         "legal",
		"usr/share/doc/a/changelog.gz":      "long",
		"usr/share/doc/b/README":            "text",
		"usr/lib/tmpfiles.d/dbus.conf":      "d /var/lib/dbus 0755 - - -\n",
		"var/lib/dbus/machine-id":           "0123",
		"var/lib/pam/seen":                  "pam",
		"var/log/apt/history.log":           "today",
		"var/cache/ldconfig/aux-cache":      "inodes",
		"var/lib/dpkg/status":               "Package: a\nStatus: x\n\nPackage: apt\nStatus: y\n\n",
		"var/lib/dpkg/status-old":           "older",
		"var/lib/dpkg/info/apt.list":        "/.\n/usr\n/usr/bin\n/bin/apt\n/usr/bin/shared\n/usr/lib/apt\n/usr/lib/apt/methods\n/usr/lib/apt/methods/http\n",
		"var/lib/dpkg/info/a:amd64.list":    "/usr/bin/shared\n",
		"var/lib/dpkg/info/a:amd64.md5sums": "x",
	} {
		if err := tr.PutFile(p, 0o644, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for p, target := range map[string]string{"bin": "usr/bin", "var/run": "/run"} {
		if err := tr.PutSymlink(p, target); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func finishing() Finishing {
	return Finishing{
		Release:        Release{ID: "semper", Name: "Semper OS", Version: "1.2.0", Debian: "trixie"},
		Users:          []User{{Name: "core", UID: 1000, GID: 1000, Home: "/home/core", Shell: "/bin/bash", Groups: []string{"sudo"}}},
		RemovePackages: []string{"apt"},
		RemovePaths:    []string{"usr/share/doc/*"},
		KeepPaths:      []string{"usr/share/doc/*/copyright"},
		Add:            func(t *tree.Tree) error { return t.PutFile("usr/lib/semper/semperd", 0o755, []byte("elf")) },
		Epoch:          epoch,
	}
}

func text(t *testing.T, tr *tree.Tree, p string) string {
	t.Helper()
	b, err := tr.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestFinish(t *testing.T) {
	tr := debian(t)
	if err := Finish(tr, finishing()); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{
		"etc/passwd-", "etc/ssh/ssh_host_rsa_key", "etc/ssh/ssh_host_rsa_key.pub", "usr/bin/apt", "usr/lib/apt",
		"usr/share/doc/a/changelog.gz", "usr/share/doc/b", "var/lib/dpkg", "var/lib/dbus",
	} {
		if tr.Lookup(p) != nil {
			t.Errorf("/%s is still there", p)
		}
	}
	for p, want := range map[string]string{
		"etc/machine-id":                     "",
		"etc/ssh/ssh_config":                 "keep",
		"usr/bin/shared":                     "both",
		"usr/share/doc/a/copyright":          "legal",
		"usr/share/semper/dpkg/status":       "Package: a\nStatus: x\n\n",
		"usr/share/factory/var/lib/pam/seen": "pam",
		"usr/lib/semper/semperd":             "elf",
		"etc/shadow":                         "root:*:20000:0:99999:7:::\n_apt:*:20000:0:99999:7:::\ncore:!*:20000:0:99999:7:::\n",
		"etc/group":                          "root:x:0:\nsudo:x:27:core\ncore:x:1000:\n",
		"etc/subuid":                         "core:1000000:65536\n",
	} {
		if got := text(t, tr, p); got != want {
			t.Errorf("/%s holds %q, want %q", p, got, want)
		}
	}
	if below := tr.Below("var"); len(below) > 0 {
		t.Errorf("/var is not empty: %v", below)
	}
	if n := tr.Lookup("root"); n.Type != tree.Symlink || n.Target != "var/roothome" {
		t.Errorf("/root: %+v", n)
	}
	conf := strings.Split(text(t, tr, tmpfilesVar), "\n")
	for _, line := range []string{
		"d /var/home/core 0700 1000 1000 -", "C /var/roothome/.profile 0644 0 0 - /usr/share/factory/var/roothome/.profile",
		"C /var/lib/pam/seen 0644 0 0 - /usr/share/factory/var/lib/pam/seen", "L /var/run - - - - /run", "d /var/log 0755 0 0 -",
		"L+ /var/lib/dpkg - - - - /usr/share/semper/dpkg",
	} {
		if !slices.Contains(conf, line) {
			t.Errorf("tmpfiles.d lacks %q:\n%s", line, strings.Join(conf, "\n"))
		}
	}
	if slices.ContainsFunc(conf, func(l string) bool { return strings.HasPrefix(l, "d /var/lib/dbus ") }) {
		t.Error("tmpfiles.d repeats what a package declares")
	}
}

func TestFinishRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(*tree.Tree, *Finishing)
		want string
	}{
		{"a package that is not installed", func(_ *tree.Tree, f *Finishing) { f.RemovePackages = []string{"perl"} }, "perl is not installed"},
		{"a uid in use", func(_ *tree.Tree, f *Finishing) { f.Users[0].UID = 42 }, "uid 42 belongs to _apt"},
		{"a name in use", func(_ *tree.Tree, f *Finishing) { f.Users[0].Name = "_apt" }, "made it already"},
		{"a group that is not there", func(_ *tree.Tree, f *Finishing) { f.Users[0].Groups = []string{"docker"} }, "no group docker"},
		{"a home that cannot be written", func(_ *tree.Tree, f *Finishing) { f.Users[0].Home = "/usr/core" }, "not below /home or /var"},
		{"a bad pattern", func(_ *tree.Tree, f *Finishing) { f.RemovePaths = []string{"a["} }, "pattern"},
		{"an account without a password", func(tr *tree.Tree, _ *Finishing) {
			_ = tr.PutFile("etc/shadow", 0o640, []byte("root::20411:0:99999:7:::\n"))
		}, "without a password"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tr, f := debian(t), finishing()
			c.edit(tr, &f)
			err := Finish(tr, f)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if k := fault.KindOf(err); c.name != "an account without a password" && k != fault.Input {
				t.Errorf("kind %v, want input", k)
			}
		})
	}
}
