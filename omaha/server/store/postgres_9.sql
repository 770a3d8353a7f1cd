-- schema_9.sql for PostgreSQL.
CREATE TABLE people (
	id         TEXT COLLATE "C" NOT NULL PRIMARY KEY CHECK (length(id) BETWEEN 1 AND 300),
	name       TEXT COLLATE "C" NOT NULL,
	via        TEXT COLLATE "C" NOT NULL CHECK (via IN ('oidc', 'link')),
	issuer     TEXT COLLATE "C" NOT NULL,
	grps       TEXT COLLATE "C" NOT NULL,
	role       TEXT COLLATE "C" NOT NULL CHECK (role IN ('', 'viewer', 'operator', 'publisher', 'admin')),
	created_at BIGINT NOT NULL,
	seen_at    BIGINT NOT NULL
);

CREATE TABLE sessions (
	sha256     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	person     TEXT COLLATE "C" REFERENCES people (id) ON DELETE CASCADE,
	token      TEXT COLLATE "C" REFERENCES tokens (id) ON DELETE CASCADE,
	created_at BIGINT NOT NULL,
	seen_at    BIGINT NOT NULL,
	CHECK ((person IS NULL) <> (token IS NULL))
);
CREATE INDEX sessions_by_person ON sessions (person) WHERE person IS NOT NULL;
CREATE INDEX sessions_by_token ON sessions (token) WHERE token IS NOT NULL;

CREATE TABLE links (
	sha256     TEXT COLLATE "C" NOT NULL PRIMARY KEY,
	person     TEXT COLLATE "C" NOT NULL REFERENCES people (id) ON DELETE CASCADE,
	created_at BIGINT NOT NULL,
	expires_at BIGINT NOT NULL
);
CREATE INDEX links_by_person ON links (person);
