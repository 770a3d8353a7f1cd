package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/freshness"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// What is stored fits into an answer.
const _ = uint(omaha.MaxFreshness - freshness.MaxSize)

func (s *Server) freshness(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	f, err := s.store.Read().Freshness(r.Context(), app.ID, r.PathValue("name"), query(r, "arch", api.DefaultArch))
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(f.Envelope) // whoever left does not miss it
	return nil
}

func (s *Server) putFreshness(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, freshness.MaxSize+1)) // a file ends in a newline
	if err != nil {
		return fault.New(fault.Input, "read the request: %w", err)
	}
	f := fleet.Freshness{
		App: app.ID, Channel: r.PathValue("name"), Arch: query(r, "arch", api.DefaultArch), Envelope: bytes.TrimSuffix(body, []byte("\n")), Stored: s.cfg.Now().UTC(),
	}
	if err := checkFreshness(&f); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	if err := s.store.Write(ctx, func(tx store.Tx) error { return replaceFreshness(ctx, tx, &f, who(r)) }); err != nil {
		return err
	}
	s.cfg.Log.Info("freshness stated", "application", app.Name, "channel", f.Channel, "arch", f.Arch, "version", f.Version, "expires", f.Expires, "sequence", f.Sequence)
	return reply(w, describeFreshness(&f))
}

// checkFreshness fills f from its envelope. Whether it is signed by whom it should be is for the publisher and, whatever the server says, for the machines to
// check; what all of them would refuse is refused here, where the one who made it sees it.
func checkFreshness(f *fleet.Freshness) error {
	claim, err := freshness.Unverified(f.Envelope)
	if err != nil {
		return err
	}
	const layout = "2006-01-02 15:04:05 UTC"
	switch {
	case claim.Channel != f.Channel || claim.Architecture != f.Arch:
		return fault.New(fault.Input, "the freshness statement is about channel %s for %s, not %s for %s", claim.Channel, claim.Architecture, f.Channel, f.Arch)
	case !f.Stored.Before(claim.Expires):
		return fault.New(fault.Input, "the freshness statement expired on %s", claim.Expires.Format(layout))
	case claim.Issued.After(f.Stored.Add(freshness.ClockTolerance)):
		return fault.New(fault.Input, "the freshness statement was issued on %s, and it is %s at this server: one of the two clocks is wrong",
			claim.Issued.Format(layout), f.Stored.Format(layout))
	}
	f.Version, f.Issued, f.Expires, f.Sequence = claim.Version, claim.Issued, claim.Expires, claim.Sequence
	return nil
}

// replaceFreshness keeps a statement that is not older than the one that is there: machines would take it for a replay.
func replaceFreshness(ctx context.Context, tx store.Tx, f *fleet.Freshness, who string) error {
	if _, err := tx.Channel(ctx, f.App, f.Channel, f.Arch); err != nil {
		return err
	}
	before, err := tx.Freshness(ctx, f.App, f.Channel, f.Arch)
	was := "no statement"
	switch {
	case errors.Is(err, store.ErrNotFound):
	case err != nil:
		return err
	case f.Sequence < before.Sequence, f.Issued.Before(before.Issued), f.Sequence == before.Sequence && !sameClaim(f, &before):
		return httpError{http.StatusConflict, fault.New(fault.Input, "channel %s has the freshness statement %d, and %d is not newer", f.Channel, before.Sequence, f.Sequence)}
	case bytes.Equal(f.Envelope, before.Envelope): // it was brought again
		return nil
	default:
		was = stated(&before)
	}
	if err := tx.PutFreshness(ctx, f); err != nil {
		return err
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: f.Stored, Who: who, What: "channel-freshness", Subject: channelSubject(f.Channel, f.Arch), Before: was, After: stated(f)})
}

// stated says in the audit log what a statement claims.
func stated(f *fleet.Freshness) string {
	return fmt.Sprintf("%s is the newest until %s (%d)", f.Version, f.Expires.UTC().Format(time.RFC3339), f.Sequence)
}

// sameClaim reports whether two envelopes hold the same statement, whoever signed it.
func sameClaim(a, b *fleet.Freshness) bool {
	return a.Version == b.Version && a.Issued.Equal(b.Issued) && a.Expires.Equal(b.Expires)
}

// freshnessMetrics writes until when each channel's statement counts, so that somebody is called before machines complain.
func (s *Server) freshnessMetrics(ctx context.Context, w io.Writer) error {
	tx := s.store.Read()
	all, err := tx.AllFreshness(ctx)
	if err != nil || len(all) == 0 {
		return err
	}
	apps, err := tx.Applications(ctx)
	if err != nil {
		return err
	}
	names := map[string]string{}
	for _, a := range apps {
		names[a.ID] = a.Name
	}
	const name = "semper_freshness_expires_timestamp_seconds"
	fmt.Fprintf(w, "# HELP %s When the channel's freshness statement expires.\n# TYPE %s gauge\n", name, name)
	for i := range all {
		f := &all[i]
		fmt.Fprintf(w, "%s{app=%q,channel=%q,arch=%q} %d\n", name, names[f.App], f.Channel, f.Arch, f.Expires.Unix())
	}
	return nil
}
