package server

import (
	"context"
	"encoding/hex"
	"errors"
	"reflect"
	"regexp"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/blobs"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// maxURLs bounds the places of a payload.
const maxURLs = 8

var payloadName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

// externalRelease fills a release whose payload is somewhere else, as Flatcar's are. Nothing of it is read: machines check what they get.
func externalRelease(release *fleet.Release, e *api.External) error {
	if len(e.URLs) == 0 || len(e.URLs) > maxURLs {
		return fault.New(fault.Input, "%d URLs: want 1 to %d folders in which the payload is", len(e.URLs), maxURLs)
	}
	for _, u := range e.URLs {
		if _, err := baseURL("payload URL", u); err != nil || u[len(u)-1] != '/' {
			return fault.New(fault.Input, "%.200q: want the URL of the payload's folder, with a slash at its end", u)
		}
	}
	if !payloadName.MatchString(e.Name) {
		return fault.New(fault.Input, "payload %.140q: want a file's name", e.Name)
	}
	if e.Size < 1 || e.Size > blobs.MaxSize {
		return fault.New(fault.Input, "size: want the payload's size in bytes, 1 to %d", int64(blobs.MaxSize))
	}
	if e.MinVersion != "" {
		if err := omaha.CheckVersion(e.MinVersion); err != nil {
			return err
		}
	}
	sum, err := blobs.ParseSum(e.SHA256)
	if err != nil {
		return err
	}
	release.Payload = fleet.File{Name: e.Name, Size: e.Size, SHA256: sum}
	if n, err := hex.Decode(release.Payload.SHA1[:], []byte(e.SHA1[:min(len(e.SHA1), 40)])); err != nil || n != len(release.Payload.SHA1) || len(e.SHA1) != 2*n {
		return fault.New(fault.Input, "sha1: want 40 hexadecimal digits")
	}
	release.URLs, release.MinVersion = e.URLs, e.MinVersion
	return nil
}

// addExternal adds a release whose payload is somewhere else; fresh is false when the very same one was there.
func addExternal(ctx context.Context, tx store.Tx, release *fleet.Release) (fresh bool, err error) {
	known, err := tx.Release(ctx, release.App, release.Arch, release.Version)
	if errors.Is(err, store.ErrNotFound) {
		return true, tx.AddRelease(ctx, release, nil, nil)
	}
	if err != nil {
		return false, err
	}
	if known.Payload != release.Payload || known.MinVersion != release.MinVersion || !reflect.DeepEqual(known.URLs, release.URLs) {
		return false, conflict("version %s for %s was published before with another payload, and a published version never changes: give the new one a new version",
			release.Version, release.Arch)
	}
	*release = known
	return false, nil
}

// AddExternal adds a release whose payload is somewhere else.
func AddExternal(ctx context.Context, tx store.Tx, release *fleet.Release, e *api.External, who string) error {
	if err := omaha.CheckVersion(release.Version); err != nil {
		return err
	}
	if err := externalRelease(release, e); err != nil {
		return err
	}
	if fresh, err := addExternal(ctx, tx, release); err != nil || !fresh {
		return err
	}
	return auditRelease(ctx, tx, release, who)
}
