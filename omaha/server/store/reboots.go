package store

import (
	"context"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
)

// MaxClaims bounds holders and waiting machines of all reboot groups together, and MaxRebootGroups the groups.
const (
	MaxClaims       = 100_000
	MaxRebootGroups = 1000
)

func scanRebootGroup(g *fleet.RebootGroup, scan func(...any) error) error {
	var lease, updated int64
	err := scan(&g.Name, &g.Slots, &lease, &updated)
	g.Lease, g.Updated = time.Duration(lease)*time.Millisecond, fromMillis(updated)
	return err
}

// RebootGroup returns a group, or ErrNotFound.
func (tx Tx) RebootGroup(ctx context.Context, name string) (fleet.RebootGroup, error) {
	var g fleet.RebootGroup
	row := tx.q.row(ctx, "SELECT name, slots, lease, updated FROM reboot_groups WHERE name = ?", name)
	return g, failed("reboot group "+name, scanRebootGroup(&g, row.Scan))
}

// RebootGroups lists all groups by name.
func (tx Tx) RebootGroups(ctx context.Context) ([]fleet.RebootGroup, error) {
	return list(ctx, tx.q, "list reboot groups", scanRebootGroup, "SELECT name, slots, lease, updated FROM reboot_groups ORDER BY name")
}

// PutRebootGroup makes or changes a group.
func (tx Tx) PutRebootGroup(ctx context.Context, g *fleet.RebootGroup) error {
	_, err := tx.q.exec(ctx, `INSERT INTO reboot_groups (name, slots, lease, updated) VALUES (?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET slots = excluded.slots, lease = excluded.lease, updated = excluded.updated`,
		g.Name, g.Slots, g.Lease.Milliseconds(), millis(g.Updated))
	return failed("keep reboot group "+g.Name, err)
}

// RebootClaims lists the holders and the waiting machines of a group, holders first, each in the order of their coming.
func (tx Tx) RebootClaims(ctx context.Context, group string) ([]fleet.RebootClaim, error) {
	return list(ctx, tx.q, "list claims of reboot group "+group, func(c *fleet.RebootClaim, scan func(...any) error) error {
		var since, seen int64
		err := scan(&c.Group, &c.ID, &c.Holds, &since, &seen)
		c.Since, c.Seen = fromMillis(since), fromMillis(seen)
		return err
	}, "SELECT grp, id, holds, since, seen FROM reboot_claims WHERE grp = ? ORDER BY holds DESC, since, id", group)
}

// RebootClaimsDigest is a number that is another one, but for a freak chance, once a slot was given, given back or asked for.
func (tx Tx) RebootClaimsDigest(ctx context.Context) (n int64, err error) {
	row := tx.q.row(ctx, "SELECT count(*) * 1000003 + coalesce(sum(since % 1000003 * (1 + holds)), 0) FROM reboot_claims")
	return n, failed("look at reboot claims", row.Scan(&n))
}

// CountRebootClaims counts the claims of all groups.
func (tx Tx) CountRebootClaims(ctx context.Context) (n int, err error) {
	return n, failed("count reboot claims", tx.q.row(ctx, "SELECT count(*) FROM reboot_claims").Scan(&n))
}

// PutRebootClaim keeps a claim.
func (tx Tx) PutRebootClaim(ctx context.Context, c *fleet.RebootClaim) error {
	_, err := tx.q.exec(ctx, `INSERT INTO reboot_claims (grp, id, holds, since, seen) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (grp, id) DO UPDATE SET holds = excluded.holds, since = excluded.since, seen = excluded.seen`,
		c.Group, c.ID, flag(c.Holds), millis(c.Since), millis(c.Seen))
	return failed("keep the reboot claim of "+c.ID, err)
}

// DeleteRebootClaim forgets a claim, and reports whether there was one.
func (tx Tx) DeleteRebootClaim(ctx context.Context, group, id string) (bool, error) {
	n, err := tx.q.exec(ctx, "DELETE FROM reboot_claims WHERE grp = ? AND id = ?", group, id)
	return n > 0, failed("forget the reboot claim of "+id, err)
}
