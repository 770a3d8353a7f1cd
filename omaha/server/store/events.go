package store

import (
	"context"

	"github.com/semper-os/semper/omaha/server/fleet"
)

// Events are kept in the order in which they came, whoever's they are, and only ever added: a report need not look for its machine's others. Each has the number of its
// machine's one before it, and the machine that of its newest.
//
//	machines.last_event ─▶ event 907 ─▶ event 388 ─▶ event 12 ─▶ 0

// forgetEvery is how many events of a machine come before the oldest are forgotten: it has up to so many more than MaxEvents.
const forgetEvery = 64

// chain are a machine's events, the newest first, which ?1 is the number of. The place is 1 for that one.
const chain = `WITH RECURSIVE chain (id, previous, place) AS (SELECT id, previous, 1 FROM events WHERE id = ?1
	UNION ALL SELECT events.id, events.previous, chain.place + 1 FROM chain JOIN events ON events.id = chain.previous WHERE chain.place < ?2) `

// addEvents keeps the events of changes, puts the number of each machine's newest into its row, and forgets those that are too many.
func (tx Tx) addEvents(ctx context.Context, changes []Change, rows []machineRow) error {
	var added [][]any
	var newest int64
	var full []int64 // the newest event of machines that have too many
	for i := range changes {
		r := &rows[i]
		for _, e := range changes[i].Events {
			if newest == 0 {
				if err := tx.q.row(ctx, "SELECT coalesce(max(id), 0) FROM events").Scan(&newest); err != nil {
					return failed("number events", err)
				}
			}
			newest++
			added = append(added, []any{
				newest, r.lastEvent, millis(e.At), int64(e.Type), int64(e.Result), int64(e.ErrorCode), e.Version, e.PreviousVersion, e.NextVersion, e.Reason,
			})
			r.lastEvent = newest
		}
		if n := r.Events; n > MaxEvents && n/forgetEvery != (n-int64(len(changes[i].Events)))/forgetEvery {
			full = append(full, r.lastEvent)
		}
	}
	if err := tx.q.many(ctx, `INSERT INTO events (id, previous, at, type, result, code, version, previous_version, next_version, reason)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, added); err != nil {
		return failed("keep events", err)
	}
	for _, last := range full {
		if _, err := tx.q.exec(ctx, "DELETE FROM events WHERE id IN ("+chain+"SELECT id FROM chain WHERE place > ?3)", last, 2*MaxEvents, MaxEvents); err != nil {
			return failed("forget events", err)
		}
	}
	return nil
}

// Events lists the newest MaxEvents events of a machine, oldest first.
func (tx Tx) Events(ctx context.Context, app, id string) ([]fleet.Event, error) {
	var last int64
	step := "list events of machine " + id
	if err := tx.q.row(ctx, "SELECT coalesce(max(last_event), 0) FROM machines WHERE app = ? AND id = ?", app, id).Scan(&last); err != nil {
		return nil, failed(step, err)
	}
	return list(ctx, tx.q, step, func(e *fleet.Event, scan func(...any) error) error {
		var at int64
		err := scan(&at, &e.Type, &e.Result, &e.ErrorCode, &e.Version, &e.PreviousVersion, &e.NextVersion, &e.Reason)
		e.At = fromMillis(at)
		return err
	}, chain+`SELECT at, type, result, code, version, previous_version, next_version, reason FROM events WHERE id IN (SELECT id FROM chain) ORDER BY id`, last, MaxEvents)
}
