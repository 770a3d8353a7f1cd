-- What changes with a machine is kept with it. Events are only added, each with the number of the same machine's one before it: a report touches few places on disk.
ALTER TABLE machines ADD COLUMN last_event INTEGER NOT NULL DEFAULT 0;

CREATE TABLE events_10 (
	id               INTEGER PRIMARY KEY,
	previous         INTEGER NOT NULL,
	at               INTEGER NOT NULL,
	type             INTEGER NOT NULL,
	result           INTEGER NOT NULL,
	code             INTEGER NOT NULL,
	version          TEXT NOT NULL,
	previous_version TEXT NOT NULL,
	next_version     TEXT NOT NULL,
	reason           TEXT NOT NULL
) STRICT;
INSERT INTO events_10 SELECT row_number() OVER (ORDER BY app, machine, seq),
	CASE WHEN lag(seq) OVER (PARTITION BY app, machine ORDER BY seq) IS NULL THEN 0 ELSE row_number() OVER (ORDER BY app, machine, seq) - 1 END,
	at, type, result, code, version, previous_version, next_version, reason FROM events;
UPDATE machines SET last_event = newest.id FROM (SELECT app, machine, max(id) AS id FROM (SELECT app, machine, row_number() OVER (ORDER BY app, machine, seq) AS id FROM events) AS all_events
	GROUP BY app, machine) AS newest WHERE newest.app = machines.app AND newest.machine = machines.id;
DROP TABLE events;
ALTER TABLE events_10 RENAME TO events;

-- The step in the rollout that the machine is in. The table rollout_steps has what a machine has to do with others: those that it left, and those in which it failed.
ALTER TABLE machines ADD COLUMN rollout INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN step TEXT NOT NULL DEFAULT '' CHECK (step IN ('', 'granted', 'rebooting', 'complete', 'failed', 'silent'));
ALTER TABLE machines ADD COLUMN step_canary INTEGER NOT NULL DEFAULT 0 CHECK (step_canary IN (0, 1));
ALTER TABLE machines ADD COLUMN step_since INTEGER NOT NULL DEFAULT 0;
ALTER TABLE machines ADD COLUMN step_why TEXT NOT NULL DEFAULT '';
UPDATE machines SET rollout = open.rollout, step = open.step, step_canary = open.canary, step_since = open.since, step_why = open.why
	FROM (SELECT rollouts.app, rollout_steps.* FROM rollout_steps JOIN rollouts ON rollouts.id = rollout_steps.rollout WHERE rollouts.state NOT IN ('aborted', 'done')) AS open
	WHERE open.app = machines.app AND open.machine = machines.id;
DELETE FROM rollout_steps WHERE EXISTS (SELECT 1 FROM rollouts JOIN machines ON machines.app = rollouts.app AND machines.id = rollout_steps.machine
	WHERE rollouts.id = rollout_steps.rollout AND machines.rollout = rollout_steps.rollout);
CREATE INDEX machines_due ON machines (rollout, step, step_since) WHERE rollout <> 0 AND step <> 'complete';
