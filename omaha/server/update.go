package server

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"mime"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/blobs"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// update answers one Omaha POST.
func (s *Server) update(w http.ResponseWriter, r *http.Request) {
	if !isXML(r.Header.Get("Content-Type")) {
		http.Error(w, "an Omaha request has the content type text/xml", http.StatusUnsupportedMediaType)
		return
	}
	var body bytes.Buffer
	body.Grow(int(min(max(r.ContentLength, 0), s.cfg.MaxRequest, usualRequest)) + bytes.MinRead)
	if _, err := body.ReadFrom(http.MaxBytesReader(w, r.Body, s.cfg.MaxRequest)); err != nil {
		var large *http.MaxBytesError
		if errors.As(err, &large) {
			http.Error(w, "the request is too large", http.StatusRequestEntityTooLarge)
			return
		}
		http.Error(w, "the request could not be read", http.StatusBadRequest)
		return
	}
	req, err := omaha.DecodeRequest(body.Bytes())
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
	outcomes, err := s.decide(req, clientAddress(r), now)
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

// usualRequest is how much is kept ready for a request of which nothing was read yet.
const usualRequest = 4 << 10

// isXML tells whether a body is one, as far as its sender says.
func isXML(contentType string) bool {
	if contentType == "" || contentType == "text/xml" {
		return true
	}
	kind, _, err := mime.ParseMediaType(contentType)
	return err == nil && (kind == "text/xml" || kind == "application/xml")
}

func clientAddress(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return ""
	}
	return host
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
	// Not the request's own context: that ends with the server's time limit for reading a request, which an answer may outlast.
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.Context()))
	defer cancel()
	file, err := s.payloads.File(ctx, f.SHA256, f.Size)
	if err != nil {
		return err
	}
	defer file.Close()
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	h.Set("ETag", `"`+hex.EncodeToString(f.SHA256[:])+`"`)
	http.ServeContent(newStallWriter(w), r, "", time.Time{}, file)
	return nil
}
