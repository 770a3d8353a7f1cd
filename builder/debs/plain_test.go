package debs

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/builder/lock/archivetest"
)

func dpkgDeb(t *testing.T, args ...string) []byte {
	t.Helper()
	out, err := exec.Command("dpkg-deb", args...).Output()
	if err != nil {
		t.Fatalf("dpkg-deb %v: %v", args, err)
	}
	return out
}

// A plain form is, for dpkg-deb, the package; it is hashed before it is used, and made again when it is damaged.
func TestPlain(t *testing.T) {
	for _, packer := range []string{"xz", "zstd", "gzip"} {
		t.Run(packer, func(t *testing.T) {
			s := open(t)
			p := put(t, s, archivetest.Deb(t, packer, controlFor("thing", ""), nil))
			p.Groups = []lock.Group{lock.Image}
			fill := func() string {
				t.Helper()
				s, err := Open(s.dir)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Fill(t.Context(), []lock.Package{p}, nil, nil); err != nil {
					t.Fatal(err)
				}
				return s.Deb(p)
			}
			path := fill()
			if path == s.Path(p) {
				t.Fatal("there is no plain form")
			}
			for _, flag := range []string{"--ctrl-tarfile", "--fsys-tarfile", "--field"} {
				if got, want := dpkgDeb(t, flag, path), dpkgDeb(t, flag, s.Path(p)); !bytes.Equal(got, want) {
					t.Errorf("%s: the plain form has %d other bytes than the package's %d", flag, len(got), len(want))
				}
			}
			good, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(path, fmt.Sprintf(".%x.", sha256.Sum256(good))) {
				t.Errorf("%s is not named after its bytes", path)
			}
			rotten := bytes.Clone(good)
			rotten[len(rotten)/2] ^= 1
			if err := os.WriteFile(path, rotten, 0o644); err != nil {
				t.Fatal(err)
			}
			again := fill()
			if mended, err := os.ReadFile(again); err != nil || again != path || !bytes.Equal(mended, good) {
				t.Errorf("%s was not made again as %s: %v", again, path, err)
			}
			if left, _ := filepath.Glob(s.base(p) + ".unpacking-*"); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// What is no package for dpkg-deb stays as it is, and the build is told nothing but that it will be slower.
func TestPlainNotPossible(t *testing.T) {
	s := open(t)
	bytes := []byte(arMagic + "no archive behind its first line")
	p := locked("odd", bytes)
	p.Groups = []lock.Group{lock.Image}
	if err := os.MkdirAll(filepath.Dir(s.Path(p)), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.Path(p), bytes, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := s.Fill(t.Context(), []lock.Package{p}, nil, nil); err != nil {
		t.Fatal(err)
	}
	if got := s.Deb(p); got != s.Path(p) {
		t.Errorf("unpacked from %s", got)
	}
	if left, _ := filepath.Glob(s.base(p) + ".*"); len(left) != 1 {
		t.Errorf("left behind: %v", left)
	}
}

// The repository's index speaks of the bytes that lie there.
func TestRepositoryOfPlainForms(t *testing.T) {
	s := open(t)
	p := put(t, s, archivetest.Deb(t, "xz", controlFor("thing", ""), nil))
	p.Groups = []lock.Group{lock.Image}
	if err := s.Fill(t.Context(), []lock.Package{p}, nil, nil); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "repository")
	if err := s.Repository(dir, "trixie", time.Unix(0, 0), []lock.Package{p}); err != nil {
		t.Fatal(err)
	}
	sum, size, err := hashFile(filepath.Join(dir, filepath.Base(p.Path)))
	if err != nil {
		t.Fatal(err)
	}
	index, err := os.ReadFile(filepath.Join(dir, "Packages"))
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("Size: %d\nSHA256: %s\n", size, sum); size == p.Size || !strings.Contains(string(index), want) {
		t.Errorf("the index lacks %q:\n%s", want, index)
	}
}
