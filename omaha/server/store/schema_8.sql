-- What charts are drawn from: how many machines there were of a kind, every quarter of an hour.
CREATE TABLE samples (
	app     TEXT NOT NULL,
	at      INTEGER NOT NULL,
	channel TEXT NOT NULL,
	arch    TEXT NOT NULL,
	version TEXT NOT NULL,
	n       INTEGER NOT NULL,
	PRIMARY KEY (app, at, channel, arch, version)
) STRICT, WITHOUT ROWID;

CREATE TABLE rollout_samples (
	rollout  INTEGER NOT NULL REFERENCES rollouts (id),
	at       INTEGER NOT NULL,
	reached  REAL NOT NULL,
	updating INTEGER NOT NULL,
	complete INTEGER NOT NULL,
	failed   INTEGER NOT NULL,
	PRIMARY KEY (rollout, at)
) STRICT, WITHOUT ROWID;

CREATE INDEX machines_failed ON machines (app, id) WHERE state = 'failed';

-- What a release is made of, as its packages.json says.
CREATE TABLE release_packages (
	release  INTEGER PRIMARY KEY REFERENCES releases (id),
	packages BLOB NOT NULL
) STRICT;

ALTER TABLE audit ADD COLUMN was TEXT NOT NULL DEFAULT '';
ALTER TABLE audit ADD COLUMN became TEXT NOT NULL DEFAULT '';

-- Requests that may be sent again, and what was answered.
CREATE TABLE requests (
	key     TEXT PRIMARY KEY,
	request TEXT NOT NULL,
	at      INTEGER NOT NULL,
	status  INTEGER NOT NULL,
	answer  BLOB NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX requests_by_age ON requests (at);

CREATE TABLE webhooks (
	id         TEXT PRIMARY KEY,
	url        TEXT NOT NULL,
	secret     TEXT NOT NULL,
	events     TEXT NOT NULL,
	created_at INTEGER NOT NULL,
	created_by TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE deliveries (
	id       INTEGER PRIMARY KEY,
	webhook  TEXT NOT NULL REFERENCES webhooks (id) ON DELETE CASCADE,
	event    TEXT NOT NULL,
	body     BLOB NOT NULL,
	at       INTEGER NOT NULL,
	attempts INTEGER NOT NULL,
	next     INTEGER NOT NULL,
	done     INTEGER NOT NULL CHECK (done IN (0, 1)),
	status   INTEGER NOT NULL,
	error    TEXT NOT NULL
) STRICT;
CREATE INDEX deliveries_due ON deliveries (next) WHERE done = 0;
CREATE INDEX deliveries_by_webhook ON deliveries (webhook, id);
