// Package debs is a content-addressed store of .deb files, filled from a Debian mirror, and shared by all builds of a machine.
//
//	DIR/sha256/ab/abcd….deb        a complete package whose SHA-256 is its name
//	DIR/sha256/ab/abcd….part       one that is being downloaded; its lock (flock) is held by who downloads it, and it is continued after an interruption
//	DIR/sha256/ab/abcd….ef01….plain    the same package unpacked, for builds: both SHA-256 are its name. Only the image's and the kernel's packages have one
//
// Nothing in the store is believed because it is there: Fill hashes every package that a build is about to use, and fetches anew what does not match its name. A store may
// therefore lose or damage files in a power cut, and is not flushed to the disk. That a plain form is the package's is believed by its name, as the finished steps of builds
// are by theirs: who can write here can change images, so the folder is its owner's.
//
// Limits: a package is as large as its lock says, at most 4 GiB.
package debs

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/progress"
)

// Store is a folder of packages. Its methods may be called by several goroutines and processes at once.
type Store struct {
	dir string

	mu    sync.Mutex
	plain map[string]plain // by the package's SHA-256, those that Fill has made sure of
}

// Open makes the store's folder where it does not exist.
func Open(dir string) (*Store, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fault.New(fault.IO, "package store: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "sha256"), 0o755); err != nil {
		return nil, fault.New(fault.IO, "package store: %w", err)
	}
	return &Store{dir: dir, plain: map[string]plain{}}, nil
}

// Path is where a package lies once Fill has returned.
func (s *Store) Path(p lock.Package) string { return s.base(p) + ".deb" }

func (s *Store) base(p lock.Package) string {
	return filepath.Join(s.dir, "sha256", p.SHA256[:2], p.SHA256)
}

// Fill brings all packages into the store: those that are there are hashed, the others are downloaded. The bar counts the bytes of both. Of packages that builds unpack
// the plain forms are made or hashed too.
//
// Errors are of kind Network where a mirror failed after all retries, Verification where it served other bytes than the lock's, and IO where the
// store could not be written. What was complete by then stays in the store, so that the next Fill goes on from there.
func (s *Store) Fill(ctx context.Context, packages []lock.Package, f *Fetcher, bar *progress.Bar) error {
	missing, err := s.missing(ctx, packages, bar)
	if err != nil {
		return err
	}
	if err := s.checkSpace(missing); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(connections + 1)
	group.Go(func() error {
		return s.fillPlain(ctx, slices.DeleteFunc(slices.Clone(packages), func(p lock.Package) bool {
			return slices.ContainsFunc(missing, func(m lock.Package) bool { return m.SHA256 == p.SHA256 })
		}))
	})
	for _, p := range missing {
		group.Go(func() error {
			if err := s.fetch(ctx, p, f, bar); err != nil {
				return fmt.Errorf("package %s %s: %w", p.Name, p.Version, err)
			}
			return s.makePlain(ctx, p)
		})
	}
	return group.Wait()
}

// Total is the size of packages in bytes, for a bar.
func Total(packages []lock.Package) int64 {
	var n int64
	for _, p := range packages {
		n += p.Size
	}
	return n
}

// missing returns the packages that are not in the store, or not as they should be.
func (s *Store) missing(ctx context.Context, packages []lock.Package, bar *progress.Bar) ([]lock.Package, error) {
	var (
		mu   sync.Mutex
		list []lock.Package
	)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(hashers)
	for _, p := range packages {
		group.Go(func() error {
			if err := ctx.Err(); err != nil {
				return context.Cause(ctx)
			}
			ok, err := s.verified(p)
			if err != nil {
				return fault.New(fault.IO, "package %s: read store: %w", p.Name, err)
			}
			if ok {
				bar.Add(p.Size)
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			list = append(list, p)
			return nil
		})
	}
	return list, group.Wait()
}

// verified reports whether the store has the package with the right bytes.
func (s *Store) verified(p lock.Package) (bool, error) {
	f, err := os.Open(s.Path(p))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != p.Size {
		return false, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false, err
	}
	return hex.EncodeToString(h.Sum(nil)) == p.SHA256, nil
}

// checkSpace refuses to begin what cannot fit.
func (s *Store) checkSpace(missing []lock.Package) error {
	need := Total(missing)
	if need == 0 {
		return nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.dir, &fs); err != nil {
		return fault.New(fault.IO, "package store %s: %w", s.dir, err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < need {
		return fault.New(fault.IO, "package store %s: disk full: %s are needed, %s are free", s.dir, progress.Size(need), progress.Size(free))
	}
	return nil
}
