package lock

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/builder/lock/archivetest"
	"github.com/semper-os/semper/builder/recipe"
	"github.com/semper-os/semper/fault"
)

const testRecipe = `name = "semper"
suite = "trixie"
architecture = "amd64"
packages = [
  "podman",
]
remove-packages = ["dpkg"]
[root]
slot-size = "2GiB"
[tools]
packages = ["erofs-utils"]
`

func parseRecipe(t *testing.T, replace ...string) *recipe.Recipe {
	t.Helper()
	r, err := recipe.Parse("images/x/recipe.toml", []byte(strings.NewReplacer(replace...).Replace(testRecipe)))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

type pkg = archivetest.Package

// world is an archive in which every trap of the resolution is laid once.
func world(t *testing.T) *archivetest.Archive {
	t.Helper()
	a := archivetest.New(t, t.TempDir())
	a.Trixie(t, []pkg{
		{Name: "base-files", Version: "13.8", Fields: "Essential: yes\n"},
		{Name: "dpkg", Version: "1.22", Fields: "Essential: yes\nDepends: libc6\n"},
		{Name: "apt", Version: "3.0", Fields: "Depends: libc6\n"}, // essential to apt's mind, not to ours
		{Name: "libc6", Version: "2.41-12"},
		{Name: "podman", Version: "5.4.2+ds1-2", Fields: "Depends: libc6 (>= 2), crun | runc, conf\nRecommends: buildah\n"},
		{Name: "crun", Version: "1:1.21", Fields: "Depends: libc6\nProvides: oci-runtime\n"},
		{Name: "runc", Version: "1.1", Fields: "Provides: oci-runtime\n"},
		{Name: "buildah", Version: "1.39"},
		{Name: "conf", Version: "1.0", Arch: "all"},
		{Name: "broken", Version: "1", Fields: "Depends: no-such-thing\n"},
		{Name: "erofs-utils", Version: "1.8.6-1", Fields: "Depends: libc6, liblz4-1\n"},
		{Name: "liblz4-1", Version: "1.10"},
		{Name: "linux-image-amd64", Version: "6.12.48-1", Fields: "Depends: linux-image-6.12.48-amd64 (= 6.12.48-1)\n"},
		{Name: "linux-image-6.12.48-amd64", Version: "6.12.48-1", Fields: "Depends: initramfs-tools\n"},
		{Name: "initramfs-tools", Version: "0.148"},
	}, []pkg{
		{Name: "conf", Version: "1.1", Arch: "all"},
	}, []pkg{
		{Name: "libc6", Version: "2.41-12+deb13u1"},
		{Name: "liblz4-1", Version: "1.10"}, // also in main: same version, same bytes
		{Name: "linux-image-amd64", Version: "6.12.57-1", Fields: "Depends: linux-image-6.12.57-amd64 (= 6.12.57-1)\n"},
		{Name: "linux-image-6.12.57-amd64", Version: "6.12.57-1", Fields: "Depends: initramfs-tools\n"},
	})
	return a
}

func mirrors(a *archivetest.Archive) Mirrors {
	return Mirrors{Debian: "file:" + a.Dir + "/debian", Security: "file:" + a.Dir + "/debian-security"}
}

func TestResolve(t *testing.T) {
	a := world(t)
	r := parseRecipe(t)
	l, err := Resolve(t.Context(), r, mirrors(a), Options{Keyring: a.Keyring})
	if err != nil {
		t.Fatal(err)
	}
	var got strings.Builder
	for _, p := range l.Packages {
		var groups []string
		for _, g := range p.Groups {
			groups = append(groups, string(g))
		}
		got.WriteString(strings.Join([]string{p.Name, p.Version, p.Architecture, string(p.Archive), p.Path, strings.Join(groups, "+")}, " ") + "\n")
	}
	want := `base-files 13.8 amd64 debian pool/main/b/base-files/base-files_13.8_amd64.deb image
conf 1.1 all debian pool/main/c/conf/conf_1.1_all.deb image
crun 1:1.21 amd64 debian pool/main/c/crun/crun_1.21_amd64.deb image
dpkg 1.22 amd64 debian pool/main/d/dpkg/dpkg_1.22_amd64.deb image
erofs-utils 1.8.6-1 amd64 debian pool/main/e/erofs-utils/erofs-utils_1.8.6-1_amd64.deb tools
libc6 2.41-12+deb13u1 amd64 security pool/main/l/libc6/libc6_2.41-12+deb13u1_amd64.deb image+tools
liblz4-1 1.10 amd64 debian pool/main/l/liblz4-1/liblz4-1_1.10_amd64.deb tools
linux-image-6.12.57-amd64 6.12.57-1 amd64 security pool/main/l/linux-image-6.12.57-amd64/linux-image-6.12.57-amd64_6.12.57-1_amd64.deb kernel
podman 5.4.2+ds1-2 amd64 debian pool/main/p/podman/podman_5.4.2+ds1-2_amd64.deb image
`
	if got.String() != want {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
	if !l.Epoch().Equal(archivetest.Date) || len(l.Releases) != 3 || l.Releases[1].Suite != "trixie-security" {
		t.Errorf("releases %v, epoch %v", l.Releases, l.Epoch())
	}
	if err := l.Check(r); err != nil {
		t.Errorf("a fresh lock does not match its recipe: %v", err)
	}
	again, err := Parse("x", l.Encode())
	if err != nil || again.Digest() != l.Digest() {
		t.Errorf("a fresh lock does not read back: %v", err)
	}
}

func TestResolveRefused(t *testing.T) {
	a := world(t)
	for _, c := range []struct {
		name    string
		replace []string
		want    string // the error's beginning
	}{
		{"no such package", []string{"podman", "podmann"}, `resolve semper: images/x/recipe.toml:5: no package "podmann" in trixie for amd64, did you mean podman?`},
		{"virtual package", []string{"podman", "oci-runtime"}, `resolve semper: images/x/recipe.toml:5: no package "oci-runtime" in trixie for amd64: it is virtual, name one of crun, runc`},
		{"no such tool", []string{`"erofs-utils"`, `"erofs-utils", "kmodd"`}, `resolve semper: images/x/recipe.toml:11: no package "kmodd" in trixie for amd64`},
		{"unmet dependency", []string{"podman", "broken"}, `resolve semper: the image's packages: apt cannot install them together: unmet dependencies: broken : Depends: no-such-thing but it is not installable`},
		{"kernel that is none", []string{"[root]", "[kernel]\npackage = \"crun\"\n[root]"}, `images/x/recipe.toml:9: "crun" is no kernel: it depends on no linux-image package`},
		{"removed but not there", []string{`["dpkg"]`, `["dpgk"]`}, `images/x/recipe.toml:7: remove-packages: "dpgk" is not among the image's 6 packages, did you mean "dpkg"?`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Resolve(t.Context(), parseRecipe(t, c.replace...), mirrors(a), Options{Keyring: a.Keyring})
			if err == nil || !strings.Contains(err.Error(), c.want) || !fault.Is(err, fault.Input) {
				t.Errorf("got  %v (%s)\nwant %s", err, fault.KindOf(err), c.want)
			}
		})
	}
}

func TestMirrorNotBelieved(t *testing.T) {
	r := parseRecipe(t)
	a := world(t)
	other := archivetest.NewStranger(t, t.TempDir())
	refused := func(name string, o Options, kind fault.Kind, want string) {
		t.Helper()
		o.fewerRetries = 3
		_, err := Resolve(t.Context(), r, mirrors(a), o)
		if err == nil || !strings.Contains(err.Error(), want) || !fault.Is(err, kind) {
			t.Errorf("%s: got %v (%s), want %s with %q", name, err, fault.KindOf(err), kind, want)
		}
	}
	refused("other keys", Options{Keyring: other.Keyring}, fault.Verification, "the keyring does not know the key")
	refused("no keys", Options{Keyring: filepath.Join(t.TempDir(), "none.gpg")}, fault.Input, "apt-get install debian-archive-keyring")

	index := filepath.Join(a.Dir, "debian/dists/trixie/main/binary-amd64/Packages")
	text, err := os.ReadFile(index)
	if err != nil {
		t.Fatal(err)
	}
	evil := strings.Replace(string(text), "Version: 5.4.2", "Version: 6.4.2", 1)
	if err := os.WriteFile(index, []byte(evil), 0o644); err != nil {
		t.Fatal(err)
	}
	refused("changed index", Options{Keyring: a.Keyring}, fault.Verification, "Hash Sum mismatch")
	if err := os.Remove(index); err != nil {
		t.Fatal(err)
	}
	refused("missing index", Options{Keyring: a.Keyring}, fault.Network, "")

	a = world(t)
	a.Suite(t, "debian-security", "trixie-security", "Valid-Until: Sat, 22 Nov 2025 10:00:00 UTC\n", nil)
	refused("expired", Options{Keyring: a.Keyring}, fault.Verification, "--allow-expired")
	if _, err := Resolve(t.Context(), parseRecipe(t, "podman", "conf"), mirrors(a), Options{Keyring: a.Keyring, AllowExpired: true}); err != nil {
		t.Errorf("expired, and allowed: %v", err)
	}
}

// What the host's apt is told must not reach the resolution: not even by the environment.
func TestHostConfigurationStaysOut(t *testing.T) {
	a := world(t)
	dir := t.TempDir()
	trap := filepath.Join(dir, "trap")
	conf := filepath.Join(dir, "apt.conf")
	text := `APT::Update::Pre-Invoke { "touch ` + trap + `"; };` + "\n" + `APT::Install-Recommends "true";` + "\n"
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Setenv("APT_CONFIG", conf)
	l, err := Resolve(t.Context(), parseRecipe(t), mirrors(a), Options{Keyring: a.Keyring})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(trap); err == nil {
		t.Error("a hook of the host's configuration was run")
	}
	if _, ok := l.Package("buildah"); ok {
		t.Error("the host's wish for recommended packages was heard")
	}
}

func TestResolveCancelled(t *testing.T) {
	a := world(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Resolve(ctx, parseRecipe(t), mirrors(a), Options{Keyring: a.Keyring}); err == nil || !strings.HasSuffix(err.Error(), context.Canceled.Error()) {
		t.Errorf("got %v", err)
	}
}

func TestConcreteKernel(t *testing.T) {
	named := func(name, depends string) indexed { return indexed{Package: Package{Name: name}, depends: depends} }
	meta := []indexed{named("linux-image-amd64", "linux-image-6.12-amd64 (= 6.12)"), named("linux-image-6.12-amd64", "kmod")}
	if p, err := concreteKernel("linux-image-amd64", meta); err != nil || p.Name != "linux-image-6.12-amd64" {
		t.Errorf("meta package: %q, %v", p.Name, err)
	}
	if p, err := concreteKernel("linux-image-6.12-amd64", meta[1:]); err != nil || p.Name != "linux-image-6.12-amd64" {
		t.Errorf("concrete package: %q, %v", p.Name, err)
	}
}

func TestParseRelease(t *testing.T) {
	r, err := parseRelease("Origin: Debian\nSuite: stable\nCodename: trixie\nDate: Sat, 06 Sep 2025 11:09:50 UTC\nSHA256:\n abc 1 x\n")
	if err != nil || r.Suite != "trixie" || !r.Date.Equal(time.Date(2025, 9, 6, 11, 9, 50, 0, time.UTC)) {
		t.Errorf("got %v, %v", r, err)
	}
	for _, text := range []string{"", "Codename: x\n", "Codename: x\nDate: yesterday\n"} {
		if _, err := parseRelease(text); err == nil {
			t.Errorf("accepted %q", text)
		}
	}
}
