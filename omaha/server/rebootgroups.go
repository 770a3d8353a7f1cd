package server

import (
	"context"
	"net/http"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// RebootGroups lists all groups with their machines.
func RebootGroups(ctx context.Context, tx store.Tx, now time.Time) (api.RebootGroups, error) {
	groups, err := tx.RebootGroups(ctx)
	out := api.RebootGroups{Groups: []api.RebootGroup{}}
	for i := range groups {
		g, err := describeRebootGroup(ctx, tx, &groups[i], now)
		if err != nil {
			return out, err
		}
		out.Groups = append(out.Groups, g)
	}
	return out, err
}

func describeRebootGroup(ctx context.Context, tx store.Tx, g *fleet.RebootGroup, now time.Time) (api.RebootGroup, error) {
	out := api.RebootGroup{
		Name: g.Name, ETag: rebootGroupTag(g), Slots: g.Slots, Lease: g.Lease.String(), Holders: []api.RebootClaim{}, Queue: []api.RebootClaim{},
	}
	claims, err := tx.RebootClaims(ctx, g.Name)
	if err != nil || len(claims) == 0 {
		return out, err
	}
	aliases, err := claimAliases(ctx, tx, claims)
	for i := range claims {
		c := api.RebootClaim{Machine: claims[i].ID, Alias: aliases[claims[i].ID], Since: claims[i].Since, Seen: claims[i].Seen}
		switch {
		case g.Expired(&claims[i], now):
		case claims[i].Holds:
			out.Holders = append(out.Holders, c)
		default:
			out.Queue = append(out.Queue, c)
		}
	}
	return out, err
}

// claimAliases are the names of machines with claims. A claim does not tell the application; machines that have several ask as one.
func claimAliases(ctx context.Context, tx store.Tx, claims []fleet.RebootClaim) (map[string]string, error) {
	ids, out := make([]string, len(claims)), map[string]string{}
	for i := range claims {
		ids[i] = claims[i].ID
	}
	apps, err := tx.Applications(ctx)
	for i := range apps {
		if err == nil {
			err = addAliases(ctx, tx, out, apps[i].ID, ids)
		}
	}
	return out, err
}

func rebootGroupTag(g *fleet.RebootGroup) string { return etag(g.Name, g.Slots, g.Lease) }

func (s *Server) rebootGroups(w http.ResponseWriter, r *http.Request) error {
	out, err := RebootGroups(r.Context(), s.store.Read(), s.cfg.Now())
	if err != nil {
		return err
	}
	return reply(w, out)
}

func (s *Server) setRebootGroup(w http.ResponseWriter, r *http.Request) error {
	var set api.SetRebootGroup
	if err := read(w, r, &set); err != nil {
		return err
	}
	slots, lease := -1, time.Duration(-1)
	if set.Slots != nil {
		if slots = *set.Slots; slots < 0 {
			return fault.New(fault.Input, "slots: %d, want 0 or more", slots)
		}
	}
	if set.Lease != nil {
		var err error
		if lease, err = time.ParseDuration(*set.Lease); err != nil || lease < 0 {
			return fault.New(fault.Input, "lease %.40q: want a duration such as 1h, or 0s", *set.Lease)
		}
	}
	name, ctx := r.PathValue("name"), context.WithoutCancel(r.Context())
	var out api.RebootGroup
	err := s.store.Write(ctx, func(tx store.Tx) error {
		if err := unchanged(r, "reboot group "+name, func() (string, error) {
			g, err := tx.RebootGroup(ctx, name)
			return rebootGroupTag(&g), err
		}); err != nil {
			return err
		}
		g, err := SetRebootGroup(ctx, tx, name, slots, lease, who(r), s.cfg.Now().UTC())
		if err != nil {
			return err
		}
		out, err = describeRebootGroup(ctx, tx, &g, s.cfg.Now())
		return err
	})
	if err != nil {
		return err
	}
	return reply(w, out)
}

func (s *Server) releaseReboot(w http.ResponseWriter, r *http.Request) error {
	var given api.Steer
	if err := read(w, r, &given); err != nil {
		return err
	}
	if err := checkReason(given.Reason); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	err := s.store.Write(ctx, func(tx store.Tx) error {
		return ForceRelease(ctx, tx, r.PathValue("name"), r.PathValue("id"), who(r), given.Reason, s.cfg.Now().UTC())
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Warn("reboot slot taken away", "group", r.PathValue("name"), "machine", r.PathValue("id"), "by", who(r), "reason", given.Reason)
	return reply(w, api.Nothing{})
}
