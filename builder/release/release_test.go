package release_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/semper-os/semper/builder/keys/keystest"
	"github.com/semper-os/semper/builder/release"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/payload/detached"
)

func trust(threshold int, signers ...crypto.Signer) payload.Trust {
	t := payload.Trust{Threshold: threshold}
	for _, s := range signers {
		t.Keys = append(t.Keys, s.Public())
	}
	return t
}

func manifest() release.Manifest {
	return release.Manifest{
		Name: "semper", Version: "1.2.0", Epoch: 3, MinVersion: "1.0.0", Architecture: "amd64",
		RootHash: strings.Repeat("ab", 32), PackagesSHA256: strings.Repeat("cd", 32), SourceDateEpoch: 1_700_000_000,
	}
}

// write makes a release with three files: one streamed, one by its path, one sparse.
func write(t *testing.T, out string, signers []crypto.Signer, content string, replace bool) (string, error) {
	t.Helper()
	w, err := release.NewWriter(out, "semper", "1.2.0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := w.Abort(); err != nil {
			t.Error(err)
		}
	}()
	if err := w.WriteFile("uki.efi", []byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.Path("packages.lock"), []byte("lock"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(w.Path("disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	for _, off := range []int64{0, 5<<20 + 7, 9 << 20} {
		if _, err := f.WriteAt([]byte("data"), off); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(f.Truncate(16<<20+5), f.Close()); err != nil {
		t.Fatal(err)
	}
	return w.Commit(context.Background(), manifest(), release.CommitOptions{Signers: signers, Replace: replace})
}

func listing(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWriteAndOpen(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077)) // what the release's modes are must not depend on it
	signers := keystest.Load(t, "release").PayloadSigners()
	out := filepath.Join(t.TempDir(), "out")
	dir, err := write(t, out, signers, "one", false)
	if err != nil {
		t.Fatal(err)
	}
	if dir != filepath.Join(out, "semper-1.2.0") || !slices.Equal(listing(t, out), []string{"semper-1.2.0"}) {
		t.Errorf("%s in %v", dir, listing(t, out))
	}
	want := []string{"disk.raw", "manifest.json", "manifest.json.sig", "packages.lock", "uki.efi"}
	if got := listing(t, dir); !slices.Equal(got, want) {
		t.Errorf("files %v, want %v", got, want)
	}
	for _, name := range append(want, ".") {
		mode := os.FileMode(0o644)
		if name == "." {
			mode = 0o755
		}
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v, want %o", name, info.Mode(), err, mode)
		}
	}
	r, err := release.Open(dir, trust(2, signers...))
	if err != nil {
		t.Fatal(err)
	}
	if len(r.Signers) != 2 || r.Manifest.Format != 1 || r.Manifest.Epoch != 3 || r.Size() != 16<<20+5+3+4 {
		t.Errorf("%+v", r)
	}
	if err := r.CheckFiles(context.Background(), nil); err != nil {
		t.Error(err)
	}
	// sha256sum is the second opinion, on the sparse file above all.
	for _, f := range r.Manifest.Files {
		out, err := exec.Command("sha256sum", filepath.Join(dir, f.Name)).Output()
		if err != nil || !strings.HasPrefix(string(out), f.SHA256+" ") {
			t.Errorf("%s: sha256sum says %.70s, the manifest %s (%v)", f.Name, out, f.SHA256, err)
		}
	}
}

func TestCommitOverExisting(t *testing.T) {
	signers := keystest.Load(t, "release").PayloadSigners()
	out := t.TempDir()
	first, err := write(t, out, signers, "one", false)
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.Stat(first)
	if err != nil {
		t.Fatal(err)
	}
	same := func() bool {
		after, err := os.Stat(first)
		return err == nil && os.SameFile(before, after)
	}
	if again, err := write(t, out, signers, "one", false); err != nil || again != first || !same() {
		t.Errorf("the same content: %s, %v, same folder: %v", again, err, same())
	}
	if _, err := write(t, out, signers, "two", false); !fault.Is(err, fault.Input) || !same() {
		t.Errorf("other content: %v, same folder: %v", err, same())
	}
	if b, err := os.ReadFile(filepath.Join(first, "uki.efi")); err != nil || string(b) != "one" {
		t.Errorf("after a refusal: %q, %v", b, err)
	}
	if _, err := write(t, out, signers, "two", true); err != nil || same() {
		t.Errorf("replace: %v, same folder: %v", err, same())
	}
	if b, err := os.ReadFile(filepath.Join(first, "uki.efi")); err != nil || string(b) != "two" {
		t.Errorf("after a replacement: %q, %v", b, err)
	}
	// A release that somebody damaged is not "the same".
	if err := os.WriteFile(filepath.Join(first, "uki.efi"), []byte("owt"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := write(t, out, signers, "two", false); !fault.Is(err, fault.Input) {
		t.Errorf("over a damaged release: %v", err)
	}
	if got := listing(t, out); !slices.Equal(got, []string{"semper-1.2.0"}) {
		t.Errorf("left behind: %v", got)
	}
}

func TestCheckPlace(t *testing.T) {
	signers := keystest.Load(t, "release").PayloadSigners()
	out := t.TempDir()
	known := manifest() // what is known before the build
	known.RootHash = ""
	if err := release.CheckPlace(filepath.Join(out, "missing"), known, signers); err != nil {
		t.Errorf("a folder that is not there: %v", err)
	}
	dir, err := write(t, out, signers, "one", false)
	if err != nil {
		t.Fatal(err)
	}
	if err := release.CheckPlace(out, known, signers); err != nil {
		t.Errorf("a release that may be the same: %v", err)
	}
	for name, change := range map[string]func(m *release.Manifest, s *[]crypto.Signer){
		"packages":   func(m *release.Manifest, _ *[]crypto.Signer) { m.PackagesSHA256 = strings.Repeat("ef", 32) },
		"time":       func(m *release.Manifest, _ *[]crypto.Signer) { m.SourceDateEpoch++ },
		"epoch":      func(m *release.Manifest, _ *[]crypto.Signer) { m.Epoch++ },
		"minimum":    func(m *release.Manifest, _ *[]crypto.Signer) { m.MinVersion = "" },
		"other keys": func(_ *release.Manifest, s *[]crypto.Signer) { *s = []crypto.Signer{bigKey(t)} },
	} {
		m, s := known, signers
		change(&m, &s)
		if err := release.CheckPlace(out, m, s); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), dir+" exists and has other content") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, release.ManifestFile)); err != nil {
		t.Fatal(err)
	}
	if err := release.CheckPlace(out, known, signers); !fault.Is(err, fault.Input) {
		t.Errorf("a folder that is no release: %v", err)
	}
}

func TestLeftovers(t *testing.T) {
	out := t.TempDir()
	for _, name := range []string{".semper-1.2.0.partial-123", ".semper-1.2.1.partial-1", ".other"} {
		if err := os.MkdirAll(filepath.Join(out, name, "sub"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	alive, err := release.NewWriter(out, "semper", "1.2.0")
	if err != nil {
		t.Fatal(err)
	}
	second, err := release.NewWriter(out, "semper", "1.2.0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(alive.Dir()); err != nil {
		t.Errorf("the second writer removed the first one's folder: %v", err)
	}
	if err := errors.Join(alive.Abort(), second.Abort(), second.Abort()); err != nil {
		t.Error(err)
	}
	if got := listing(t, out); !slices.Equal(got, []string{".other", ".semper-1.2.1.partial-1"}) {
		t.Errorf("%v are there", got)
	}
}

// TestSeal: what is sealed is listed as what it was then, and what cannot be is refused.
func TestSeal(t *testing.T) {
	out, m := t.TempDir(), manifest()
	w, err := release.NewWriter(out, m.Name, m.Version)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.Path(release.Root), []byte("root"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := w.Seal(t.Context(), release.Root); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{release.Disk, "../" + release.Root} {
		if err := w.Seal(t.Context(), name); err == nil {
			t.Errorf("%s was sealed", name)
		}
	}
	signers := keystest.Load(t, "release").PayloadSigners()
	dir, err := w.Commit(t.Context(), m, release.CommitOptions{Signers: signers})
	if err != nil {
		t.Fatal(err)
	}
	r, err := release.Open(dir, trust(1, signers...))
	if err != nil {
		t.Fatal(err)
	}
	want := release.File{Name: release.Root, Size: 4, SHA256: fmt.Sprintf("%x", sha256.Sum256([]byte("root")))}
	if len(r.Manifest.Files) != 1 || r.Manifest.Files[0] != want {
		t.Errorf("files %+v, want %+v alone", r.Manifest.Files, want)
	}
	if info, err := os.Stat(r.Path(release.Root)); err != nil || info.Mode() != 0o644 {
		t.Errorf("mode %v (%v), want 0644", info.Mode(), err)
	}
}

func TestCommitRefuses(t *testing.T) {
	signers := keystest.Load(t, "release").PayloadSigners()
	for name, c := range map[string]struct {
		change func(t *testing.T, w *release.Writer, m *release.Manifest) []crypto.Signer
		want   string
	}{
		"no files":  {func(*testing.T, *release.Writer, *release.Manifest) []crypto.Signer { return signers }, "lists 0 files"},
		"no signer": {func(t *testing.T, w *release.Writer, _ *release.Manifest) []crypto.Signer { return nil }, "lists 0 files"},
		"folder": {func(t *testing.T, w *release.Writer, _ *release.Manifest) []crypto.Signer {
			_ = os.Mkdir(w.Path("sub"), 0o755)
			return signers
		}, "not a regular file"},
		"link": {func(t *testing.T, w *release.Writer, _ *release.Manifest) []crypto.Signer {
			_ = os.Symlink("/etc/passwd", w.Path("x"))
			return signers
		}, "not a regular file"},
		"strange": {func(t *testing.T, w *release.Writer, _ *release.Manifest) []crypto.Signer {
			_ = os.WriteFile(w.Path("A b"), nil, 0o600)
			return signers
		}, "cannot be a file"},
		"unsigned": {func(t *testing.T, w *release.Writer, _ *release.Manifest) []crypto.Signer {
			_ = w.WriteFile("x", nil)
			return nil
		}, "0 keys"},
		"wrong field": {func(t *testing.T, w *release.Writer, m *release.Manifest) []crypto.Signer {
			_ = w.WriteFile("x", nil)
			m.Architecture = "vax"
			return signers
		}, "architecture"},
		"other name": {func(t *testing.T, w *release.Writer, m *release.Manifest) []crypto.Signer {
			m.Version = "9"
			return signers
		}, "its manifest is of semper-9"},
	} {
		t.Run(name, func(t *testing.T) {
			out := t.TempDir()
			w, err := release.NewWriter(out, "semper", "1.2.0")
			if err != nil {
				t.Fatal(err)
			}
			m := manifest()
			s := c.change(t, w, &m)
			if dir, err := w.Commit(context.Background(), m, release.CommitOptions{Signers: s}); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %q, %v, want an error with %q", dir, err, c.want)
			}
			if err := w.Abort(); err != nil || len(listing(t, out)) != 0 {
				t.Errorf("left behind: %v, %v", listing(t, out), err)
			}
		})
	}
	w, err := release.NewWriter(t.TempDir(), "semper", "1.2.0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = w.Abort() }()
	for _, name := range []string{"manifest.json", "manifest.json.sig", "../x", "a/b", "", ".x", "UPPER", strings.Repeat("x", 65)} {
		if _, err := w.Create(name); !fault.Is(err, fault.Input) {
			t.Errorf("Create(%q): %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := os.WriteFile(w.Path("x"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Commit(ctx, manifest(), release.CommitOptions{Signers: signers}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestOpenRefuses(t *testing.T) {
	signers := keystest.Load(t, "release").PayloadSigners()
	strangers := keystest.Load(t, "strangers").PayloadSigners()
	edit := func(name string, change func([]byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			path := filepath.Join(dir, name)
			b, err := os.ReadFile(path)
			if err == nil {
				err = os.WriteFile(path, change(b), 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	remove := func(name string) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	resign := func(change func([]byte) []byte) func(t *testing.T, dir string) {
		return func(t *testing.T, dir string) {
			edit("manifest.json", change)(t, dir)
			b, err := os.ReadFile(filepath.Join(dir, "manifest.json"))
			if err != nil {
				t.Fatal(err)
			}
			sig, err := release.Sign(b, signers)
			if err != nil {
				t.Fatal(err)
			}
			edit("manifest.json.sig", func([]byte) []byte { return sig })(t, dir)
		}
	}
	replace := func(from, to string) func([]byte) []byte {
		return func(b []byte) []byte {
			if !bytes.Contains(b, []byte(from)) {
				panic(from)
			}
			return bytes.Replace(b, []byte(from), []byte(to), 1)
		}
	}
	for name, c := range map[string]struct {
		change func(t *testing.T, dir string)
		trust  payload.Trust
		kind   fault.Kind
		want   string
	}{
		"no manifest":        {remove("manifest.json"), trust(1, signers...), fault.Input, "manifest.json is missing"},
		"no signature":       {remove("manifest.json.sig"), trust(1, signers...), fault.Input, "manifest.json.sig is missing"},
		"nobody trusted":     {func(*testing.T, string) {}, payload.Trust{Threshold: 1}, fault.Verification, "no trusted key"},
		"no threshold":       {func(*testing.T, string) {}, trust(0, signers...), fault.Verification, "no trusted key"},
		"strangers":          {func(*testing.T, string) {}, trust(1, strangers...), fault.Verification, "2 signature(s), of which 0 are by trusted keys; 1 needed"},
		"too few":            {func(*testing.T, string) {}, trust(3, append(signers, strangers...)...), fault.Verification, "of which 2 are by trusted keys; 3 needed"},
		"changed manifest":   {edit("manifest.json", replace("1.2.0", "1.2.1")), trust(1, signers...), fault.Verification, "the signature is not of this document"},
		"one bad signature":  {edit("manifest.json.sig", replace("\"signature\": \"ME", "\"signature\": \"MF")), trust(1, signers...), fault.Verification, ""},
		"wrong algorithm":    {edit("manifest.json.sig", replace("ecdsa-p256", "rsa4096-pkcs1v15")), trust(1, signers...), fault.Verification, "do not fit the key"},
		"empty list":         {edit("manifest.json.sig", func([]byte) []byte { return []byte("[]\n") }), trust(1, signers...), fault.Verification, "0 signature(s)"},
		"no list":            {edit("manifest.json.sig", func([]byte) []byte { return []byte("{") }), trust(1, signers...), fault.Verification, "manifest.json.sig"},
		"spaces in the list": {edit("manifest.json.sig", func(b []byte) []byte { return append(b, ' ') }), trust(1, signers...), fault.Verification, "canonical"},
		"signed twice": {edit("manifest.json.sig", func(b []byte) []byte {
			entry := strings.TrimSuffix(strings.TrimPrefix(string(b), "[\n"), "\n]\n")
			first, _, _ := strings.Cut(entry, "},")
			return []byte("[\n" + first + "},\n" + first + "}\n]\n")
		}), trust(1, signers...), fault.Verification, "signed twice"},
		"unknown field":   {resign(replace("\"epoch\"", "\"epohc\"")), trust(1, signers...), fault.Input, "unknown field"},
		"other order":     {resign(replace("  \"format\": 1,\n  \"name\": \"semper\"", "  \"name\": \"semper\",\n  \"format\": 1")), trust(1, signers...), fault.Input, "canonical"},
		"twice":           {resign(replace("\"epoch\": 3", "\"epoch\": 2,\n  \"epoch\": 3")), trust(1, signers...), fault.Input, "canonical"},
		"format 2":        {resign(replace("\"format\": 1", "\"format\": 2")), trust(1, signers...), fault.Input, "format 2, this program knows 1"},
		"path traversal":  {resign(replace("uki.efi", "../uki.efi")), trust(1, signers...), fault.Input, "cannot be a file"},
		"negative size":   {resign(replace("\"size\": 3", "\"size\": -3")), trust(1, signers...), fault.Input, "-3 bytes"},
		"min above":       {resign(replace("\"min_version\": \"1.0.0\"", "\"min_version\": \"1.10.0\"")), trust(1, signers...), fault.Input, "is newer than the release"},
		"upper-case hash": {resign(replace("abab", "ABAB")), trust(1, signers...), fault.Input, "root_hash"},
	} {
		t.Run(name, func(t *testing.T) {
			dir, err := write(t, t.TempDir(), signers, "one", false)
			if err != nil {
				t.Fatal(err)
			}
			c.change(t, dir)
			if _, err := release.Open(dir, c.trust); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v (%v), want %q (%v)", err, fault.KindOf(err), c.want, c.kind)
			}
		})
	}
	if _, err := release.Open(filepath.Join(t.TempDir(), "nowhere"), trust(1, signers...)); !fault.Is(err, fault.Input) {
		t.Errorf("no folder: %v", err)
	}
}

func TestCheckFilesRefuses(t *testing.T) {
	signers := keystest.Load(t, "release").PayloadSigners()
	dir, err := write(t, t.TempDir(), signers, "one", false)
	if err != nil {
		t.Fatal(err)
	}
	r, err := release.Open(dir, trust(1, signers...))
	if err != nil {
		t.Fatal(err)
	}
	flip := func(name string, at int64) {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = f.WriteAt([]byte("!"), at)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
	flip("disk.raw", 12<<20) // in a hole
	flip("packages.lock", 4) // one byte more
	if err := os.Remove(filepath.Join(dir, "uki.efi")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(filepath.Join(dir, "disk.raw"), filepath.Join(dir, "uki.efi")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "extra"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	err = r.CheckFiles(context.Background(), nil)
	if !fault.Is(err, fault.Verification) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{"disk.raw has the SHA-256", "packages.lock has 5 bytes, the manifest says 4", "uki.efi", "extra is not in the manifest"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not tell of %q", err, want)
		}
	}
	if n := strings.Count(err.Error(), "\n"); n != 3 {
		t.Errorf("%d lines more than the first in %v", n, err)
	}
}

// What a person without Semper can check with openssl.
func TestSignaturesWithOpenSSL(t *testing.T) {
	rsaKey := bigKey(t)
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("{}\n")
	sig, err := release.Sign(message, []crypto.Signer{ec, rsaKey})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := release.Sign(message, []crypto.Signer{ec, rsaKey}); err != nil || !bytes.Equal(sig, again) {
		t.Errorf("signing twice differs (%v)", err)
	}
	if signers, err := release.Verify(message, sig, trust(2, ec, rsaKey)); err != nil || len(signers) != 2 {
		t.Errorf("%d signers, %v", len(signers), err)
	}
	if _, err := release.Sign(message, []crypto.Signer{small}); !fault.Is(err, fault.Input) {
		t.Errorf("RSA-2048: %v", err)
	}
	var list []struct {
		KeyID     string `json:"key_id"`
		Algorithm string
		Signature string
	}
	if err := json.Unmarshal(sig, &list); err != nil || len(list) != 2 {
		t.Fatal(len(list), err)
	}
	dir := t.TempDir()
	for i, key := range []crypto.Signer{ec, rsaKey} {
		wantID, err := detached.KeyID(key.Public())
		if err != nil || list[i].KeyID != wantID {
			t.Errorf("key id %s, want %s (%v)", list[i].KeyID, wantID, err)
		}
		raw, err := base64.StdEncoding.DecodeString(list[i].Signature)
		if err != nil {
			t.Fatal(err)
		}
		for name, b := range map[string][]byte{"sig": raw, "manifest": message, "pub.pem": publicPEM(t, key)} {
			if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c := exec.Command("openssl", "dgst", "-sha256", "-verify", "pub.pem", "-signature", "sig", "manifest")
		c.Dir = dir
		if out, err := c.CombinedOutput(); err != nil {
			t.Errorf("openssl on %s: %v %s (Debian package openssl)", list[i].Algorithm, err, out)
		}
	}
}

// bigKey is stored because making one takes seconds.
func bigKey(t *testing.T) crypto.Signer {
	t.Helper()
	b, err := os.ReadFile("testdata/rsa4096.key")
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(b)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return key.(crypto.Signer)
}

func publicPEM(t *testing.T, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func TestVersions(t *testing.T) {
	for _, v := range []string{"1", "1.2.0", "10.20.30.40", "1.2.0-rc.1", "1.2.0~beta2", "2026.01", "1-a-b~c.d.e", "1234567890.1234567890.123"} {
		if err := release.CheckVersion(v); err != nil {
			t.Errorf("%q: %v", v, err)
		}
	}
	for _, v := range []string{
		"", "a", "v1", "1.", ".1", "1..2", "1.2.0+5", "1_2", "1.2.0-", "1.2.0-RC1", "1.2 ", "1.2\n", "1/2", "1.x", "1^1", "1--a", "1-a..b", "1234567890.1234567890.1234",
	} {
		if err := release.CheckVersion(v); !fault.Is(err, fault.Input) {
			t.Errorf("%q was taken: %v", v, err)
		}
	}
	for name, good := range map[string]bool{
		"semper": true, "a": true, "my-os-2": true, "": false, "Semper": false, "a_b": false, "-a": false, "a-": false, "a--b": false, "1a": false,
		strings.Repeat("a", 16): true, strings.Repeat("a", 17): false, "a.b": false,
	} {
		if err := release.CheckName(name); (err == nil) != good || err != nil && !fault.Is(err, fault.Input) {
			t.Errorf("name %q: %v", name, err)
		}
	}
}

func FuzzParseManifest(f *testing.F) {
	m := manifest()
	m.Format = 1
	m.Files = []release.File{{Name: "uki.efi", Size: 3, SHA256: strings.Repeat("01", 32)}}
	b, err := m.Marshal()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"format":1}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := release.ParseManifest(b)
		if err != nil {
			if !fault.Is(err, fault.Input) {
				t.Fatalf("kind %v: %v", fault.KindOf(err), err)
			}
			return
		}
		again, err := m.Marshal()
		if err != nil || !bytes.Equal(b, again) {
			t.Fatalf("read and written again: %q, %v", again, err)
		}
	})
}

func FuzzVerify(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	sig, err := release.Sign([]byte("manifest"), []crypto.Signer{key})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(sig)
	f.Add([]byte("[]\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := release.Verify([]byte("another manifest"), b, trust(1, key)); !fault.Is(err, fault.Verification) {
			t.Fatalf("got %v", err)
		}
	})
}
