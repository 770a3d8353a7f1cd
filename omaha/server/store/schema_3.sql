-- What the holders of the payload keys said last about a channel: an envelope of package freshness, and what it claims.
CREATE TABLE freshness (
	app       TEXT NOT NULL,
	channel   TEXT NOT NULL,
	arch      TEXT NOT NULL,
	envelope  BLOB NOT NULL CHECK (length(envelope) <= 16384),
	version   TEXT NOT NULL,
	issued    INTEGER NOT NULL,
	expires   INTEGER NOT NULL,
	sequence  INTEGER NOT NULL,
	stored_at INTEGER NOT NULL,
	PRIMARY KEY (app, channel, arch),
	FOREIGN KEY (app, channel, arch) REFERENCES channels (app, name, arch)
) STRICT, WITHOUT ROWID;
