package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/store"
)

func (s *Server) previewRollout(w http.ResponseWriter, r *http.Request) error {
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
	out, err := PreviewRollout(r.Context(), s.store.Read(), app.ID, &n)
	if err != nil {
		return err
	}
	return reply(w, out)
}

// PreviewRollout tells what a rollout would do. A plan that makes no sense is an error; what stands against it only now is a warning.
func PreviewRollout(ctx context.Context, tx store.Tx, app string, n *api.NewRollout) (api.Preview, error) {
	out := api.Preview{Warnings: []string{}}
	if err := n.Plan.Check(); err != nil {
		return out, err
	}
	warn := func(format string, args ...any) { out.Warnings = append(out.Warnings, fmt.Sprintf(format, args...)) }
	if _, err := tx.Channel(ctx, app, n.Channel, n.Arch); err != nil {
		return out, err
	}
	switch r, err := tx.Release(ctx, app, n.Arch, n.Version); {
	case errors.Is(err, store.ErrNotFound):
		return out, fault.New(fault.Input, "version %.100q for %s: %w", n.Version, n.Arch, store.ErrNotFound)
	case err != nil:
		return out, err
	case !r.Withdrawn.IsZero():
		warn("%s was withdrawn: %s", r.Version, r.WithdrawnWhy)
	}
	switch open, err := tx.OpenRollout(ctx, app, n.Channel, n.Arch); {
	case err == nil:
		warn("rollout %d of %s is under way in channel %s: it must be over first", open.ID, open.Version, n.Channel)
	case !errors.Is(err, store.ErrNotFound):
		return out, err
	}
	var err error
	if out.Machines, err = tx.CountMachines(ctx, app, n.Channel, n.Arch); err != nil {
		return out, err
	}
	if out.Machines == 0 {
		warn("no machine follows channel %s for %s", n.Channel, n.Arch)
	}
	p := &n.Plan
	if p.Canary.Group == "" {
		warn("nobody tries it first: the plan has no canaries")
	} else if g, err := tx.Group(ctx, app, p.Canary.Group); errors.Is(err, store.ErrNotFound) {
		warn("there is no group %s for the canaries", p.Canary.Group)
	} else if err != nil {
		return out, err
	} else if out.Canaries = g.Members; g.Members == 0 {
		warn("group %s has no machines: nobody tries it first", g.Name)
	}
	if p.Halt.Failures == 0 && p.Halt.Percent == 0 {
		warn("it does not stop itself, however many machines fail: the plan has no threshold")
	}
	if len(p.Waves) == 0 && p.Ramp.Over == 0 {
		warn("all machines may have it at once")
	}
	out.Points = p.Preview(out.Machines)
	return out, nil
}
