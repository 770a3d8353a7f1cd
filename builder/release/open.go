package release

import (
	"context"
	"crypto"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/progress"
)

// Release is a release directory whose manifest was verified.
type Release struct {
	Dir      string
	Manifest Manifest
	Signers  []crypto.PublicKey // the trusted keys that signed
}

// Open reads a release directory. The signatures are checked before the manifest is parsed; the files themselves are not looked at (see CheckFiles).
// A missing file has the kind Input, a signature that is wrong or not trusted Verification.
func Open(dir string, trust payload.Trust) (*Release, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.New(fault.Input, "release: %w", err)
	}
	defer func() { _ = root.Close() }() // only read from
	manifest, err := readSmall(root, ManifestFile, maxManifest)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "release %s: %w", dir, err)
	}
	signatures, err := readSmall(root, SignatureFile, maxSigFile)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "release %s: %w", dir, err)
	}
	signers, err := Verify(manifest, signatures, trust)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "release %s: %w", dir, err)
	}
	m, err := ParseManifest(manifest)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "release %s: %w", dir, err)
	}
	return &Release{Dir: dir, Manifest: *m, Signers: signers}, nil
}

func readSmall(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := openRegular(root, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fault.New(fault.IO, "read %s: %w", name, err)
	}
	if int64(len(b)) > limit {
		return nil, fault.New(fault.Input, "%s has more than %d bytes", name, limit)
	}
	return b, nil
}

// Path returns the path of one of the release's files.
func (r *Release) Path(name string) string { return filepath.Join(r.Dir, name) }

// Size returns the size of all files together in bytes, as the manifest has it.
func (r *Release) Size() int64 {
	var n int64
	for _, f := range r.Manifest.Files {
		n += f.Size
	}
	return n
}

// CheckFiles reads all files, on all cores, and compares sizes and hashes with the manifest. A file that is not in the manifest is an error too, as nobody
// vouches for it. The error names every file that is wrong and has the kind Verification. The bar counts Size bytes.
func (r *Release) CheckFiles(ctx context.Context, bar *progress.Bar) error {
	root, err := os.OpenRoot(r.Dir)
	if err != nil {
		return fault.New(fault.IO, "release: %w", err)
	}
	defer func() { _ = root.Close() }() // only read from
	wrong := r.checkListing()
	var names []string
	for _, f := range r.Manifest.Files {
		names = append(names, f.Name)
	}
	found, errs := hashFiles(ctx, root, names, bar)
	if err := ctx.Err(); err != nil {
		return err
	}
	for i, want := range r.Manifest.Files {
		switch got := found[i]; {
		case errs[i] != nil && fault.Is(errs[i], fault.IO):
			return errs[i] // what cannot be read is neither right nor wrong
		case errs[i] != nil:
			wrong = append(wrong, errs[i])
		case got.Size != want.Size:
			wrong = append(wrong, fault.New(fault.Verification, "%s has %d bytes, the manifest says %d", want.Name, got.Size, want.Size))
		case got.SHA256 != want.SHA256:
			wrong = append(wrong, fault.New(fault.Verification, "%s has the SHA-256 %s, the manifest says %s", want.Name, got.SHA256, want.SHA256))
		}
	}
	return fault.Wrap(fault.Verification, errors.Join(wrong...))
}

// checkListing looks for files that the manifest does not list.
func (r *Release) checkListing() []error {
	entries, err := os.ReadDir(r.Dir)
	if err != nil {
		return []error{fault.New(fault.IO, "release: %w", err)}
	}
	var wrong []error
	for _, e := range entries {
		_, listed := r.Manifest.File(e.Name())
		if !listed && !slices.Contains([]string{ManifestFile, SignatureFile}, e.Name()) {
			wrong = append(wrong, fault.New(fault.Verification, "%s is not in the manifest", e.Name()))
		}
	}
	return wrong
}

// OpenUnverified reads a release directory WITHOUT looking at its signatures: for showing what it claims to be when there is no key to check it with.
func OpenUnverified(dir string) (*Release, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fault.New(fault.Input, "release: %w", err)
	}
	defer func() { _ = root.Close() }() // only read from
	manifest, err := readSmall(root, ManifestFile, maxManifest)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "release %s: %w", dir, err)
	}
	m, err := ParseManifest(manifest)
	if err != nil {
		return nil, fault.New(fault.KindOf(err), "release %s: %w", dir, err)
	}
	return &Release{Dir: dir, Manifest: *m}, nil
}
