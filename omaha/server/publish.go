package server

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/blobs"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

func (s *Server) newRelease(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	var n api.NewRelease
	if err := read(w, r, &n); err != nil {
		return err
	}
	release := fleet.Release{App: app.ID, Arch: query(r, "arch", api.DefaultArch), Version: r.PathValue("version"), Published: s.cfg.Now().UTC()}
	// A whole payload is read, which may outlast the server's time limit for reading a request.
	if err := s.prepareRelease(context.WithoutCancel(r.Context()), &app, &release, &n); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	fresh := false
	err = s.store.Write(ctx, func(tx store.Tx) error {
		if fresh, err = addRelease(ctx, tx, &release, &n); err != nil {
			return err
		}
		if fresh {
			return auditRelease(ctx, tx, &release, who(r))
		}
		return addPackages(ctx, tx, &release, n.Packages, who(r), s.cfg.Now().UTC())
	})
	if err != nil {
		return err
	}
	if fresh {
		s.cfg.Log.Info("release published", "application", app.Name, "version", release.Version, "arch", release.Arch,
			"payload", hex.EncodeToString(release.Payload.SHA256[:]), "size", release.Payload.Size)
	}
	return reply(w, describeRelease(&release))
}

// prepareRelease fills release, and checks all of it that can be checked without the database's writer: signatures first.
func (s *Server) prepareRelease(ctx context.Context, app *fleet.Application, release *fleet.Release, n *api.NewRelease) error {
	if err := omaha.CheckVersion(release.Version); err != nil {
		return err
	}
	if release.Arch != "amd64" && release.Arch != "arm64" {
		return fault.New(fault.Input, "architecture %q: want amd64 or arm64", release.Arch)
	}
	if n.External != nil {
		if len(n.Manifest)+len(n.Signature) > 0 {
			return fault.New(fault.Input, "a release has a manifest, or is somewhere else: not both")
		}
		if len(s.cfg.Trust.Keys) > 0 && app.Name == api.DefaultApp {
			return fault.New(fault.Input, "releases of %s are verified here, and those that are somewhere else cannot be", app.Name)
		}
		return externalRelease(release, n.External)
	}
	if err := s.verifyManifest(n); err != nil {
		return err
	}
	if err := checkRelease(release, n); err != nil {
		return err
	}
	return s.verifyPayload(ctx, release)
}

// manifest is what the server wants to know from a manifest.json; its writer is package builder/release.
type manifest struct {
	Format       int        `json:"format"`
	Version      string     `json:"version"`
	MinVersion   string     `json:"min_version"`
	Architecture string     `json:"architecture"`
	Files        []api.File `json:"files"`
}

const manifestFormat = 1

// checkRelease fills release from its manifest, as far as that can be checked without the database.
func checkRelease(release *fleet.Release, n *api.NewRelease) error {
	if len(n.Manifest) == 0 || len(n.Manifest) > api.MaxManifest || len(n.Signature) == 0 || len(n.Signature) > api.MaxManifest {
		return fault.New(fault.Input, "a release needs a manifest and its signature, of at most %d bytes each", api.MaxManifest)
	}
	var m manifest
	if err := json.Unmarshal(n.Manifest, &m); err != nil {
		return fault.New(fault.Input, "the manifest is not JSON: %w", err)
	}
	if m.Format != manifestFormat {
		return fault.New(fault.Input, "the manifest has format %d, this server knows %d", m.Format, manifestFormat)
	}
	if m.Version != release.Version || m.Architecture != release.Arch {
		return fault.New(fault.Input, "the manifest is of version %q for %q, not %s for %s", m.Version, m.Architecture, release.Version, release.Arch)
	}
	if m.MinVersion != "" {
		if err := omaha.CheckVersion(m.MinVersion); err != nil {
			return fmt.Errorf("min_version: %w", err)
		}
	}
	i := slices.IndexFunc(m.Files, func(f api.File) bool { return f.Name == api.Payload })
	if i < 0 {
		return fault.New(fault.Input, "the manifest lists no %s", api.Payload)
	}
	sum, err := blobs.ParseSum(m.Files[i].SHA256)
	release.MinVersion = m.MinVersion
	release.Payload = fleet.File{Name: api.Payload, Size: m.Files[i].Size, SHA256: sum}
	if err != nil || n.Packages == nil {
		return err
	}
	return checkPackages(m.Files, n.Packages)
}

// addRelease adds a release whose payload is on disk; fresh is false when the very same one was there.
func addRelease(ctx context.Context, tx store.Tx, release *fleet.Release, n *api.NewRelease) (fresh bool, err error) {
	if n.External != nil {
		return addExternal(ctx, tx, release)
	}
	blob, err := tx.Blob(ctx, release.Payload.SHA256)
	if errors.Is(err, store.ErrNotFound) {
		return false, httpError{http.StatusConflict, fault.New(fault.Input, "the payload of %s was not uploaded", release.Version)}
	}
	if err != nil {
		return false, err
	}
	if blob.Size != release.Payload.Size {
		return false, fault.New(fault.Input, "the payload has %d bytes, not %d", blob.Size, release.Payload.Size)
	}
	release.Payload.SHA1 = blob.SHA1
	known, err := tx.Release(ctx, release.App, release.Arch, release.Version)
	if errors.Is(err, store.ErrNotFound) {
		if err := tx.AddRelease(ctx, release, n.Manifest, n.Signature); err != nil || n.Packages == nil {
			return true, err
		}
		return true, tx.PutPackages(ctx, release.ID, n.Packages)
	}
	if err != nil {
		return false, err
	}
	before, _, err := tx.Manifest(ctx, known.ID)
	if err != nil {
		return false, err
	}
	if !bytes.Equal(before, n.Manifest) {
		return false, httpError{http.StatusConflict, fault.New(fault.Input,
			"version %s for %s was published before with other bytes, and a published version never changes: give the new one a new version",
			release.Version, release.Arch)}
	}
	*release = known
	return false, nil
}

// addPackages keeps the list of a release that was published without, where there is one.
func addPackages(ctx context.Context, tx store.Tx, r *fleet.Release, list []byte, who string, now time.Time) error {
	if list == nil {
		return nil
	}
	if _, err := tx.Packages(ctx, r.ID); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	if err := tx.PutPackages(ctx, r.ID, list); err != nil {
		return err
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "release-packages", Subject: releaseSubject(r), Before: "no list of packages", After: "a list of packages"})
}
