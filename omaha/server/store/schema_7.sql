-- Events are counted with their machine: an event's number says which ones are too old to keep, without looking.
ALTER TABLE machines ADD COLUMN events INTEGER NOT NULL DEFAULT 0;

CREATE TABLE events_7 (
	app              TEXT NOT NULL,
	machine          TEXT NOT NULL,
	seq              INTEGER NOT NULL,
	at               INTEGER NOT NULL,
	type             INTEGER NOT NULL,
	result           INTEGER NOT NULL,
	code             INTEGER NOT NULL,
	version          TEXT NOT NULL,
	previous_version TEXT NOT NULL,
	next_version     TEXT NOT NULL,
	reason           TEXT NOT NULL,
	PRIMARY KEY (app, machine, seq)
) STRICT, WITHOUT ROWID;
INSERT INTO events_7 SELECT app, machine, row_number() OVER (PARTITION BY app, machine ORDER BY id), at, type, result, code, version, previous_version, next_version, reason FROM events;
DROP TABLE events;
ALTER TABLE events_7 RENAME TO events;
UPDATE machines SET events = (SELECT count(*) FROM events WHERE events.app = machines.app AND events.machine = machines.id);

-- How many machines there are that are not retired, kept with each change of a machine: nobody counts a million.
CREATE TABLE machine_counts (
	app     TEXT NOT NULL,
	channel TEXT NOT NULL,
	arch    TEXT NOT NULL,
	version TEXT NOT NULL,
	state   TEXT NOT NULL,
	n       INTEGER NOT NULL,
	PRIMARY KEY (app, channel, arch, version, state)
) STRICT, WITHOUT ROWID;
INSERT INTO machine_counts SELECT app, channel, arch, version, state, count(*) FROM machines WHERE retired_at = 0 GROUP BY app, channel, arch, version, state;

CREATE INDEX machines_retired ON machines (app, id) WHERE retired_at <> 0;
