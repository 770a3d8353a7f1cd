package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

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
	Dir      string         // its data folder
	Database string         // PostgreSQL's URL; SQLite in the folder when empty
	Payloads blobs.Location // where payload files are; in the folder when empty
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
	out, err := copyAll(ctx, s, from, Place{partial, to.Database, to.Payloads}, terminal)
	if err = errors.Join(err, s.Close()); err == nil {
		out.Folder = to.Dir
		err = putInPlace(partial, to.Dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("copy %s: %w", from.Dir, err), os.RemoveAll(partial))
	}
	return out, nil
}

func copyAll(ctx context.Context, s *store.Store, from, to Place, terminal *os.File) (*Copied, error) {
	if err := s.CopyTo(ctx, to.Dir); err != nil {
		return nil, err
	}
	// The copy says which payloads belong to it, not the database, which goes on.
	copied, err := store.Open(ctx, to.Dir)
	if err != nil {
		return nil, err
	}
	// Who signed out since must not be in again on what is restored.
	if err := copied.Write(ctx, func(tx store.Tx) error { return tx.EndAllSessions(ctx) }); err != nil {
		return nil, errors.Join(err, copied.Close())
	}
	out, err := copyPayloads(ctx, copied, from, to, terminal)
	if err == nil && to.Database != "" {
		err = fillDatabase(ctx, copied, to.Database)
	}
	if err = errors.Join(err, copied.Close()); err == nil && to.Database != "" {
		err = store.Remove(to.Dir)
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

func copyPayloads(ctx context.Context, copied *store.Store, from, to Place, terminal *os.File) (*Copied, error) {
	files, err := copied.Read().Blobs(ctx)
	if err != nil {
		return nil, err
	}
	var source blobs.Store = blobs.OpenToRead(filepath.Join(from.Dir, "payloads"))
	if from.Payloads.Bucket != "" {
		if source, err = openPayloads(ctx, from.Dir, from.Payloads, time.Now()); err != nil {
			return nil, err
		}
	}
	target, err := openPayloads(ctx, to.Dir, to.Payloads, time.Now())
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
		if err := copyPayload(ctx, source, target, &files[i], bar); err != nil {
			return nil, err
		}
		out.Payloads++
	}
	return out, nil
}

func copyPayload(ctx context.Context, from, to blobs.Store, f *fleet.File, bar *progress.Bar) error {
	in, err := from.File(ctx, f.SHA256, f.Size)
	if err != nil {
		return fmt.Errorf("payload %x: %w", f.SHA256, err)
	}
	defer in.Close()
	_, err = to.Append(ctx, f.SHA256, f.Size, 0, io.TeeReader(in, counter{bar}))
	if errors.Is(err, blobs.ErrHash) {
		return fault.New(fault.IO, "payload %x is damaged: its SHA-256 is another one; publish its release again", f.SHA256)
	}
	if err != nil {
		return fmt.Errorf("payload %x: %w", f.SHA256, err)
	}
	return nil
}

// counter tells a bar how many bytes came by.
type counter struct{ bar *progress.Bar }

func (c counter) Write(p []byte) (int, error) {
	c.bar.Add(int64(len(p)))
	return len(p), nil
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
