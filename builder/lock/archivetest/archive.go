// Package archivetest makes small Debian archives for tests: signed, complete, in a folder, with packages that dpkg accepts where a test asks for it.
package archivetest

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/openpgp"           //nolint:staticcheck // frozen, and enough to sign what a test's apt checks
	"golang.org/x/crypto/openpgp/clearsign" //nolint:staticcheck // the same
	"golang.org/x/crypto/openpgp/packet"    //nolint:staticcheck // the same
)

// Date is the date of every suite's Release file, unless a test gives another.
var Date = time.Date(2025, 11, 15, 10, 0, 0, 0, time.UTC)

// Archive is Debian's two archives in a folder, and the key that signs them.
type Archive struct {
	Dir     string // holds debian/ and debian-security/
	Keyring string
	key     *openpgp.Entity
}

// Package is one package of a suite.
type Package struct {
	Name    string
	Version string
	Arch    string // default: amd64
	Fields  string // further lines of its stanza: "Depends: x\n"
	Deb     []byte // default: bytes that are no package, but good enough to be downloaded
}

var config = &packet.Config{DefaultHash: crypto.SHA256, RSABits: 2048, Time: func() time.Time { return Date }}

// sharedKey signs all archives of a test's process, because making a key takes longer than all the rest.
var sharedKey = sync.OnceValues(newKey)

func newKey() (*openpgp.Entity, error) {
	key, err := openpgp.NewEntity("Test Archive", "", "test@example.org", config)
	if err != nil {
		return nil, err
	}
	for _, id := range key.Identities {
		if err := id.SelfSignature.SignUserId(id.UserId.Id, key.PrimaryKey, key.PrivateKey, config); err != nil {
			return nil, err
		}
	}
	return key, nil
}

// New makes an empty archive in dir. All of a process share their key.
func New(t testing.TB, dir string) *Archive {
	t.Helper()
	key, err := sharedKey()
	must(t, err)
	return newArchive(t, dir, key)
}

// NewStranger makes an empty archive with another key than any archive of New.
func NewStranger(t testing.TB, dir string) *Archive {
	t.Helper()
	key, err := newKey()
	must(t, err)
	return newArchive(t, dir, key)
}

func newArchive(t testing.TB, dir string, key *openpgp.Entity) *Archive {
	t.Helper()
	a := &Archive{Dir: dir, Keyring: filepath.Join(dir, "keyring.gpg"), key: key}
	var public bytes.Buffer
	must(t, key.Serialize(&public))
	a.write(t, "keyring.gpg", public.Bytes())
	return a
}

// Trixie makes the three suites of trixie with the packages given, the last of them by the security archive.
func (a *Archive) Trixie(t testing.TB, main, updates, security []Package) {
	t.Helper()
	a.Suite(t, "debian", "trixie", "", main)
	a.Suite(t, "debian", "trixie-updates", "", updates)
	a.Suite(t, "debian-security", "trixie-security", "", security)
}

// Suite writes one suite of the archive "debian" or "debian-security" with further lines in its Release file, and the packages into the pool.
func (a *Archive) Suite(t testing.TB, archive, suite, release string, packages []Package) {
	t.Helper()
	var index bytes.Buffer
	for _, p := range packages {
		if p.Arch == "" {
			p.Arch = "amd64"
		}
		if p.Deb == nil {
			p.Deb = []byte("not really " + p.Name + " " + p.Version)
		}
		_, plain, epoch := strings.Cut(p.Version, ":")
		if !epoch {
			plain = p.Version
		}
		file := fmt.Sprintf("pool/main/%s/%s/%s_%s_%s.deb", p.Name[:1], p.Name, p.Name, plain, p.Arch)
		a.write(t, filepath.Join(archive, file), p.Deb)
		fmt.Fprintf(&index, "Package: %s\nVersion: %s\nArchitecture: %s\n%sFilename: %s\nSize: %d\nSHA256: %x\nDescription: for a test\n more of it\n\n",
			p.Name, p.Version, p.Arch, p.Fields, file, len(p.Deb), sha256.Sum256(p.Deb))
	}
	dists := filepath.Join(archive, "dists", suite)
	a.write(t, filepath.Join(dists, "main/binary-amd64/Packages"), index.Bytes())
	text := fmt.Sprintf("Origin: Debian\nLabel: Debian\nSuite: %s\nCodename: %s\nDate: %s\nArchitectures: amd64\nComponents: main\n%sSHA256:\n %x %d main/binary-amd64/Packages\n",
		suite, suite, Date.Format(time.RFC1123), release, sha256.Sum256(index.Bytes()), index.Len())
	var signed bytes.Buffer
	w, err := clearsign.Encode(&signed, a.key.PrivateKey, config)
	must(t, err)
	_, err = w.Write([]byte(text))
	must(t, err)
	must(t, w.Close())
	signed.WriteByte('\n')
	a.write(t, filepath.Join(dists, "InRelease"), signed.Bytes())
}

func (a *Archive) write(t testing.TB, name string, data []byte) {
	t.Helper()
	path := filepath.Join(a.Dir, name)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, data, 0o644))
}

// Deb makes a package with dpkg-deb. Compression is dpkg-deb's ("xz", "zstd", "gzip", "none"); files whose content begins with "->" are symbolic links.
func Deb(t testing.TB, compression, control string, files map[string]string) []byte {
	t.Helper()
	if _, err := exec.LookPath("dpkg-deb"); err != nil {
		t.Fatal("this test needs dpkg-deb: apt-get install dpkg")
	}
	dir := t.TempDir()
	root := filepath.Join(dir, "root")
	must(t, os.MkdirAll(filepath.Join(root, "DEBIAN"), 0o755))
	must(t, os.WriteFile(filepath.Join(root, "DEBIAN/control"), []byte(control), 0o644))
	names := make([]string, 0, len(files))
	for name := range files {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		path := filepath.Join(root, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		if target, link := strings.CutPrefix(files[name], "->"); link {
			must(t, os.Symlink(target, path))
		} else {
			must(t, os.WriteFile(path, []byte(files[name]), 0o755))
		}
	}
	deb := filepath.Join(dir, "x.deb")
	out, err := exec.Command("dpkg-deb", "--root-owner-group", "-Z"+compression, "--build", root, deb).CombinedOutput()
	if err != nil {
		t.Fatalf("dpkg-deb: %v: %s", err, out)
	}
	data, err := os.ReadFile(deb)
	must(t, err)
	return data
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
