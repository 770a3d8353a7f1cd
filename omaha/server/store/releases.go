package store

import (
	"context"
	"database/sql"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
)

// AddApplication adds an application.
func (tx Tx) AddApplication(ctx context.Context, a fleet.Application) error {
	_, err := tx.q.exec(ctx, "INSERT INTO applications (id, name, created_at) VALUES (?, ?, ?)", a.ID, a.Name, millis(a.Created))
	return failed("add application "+a.Name, err)
}

// Application finds an application by its id or its name.
func (tx Tx) Application(ctx context.Context, idOrName string) (fleet.Application, error) {
	var a fleet.Application
	row := tx.q.row(ctx, "SELECT id, name, created_at FROM applications WHERE id = ?1 OR name = ?1", idOrName)
	return a, failed("application "+idOrName, scanApplication(&a, row.Scan))
}

// Applications lists all applications, by name.
func (tx Tx) Applications(ctx context.Context) ([]fleet.Application, error) {
	return list(ctx, tx.q, "list applications", scanApplication, "SELECT id, name, created_at FROM applications ORDER BY name")
}

func scanApplication(a *fleet.Application, scan func(...any) error) error {
	var created int64
	err := scan(&a.ID, &a.Name, &created)
	a.Created = fromMillis(created)
	return err
}

// AddBlob notes that a file is on disk, verified. Adding it again changes nothing.
func (tx Tx) AddBlob(ctx context.Context, f fleet.File, now time.Time) error {
	_, err := tx.q.exec(ctx, "INSERT INTO blobs (sha256, sha1, size, added_at) VALUES (?, ?, ?, ?) ON CONFLICT (sha256) DO NOTHING",
		hex.EncodeToString(f.SHA256[:]), hex.EncodeToString(f.SHA1[:]), f.Size, millis(now))
	return failed("keep a file", err)
}

// Blob returns the size and SHA-1 of a file that is on disk; its Name is empty.
func (tx Tx) Blob(ctx context.Context, sha256 [32]byte) (fleet.File, error) {
	f := fleet.File{SHA256: sha256}
	var sha1 string
	sum := hex.EncodeToString(sha256[:])
	err := tx.q.row(ctx, "SELECT size, sha1 FROM blobs WHERE sha256 = ?", sum).Scan(&f.Size, &sha1)
	if err == nil {
		err = unhex(f.SHA1[:], sha1)
	}
	return f, failed("file "+sum, err)
}

// Payload returns the file of that hash if a release has it under that name, and whether all releases that have it were withdrawn.
func (tx Tx) Payload(ctx context.Context, sha256 [32]byte, name string) (f fleet.File, withdrawn bool, err error) {
	var good sql.NullInt64
	err = tx.q.row(ctx, "SELECT sum(CASE WHEN releases.withdrawn_at = 0 THEN 1 ELSE 0 END) FROM files JOIN releases ON releases.id = files.release WHERE files.sha256 = ? AND files.name = ? AND releases.urls = '[]'",
		hex.EncodeToString(sha256[:]), name).Scan(&good)
	if err == nil && !good.Valid {
		err = sql.ErrNoRows
	}
	if err != nil {
		return fleet.File{}, false, failed("payload "+name, err)
	}
	f, err = tx.Blob(ctx, sha256)
	f.Name = name
	return f, good.Int64 == 0, err
}

// Withdraw notes when and why a release was withdrawn, or with the zero time that it is not any more.
func (tx Tx) Withdraw(ctx context.Context, id int64, at time.Time, why string) error {
	ms := int64(0)
	if !at.IsZero() {
		ms = millis(at)
	}
	_, err := tx.q.exec(ctx, "UPDATE releases SET withdrawn_at = ?, withdrawn_why = ? WHERE id = ?", ms, why, id)
	return failed("withdraw a release", err)
}

const (
	releaseColumns = `releases.id, releases.app, releases.arch, releases.version, releases.min_version, releases.road, releases.road_why, releases.published_at,
	releases.withdrawn_at, releases.withdrawn_why, releases.urls, files.name, files.sha256, files.sha1, files.size`
	releaseTables = `releases JOIN files ON files.release = releases.id AND files.role = 'full'`
)

func scanRelease(r *fleet.Release, scan func(...any) error) error {
	var published, withdrawn int64
	var urls []byte
	var sha256, sha1 string
	if err := scan(&r.ID, &r.App, &r.Arch, &r.Version, &r.MinVersion, &r.Road, &r.RoadWhy, &published, &withdrawn, &r.WithdrawnWhy, &urls, &r.Payload.Name, &sha256, &sha1, &r.Payload.Size); err != nil {
		return err
	}
	r.Published = fromMillis(published)
	if withdrawn != 0 {
		r.Withdrawn = fromMillis(withdrawn)
	}
	if err := json.Unmarshal(urls, &r.URLs); err != nil {
		return err
	}
	if len(r.URLs) == 0 {
		r.URLs = nil
	}
	if err := unhex(r.Payload.SHA256[:], sha256); err != nil {
		return err
	}
	return unhex(r.Payload.SHA1[:], sha1)
}

func unhex(to []byte, s string) error {
	if n, err := hex.Decode(to, []byte(s)); err != nil || n != len(to) || len(s) != 2*n {
		return fmt.Errorf("%q is not the hex of %d bytes", s, len(to))
	}
	return nil
}

// AddRelease adds a release with its manifest. Its payload must be on disk, unless it has URLs.
func (tx Tx) AddRelease(ctx context.Context, r *fleet.Release, manifest, signature []byte) error {
	step := "add release " + r.Version
	urls, err := json.Marshal(append([]string{}, r.URLs...)) // never null
	if err != nil {
		return failed(step, err)
	}
	err = tx.q.row(ctx, "INSERT INTO releases (app, arch, version, min_version, manifest, signature, published_at, urls) VALUES (?, ?, ?, ?, ?, ?, ?, ?) RETURNING id",
		r.App, r.Arch, r.Version, r.MinVersion, append([]byte{}, manifest...), append([]byte{}, signature...), millis(r.Published), string(urls)).Scan(&r.ID)
	if err != nil {
		return failed(step, err)
	}
	_, err = tx.q.exec(ctx, "INSERT INTO files (release, role, name, sha256, sha1, size) VALUES (?, 'full', ?, ?, ?, ?)",
		r.ID, r.Payload.Name, hex.EncodeToString(r.Payload.SHA256[:]), hex.EncodeToString(r.Payload.SHA1[:]), r.Payload.Size)
	return failed(step, err)
}

// PutPackages keeps what a release is made of, as it came.
func (tx Tx) PutPackages(ctx context.Context, release int64, packages []byte) error {
	_, err := tx.q.exec(ctx, "INSERT INTO release_packages (release, packages) VALUES (?, ?) ON CONFLICT (release) DO NOTHING", release, packages)
	return failed("keep a release's packages", err)
}

// Packages returns what a release is made of, or ErrNotFound where it came without.
func (tx Tx) Packages(ctx context.Context, release int64) (packages []byte, err error) {
	return packages, failed("packages of a release", tx.q.row(ctx, "SELECT packages FROM release_packages WHERE release = ?", release).Scan(&packages))
}

// Release returns one release, or ErrNotFound.
func (tx Tx) Release(ctx context.Context, app, arch, version string) (fleet.Release, error) {
	var r fleet.Release
	row := tx.q.row(ctx, "SELECT "+releaseColumns+" FROM "+releaseTables+" WHERE releases.app = ? AND releases.arch = ? AND releases.version = ?",
		app, arch, version)
	return r, failed("release "+version+" for "+arch, scanRelease(&r, row.Scan))
}

// MarkRelease says what a release is on the way to newer ones.
func (tx Tx) MarkRelease(ctx context.Context, id int64, road fleet.Road, why string) error {
	_, err := tx.q.exec(ctx, "UPDATE releases SET road = ?, road_why = ? WHERE id = ?", string(road), why, id)
	return failed("mark a release", err)
}

// MarkedReleases lists the floors and dead ends of an application.
func (tx Tx) MarkedReleases(ctx context.Context, app string) ([]fleet.Release, error) {
	return list(ctx, tx.q, "list marked releases", scanRelease,
		"SELECT "+releaseColumns+" FROM "+releaseTables+" WHERE releases.app = ? AND releases.road <> '' ORDER BY releases.id", app)
}

// Manifest returns a release's manifest.json and manifest.json.sig, byte for byte as they were published.
func (tx Tx) Manifest(ctx context.Context, release int64) (manifest, signature []byte, err error) {
	err = tx.q.row(ctx, "SELECT manifest, signature FROM releases WHERE id = ?", release).Scan(&manifest, &signature)
	return manifest, signature, failed("manifest", err)
}

// Releases lists an application's releases, in the order in which they were published.
func (tx Tx) Releases(ctx context.Context, app string) ([]fleet.Release, error) {
	return list(ctx, tx.q, "list releases", scanRelease, "SELECT "+releaseColumns+" FROM "+releaseTables+" WHERE releases.app = ? ORDER BY releases.id", app)
}

// AddChannel adds a channel without a release.
func (tx Tx) AddChannel(ctx context.Context, c fleet.Channel) error {
	_, err := tx.q.exec(ctx, "INSERT INTO channels (app, name, arch, release, updated_at) VALUES (?, ?, ?, NULL, ?)",
		c.App, c.Name, c.Arch, millis(c.Updated))
	return failed("add channel "+c.Name, err)
}

// Channel returns one channel with its release, or ErrNotFound.
func (tx Tx) Channel(ctx context.Context, app, name, arch string) (fleet.Channel, error) {
	c := fleet.Channel{App: app, Name: name, Arch: arch}
	step := fmt.Sprintf("channel %q for %q", name, arch)
	var updated int64
	var release *int64
	err := tx.q.row(ctx, "SELECT updated_at, release FROM channels WHERE app = ? AND name = ? AND arch = ?", app, name, arch).
		Scan(&updated, &release)
	c.Updated = fromMillis(updated)
	if err != nil || release == nil {
		return c, failed(step, err)
	}
	c.Release = new(fleet.Release)
	row := tx.q.row(ctx, "SELECT "+releaseColumns+" FROM "+releaseTables+" WHERE releases.id = ?", *release)
	return c, failed(step, scanRelease(c.Release, row.Scan))
}

// Channels lists an application's channels with their releases, by name and architecture.
func (tx Tx) Channels(ctx context.Context, app string) ([]fleet.Channel, error) {
	type key struct{ name, arch string }
	keys, err := list(ctx, tx.q, "list channels", func(k *key, scan func(...any) error) error { return scan(&k.name, &k.arch) },
		"SELECT name, arch FROM channels WHERE app = ? ORDER BY name, arch", app)
	if err != nil {
		return nil, err
	}
	channels := make([]fleet.Channel, len(keys))
	for i, k := range keys {
		if channels[i], err = tx.Channel(ctx, app, k.name, k.arch); err != nil {
			return nil, err
		}
	}
	return channels, nil
}

// SetChannel makes a release the current one of a channel.
func (tx Tx) SetChannel(ctx context.Context, app, name, arch string, release int64, now time.Time) error {
	n, err := tx.q.exec(ctx, "UPDATE channels SET release = ?, updated_at = ? WHERE app = ? AND name = ? AND arch = ?",
		release, millis(now), app, name, arch)
	if err != nil {
		return failed("set channel "+name, err)
	}
	if n == 0 {
		return fmt.Errorf("channel %q for %s: %w", name, arch, ErrNotFound)
	}
	return nil
}

// Blobs lists the files that are on disk.
func (tx Tx) Blobs(ctx context.Context) ([]fleet.File, error) {
	return list(ctx, tx.q, "list files", func(f *fleet.File, scan func(...any) error) error {
		var sha256, sha1 string
		if err := scan(&sha256, &sha1, &f.Size); err != nil {
			return err
		}
		return errors.Join(unhex(f.SHA256[:], sha256), unhex(f.SHA1[:], sha1))
	}, "SELECT sha256, sha1, size FROM blobs ORDER BY sha256")
}
