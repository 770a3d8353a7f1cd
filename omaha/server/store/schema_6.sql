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

-- A number that grows with whatever decides what machines are answered, but for the machines themselves and the counters of rollouts: what was decided with the same number
-- holds still. Another program's changes count as well.
CREATE TABLE changes (
	one INTEGER PRIMARY KEY CHECK (one = 1),
	n   INTEGER NOT NULL
) STRICT;
INSERT INTO changes (one, n) VALUES (1, 0);
CREATE TRIGGER applications_insert AFTER INSERT ON applications BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER applications_update AFTER UPDATE ON applications BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER applications_delete AFTER DELETE ON applications BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER releases_insert AFTER INSERT ON releases BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER releases_update AFTER UPDATE ON releases BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER releases_delete AFTER DELETE ON releases BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER channels_insert AFTER INSERT ON channels BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER channels_update AFTER UPDATE ON channels BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER channels_delete AFTER DELETE ON channels BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER freshness_insert AFTER INSERT ON freshness BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER freshness_update AFTER UPDATE ON freshness BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER freshness_delete AFTER DELETE ON freshness BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER machine_groups_insert AFTER INSERT ON machine_groups BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER machine_groups_update AFTER UPDATE ON machine_groups BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER machine_groups_delete AFTER DELETE ON machine_groups BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER members_insert AFTER INSERT ON members BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER members_update AFTER UPDATE ON members BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER members_delete AFTER DELETE ON members BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER pins_insert AFTER INSERT ON pins BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER pins_update AFTER UPDATE ON pins BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER pins_delete AFTER DELETE ON pins BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER rollouts_insert AFTER INSERT ON rollouts BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER rollouts_update AFTER UPDATE OF state ON rollouts BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER rollouts_delete AFTER DELETE ON rollouts BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER failed_versions_delete AFTER DELETE ON failed_versions BEGIN UPDATE changes SET n = n + 1; END;
CREATE TRIGGER machines_retire AFTER UPDATE OF retired_at ON machines WHEN new.retired_at <> 0 BEGIN UPDATE changes SET n = n + 1; END;
