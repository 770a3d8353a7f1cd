package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// FleetLock, the protocol of Zincati, airlock and Semper's agent: a machine asks for a slot before it reboots, again while it is on its way, and gives it back when it
// is healthy. What is answered is on disk before.

const maxLockRequest = 16 << 10

// lockRefusal is FleetLock's error body.
type lockRefusal struct {
	Kind  string `json:"kind"`
	Value string `json:"value"`
}

func (s *Server) lockRoutes(mux *http.ServeMux) {
	mux.HandleFunc("POST /v1/pre-reboot", s.fleetLock(claimSlot))
	mux.HandleFunc("POST /v1/steady-state", s.fleetLock(releaseSlot))
}

// lockCall does one request, in a transaction. The refusal is nil when it is done.
type lockCall func(ctx context.Context, tx store.Tx, g *fleet.RebootGroup, id string, now time.Time) (*lockRefusal, error)

func (s *Server) fleetLock(call lockCall) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		refuse := func(status int, kind, value string) {
			s.metrics.add("semper_server_reboot_locks_total", "call", r.URL.Path, "answer", kind)
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			_ = json.NewEncoder(w).Encode(lockRefusal{kind, value})
		}
		if r.Header.Get("fleet-lock-protocol") != "true" {
			refuse(http.StatusBadRequest, "missing_protocol_header", "the header \"fleet-lock-protocol: true\" is missing")
			return
		}
		var body struct {
			Params struct {
				ID    string `json:"id"`
				Group string `json:"group"`
			} `json:"client_params"`
		}
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxLockRequest))
		if err := d.Decode(&body); err != nil {
			refuse(http.StatusBadRequest, "invalid_request", "the body is not a FleetLock request: "+err.Error())
			return
		}
		if _, err := d.Token(); !errors.Is(err, io.EOF) {
			refuse(http.StatusBadRequest, "invalid_request", "there is something behind the request")
			return
		}
		group, id := body.Params.Group, body.Params.ID
		if err := fleet.CheckClaim(group, id); err != nil {
			refuse(http.StatusBadRequest, "invalid_client_identity", err.Error())
			return
		}
		now := s.cfg.Now().UTC()
		var refusal *lockRefusal
		ctx := context.WithoutCancel(r.Context())
		err := s.store.Write(ctx, func(tx store.Tx) error {
			g, err := tx.RebootGroup(ctx, group)
			if errors.Is(err, store.ErrNotFound) {
				refusal = &lockRefusal{"unknown_group", fmt.Sprintf("there is no reboot group %s; an operator makes it with 'semper-server reboots set %s --slots 1'", group, group)}
				return nil
			}
			if err != nil {
				return err
			}
			refusal, err = call(ctx, tx, &g, id, now)
			return err
		})
		switch {
		case err != nil:
			s.cfg.Log.Error("reboot lock", "path", r.URL.Path, "group", group, "machine", id, "error", err)
			refuse(http.StatusServiceUnavailable, "failed_sem", "the server cannot record this now; ask again later")
		case refusal != nil && refusal.Kind == "unknown_group":
			refuse(http.StatusBadRequest, refusal.Kind, refusal.Value)
		case refusal != nil:
			s.cfg.Log.Info("reboot refused", "group", group, "machine", id, "reason", refusal.Value)
			refuse(http.StatusConflict, refusal.Kind, refusal.Value)
		default:
			s.metrics.add("semper_server_reboot_locks_total", "call", r.URL.Path, "answer", "done")
			s.cfg.Log.Info("reboot lock", "call", r.URL.Path, "group", group, "machine", id)
			w.WriteHeader(http.StatusOK)
		}
	}
}

func claimSlot(ctx context.Context, tx store.Tx, g *fleet.RebootGroup, id string, now time.Time) (*lockRefusal, error) {
	claims, err := tx.RebootClaims(ctx, g.Name)
	if err != nil {
		return nil, err
	}
	known := false
	for i := range claims {
		known = known || claims[i].ID == id
		if g.Expired(&claims[i], now) && claims[i].ID != id {
			if _, err := tx.DeleteRebootClaim(ctx, g.Name, claims[i].ID); err != nil {
				return nil, err
			}
		}
	}
	if !known {
		n, err := tx.CountRebootClaims(ctx)
		if err != nil {
			return nil, err
		}
		if n >= store.MaxClaims { // whoever asks may name any id
			return &lockRefusal{"failed_lock", fmt.Sprintf("%d machines hold or wait for slots, and no more are remembered", n)}, nil
		}
	}
	mine, held, why := g.Claim(claims, id, now)
	if err := tx.PutRebootClaim(ctx, &mine); err != nil {
		return nil, err
	}
	if !held {
		return &lockRefusal{"failed_lock_semaphore_full", why}, nil
	}
	return nil, nil
}

func releaseSlot(ctx context.Context, tx store.Tx, g *fleet.RebootGroup, id string, _ time.Time) (*lockRefusal, error) {
	_, err := tx.DeleteRebootClaim(ctx, g.Name, id)
	return nil, err
}

// SetRebootGroup makes or changes a group, and puts it on record. Values below 0 leave what is there: of a new group, one slot and an hour.
func SetRebootGroup(ctx context.Context, tx store.Tx, name string, slots int, lease time.Duration, who string, now time.Time) (fleet.RebootGroup, error) {
	g, err := tx.RebootGroup(ctx, name)
	before := slotsOf(&g)
	if errors.Is(err, store.ErrNotFound) {
		before = ""
		all, listErr := tx.RebootGroups(ctx)
		if listErr != nil {
			return g, listErr
		}
		if len(all) >= store.MaxRebootGroups {
			return g, fault.New(fault.Input, "there are %d reboot groups, no more are allowed", len(all))
		}
		g, err = fleet.RebootGroup{Name: name, Slots: 1, Lease: time.Hour}, nil
	}
	if err != nil {
		return g, err
	}
	if slots >= 0 {
		g.Slots = slots
	}
	if lease >= 0 {
		g.Lease = lease
	}
	g.Updated = now
	if err := g.Check(); err != nil {
		return g, err
	}
	if err := tx.PutRebootGroup(ctx, &g); err != nil {
		return g, err
	}
	return g, tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "reboot-group", Subject: name, Before: before, After: slotsOf(&g)})
}

func slotsOf(g *fleet.RebootGroup) string { return fmt.Sprintf("%d slots, lease %s", g.Slots, g.Lease) }

// ForceRelease takes a machine's slot away, and puts it on record.
func ForceRelease(ctx context.Context, tx store.Tx, group, id, who, why string, now time.Time) error {
	claims, err := tx.RebootClaims(ctx, group)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(claims, func(c fleet.RebootClaim) bool { return c.ID == id })
	if at < 0 {
		return fault.New(fault.Input, "machine %.128q neither holds nor waits for a slot of reboot group %.64q: %w", id, group, store.ErrNotFound)
	}
	if _, err := tx.DeleteRebootClaim(ctx, group, id); err != nil {
		return err
	}
	before := "waits for a slot"
	if claims[at].Holds {
		before = "holds a slot"
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "reboot-release", Subject: group + "/" + id, Detail: why, Before: before, After: "neither holds nor waits"})
}
