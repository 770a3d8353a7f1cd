package server

import (
	"context"
	"net/http"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
	"github.com/semper-os/semper/omaha/server/webhooks"
)

// WithdrawRelease takes a release back: from its answer on nobody is offered it or served its payload, and its rollouts are over. Machines that have it keep it.
func WithdrawRelease(ctx context.Context, tx store.Tx, app, arch, version, why, who string, now time.Time) (fleet.Release, error) {
	r, err := tx.Release(ctx, app, arch, version)
	if err != nil {
		return r, err
	}
	if why == "" {
		return r, fault.New(fault.Input, "withdraw %s: machines and people are told why; give a reason", version)
	}
	if !r.Withdrawn.IsZero() {
		return r, conflict("%s for %s was withdrawn on %s already: %s", version, arch, r.Withdrawn.UTC().Format(time.RFC3339), r.WithdrawnWhy)
	}
	before := withdrawn(&r)
	if err := tx.Withdraw(ctx, r.ID, now, why); err != nil {
		return r, err
	}
	r.Withdrawn, r.WithdrawnWhy = now, why
	open, err := tx.Rollouts(ctx, app, true, maxOpenRollouts)
	if err != nil {
		return r, err
	}
	for i := range open {
		if open[i].Release.ID != r.ID || open[i].State == rollout.Draft {
			continue
		}
		if _, err := SteerRollout(ctx, tx, open[i].ID, "abort", "the release was withdrawn: "+why, who, now); err != nil {
			return r, err
		}
	}
	if err := tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "release-withdraw", Subject: releaseSubject(&r), Before: before, After: withdrawn(&r)}); err != nil {
		return r, err
	}
	about := alertAbout{App: app, Version: version, Arch: arch, Reason: why, Page: "/releases/" + arch + "/" + version}
	return r, announce(ctx, tx, webhooks.Withdrawn, about, now)
}

// RestoreRelease undoes WithdrawRelease, but for the rollouts.
func RestoreRelease(ctx context.Context, tx store.Tx, app, arch, version, why, who string, now time.Time) (fleet.Release, error) {
	r, err := tx.Release(ctx, app, arch, version)
	if err != nil {
		return r, err
	}
	if r.Withdrawn.IsZero() {
		return r, conflict("%s for %s is not withdrawn", version, arch)
	}
	before := withdrawn(&r)
	if err := tx.Withdraw(ctx, r.ID, time.Time{}, ""); err != nil {
		return r, err
	}
	r.Withdrawn, r.WithdrawnWhy = time.Time{}, ""
	return r, tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "release-restore", Subject: releaseSubject(&r), Detail: why, Before: before, After: withdrawn(&r)})
}

// withdrawn says in the audit log whether a release is, and why.
func withdrawn(r *fleet.Release) string {
	if r.Withdrawn.IsZero() {
		return "can be offered"
	}
	return because("withdrawn", r.WithdrawnWhy)
}

func (s *Server) withdraw(w http.ResponseWriter, r *http.Request) error {
	return s.changeRelease(w, r, WithdrawRelease)
}

func (s *Server) restore(w http.ResponseWriter, r *http.Request) error {
	return s.changeRelease(w, r, RestoreRelease)
}

func (s *Server) changeRelease(w http.ResponseWriter, r *http.Request,
	change func(ctx context.Context, tx store.Tx, app, arch, version, why, who string, now time.Time) (fleet.Release, error),
) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	var given api.Steer
	if err := read(w, r, &given); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	var release fleet.Release
	err = s.store.Write(ctx, func(tx store.Tx) (err error) {
		if err := releaseUnchanged(ctx, r, tx, app.ID); err != nil {
			return err
		}
		release, err = change(ctx, tx, app.ID, query(r, "arch", api.DefaultArch), r.PathValue("version"), given.Reason, who(r), s.cfg.Now().UTC())
		return err
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Warn("release changed", "application", app.Name, "version", release.Version, "arch", release.Arch, "withdrawn", !release.Withdrawn.IsZero(), "reason", given.Reason)
	return reply(w, describeRelease(&release))
}

// releaseUnchanged is unchanged for the release that a request is about.
func releaseUnchanged(ctx context.Context, r *http.Request, tx store.Tx, app string) error {
	version := r.PathValue("version")
	return unchanged(r, "release "+version, func() (string, error) {
		release, err := tx.Release(ctx, app, query(r, "arch", api.DefaultArch), version)
		return describeRelease(&release).ETag, err
	})
}
