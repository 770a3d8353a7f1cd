-- People, the browsers that they are signed in with, and the links that let them in once. Of what is secret there are only hashes.
CREATE TABLE people (
	id         TEXT NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 300),
	name       TEXT NOT NULL,
	via        TEXT NOT NULL CHECK (via IN ('oidc', 'link')),
	issuer     TEXT NOT NULL,
	grps       TEXT NOT NULL,
	role       TEXT NOT NULL CHECK (role IN ('', 'viewer', 'operator', 'publisher', 'admin')),
	created_at INTEGER NOT NULL,
	seen_at    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE sessions (
	sha256     TEXT NOT NULL PRIMARY KEY,
	person     TEXT REFERENCES people (id) ON DELETE CASCADE,
	token      TEXT REFERENCES tokens (id) ON DELETE CASCADE,
	created_at INTEGER NOT NULL,
	seen_at    INTEGER NOT NULL,
	CHECK ((person IS NULL) <> (token IS NULL))
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_by_person ON sessions (person) WHERE person IS NOT NULL;
CREATE INDEX sessions_by_token ON sessions (token) WHERE token IS NOT NULL;

CREATE TABLE links (
	sha256     TEXT NOT NULL PRIMARY KEY,
	person     TEXT NOT NULL REFERENCES people (id) ON DELETE CASCADE,
	created_at INTEGER NOT NULL,
	expires_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX links_by_person ON links (person);
