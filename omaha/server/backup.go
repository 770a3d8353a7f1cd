package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/blobs"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
	"github.com/semper-os/semper/progress"
)

// Copied is what Copy has copied.
type Copied struct {
	Folder   string `json:"folder"`
	Payloads int    `json:"payloads"`
	Bytes    int64  `json:"payload_bytes"`
}

// Place is where a server's data is.
type Place struct {
	Dir      string // its data folder
	Database string // PostgreSQL's URL; SQLite in the folder when empty
}

// Copy makes a whole copy of a server's data, whether it runs or not: the database as it is at one moment, and every payload that it speaks of, hashed on the way.
// A copy is a data folder itself, or a folder and a database: a backup is one, and so is what is restored of it. To's folder must not exist, or be empty; it appears only when
// all is complete and on disk. To's database must be empty.
//
// A damaged payload is an error of kind IO, and so is a damaged database. The first start's token file is not copied.
func Copy(ctx context.Context, from, to Place, terminal *os.File) (*Copied, error) {
	if entries, err := os.ReadDir(to.Dir); err == nil && len(entries) > 0 {
		return nil, fault.New(fault.Input, "%s is not empty: a copy needs a folder of its own", to.Dir)
	} else if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fault.Wrap(fault.IO, err)
	}
	dir, err := filepath.Abs(to.Dir)
	if err != nil {
		return nil, fault.Wrap(fault.IO, err)
	}
	to.Dir = dir
	s, err := store.Open(ctx, cmp.Or(from.Database, from.Dir))
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(to.Dir), 0o700); err != nil {
		return nil, errors.Join(fault.Wrap(fault.IO, err), s.Close())
	}
	partial, err := os.MkdirTemp(filepath.Dir(to.Dir), "."+filepath.Base(to.Dir)+".partial-")
	if err != nil {
		return nil, errors.Join(fault.Wrap(fault.IO, err), s.Close())
	}
	out, err := copyAll(ctx, s, from.Dir, partial, to.Database, terminal)
	if err = errors.Join(err, s.Close()); err == nil {
		out.Folder = to.Dir
		err = putInPlace(partial, to.Dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("copy %s: %w", from.Dir, err), os.RemoveAll(partial))
	}
	return out, nil
}

func copyAll(ctx context.Context, s *store.Store, from, partial, database string, terminal *os.File) (*Copied, error) {
	if err := s.CopyTo(ctx, partial); err != nil {
		return nil, err
	}
	// The copy says which payloads belong to it, not the database, which goes on.
	copied, err := store.Open(ctx, partial)
	if err != nil {
		return nil, err
	}
	out, err := copyPayloads(ctx, copied, from, partial, terminal)
	if err == nil && database != "" {
		err = fillDatabase(ctx, copied, database)
	}
	if err = errors.Join(err, copied.Close()); err == nil && database != "" {
		err = store.Remove(partial)
	}
	return out, err
}

// fillDatabase copies a state into an empty database.
func fillDatabase(ctx context.Context, from *store.Store, database string) error {
	to, err := store.Create(ctx, database)
	if err != nil {
		return err
	}
	return errors.Join(to.Fill(ctx, from), to.Close())
}

func copyPayloads(ctx context.Context, copied *store.Store, from, partial string, terminal *os.File) (*Copied, error) {
	files, err := copied.Read().Blobs(ctx)
	if err != nil {
		return nil, err
	}
	out := &Copied{}
	for i := range files {
		out.Bytes += files[i].Size
	}
	bar := progress.New(terminal, "payloads", out.Bytes)
	defer bar.Done()
	for i := range files {
		if err := copyPayload(ctx, from, partial, &files[i], bar); err != nil {
			return nil, err
		}
		out.Payloads++
	}
	return out, nil
}

func copyPayload(ctx context.Context, from, to string, f *fleet.File, bar *progress.Bar) (err error) {
	name := filepath.Join("payloads", blobs.Name(f.SHA256))
	in, err := os.Open(filepath.Join(from, name))
	if err != nil {
		return fault.New(fault.IO, "payload %x: %w", f.SHA256, err)
	}
	defer in.Close()
	path := filepath.Join(to, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer func() { err = errors.Join(err, fault.Wrap(fault.IO, out.Close())) }()
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		n, rerr := in.Read(buf)
		h.Write(buf[:n])
		if _, err := out.Write(buf[:n]); err != nil {
			return fault.Wrap(fault.IO, err)
		}
		bar.Add(int64(n))
		if errors.Is(rerr, io.EOF) {
			break
		}
		if rerr != nil {
			return fault.Wrap(fault.IO, rerr)
		}
	}
	if sum := blobs.Sum(h.Sum(nil)); sum != f.SHA256 {
		return fault.New(fault.IO, "payload %x is damaged: its SHA-256 is %s; publish its release again", f.SHA256, sum)
	}
	if err := out.Sync(); err != nil {
		return fault.Wrap(fault.IO, err)
	}
	return syncDir(filepath.Dir(path))
}

// putInPlace makes a complete folder durable and gives it its name.
func putInPlace(partial, to string) error {
	for _, dir := range []string{filepath.Join(partial, "payloads"), partial} {
		if err := syncDir(dir); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if err := os.Rename(partial, to); err != nil { // over an empty folder too
		return fault.Wrap(fault.IO, err)
	}
	return syncDir(filepath.Dir(to))
}

func syncDir(path string) error {
	d, err := os.Open(path)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer d.Close()
	return fault.Wrap(fault.IO, d.Sync())
}
