package store

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/semper-os/semper/fault"
)

// CopyTo writes the database as it is at one moment into a folder that has none, while others go on reading and writing this one. The copy is a file, whatever this
// one is, and on disk when it returns. A database that is damaged is an error of kind IO.
func (s *Store) CopyTo(ctx context.Context, dir string) (err error) {
	path := filepath.Join(dir, fileName)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600) // SQLite would make it readable for all
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer func() { err = errors.Join(err, fault.Wrap(fault.IO, f.Close())) }()
	if err := s.db.copyTo(ctx, path); err != nil {
		return err
	}
	return fault.Wrap(fault.IO, f.Sync())
}

func (s *sqlite) copyTo(ctx context.Context, path string) error {
	var found string
	if err := s.read.QueryRowContext(ctx, "PRAGMA integrity_check(1)").Scan(&found); err != nil {
		return failed("check", err)
	}
	if found != "ok" {
		return fault.New(fault.IO, "the database is damaged: %.300s", found)
	}
	_, err := s.read.ExecContext(ctx, "VACUUM INTO ?", path)
	return failed("copy", err)
}

// Remove deletes the SQLite database of a folder, which nobody may have open.
func Remove(dir string) error {
	for _, suffix := range []string{"", "-wal", "-shm"} {
		if err := os.Remove(filepath.Join(dir, fileName+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fault.Wrap(fault.IO, err)
		}
	}
	return nil
}
