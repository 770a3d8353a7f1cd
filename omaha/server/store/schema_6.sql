-- Releases that were withdrawn, releases whose payload is somewhere else, machines that were not seen for long.

ALTER TABLE releases ADD COLUMN withdrawn_at INTEGER NOT NULL DEFAULT 0;
ALTER TABLE releases ADD COLUMN withdrawn_why TEXT NOT NULL DEFAULT '';
ALTER TABLE releases ADD COLUMN urls TEXT NOT NULL DEFAULT '[]';

-- A payload that is somewhere else is no blob, so a file says itself what it is.
CREATE TABLE files_6 (
	release INTEGER NOT NULL REFERENCES releases (id),
	role    TEXT NOT NULL CHECK (role IN ('full')),
	name    TEXT NOT NULL,
	sha256  TEXT NOT NULL,
	sha1    TEXT NOT NULL,
	size    INTEGER NOT NULL,
	PRIMARY KEY (release, role)
) STRICT, WITHOUT ROWID;
INSERT INTO files_6 SELECT files.release, files.role, files.name, files.sha256, blobs.sha1, blobs.size FROM files JOIN blobs ON blobs.sha256 = files.sha256;
DROP TABLE files;
ALTER TABLE files_6 RENAME TO files;
CREATE INDEX files_by_hash ON files (sha256);

ALTER TABLE machines ADD COLUMN retired_at INTEGER NOT NULL DEFAULT 0;
