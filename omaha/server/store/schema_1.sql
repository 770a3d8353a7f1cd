-- Times are milliseconds since 1970 UTC, hashes lower-case hex.

CREATE TABLE applications (
	id         TEXT PRIMARY KEY,
	name       TEXT NOT NULL UNIQUE,
	created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Files that arrived whole, verified and on disk.
CREATE TABLE blobs (
	sha256   TEXT PRIMARY KEY,
	sha1     TEXT NOT NULL,
	size     INTEGER NOT NULL,
	added_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE releases (
	id           INTEGER PRIMARY KEY,
	app          TEXT NOT NULL REFERENCES applications (id),
	arch         TEXT NOT NULL,
	version      TEXT NOT NULL,
	min_version  TEXT NOT NULL,
	manifest     BLOB NOT NULL,
	signature    BLOB NOT NULL,
	published_at INTEGER NOT NULL,
	UNIQUE (app, arch, version)
) STRICT;

CREATE TABLE files (
	release INTEGER NOT NULL REFERENCES releases (id),
	role    TEXT NOT NULL CHECK (role IN ('full')),
	name    TEXT NOT NULL,
	sha256  TEXT NOT NULL REFERENCES blobs (sha256),
	PRIMARY KEY (release, role)
) STRICT, WITHOUT ROWID;

CREATE INDEX files_by_hash ON files (sha256);

CREATE TABLE channels (
	app        TEXT NOT NULL REFERENCES applications (id),
	name       TEXT NOT NULL,
	arch       TEXT NOT NULL,
	release    INTEGER REFERENCES releases (id),
	updated_at INTEGER NOT NULL,
	PRIMARY KEY (app, name, arch)
) STRICT, WITHOUT ROWID;

CREATE TABLE machines (
	app           TEXT NOT NULL REFERENCES applications (id),
	id            TEXT NOT NULL,
	alias         TEXT NOT NULL,
	arch          TEXT NOT NULL,
	version       TEXT NOT NULL,
	channel       TEXT NOT NULL,
	boot_id       TEXT NOT NULL,
	platform      TEXT NOT NULL,
	first_version TEXT NOT NULL,
	address       TEXT NOT NULL,
	state         TEXT NOT NULL,
	state_since   INTEGER NOT NULL,
	target        TEXT NOT NULL,
	detail        TEXT NOT NULL,
	first_seen    INTEGER NOT NULL,
	last_seen     INTEGER NOT NULL,
	PRIMARY KEY (app, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE events (
	id               INTEGER PRIMARY KEY,
	app              TEXT NOT NULL,
	machine          TEXT NOT NULL,
	at               INTEGER NOT NULL,
	type             INTEGER NOT NULL,
	result           INTEGER NOT NULL,
	code             INTEGER NOT NULL,
	version          TEXT NOT NULL,
	previous_version TEXT NOT NULL,
	next_version     TEXT NOT NULL,
	reason           TEXT NOT NULL,
	FOREIGN KEY (app, machine) REFERENCES machines (app, id)
) STRICT;

CREATE INDEX events_by_machine ON events (app, machine, id);

CREATE TABLE failed_versions (
	app     TEXT NOT NULL,
	machine TEXT NOT NULL,
	version TEXT NOT NULL,
	at      INTEGER NOT NULL,
	code    INTEGER NOT NULL,
	reason  TEXT NOT NULL,
	PRIMARY KEY (app, machine, version),
	FOREIGN KEY (app, machine) REFERENCES machines (app, id)
) STRICT, WITHOUT ROWID;

-- The secret of a token is kept as its SHA-256 only: it has 256 bits of randomness, so there is nothing to guess.
CREATE TABLE tokens (
	id         TEXT PRIMARY KEY,
	sha256     TEXT NOT NULL,
	role       TEXT NOT NULL CHECK (role IN ('viewer', 'publisher', 'admin')),
	label      TEXT NOT NULL,
	created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
