package server

import (
	"context"
	"encoding/hex"
	"net/http"
	"strconv"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

func (s *Server) audit(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	before, err := strconv.ParseInt(query(r, "before", "0"), 10, 64)
	if err != nil || before < 0 {
		return fault.New(fault.Input, "before %.40q: want the next of the page before", query(r, "before", ""))
	}
	text, err := textOf(r)
	if err != nil {
		return err
	}
	log, next, err := s.store.Read().Audits(r.Context(), before, text, limit)
	if err != nil {
		return err
	}
	out := api.Audits{Entries: []api.Audit{}, Next: next}
	for _, a := range log {
		out.Entries = append(out.Entries, api.Audit(a))
	}
	return reply(w, out)
}

// maxText is how long a text may be that is searched for, in bytes.
const maxText = 200

// textOf is the text that a request searches for.
func textOf(r *http.Request) (string, error) {
	text := query(r, "text", "")
	if len(text) > maxText {
		return "", fault.New(fault.Input, "text: %d bytes, at most %d are searched for", len(text), maxText)
	}
	return text, nil
}

// Before and After of an entry are words and never a bare number: the console takes what is JSON apart, and 1.10 is a version.

// itself is in the audit log for what rollouts change by themselves, and for what was made before there was anybody.
const itself = "semper-server"

// subject is a rollout's name in the audit log.
func subject(r *fleet.Rollout) string {
	return "rollout " + strconv.FormatInt(r.ID, 10) + " of " + r.Version + " in " + r.Channel + " for " + r.Arch
}

// releaseSubject is a release's name in the audit log.
func releaseSubject(r *fleet.Release) string { return r.Version + " for " + r.Arch }

// channelSubject is a channel's name in the audit log.
func channelSubject(name, arch string) string { return "channel " + name + " for " + arch }

// because adds a reason, where there is one.
func because(what, why string) string {
	if why == "" {
		return what
	}
	return what + ": " + why
}

// auditRollout puts on record that a rollout is in another state.
func auditRollout(ctx context.Context, tx store.Tx, r *fleet.Rollout, what string, before rollout.State, why, who string, now time.Time) error {
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: what, Subject: subject(r), Detail: why, Before: string(before), After: string(r.State)})
}

// auditChannel puts on record that a channel has another release.
func auditChannel(ctx context.Context, tx store.Tx, before *fleet.Channel, release *fleet.Release, why, who string, now time.Time) error {
	was := "offers nothing"
	if before.Release != nil {
		was = "offers " + before.Release.Version
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "channel-set", Subject: channelSubject(before.Name, before.Arch), Detail: why, Before: was, After: "offers " + release.Version})
}

// auditRelease puts on record that a release was published.
func auditRelease(ctx context.Context, tx store.Tx, r *fleet.Release, who string) error {
	payload := "payload " + hex.EncodeToString(r.Payload.SHA256[:])
	if len(r.URLs) > 0 {
		payload = "payload at " + r.URLs[0] + r.Payload.Name
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: r.Published, Who: who, What: "release-publish", Subject: releaseSubject(r), Detail: payload, After: "published"})
}
