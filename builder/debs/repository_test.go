package debs

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/builder/lock/archivetest"
	"github.com/semper-os/semper/fault"
)

// put lays a package into the store as Fill would.
func put(t *testing.T, s *Store, deb []byte) lock.Package {
	t.Helper()
	stanza, err := Control(strings.NewReader(string(deb)), int64(len(deb)))
	if err != nil {
		t.Fatal(err)
	}
	p := locked(Field(stanza, "Package"), deb)
	p.Version, p.Architecture = Field(stanza, "Version"), Field(stanza, "Architecture")
	if err := os.MkdirAll(filepath.Dir(s.Path(p)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path(p), deb, 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}

func controlFor(name, more string) string {
	return fmt.Sprintf("Package: %s\nVersion: 1:2.0+b1\nArchitecture: amd64\nMaintainer: N <n@example.org>\n%sDescription: x\n", name, more)
}

// Apt must find in the repository what was put there, select the essential packages by the suite's name as mmdebstrap does, and get the same bytes.
func TestRepositoryForApt(t *testing.T) {
	if _, err := exec.LookPath("apt-get"); err != nil {
		t.Fatal("this test needs apt-get: apt-get install apt")
	}
	s := open(t)
	packages := []lock.Package{
		put(t, s, archivetest.Deb(t, "xz", controlFor("base", "Essential: yes\nDepends: lib (>= 1:1)\n"), nil)),
		put(t, s, archivetest.Deb(t, "zstd", controlFor("lib", ""), nil)),
		put(t, s, archivetest.Deb(t, "gzip", controlFor("tool", "Depends: lib\n"), nil)),
	}
	put(t, s, archivetest.Deb(t, "gzip", controlFor("stranger", ""), nil)) // in the store, but not locked
	dir := filepath.Join(t.TempDir(), "repository")
	date := time.Date(2025, 11, 15, 10, 0, 0, 0, time.UTC)
	if err := s.Repository(dir, "trixie", date, packages); err != nil {
		t.Fatal(err)
	}
	link, err := os.Stat(filepath.Join(dir, "lib_1.0_amd64.deb"))
	if err != nil {
		t.Fatal(err)
	}
	if stored, err := os.Stat(s.Path(packages[1])); err != nil || !os.SameFile(link, stored) {
		t.Errorf("not a hard link to the store: %v", err)
	}

	apt := t.TempDir()
	for _, d := range []string{"etc/apt.conf.d", "etc/preferences.d", "state/lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(apt, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	conf := strings.ReplaceAll(`Dir::Etc "DIR/etc"; Dir::State "DIR/state"; Dir::State::status "DIR/status"; Dir::Cache "DIR/cache"; Dir::Log "DIR";
APT::Architecture "amd64"; APT::Sandbox::User "root"; Acquire::Languages "none"; pkgCacheGen::ForceEssential ",";
`, "DIR", apt)
	for name, text := range map[string]string{"apt.conf": conf, "status": "", "etc/sources.list": "deb [trusted=yes] copy:" + dir + " ./\n"} {
		if err := os.WriteFile(filepath.Join(apt, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) string {
		t.Helper()
		cmd := exec.Command("apt-get", args...)
		cmd.Dir = apt
		cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(apt, "apt.conf"), "LC_ALL=C.UTF-8")
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("apt-get %v: %v: %s", args, err, out)
		}
		return string(out)
	}
	run("update")
	names := func(out string) string {
		var list []string
		for l := range strings.Lines(out) {
			if words := strings.Fields(l); len(words) > 1 && words[0] == "Inst" {
				list = append(list, words[1])
			}
		}
		return strings.Join(list, " ")
	}
	if got := names(run("install", "--simulate", "?narrow(?or(?archive(^trixie$),?codename(^trixie$)),?architecture(amd64),?essential)")); got != "lib base" {
		t.Errorf("essential packages: %q", got)
	}
	if got := names(run("install", "--simulate", "?name(.)")); got != "lib base tool" {
		t.Errorf("all packages: %q", got)
	}
	run("download", "tool")
	files, err := filepath.Glob(filepath.Join(apt, "tool_*.deb"))
	if err != nil || len(files) != 1 {
		t.Fatalf("downloaded %v, %v", files, err)
	}
	got, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	complete(t, s, packages[2], got)

	if err := s.Repository(dir, "trixie", date, packages); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "the folder must be empty") {
		t.Errorf("a second time: %v", err)
	}
}

func TestRepositoryRefused(t *testing.T) {
	s := open(t)
	p := put(t, s, archivetest.Deb(t, "gzip", controlFor("tool", ""), nil))
	evil := put(t, s, archivetest.Deb(t, "gzip", controlFor("evil", "Filename: ../x.deb\n"), nil))
	other := func(change func(*lock.Package)) lock.Package {
		q := p
		change(&q)
		return q
	}
	for _, c := range []struct {
		name string
		p    lock.Package
		kind fault.Kind
		want string
	}{
		{"name", other(func(q *lock.Package) { q.Name = "other" }), fault.Verification, `package other: its control file says Package "tool", the lock "other"`},
		{"version", other(func(q *lock.Package) { q.Version = "3" }), fault.Verification, `package tool: its control file says Version "1:2.0+b1", the lock "3"`},
		{"architecture", other(func(q *lock.Package) { q.Architecture = "all" }), fault.Verification, `package tool: its control file says Architecture "amd64", the lock "all"`},
		{"field of an index", evil, fault.Verification, `package evil: its control file has the field Filename, which belongs to an index`},
		{"not in the store", locked("absent", []byte("x")), fault.IO, `package absent: read package: open `},
		{"no package", putJunk(t, s, "junk"), fault.Input, `package junk: not a Debian package: no ar archive`},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "r")
			err := s.Repository(dir, "trixie", time.Unix(0, 0), []lock.Package{c.p})
			if err == nil || !strings.HasPrefix(err.Error(), "local repository "+dir+": "+c.want) || !fault.Is(err, c.kind) {
				t.Errorf("got  %v (%s)\nwant %s", err, fault.KindOf(err), c.want)
			}
			if _, err := os.Stat(filepath.Join(dir, "Packages")); err == nil {
				t.Error("an index was written")
			}
		})
	}
}

// putJunk lays bytes that are no package into the store.
func putJunk(t *testing.T, s *Store, text string) lock.Package {
	t.Helper()
	p := locked("junk", []byte(text))
	if err := os.MkdirAll(filepath.Dir(s.Path(p)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path(p), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return p
}
