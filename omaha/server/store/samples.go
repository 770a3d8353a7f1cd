package store

import (
	"cmp"
	"context"
	"slices"
	"time"
)

const (
	// SampleEvery is how often machines are counted for charts.
	SampleEvery = 15 * time.Minute

	fineSamples   = 7 * 24 * time.Hour   // older samples are kept once an hour
	keepSamples   = 400 * 24 * time.Hour // none are older
	sampleKinds   = 200                  // of an application in one sample, the commonest
	forgetSamples = 5000                 // at a time
)

// Sample is how many machines ran a version at some time.
type Sample struct {
	At       time.Time
	Version  string
	Machines int64
}

// LastSample is when machines were counted last for charts; the zero time where they never were.
func (tx Tx) LastSample(ctx context.Context, app string) (time.Time, error) {
	var at int64
	if err := tx.q.row(ctx, "SELECT coalesce(max(at), 0) FROM samples WHERE app = ?", app).Scan(&at); err != nil || at == 0 {
		return time.Time{}, failed("last sample", err)
	}
	return fromMillis(at), nil
}

// AddSample counts the machines of an application for charts.
func (tx Tx) AddSample(ctx context.Context, app string, at time.Time) error {
	counts, err := tx.CountFleet(ctx, app)
	if err != nil {
		return err
	}
	kinds := map[FleetCount]int64{}
	for _, c := range counts {
		n := c.Machines
		c.State, c.Machines = "", 0
		kinds[c] += n
	}
	var rows [][]any
	for k, n := range kinds {
		rows = append(rows, []any{app, millis(at), k.Channel, k.Arch, k.Version, n})
	}
	slices.SortFunc(rows, func(a, b []any) int {
		return cmp.Or(cmp.Compare(b[5].(int64), a[5].(int64)), cmp.Compare(a[2].(string), b[2].(string)), cmp.Compare(a[3].(string), b[3].(string)), cmp.Compare(a[4].(string), b[4].(string)))
	})
	return failed("keep a sample", tx.q.many(ctx, "INSERT INTO samples (app, at, channel, arch, version, n) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING", rows[:min(len(rows), sampleKinds)]))
}

// ForgetSamples deletes some of the samples that are old, and returns how many there were.
func (tx Tx) ForgetSamples(ctx context.Context, app string, now time.Time) (int64, error) {
	n, err := tx.q.exec(ctx, `DELETE FROM samples WHERE (app, at, channel, arch, version) IN (SELECT app, at, channel, arch, version FROM samples
		WHERE app = ?1 AND at < ?2 AND (at < ?3 OR at % 3600000 <> 0) ORDER BY at LIMIT ?4)`, app, millis(now.Add(-fineSamples)), millis(now.Add(-keepSamples)), forgetSamples)
	return n, failed("forget samples", err)
}

// Samples lists how many machines of an application, of a channel and an architecture where they are not empty, ran each version from a time to another, oldest first. Of each step one
// time at most is in the list.
func (tx Tx) Samples(ctx context.Context, app, channel, arch string, from, to time.Time, step time.Duration) ([]Sample, error) {
	return list(ctx, tx.q, "list samples", func(s *Sample, scan func(...any) error) error {
		var at int64
		err := scan(&at, &s.Version, &s.Machines)
		s.At = fromMillis(at)
		return err
	}, `SELECT at, version, sum(n) FROM samples WHERE app = ?1 AND at >= ?2 AND at <= ?3 AND (?4 = '' OR channel = ?4) AND (?5 = '' OR arch = ?5)
		AND at % ?6 < ?7 GROUP BY at, version ORDER BY at, version`,
		app, millis(from), millis(to), channel, arch, step.Milliseconds(), SampleEvery.Milliseconds())
}

// RolloutSample is how far a rollout was at some time.
type RolloutSample struct {
	At                         time.Time
	Reached                    float64 // the share of machines that might have it
	Updating, Complete, Failed int64
}

// LastRolloutSample is when it was noted last how far a rollout is; the zero time where it never was.
func (tx Tx) LastRolloutSample(ctx context.Context, id int64) (time.Time, error) {
	var at int64
	if err := tx.q.row(ctx, "SELECT coalesce(max(at), 0) FROM rollout_samples WHERE rollout = ?", id).Scan(&at); err != nil || at == 0 {
		return time.Time{}, failed("last sample of a rollout", err)
	}
	return fromMillis(at), nil
}

// AddRolloutSample notes how far a rollout is.
func (tx Tx) AddRolloutSample(ctx context.Context, id int64, s *RolloutSample) error {
	_, err := tx.q.exec(ctx, "INSERT INTO rollout_samples (rollout, at, reached, updating, complete, failed) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
		id, millis(s.At), s.Reached, s.Updating, s.Complete, s.Failed)
	return failed("keep a sample of a rollout", err)
}

// RolloutSamples lists how far a rollout was, oldest first.
func (tx Tx) RolloutSamples(ctx context.Context, id int64) ([]RolloutSample, error) {
	return list(ctx, tx.q, "list samples of a rollout", func(s *RolloutSample, scan func(...any) error) error {
		var at int64
		err := scan(&at, &s.Reached, &s.Updating, &s.Complete, &s.Failed)
		s.At = fromMillis(at)
		return err
	}, "SELECT at, reached, updating, complete, failed FROM rollout_samples WHERE rollout = ? ORDER BY at", id)
}
