package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

// maxReason is how long a person's reason may be, in bytes.
const maxReason = 1000

func checkReason(why string) error {
	if len(why) > maxReason {
		return fault.New(fault.Input, "the reason has %d bytes, at most %d are kept", len(why), maxReason)
	}
	return nil
}

func (s *Server) rollouts(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	all, err := s.store.Read().Rollouts(r.Context(), app.ID, false, api.MaxPage)
	if err != nil {
		return err
	}
	out := api.Rollouts{Rollouts: []api.Rollout{}}
	for i := range all {
		out.Rollouts = append(out.Rollouts, s.describe(&all[i]))
	}
	return reply(w, out)
}

func (s *Server) describe(r *fleet.Rollout) api.Rollout {
	return DescribeRollout(r, r.Reached(s.cfg.Now()))
}

// DescribeRollout is a rollout as it is shown. Reached is the share of the machines that may have it now.
func DescribeRollout(r *fleet.Rollout, reached float64) api.Rollout {
	return api.Rollout{
		ID: r.ID, ETag: etag(r.ID, r.State, r.Since.UnixMilli(), r.Why, r.By), Version: r.Version, Channel: r.Channel, Arch: r.Arch, State: string(r.State), Since: r.Since, Why: r.Why, By: r.By, Reached: reached,
		Plan: r.Plan, Counted: r.Counted, Created: r.Created, CreatedBy: r.CreatedBy,
	}
}

// RolloutDetail tells all about a rollout.
func RolloutDetail(ctx context.Context, tx store.Tx, r *fleet.Rollout, reached float64) (api.RolloutDetail, error) {
	out := api.RolloutDetail{Rollout: DescribeRollout(r, reached), Failures: []api.RolloutFailure{}, Preview: []rollout.Point{}}
	steps, err := tx.FailedSteps(ctx, r.ID, r.Created, api.MaxPage)
	if err != nil {
		return out, err
	}
	ids := make([]string, len(steps))
	for i := range steps {
		ids[i] = steps[i].Machine
	}
	aliases := map[string]string{}
	if err := addAliases(ctx, tx, aliases, r.App, ids); err != nil {
		return out, err
	}
	for _, s := range steps {
		out.Failures = append(out.Failures, api.RolloutFailure{Machine: s.Machine, Alias: aliases[s.Machine], Step: string(s.Step), Canary: s.Canary, At: s.Since, Why: s.Why})
	}
	n, err := tx.CountMachines(ctx, r.App, r.Channel, r.Arch)
	if err != nil {
		return out, err
	}
	out.Preview = r.Plan.Preview(n)
	return out, nil
}

// addAliases looks up the names that people gave to machines.
func addAliases(ctx context.Context, tx store.Tx, into map[string]string, app string, ids []string) error {
	machines, err := tx.MachinesByID(ctx, app, ids)
	for i := range machines {
		into[machines[i].ID] = machines[i].Alias
	}
	return err
}

func rolloutID(r *http.Request) (int64, error) {
	id, err := strconv.ParseInt(r.PathValue("id"), 10, 64)
	if err != nil || id < 1 {
		return 0, httpError{http.StatusNotFound, fault.New(fault.Input, "rollout %.40q: want its number", r.PathValue("id"))}
	}
	return id, nil
}

func (s *Server) rollout(w http.ResponseWriter, r *http.Request) error {
	id, err := rolloutID(r)
	if err != nil {
		return err
	}
	ro, err := s.store.Read().Rollout(r.Context(), id)
	if err != nil {
		return err
	}
	out, err := RolloutDetail(r.Context(), s.store.Read(), &ro, ro.Reached(s.cfg.Now()))
	if err != nil {
		return err
	}
	w.Header().Set("ETag", out.ETag)
	return reply(w, out)
}

func (s *Server) planRollout(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	var n api.NewRollout
	if err := read(w, r, &n); err != nil {
		return err
	}
	if n.Arch == "" {
		n.Arch = api.DefaultArch
	}
	ro := fleet.Rollout{App: app.ID, Channel: n.Channel, Arch: n.Arch}
	ro.Plan = n.Plan
	ctx, now := context.WithoutCancel(r.Context()), s.cfg.Now().UTC()
	err = s.store.Write(ctx, func(tx store.Tx) error {
		if err := s.once(ctx, r, tx); err != nil {
			return err
		}
		if err := PlanRollout(ctx, tx, &ro, n.Version, who(r), now); err != nil || !n.Start {
			return err
		}
		var err error
		ro, err = SteerRollout(ctx, tx, ro.ID, "start", "", who(r), now)
		return err
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Info("rollout planned", "rollout", ro.ID, "version", ro.Version, "channel", ro.Channel, "state", ro.State, "by", who(r))
	return reply(w, s.describe(&ro))
}

func (s *Server) steerRollout(w http.ResponseWriter, r *http.Request) error {
	id, err := rolloutID(r)
	if err != nil {
		return err
	}
	var steer api.Steer
	if err := read(w, r, &steer); err != nil {
		return err
	}
	if err := checkReason(steer.Reason); err != nil {
		return err
	}
	var ro fleet.Rollout
	ctx, verb := context.WithoutCancel(r.Context()), r.PathValue("verb")
	err = s.store.Write(ctx, func(tx store.Tx) (err error) {
		if err := s.once(ctx, r, tx); err != nil {
			return err
		}
		if err := unchanged(r, fmt.Sprintf("rollout %d", id), func() (string, error) {
			ro, err := tx.Rollout(ctx, id)
			return DescribeRollout(&ro, 0).ETag, err
		}); err != nil {
			return err
		}
		ro, err = SteerRollout(ctx, tx, id, verb, steer.Reason, who(r), s.cfg.Now().UTC())
		return err
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Info("rollout", "rollout", ro.ID, "version", ro.Version, "channel", ro.Channel, "verb", verb, "state", ro.State, "by", who(r), "reason", steer.Reason)
	return reply(w, s.describe(&ro))
}

// PlanRollout makes a draft of a rollout. Errors are of kind Input.
func PlanRollout(ctx context.Context, tx store.Tx, r *fleet.Rollout, version, who string, now time.Time) error {
	if err := r.Plan.Check(); err != nil {
		return err
	}
	channel, err := tx.Channel(ctx, r.App, r.Channel, r.Arch)
	if err != nil {
		return err
	}
	if r.Release, err = tx.Release(ctx, r.App, r.Arch, version); errors.Is(err, store.ErrNotFound) {
		return conflict("version %q for %s is not published: its files must be there before they are rolled out", version, r.Arch)
	} else if err != nil {
		return err
	}
	if !r.Release.Withdrawn.IsZero() {
		return conflict("%s for %s was withdrawn: %s", version, r.Arch, r.Release.WithdrawnWhy)
	}
	if channel.Release != nil && channel.Release.ID == r.Release.ID {
		return conflict("%s is the release of channel %s already", version, r.Channel)
	}
	switch open, err := tx.OpenRollout(ctx, r.App, r.Channel, r.Arch); {
	case err == nil:
		return conflict("channel %s has a rollout already, %d, of %s, which is %s: abort it first", r.Channel, open.ID, open.Version, open.State)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	if g := r.Plan.Canary.Group; g != "" {
		if _, err := tx.Group(ctx, r.App, g); errors.Is(err, store.ErrNotFound) {
			return conflict("there is no group %s for the canaries: make it first, with its machines", g)
		} else if err != nil {
			return err
		}
	}
	r.Version, r.State, r.Since, r.By, r.Why, r.Created, r.CreatedBy = version, rollout.Draft, now, who, "planned", now, who
	if err := tx.AddRollout(ctx, r); err != nil {
		return err
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "rollout-plan", Subject: subject(r), After: string(r.State) + ": " + r.Plan.Sentence()})
}

// SteerRollout does what a person asks of a rollout: start, pause, resume, abort.
func SteerRollout(ctx context.Context, tx store.Tx, id int64, verb, why, who string, now time.Time) (fleet.Rollout, error) {
	r, err := tx.Rollout(ctx, id)
	if err != nil {
		return r, err
	}
	before := r.State
	switch verb {
	case "start":
		err = r.Start(who, now)
	case "pause":
		err = r.Pause(why, who, now)
	case "resume":
		err = r.Resume(why, who, now)
	case "abort":
		err = r.Abort(why, who, now)
	default:
		return r, httpError{http.StatusNotFound, fault.New(fault.Input, "a rollout can be started, paused, resumed or aborted, and not %q", verb)}
	}
	if err != nil {
		if fault.Is(err, fault.Usage) {
			err = conflict("%w", err)
		}
		return r, err
	}
	if err := tx.PutRollout(ctx, &r); err != nil {
		return r, err
	}
	if err := sampleRollout(ctx, tx, &r, true, now); err != nil {
		return r, err
	}
	return r, auditRollout(ctx, tx, &r, "rollout-"+verb, before, why, who, now)
}

// limitOf is how many entries a request wants at most.
func limitOf(r *http.Request) (int, error) {
	limit, err := strconv.Atoi(query(r, "limit", strconv.Itoa(api.MaxPage)))
	if err != nil || limit < 1 || limit > api.MaxPage {
		return 0, fault.New(fault.Input, "limit %.40q: want a number from 1 to %d", query(r, "limit", ""), api.MaxPage)
	}
	return limit, nil
}
