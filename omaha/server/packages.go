package server

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"net/http"
	"slices"

	packagelock "github.com/semper-os/semper/builder/lock"
	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

const (
	packagesFile = "packages.lock"
)

// checkPackages refuses a list that is not the manifest's.
func checkPackages(files []api.File, list []byte) error {
	if len(list) > api.MaxPackages {
		return fault.New(fault.Input, "%s has %d bytes, at most %d are kept", packagesFile, len(list), api.MaxPackages)
	}
	i := slices.IndexFunc(files, func(f api.File) bool { return f.Name == packagesFile })
	if i < 0 {
		return fault.New(fault.Input, "the manifest lists no %s", packagesFile)
	}
	if sum := sha256.Sum256(list); hex.EncodeToString(sum[:]) != files[i].SHA256 {
		return fault.New(fault.Verification, "%s is not the manifest's: its SHA-256 is %x, not %s", packagesFile, sum, files[i].SHA256)
	}
	_, err := packagelock.Parse(packagesFile, list)
	return err
}

// imagePackages reads a release's list; ErrNotFound where it came without.
func imagePackages(ctx context.Context, tx store.Tx, release *fleet.Release) (*packagelock.Lock, error) {
	list, err := tx.Packages(ctx, release.ID)
	if errors.Is(err, store.ErrNotFound) {
		return nil, fault.New(fault.Input, "%s was published without its list of packages: %w", release.Version, err)
	}
	if err != nil {
		return nil, err
	}
	l, err := packagelock.Parse(packagesFile, list)
	if err != nil {
		return nil, err
	}
	l.Packages = slices.DeleteFunc(l.Packages, func(p packagelock.Package) bool { return len(p.Groups) == 1 && p.Groups[0] == packagelock.Tools })
	return l, nil
}

// Packages tells what a release is made of and what is other in it than in another, which is named, or else was published before it.
func Packages(ctx context.Context, tx store.Tx, release *fleet.Release, against string) (api.Packages, error) {
	out := api.Packages{Packages: []api.Package{}, Changes: []api.PackageChange{}}
	list, err := imagePackages(ctx, tx, release)
	if err != nil {
		return out, err
	}
	for _, p := range list.Packages {
		out.Packages = append(out.Packages, api.Package{Name: p.Name, Version: p.Version, Size: p.Size})
	}
	var other *packagelock.Lock
	if against != "" {
		r, err := tx.Release(ctx, release.App, release.Arch, against)
		if err != nil {
			return out, err
		}
		if other, err = imagePackages(ctx, tx, &r); err != nil {
			return out, err
		}
		out.Against = r.Version
	} else if out.Against, other, err = published(ctx, tx, release); err != nil || other == nil {
		return out, err
	}
	for _, c := range list.Changes(other) {
		out.Changes = append(out.Changes, api.PackageChange(c))
	}
	return out, nil
}

// published is the release before another one that came with its list; nil where there is none.
func published(ctx context.Context, tx store.Tx, release *fleet.Release) (version string, list *packagelock.Lock, err error) {
	all, err := tx.Releases(ctx, release.App)
	if err != nil {
		return "", nil, err
	}
	slices.SortFunc(all, func(a, b fleet.Release) int { return cmp.Compare(b.ID, a.ID) })
	for i := range all {
		r := &all[i]
		if r.Arch != release.Arch || r.ID >= release.ID {
			continue
		}
		list, err := imagePackages(ctx, tx, r)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		return r.Version, list, err
	}
	return "", nil, nil
}

func (s *Server) packages(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	tx := s.store.Read()
	release, err := tx.Release(r.Context(), app.ID, query(r, "arch", api.DefaultArch), r.PathValue("version"))
	if err != nil {
		return err
	}
	out, err := Packages(r.Context(), tx, &release, query(r, "against", ""))
	if err != nil {
		return err
	}
	return reply(w, out)
}
