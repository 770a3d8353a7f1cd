package store

import (
	"context"
	"math"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/fleet"
)

const freshnessColumns = "app, channel, arch, envelope, version, issued, expires, sequence, stored_at"

func scanFreshness(f *fleet.Freshness, scan func(...any) error) error {
	var issued, expires, sequence, stored int64
	err := scan(&f.App, &f.Channel, &f.Arch, &f.Envelope, &f.Version, &issued, &expires, &sequence, &stored)
	f.Issued, f.Expires, f.Sequence, f.Stored = fromMillis(issued), fromMillis(expires), uint64(sequence), fromMillis(stored)
	return err
}

// Freshness returns a channel's freshness statement, or ErrNotFound.
func (tx Tx) Freshness(ctx context.Context, app, channel, arch string) (fleet.Freshness, error) {
	var f fleet.Freshness
	row := tx.q.row(ctx, "SELECT "+freshnessColumns+" FROM freshness WHERE app = ? AND channel = ? AND arch = ?", app, channel, arch)
	return f, failed("freshness of channel "+channel+" for "+arch, scanFreshness(&f, row.Scan))
}

// AllFreshness lists the freshness statements of all channels.
func (tx Tx) AllFreshness(ctx context.Context) ([]fleet.Freshness, error) {
	return list(ctx, tx.q, "list freshness", scanFreshness, "SELECT "+freshnessColumns+" FROM freshness ORDER BY app, channel, arch")
}

// FreshnessDigest is a number that is another one, but for a freak chance, once something was stated.
func (tx Tx) FreshnessDigest(ctx context.Context) (n int64, err error) {
	row := tx.q.row(ctx, "SELECT count(*) * 1000003 + coalesce(sum(stored_at % 1000003), 0) FROM freshness")
	return n, failed("look at freshness", row.Scan(&n))
}

// PutFreshness replaces a channel's freshness statement.
func (tx Tx) PutFreshness(ctx context.Context, f *fleet.Freshness) error {
	if f.Sequence > math.MaxInt64 {
		return fault.New(fault.Input, "freshness of channel %s: the number %d is too large", f.Channel, f.Sequence)
	}
	_, err := tx.q.exec(ctx, "INSERT INTO freshness ("+freshnessColumns+`) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (app, channel, arch) DO UPDATE SET envelope = excluded.envelope, version = excluded.version, issued = excluded.issued, expires = excluded.expires,
		sequence = excluded.sequence, stored_at = excluded.stored_at`,
		f.App, f.Channel, f.Arch, f.Envelope, f.Version, millis(f.Issued), millis(f.Expires), int64(f.Sequence), millis(f.Stored))
	return failed("keep the freshness of channel "+f.Channel, err)
}
