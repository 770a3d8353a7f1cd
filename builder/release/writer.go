package release

import (
	"context"
	"crypto"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/progress"
)

// Writer makes a release. Files may be written at the same time; Commit and Abort come after them.
type Writer struct {
	out, name string // the release appears as out/name
	dir       string // the partial directory
	lock      *os.File
	done      bool

	mu     sync.Mutex
	hashed map[string]File // what was hashed while it was written
}

// NewWriter begins a release of an image's version below the folder out, which is made if it does not exist. It removes what a crash left of the same version.
func NewWriter(out, name, version string) (*Writer, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := CheckVersion(version); err != nil {
		return nil, err
	}
	if err := os.MkdirAll(out, 0o755); err != nil {
		return nil, fault.New(fault.IO, "make the release's folder: %w", err)
	}
	w := &Writer{out: out, name: name + "-" + version, hashed: map[string]File{}}
	if err := w.removeLeftovers(); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(out, w.partialPrefix()+"*")
	if err != nil {
		return nil, fault.New(fault.IO, "begin release %s: %w", w.name, err)
	}
	w.dir = dir
	if w.lock, err = lockDir(dir); err != nil {
		os.RemoveAll(dir)
		return nil, err
	}
	return w, nil
}

func (w *Writer) partialPrefix() string { return "." + w.name + ".partial-" }

// removeLeftovers removes partial directories that no living process holds.
func (w *Writer) removeLeftovers() error {
	entries, err := os.ReadDir(w.out)
	if err != nil {
		return fault.New(fault.IO, "begin release %s: %w", w.name, err)
	}
	for _, e := range entries {
		if !e.IsDir() || !strings.HasPrefix(e.Name(), w.partialPrefix()) {
			continue
		}
		dir := filepath.Join(w.out, e.Name())
		lock, err := lockDir(dir)
		if errors.Is(err, unix.EWOULDBLOCK) {
			continue // another build is at work
		}
		if err != nil {
			return err
		}
		err = os.RemoveAll(dir)
		lock.Close()
		if err != nil {
			return fault.New(fault.IO, "remove what a crash left behind: %w", err)
		}
	}
	return nil
}

func lockDir(dir string) (*os.File, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fault.New(fault.IO, "lock the release's folder: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fault.New(fault.IO, "lock %s: %w", dir, err)
	}
	return f, nil
}

// Dir returns the folder into which the release's files go, for tools and writers that need a path. Whatever is in it when Commit is called, by
// Create or otherwise, is part of the release.
func (w *Writer) Dir() string { return w.dir }

// Path returns the path of a file of the unfinished release.
func (w *Writer) Path(name string) string { return filepath.Join(w.dir, name) }

// FileWriter writes one file from start to end and hashes it on the way.
type FileWriter struct {
	w    *Writer
	f    *os.File
	hash hash.Hash
	size int64
	err  error
}

// Create begins a file of the release. It must be closed before Commit.
func (w *Writer) Create(name string) (*FileWriter, error) {
	if err := checkFileName(name); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(w.Path(name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, fault.New(fault.IO, "write %s: %w", name, err)
	}
	return &FileWriter{w: w, f: f, hash: sha256.New()}, nil
}

// Write implements io.Writer.
func (f *FileWriter) Write(p []byte) (int, error) {
	n, err := f.f.Write(p)
	f.hash.Write(p[:n])
	f.size += int64(n)
	if err != nil {
		f.err = fault.New(fault.IO, "write %s: %w", filepath.Base(f.f.Name()), err)
	}
	return n, f.err
}

// Close ends the file. Commit flushes it.
func (f *FileWriter) Close() error {
	err := f.f.Close()
	if f.err != nil {
		return f.err
	}
	name := filepath.Base(f.f.Name())
	if err != nil {
		return fault.New(fault.IO, "write %s: %w", name, err)
	}
	f.w.mu.Lock()
	defer f.w.mu.Unlock()
	f.w.hashed[name] = File{Name: name, Size: f.size, SHA256: hex.EncodeToString(f.hash.Sum(nil))}
	return nil
}

// WriteFile writes a whole small file.
func (w *Writer) WriteFile(name string, content []byte) error {
	f, err := w.Create(name)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Close())
}

// CommitOptions say how Commit ends a release.
type CommitOptions struct {
	Signers []crypto.Signer // payload keys, at least one
	Replace bool            // put the release in the place of one with other content
	Bar     *progress.Bar   // counts the bytes of the files that were not written by Create
}

// Commit hashes what was not yet, writes manifest.json and its signatures, flushes everything and gives the release its name. The manifest's Format and Files are filled
// in; its Name and Version must be the writer's. It returns the release's directory.
//
// A release of that name that has the same content is kept, and nothing changes; one with other content is refused (kind Input) unless Replace is set, and
// then the two change places in one step.
func (w *Writer) Commit(ctx context.Context, m Manifest, o CommitOptions) (string, error) {
	if m.Dir() != w.name {
		return "", fault.New(fault.Internal, "release %s: its manifest is of %s", w.name, m.Dir())
	}
	files, err := w.collect(ctx, o.Bar)
	if err != nil {
		return "", fmt.Errorf("release %s: %w", w.name, err)
	}
	m.Format, m.Files = formatVersion, files
	manifest, err := m.Marshal()
	if err != nil {
		return "", fmt.Errorf("release %s: %w", w.name, err)
	}
	signatures, err := Sign(manifest, o.Signers)
	if err != nil {
		return "", fmt.Errorf("release %s: %w", w.name, err)
	}
	for name, content := range map[string][]byte{ManifestFile: manifest, SignatureFile: signatures} {
		if err := os.WriteFile(w.Path(name), content, 0o644); err != nil {
			return "", fault.New(fault.IO, "release %s: %w", w.name, err)
		}
	}
	if err := w.flush(); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", err
	}
	return w.publish(ctx, o)
}

// collect returns the list of the files in the partial directory.
func (w *Writer) collect(ctx context.Context, bar *progress.Bar) ([]File, error) {
	entries, err := os.ReadDir(w.dir) // sorted by name
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	var files []File
	var missing []string
	for _, e := range entries {
		if err := checkFileName(e.Name()); err != nil {
			return nil, err
		}
		if f, ok := w.hashed[e.Name()]; ok {
			files = append(files, f)
		} else {
			missing = append(missing, e.Name())
		}
	}
	root, err := os.OpenRoot(w.dir)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	defer func() { _ = root.Close() }() // only read from
	hashed, errs := hashFiles(ctx, root, missing, bar)
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	files = append(files, hashed...)
	slices.SortFunc(files, func(a, b File) int { return strings.Compare(a.Name, b.Name) })
	return files, nil
}

// flush makes everything durable and readable for others. All files at once: the file system then commits them together.
func (w *Writer) flush() error {
	entries, err := os.ReadDir(w.dir)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	var group errgroup.Group
	for _, e := range entries {
		group.Go(func() error { return flushFile(w.Path(e.Name())) })
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := os.Chmod(w.dir, 0o755); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	return fault.Wrap(fault.IO, w.lock.Sync()) // it is the open directory
}

func flushFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if info.Mode() != 0o644 { // a change of nothing would be one more thing to flush
		if err := f.Chmod(0o644); err != nil {
			return fault.Wrap(fault.IO, err)
		}
	}
	if err := f.Sync(); err != nil {
		return fault.New(fault.IO, "flush %s: %w", path, err)
	}
	return nil
}

// publish gives the directory its final name.
func (w *Writer) publish(ctx context.Context, o CommitOptions) (string, error) {
	final := filepath.Join(w.out, w.name)
	err := unix.Renameat2(unix.AT_FDCWD, w.dir, unix.AT_FDCWD, final, unix.RENAME_NOREPLACE)
	switch {
	case err == nil:
	case !errors.Is(err, unix.EEXIST):
		return "", fault.New(fault.IO, "put release %s in place: %w", w.name, err)
	case w.sameAs(ctx, final, o.Signers):
		return final, w.Abort()
	case !o.Replace:
		return "", errExists(final)
	default:
		if err := unix.Renameat2(unix.AT_FDCWD, w.dir, unix.AT_FDCWD, final, unix.RENAME_EXCHANGE); err != nil {
			return "", fault.New(fault.IO, "put release %s in the place of the old one: %w", w.name, err)
		}
		if err := os.RemoveAll(w.dir); err != nil { // the old release now
			return "", fault.New(fault.IO, "remove the old release: %w", err)
		}
	}
	w.close()
	return final, syncDir(w.out)
}

// CheckPlace reports early, before a release is made, what Commit would refuse in the end: in out there is a release of that name that cannot be the one
// that m is to become, by all that is known before (m's fields but Format, RootHash and Files) and by who signed it. The error has the kind Input.
// A release that may be the same is left for Commit to compare.
func CheckPlace(out string, m Manifest, signers []crypto.Signer) error {
	dir := filepath.Join(out, m.Dir())
	if _, err := os.Lstat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	old, err := Open(dir, trustIn(signers))
	if err != nil {
		return errExists(dir)
	}
	m.Format, m.RootHash, m.Files = old.Manifest.Format, old.Manifest.RootHash, old.Manifest.Files
	if !reflect.DeepEqual(m, old.Manifest) {
		return errExists(dir)
	}
	return nil
}

func errExists(dir string) error {
	return fault.New(fault.Input, "%s exists and has other content: choose another version, or replace it on purpose (--replace)", dir)
}

// trustIn is the trust in which all signers' signatures are needed.
func trustIn(signers []crypto.Signer) payload.Trust {
	trust := payload.Trust{Threshold: len(signers)}
	for _, s := range signers {
		trust.Keys = append(trust.Keys, s.Public())
	}
	return trust
}

// sameAs reports whether a release that exists has this manifest, good signatures, and files that are still what the manifest says.
func (w *Writer) sameAs(ctx context.Context, dir string, signers []crypto.Signer) bool {
	trust := trustIn(signers)
	old, err := Open(dir, trust)
	if err != nil || old.CheckFiles(ctx, nil) != nil {
		return false
	}
	ours, err := Open(w.dir, trust)
	if err != nil {
		return false
	}
	a, errA := old.Manifest.Marshal()
	b, errB := ours.Manifest.Marshal()
	return errA == nil && errB == nil && string(a) == string(b)
}

// Abort removes the unfinished release. After Commit it does nothing, so that it can be deferred.
func (w *Writer) Abort() error {
	if w.done {
		return nil
	}
	err := os.RemoveAll(w.dir)
	w.close()
	return fault.Wrap(fault.IO, err)
}

func (w *Writer) close() {
	w.done = true
	w.lock.Close()
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fault.New(fault.IO, "flush %s: %w", dir, err)
	}
	return nil
}
