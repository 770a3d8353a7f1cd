-- Reboot locks (FleetLock): a group has slots; a holder has one of them, a waiter was refused one. Times are milliseconds since 1970, a lease of 0 does not end.
CREATE TABLE reboot_groups (
	name    TEXT NOT NULL PRIMARY KEY,
	slots   INTEGER NOT NULL CHECK (slots BETWEEN 0 AND 1000000),
	lease   INTEGER NOT NULL CHECK (lease >= 0),
	updated INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE reboot_claims (
	grp    TEXT NOT NULL REFERENCES reboot_groups (name) ON DELETE CASCADE,
	id     TEXT NOT NULL CHECK (length(id) BETWEEN 1 AND 128),
	holds  INTEGER NOT NULL CHECK (holds IN (0, 1)),
	since  INTEGER NOT NULL,
	seen   INTEGER NOT NULL,
	PRIMARY KEY (grp, id)
) STRICT, WITHOUT ROWID;

-- What people, and programs in their name, changed.
CREATE TABLE audit (
	id      INTEGER PRIMARY KEY,
	at      INTEGER NOT NULL,
	who     TEXT NOT NULL,
	what    TEXT NOT NULL,
	subject TEXT NOT NULL,
	detail  TEXT NOT NULL
) STRICT;

INSERT INTO reboot_groups (name, slots, lease, updated) VALUES ('default', 1, 3600000, 0);
