-- Rollouts, groups, pins, and the marks of a release on the road to newer ones.

CREATE TABLE machine_groups (
	app        TEXT NOT NULL REFERENCES applications (id),
	name       TEXT NOT NULL,
	created_at INTEGER NOT NULL,
	PRIMARY KEY (app, name)
) STRICT, WITHOUT ROWID;

-- A machine is in one group at most; it need not have been seen yet.
CREATE TABLE members (
	app     TEXT NOT NULL,
	machine TEXT NOT NULL,
	grp     TEXT NOT NULL,
	PRIMARY KEY (app, machine),
	FOREIGN KEY (app, grp) REFERENCES machine_groups (app, name) ON DELETE CASCADE
) STRICT, WITHOUT ROWID;

CREATE INDEX members_by_group ON members (app, grp, machine);

-- An empty version holds the machine where it is.
CREATE TABLE pins (
	app     TEXT NOT NULL REFERENCES applications (id),
	machine TEXT NOT NULL,
	version TEXT NOT NULL,
	why     TEXT NOT NULL,
	who     TEXT NOT NULL,
	at      INTEGER NOT NULL,
	PRIMARY KEY (app, machine)
) STRICT, WITHOUT ROWID;

ALTER TABLE releases ADD COLUMN road TEXT NOT NULL DEFAULT '' CHECK (road IN ('', 'floor', 'dead-end'));
ALTER TABLE releases ADD COLUMN road_why TEXT NOT NULL DEFAULT '';
CREATE INDEX releases_by_road ON releases (app, arch) WHERE road <> '';

-- The plan and both counters are JSON; the counters change in the transaction of the steps that they count.
CREATE TABLE rollouts (
	id         INTEGER PRIMARY KEY,
	app        TEXT NOT NULL,
	channel    TEXT NOT NULL,
	arch       TEXT NOT NULL,
	release    INTEGER NOT NULL REFERENCES releases (id),
	plan       TEXT NOT NULL,
	state      TEXT NOT NULL CHECK (state IN ('draft', 'canary', 'ramping', 'paused', 'halted', 'aborted', 'done')),
	since      INTEGER NOT NULL,
	why        TEXT NOT NULL,
	who        TEXT NOT NULL,
	goes_on    TEXT NOT NULL,
	ramp       INTEGER NOT NULL,
	stood      INTEGER NOT NULL,
	counted    TEXT NOT NULL,
	base       TEXT NOT NULL,
	created_at INTEGER NOT NULL,
	created_by TEXT NOT NULL,
	FOREIGN KEY (app, channel, arch) REFERENCES channels (app, name, arch)
) STRICT;

-- One rollout at a time in a channel.
CREATE UNIQUE INDEX rollouts_open ON rollouts (app, channel, arch) WHERE state NOT IN ('aborted', 'done');

CREATE TABLE rollout_steps (
	rollout INTEGER NOT NULL REFERENCES rollouts (id),
	machine TEXT NOT NULL,
	step    TEXT NOT NULL CHECK (step IN ('', 'granted', 'rebooting', 'complete', 'failed', 'silent')),
	canary  INTEGER NOT NULL CHECK (canary IN (0, 1)),
	since   INTEGER NOT NULL,
	why     TEXT NOT NULL,
	PRIMARY KEY (rollout, machine)
) STRICT, WITHOUT ROWID;

CREATE INDEX rollout_steps_due ON rollout_steps (rollout, step, since) WHERE step <> 'complete';

-- Who still lacks a release is a question of one channel and two ranges of versions.
CREATE INDEX machines_by_version ON machines (app, channel, arch, version);

-- Operators.
CREATE TABLE tokens_5 (
	id         TEXT PRIMARY KEY,
	sha256     TEXT NOT NULL,
	role       TEXT NOT NULL CHECK (role IN ('viewer', 'operator', 'publisher', 'admin')),
	label      TEXT NOT NULL,
	created_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO tokens_5 SELECT id, sha256, role, label, created_at FROM tokens;
DROP TABLE tokens;
ALTER TABLE tokens_5 RENAME TO tokens;
