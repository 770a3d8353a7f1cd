package server

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/blobs"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// update answers one Omaha POST.
func (s *Server) update(w http.ResponseWriter, r *http.Request) {
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if r.Header.Get("Content-Type") != "" && (err != nil || kind != "text/xml" && kind != "application/xml") {
		http.Error(w, "an Omaha request has the content type text/xml", http.StatusUnsupportedMediaType)
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, s.cfg.MaxRequest))
	if err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			http.Error(w, "the request is too large", http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, "the request could not be read", http.StatusBadRequest)
		return
	}
	req, err := omaha.DecodeRequest(body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	base, err := s.base(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	now := s.cfg.Now().UTC()
	outcomes, err := s.decide(r.Context(), req, clientAddress(r), now)
	if err != nil {
		s.cfg.Log.Error("a machine's request could not be recorded", "error", err)
		w.Header().Set("Retry-After", "60")
		http.Error(w, "the server cannot record this now; ask again later", http.StatusServiceUnavailable)
		return
	}
	for i := range outcomes {
		s.note(&outcomes[i])
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	_, _ = w.Write(s.response(outcomes, base, now).Encode()) // a machine that left asks again
}

func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
}

// outcome is what one application's part of a request leads to.
type outcome struct {
	app      *omaha.AppRequest
	status   omaha.AppStatus
	machine  fleet.Machine
	changed  bool // more than when it was seen
	granted  bool // a new grant
	events   []fleet.Event
	failures []fleet.Failure // new ones
	decision *fleet.Decision // of an update check
	course   course          // the rollout that it is part of
	left     course          // the one of the channel that it followed before
	fresh    string          // the freshness statement of the machine's channel
}

// decide finds out what a request leads to, and has it on disk when it returns. A request that changes nothing but when the machine was
// seen, the usual one, takes no write.
func (s *Server) decide(ctx context.Context, req *omaha.Request, address string, now time.Time) ([]outcome, error) {
	p, usual := s.memo.of(req, s.store.Changes())
	if usual {
		if a := s.memo.recall(p); a != nil {
			o := a.outcome(req, address, now)
			s.store.Touch(o.machine.App, o.machine.ID, address, now)
			return []outcome{o}, nil
		}
	}
	outcomes, changed, err := evaluate(ctx, s.store.Read(), req, address, now)
	if err != nil {
		return nil, err
	}
	if !changed {
		if usual {
			if a, ok := outcomes[0].memorable(); ok {
				s.memo.keep(p, a)
			}
		}
		for i := range outcomes {
			if m := &outcomes[i].machine; m.ID != "" {
				s.store.Touch(m.App, m.ID, m.Address, m.LastSeen)
			}
		}
		return outcomes, nil
	}
	// What was just read may be stale by now: the writer decides again, alone.
	ctx = context.WithoutCancel(ctx)
	err = s.store.Write(ctx, func(tx store.Tx) error {
		if outcomes, _, err = evaluate(ctx, tx, req, address, now); err != nil {
			return err
		}
		for i := range outcomes {
			if err := outcomes[i].keep(ctx, tx); err != nil {
				return err
			}
		}
		return nil
	})
	for i := range outcomes {
		s.memo.forget(outcomes[i].machine.App, outcomes[i].machine.ID)
	}
	return outcomes, err
}

func evaluate(ctx context.Context, tx store.Tx, req *omaha.Request, address string, now time.Time) (out []outcome, changed bool, err error) {
	for i := range req.Apps {
		o, err := evaluateApp(ctx, tx, req, &req.Apps[i], address, now)
		if err != nil {
			return nil, false, err
		}
		out = append(out, o)
		changed = changed || o.changed
	}
	return out, changed, nil
}

func evaluateApp(ctx context.Context, tx store.Tx, req *omaha.Request, app *omaha.AppRequest, address string, now time.Time) (outcome, error) {
	o := outcome{app: app, status: omaha.AppOK}
	if app.ID == "" {
		o.status = omaha.AppInvalidID
		return o, nil
	}
	known, err := tx.Application(ctx, normalAppID(app.ID))
	if errors.Is(err, store.ErrNotFound) {
		o.status = omaha.AppUnknown
		return o, nil
	}
	if err != nil {
		return o, err
	}
	before, err := tx.Machine(ctx, known.ID, req.Machine(app))
	switch {
	case errors.Is(err, store.ErrNotFound):
		before = fleet.Machine{State: fleet.Unknown, StateSince: now, FirstSeen: now}
	case err != nil:
		return o, err
	}
	m := &o.machine
	*m = before
	m.App, m.ID, m.Alias, m.Arch, m.Version, m.Channel = known.ID, req.Machine(app), app.MachineAlias, req.Arch(app), app.Version, app.Track
	m.BootID, m.Platform, m.FirstVersion, m.Retired = app.BootID, app.OEM, app.AlephVersion, time.Time{}

	for _, e := range app.Events {
		if e.Idle() {
			continue
		}
		o.events = append(o.events, fleet.Event{Event: e, At: now, Version: app.Version})
		if f := m.Advance(e, now); f != nil {
			o.failures = append(o.failures, *f)
		}
	}
	if err := o.course.load(ctx, tx, m); err != nil {
		return o, err
	}
	if before.ID != "" && (before.Channel != m.Channel || before.Arch != m.Arch) {
		if err := o.left.load(ctx, tx, &before); err != nil {
			return o, err
		}
		o.left.leave(now)
	}
	if f := o.course.cameBack(m, &before, o.failures, now); f != nil {
		o.failures = append(o.failures, *f)
	} else {
		o.course.heard(m, &before, now)
	}
	if len(o.events) > 0 || len(o.failures) > 0 {
		o.course.after(m, o.failures, now)
	}
	if app.UpdateCheck {
		if err := o.check(ctx, tx, now); err != nil {
			return o, err
		}
	}
	o.changed = m.ID != "" && (*m != before || len(o.events) > 0 || o.course.changed || o.left.changed)
	m.Address, m.LastSeen = address, now
	return o, nil
}

// check decides on a machine's update check.
func (o *outcome) check(ctx context.Context, tx store.Tx, now time.Time) error {
	q, err := question(ctx, tx, &o.machine, &o.course, o.failures, now)
	if err != nil {
		return err
	}
	d := fleet.Decide(q)
	o.decision = &d
	switch f, err := tx.Freshness(ctx, o.machine.App, o.machine.Channel, o.machine.Arch); {
	case err == nil:
		o.fresh = string(f.Envelope)
	case !errors.Is(err, store.ErrNotFound):
		return err
	}
	if d.Offer != nil {
		o.granted = o.machine.Grant(d.Offer.Version, now)
	}
	o.course.decided(&d, q, now)
	return nil
}

// question gathers what fleet.Decide needs to know. Fresh are failures that are not on record yet.
func question(ctx context.Context, tx store.Tx, m *fleet.Machine, c *course, fresh []fleet.Failure, now time.Time) (*fleet.Question, error) {
	q := &fleet.Question{Machine: m, Rollout: c.rollout, Step: c.step.Step, Now: now}
	channel, err := tx.Channel(ctx, m.App, m.Channel, m.Arch)
	switch {
	case err == nil:
		q.Channel = &channel
	case !errors.Is(err, store.ErrNotFound):
		return nil, err
	}
	failures, err := tx.Failures(ctx, m.App, m.ID)
	if err != nil {
		return nil, err
	}
	q.Failures = append(fresh, failures...)
	if q.Marked, err = tx.MarkedReleases(ctx, m.App, m.Arch); err != nil {
		return nil, err
	}
	if q.Pin, err = tx.Pin(ctx, m.App, m.ID); err != nil {
		return nil, err
	}
	if q.Pin != nil && q.Pin.Version != "" {
		release, err := tx.Release(ctx, m.App, m.Arch, q.Pin.Version)
		switch {
		case err == nil:
			q.Pinned = &release
		case !errors.Is(err, store.ErrNotFound):
			return nil, err
		}
	}
	if q.Rollout != nil {
		q.Group, err = tx.GroupOf(ctx, m.App, m.ID)
	}
	return q, err
}

// keep puts an outcome on record.
func (o *outcome) keep(ctx context.Context, tx store.Tx) error {
	m := &o.machine
	if o.status != omaha.AppOK || m.ID == "" {
		return nil
	}
	if err := tx.PutMachine(ctx, m); err != nil {
		return err
	}
	for i := range o.events {
		if err := tx.AddEvent(ctx, m.App, m.ID, &o.events[i]); err != nil {
			return err
		}
	}
	for i := range o.failures {
		if err := tx.AddFailure(ctx, m.App, m.ID, &o.failures[i]); err != nil {
			return err
		}
	}
	if err := o.left.keep(ctx, tx, m.LastSeen); err != nil {
		return err
	}
	return o.course.keep(ctx, tx, m.LastSeen)
}

// normalAppID brings an id into the form in which it is kept; clients write it with and without braces, in both cases.
func normalAppID(id string) string {
	return "{" + strings.ToLower(strings.Trim(id, "{}")) + "}"
}

// response puts outcomes into words.
func (s *Server) response(outcomes []outcome, base *url.URL, now time.Time) *omaha.Response {
	res := &omaha.Response{Server: "semper", ElapsedSeconds: now.Hour()*3600 + now.Minute()*60 + now.Second()}
	room := omaha.MaxResponseSize / 2 // for freshness statements
	for i := range outcomes {
		o := &outcomes[i]
		app := omaha.AppResponse{ID: o.app.ID, Status: o.status}
		if o.status == omaha.AppOK {
			app.Ping, app.Events = o.app.Ping, len(o.app.Events)
			if o.decision != nil {
				app.UpdateCheck = s.updateResponse(o.decision, base)
				if len(o.fresh) <= room { // many applications in one request, all with large statements, would make an answer that nobody reads
					app.UpdateCheck.Freshness = o.fresh
					room -= len(o.fresh)
				}
			}
		}
		res.Apps = append(res.Apps, app)
	}
	return res
}

func (s *Server) updateResponse(d *fleet.Decision, base *url.URL) *omaha.UpdateResponse {
	if d.Offer == nil {
		return &omaha.UpdateResponse{Status: omaha.NoUpdate, PollInterval: s.cfg.PollInterval, Reason: d.Reason}
	}
	f := &d.Offer.Payload
	sum := hex.EncodeToString(f.SHA256[:])
	urls := d.Offer.URLs
	if len(urls) == 0 {
		for _, from := range append(slices.Clone(s.payloadURLs), base) {
			urls = append(urls, from.JoinPath("payloads", sum).String()+"/")
		}
	}
	return &omaha.UpdateResponse{
		Status:       omaha.UpdateAvailable,
		PollInterval: s.cfg.PollInterval,
		URLs:         urls,
		Manifest: &omaha.Manifest{
			Version:  d.Offer.Version,
			Packages: []omaha.Package{{Name: f.Name, SHA1: base64.StdEncoding.EncodeToString(f.SHA1[:]), SHA256: sum, Size: f.Size, Required: true}},
			Actions: []omaha.Action{{
				Event: omaha.PostInstall, SHA256: base64.StdEncoding.EncodeToString(f.SHA256[:]),
				// A client's own backoff of days would hide from the fleet's operator what the server decides.
				DisablePayloadBackoff: true,
			}},
		},
	}
}

// note logs and counts an outcome, once it is on disk.
func (s *Server) note(o *outcome) {
	m := &o.machine
	for i := range o.events {
		e := &o.events[i]
		s.metrics.add("semper_server_events_total", "type", e.Type.String(), "result", e.Result.String())
		s.cfg.Log.Info("event", "machine", m.ID, "alias", m.Alias, "version", e.Version, "event", e.Sentence())
	}
	for i := range o.failures {
		s.cfg.Log.Warn("version failed and is offered to this machine no more", "machine", m.ID, "alias", m.Alias,
			"failed", o.failures[i].Version, "reason", o.failures[i].Reason)
	}
	if o.decision != nil {
		s.metrics.add("semper_server_checks_total", "decision", string(o.decision.Cause))
		if o.granted {
			s.cfg.Log.Info("granted", "machine", m.ID, "alias", m.Alias, "version", m.Version, "granted", o.decision.Offer.Version)
		} else {
			s.cfg.Log.Debug("check", "machine", m.ID, "alias", m.Alias, "version", m.Version, "reason", o.decision.Reason)
		}
	}
	o.course.note(s.cfg.Log)
	if o.status == omaha.AppUnknown {
		s.cfg.Log.Warn("unknown application", "application", o.app.ID, "machine", o.app.MachineID)
	}
}

// payload serves a release's file.
func (s *Server) payload(w http.ResponseWriter, r *http.Request) {
	sum, err := blobs.ParseSum(r.PathValue("sha256"))
	if err != nil {
		http.NotFound(w, r)
		return
	}
	f, withdrawn, err := s.store.Read().Payload(r.Context(), sum, r.PathValue("name"))
	if errors.Is(err, store.ErrNotFound) {
		http.NotFound(w, r)
		return
	}
	if err == nil && withdrawn {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "the release of this payload was withdrawn", http.StatusGone)
		return
	}
	if err == nil {
		err = s.serveFile(w, r, f)
	}
	if err != nil {
		s.cfg.Log.Error("payload cannot be served", "sha256", r.PathValue("sha256"), "error", err)
		http.Error(w, "the payload cannot be read now", http.StatusServiceUnavailable)
	}
}

func (s *Server) serveFile(w http.ResponseWriter, r *http.Request, f fleet.File) error {
	file, err := s.payloads.File(f.SHA256)
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return fault.Wrap(fault.IO, err)
	}
	if info.Size() != f.Size {
		return fault.New(fault.IO, "the file on disk has %d bytes instead of %d", info.Size(), f.Size)
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("ETag", `"`+hex.EncodeToString(f.SHA256[:])+`"`)
	http.ServeContent(newStallWriter(w), r, "", time.Time{}, file)
	return nil
}
