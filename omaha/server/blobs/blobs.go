// Package blobs keeps the update server's payload files: each under its SHA-256, complete and verified, or not at all. They are in a folder, or in a bucket of an S3-compatible
// object store (Bucket).
//
// On disk, in one folder:
//
//	ab/ab34…              a file, by the lower-case hex of its SHA-256; read-only, never changed
//	incoming/ab34….part   the beginning of an upload; it survives a broken connection and is continued by the next one
//
// A file gets its name only after its size and hash were found right and its bytes and then the folder were synced, so that a power cut
// leaves it whole or absent. A finished upload with a wrong hash is removed.
//
// Limits: a file has 1 byte to MaxSize; an upload is refused unless the disk would keep Reserve bytes free after it, so that the database
// beside it can go on; MaxParts uploads are unfinished at a time; those older than KeepParts are removed when the folder is opened.
package blobs

import (
	"context"
	"crypto/sha1"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/fault"
)

// The limits, see the package's documentation.
const (
	MaxSize   = 16 << 30
	Reserve   = 256 << 20
	KeepParts = 7 * 24 * time.Hour
	MaxParts  = 64
)

// Errors of Append that a caller tells apart.
var (
	ErrBusy   = errors.New("another upload of the same file is under way")
	ErrOffset = errors.New("the upload does not go on where the last one stopped")
	ErrHash   = errors.New("the file has another SHA-256 than announced")
	ErrFull   = errors.New("there is no room")
)

// Sum is a file's SHA-256, its name here.
type Sum [sha256.Size]byte

// ParseSum reads a sum from 64 lower-case hex digits.
func ParseSum(s string) (Sum, error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != sha256.Size || hex.EncodeToString(b) != s {
		return Sum{}, fault.New(fault.Input, "%.80q is not a SHA-256 in 64 lower-case hex digits", s)
	}
	return Sum(b), nil
}

func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// Folder is an open folder of files. Its methods may be called from several goroutines, but not from several processes.
type Folder struct {
	dir string

	mu   sync.Mutex
	busy map[Sum]bool
}

// Open opens the folder dir, makes it when it is missing, and removes what uploads left there before now minus KeepParts.
func Open(dir string, now time.Time) (*Folder, error) {
	incoming := filepath.Join(dir, "incoming")
	if err := os.MkdirAll(incoming, 0o700); err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	parts, err := os.ReadDir(incoming)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	for _, p := range parts {
		if info, err := p.Info(); err == nil && info.ModTime().Before(now.Add(-KeepParts)) {
			if err := os.Remove(filepath.Join(incoming, p.Name())); err != nil {
				return nil, fault.Wrap(fault.IO, err)
			}
		}
	}
	return &Folder{dir: dir, busy: map[Sum]bool{}}, nil
}

// OpenToRead opens a folder in which nothing is to be changed.
func OpenToRead(dir string) *Folder { return &Folder{dir: dir, busy: map[Sum]bool{}} }

func (f *Folder) path(s Sum) string { return filepath.Join(f.dir, s.String()[:2], s.String()) }

func (f *Folder) part(s Sum) string { return filepath.Join(f.dir, "incoming", s.String()+".part") }

// File is part of Store.
func (f *Folder) File(_ context.Context, s Sum, size int64) (io.ReadSeekCloser, error) {
	file, err := f.open(s)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && info.Size() != size {
		err = fmt.Errorf("the file %s on disk has %d bytes instead of %d", s, info.Size(), size)
	}
	if err != nil {
		return nil, errors.Join(fault.Wrap(fault.IO, err), file.Close())
	}
	return file, nil
}

func (f *Folder) open(s Sum) (*os.File, error) {
	file, err := os.Open(f.path(s))
	return file, fault.Wrap(fault.IO, err)
}

// remove deletes a complete file.
func (f *Folder) remove(s Sum) error {
	if err := os.Remove(f.path(s)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fault.Wrap(fault.IO, err)
	}
	return nil
}

// Size is part of Store.
func (f *Folder) Size(_ context.Context, s Sum) (size int64, complete bool, err error) {
	for _, path := range []string{f.path(s), f.part(s)} {
		info, err := os.Stat(path)
		if err == nil {
			return info.Size(), path == f.path(s), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return 0, false, fault.Wrap(fault.IO, err)
		}
	}
	return 0, false, nil
}

// Append is part of Store.
func (f *Folder) Append(ctx context.Context, s Sum, size, offset int64, r io.Reader) (sum1 [sha1.Size]byte, err error) {
	if size < 1 || size > MaxSize {
		return sum1, fault.New(fault.Input, "a file must have between 1 and %d bytes, not %d", int64(MaxSize), size)
	}
	if !f.claim(s) {
		return sum1, fault.Wrap(fault.Input, ErrBusy)
	}
	defer f.release(s)
	have, complete, err := f.Size(ctx, s)
	switch {
	case err != nil:
		return sum1, err
	case complete:
		return f.complete(s, size, have)
	case have != offset:
		return sum1, fault.New(fault.Input, "%w: %d bytes have arrived, it starts at %d", ErrOffset, have, offset)
	}
	if err := f.room(size - have); err != nil {
		return sum1, err
	}
	if err := f.another(s); err != nil {
		return sum1, err
	}
	part, err := os.OpenFile(f.part(s), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return sum1, fault.Wrap(fault.IO, err)
	}
	defer part.Close()
	h := newHashes()
	if _, err := io.CopyN(h, part, have); err != nil {
		return sum1, fault.New(fault.IO, "read what has arrived: %w", err)
	}
	if err := receive(ctx, io.MultiWriter(part, h), r, size-have); err != nil {
		return sum1, err
	}
	if h.sha256() != s {
		if err := os.Remove(f.part(s)); err != nil {
			return sum1, fault.Wrap(fault.IO, err)
		}
		return sum1, fault.New(fault.Verification, "%w: %s, not %s", ErrHash, h.sha256(), s)
	}
	return h.sha1(), f.publish(part, s)
}

// complete answers the upload of a file that is there.
func (f *Folder) complete(s Sum, size, have int64) (sum1 [sha1.Size]byte, err error) {
	if have != size {
		return sum1, fault.New(fault.Input, "the file %s has %d bytes, not %d", s, have, size)
	}
	file, err := f.open(s)
	if err != nil {
		return sum1, fault.Wrap(fault.IO, err)
	}
	defer file.Close()
	h := newHashes()
	if _, err := io.Copy(h, file); err != nil {
		return sum1, fault.Wrap(fault.IO, err)
	}
	if h.sha256() != s {
		return sum1, fault.New(fault.IO, "the file %s is damaged on the server's disk: its SHA-256 is %s", s, h.sha256())
	}
	return h.sha1(), nil
}

func (f *Folder) claim(s Sum) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy[s] {
		return false
	}
	f.busy[s] = true
	return true
}

func (f *Folder) release(s Sum) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.busy, s)
}

// room checks that n more bytes fit.
func (f *Folder) room(n int64) error {
	var st unix.Statfs_t
	if err := unix.Statfs(f.dir, &st); err != nil {
		return fault.New(fault.IO, "free space of %s: %w", f.dir, err)
	}
	if free := int64(st.Bavail) * st.Bsize; free < n+Reserve {
		return fault.New(fault.IO, "%w: %d bytes are free, %d are needed", ErrFull, free, n+Reserve)
	}
	return nil
}

// another checks that a file may arrive beside those that have not arrived whole. The one that was touched longest ago makes room when nobody has touched it for a day.
func (f *Folder) another(s Sum) error {
	if _, err := os.Stat(f.part(s)); err == nil {
		return nil // it goes on
	}
	parts, err := os.ReadDir(filepath.Join(f.dir, "incoming"))
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if len(parts) < MaxParts {
		return nil
	}
	var oldest fs.FileInfo
	for _, p := range parts {
		if info, err := p.Info(); err == nil && (oldest == nil || info.ModTime().Before(oldest.ModTime())) {
			oldest = info
		}
	}
	if oldest == nil || time.Since(oldest.ModTime()) < 24*time.Hour {
		return fault.New(fault.IO, "%w: %d uploads have not come to their end", ErrFull, len(parts))
	}
	return fault.Wrap(fault.IO, os.Remove(filepath.Join(f.dir, "incoming", oldest.Name())))
}

// receive copies exactly n bytes.
func receive(ctx context.Context, w io.Writer, r io.Reader, n int64) error {
	buf := make([]byte, 256<<10)
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return fault.Wrap(fault.Network, err)
		}
		got, err := r.Read(buf[:min(n, int64(len(buf)))])
		if _, err := w.Write(buf[:got]); err != nil {
			return fault.Wrap(fault.IO, err)
		}
		if n -= int64(got); n == 0 {
			break
		}
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return fault.New(fault.Network, "the upload broke off: %w", err)
		}
	}
	return nil
}

// publish gives a verified file its name.
func (f *Folder) publish(part *os.File, s Sum) error {
	to := f.path(s)
	err := part.Chmod(0o400)
	if err == nil {
		err = part.Sync()
	}
	if err == nil {
		err = os.MkdirAll(filepath.Dir(to), 0o700)
	}
	if err == nil {
		err = os.Rename(part.Name(), to)
	}
	for _, dir := range []string{filepath.Dir(to), f.dir, filepath.Dir(part.Name())} {
		if err == nil {
			err = syncDir(dir)
		}
	}
	if err != nil {
		return fault.New(fault.IO, "keep the file %s: %w", s, err)
	}
	return nil
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

type hashes struct {
	io.Writer
	h256, h1 hash.Hash
}

func newHashes() hashes {
	h := hashes{h256: sha256.New(), h1: sha1.New()}
	h.Writer = io.MultiWriter(h.h256, h.h1)
	return h
}

func (h hashes) sha256() Sum           { return Sum(h.h256.Sum(nil)) }
func (h hashes) sha1() [sha1.Size]byte { return [sha1.Size]byte(h.h1.Sum(nil)) }
