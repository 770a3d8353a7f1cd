package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzhttp"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/api/openapi"
	"github.com/semper-os/semper/omaha/server/blobs"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// handler answers an operation of the REST interface.
type handler func(http.ResponseWriter, *http.Request) error

// handlers has one for each of api.Operations, by its name.
func (s *Server) handlers() map[string]handler {
	return map[string]handler{
		"Applications":   s.applications,
		"Channels":       s.channels,
		"SetChannel":     s.setChannel,
		"Freshness":      s.freshness,
		"PutFreshness":   s.putFreshness,
		"Releases":       s.releases,
		"Release":        s.release,
		"PutRelease":     s.newRelease,
		"Machines":       s.machines,
		"Machine":        s.machine,
		"Why":            s.why,
		"PutPin":         s.pin,
		"DeletePin":      s.unpin,
		"ForgetFailures": s.forgetFailures,
		"PutMember":      s.setMember,
		"Groups":         s.groups,
		"Group":          s.group,
		"PutGroup":       s.addGroup,
		"DeleteGroup":    s.deleteGroup,
		"Rollouts":       s.rollouts,
		"PlanRollout":    s.planRollout,
		"Rollout":        s.rollout,
		"SteerRollout":   s.steerRollout,
		"MarkRelease":    s.markRelease,
		"Withdraw":       s.withdraw,
		"Restore":        s.restore,
		"PreviewRollout": s.previewRollout,
		"Progress":       s.progress,
		"Packages":       s.packages,
		"Overview":       s.overview,
		"VersionChart":   s.versionChart,
		"RebootGroups":   s.rebootGroups,
		"SetRebootGroup": s.setRebootGroup,
		"ReleaseReboot":  s.releaseReboot,
		"PutApplication": s.putApplication,
		"Tokens":         s.tokens,
		"NewToken":       s.newToken,
		"RevokeToken":    s.revokeToken,
		"Webhooks":       s.webhooks,
		"NewWebhook":     s.newWebhook,
		"DeleteWebhook":  s.deleteWebhook,
		"TestWebhook":    s.testWebhook,
		"Feed":           s.feed,
		"Audit":          s.audit,
		"Blob":           s.blob,
		"PutBlob":        s.putBlob,
		"Me":             s.me,
		"People":         s.people,
		"PutPerson":      s.putPerson,
		"DeletePerson":   s.deletePerson,
	}
}

func (s *Server) restRoutes(mux *http.ServeMux) {
	handlers := s.handlers()
	for i := range api.Operations {
		o := &api.Operations[i]
		h := handlers[o.Name]
		if strings.HasPrefix(o.Pattern, http.MethodPost+" ") {
			h = s.repeatable(o, h)
		}
		answer := s.needs(o.Role, h)
		if strings.HasPrefix(o.Pattern, http.MethodGet+" ") && o.Name != "Feed" {
			answer = compressed(answer)
		}
		mux.HandleFunc(o.Pattern, answer)
	}
	mux.HandleFunc("GET /api/v1/openapi.json", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write(openapi.Document) // whoever left does not miss it
	})
	mux.HandleFunc("GET /api/v1/{$}", readerPage)
	mux.HandleFunc("/api/v1/", s.needs(fleet.Viewer, func(http.ResponseWriter, *http.Request) error {
		return httpError{http.StatusNotFound, fault.New(fault.Input, "there is no such route")}
	}))
}

// compressFrom is how many bytes an answer has that is worth to be compressed.
const compressFrom = 2 << 10

// compressed compresses what a GET answers in JSON, for who understands that. Nothing of it is secret: secrets are told once, in answer to a POST.
func compressed(next http.HandlerFunc) http.HandlerFunc {
	wrap, err := gzhttp.NewWrapper(gzhttp.MinSize(compressFrom), gzhttp.ContentTypes([]string{"application/json"}), gzhttp.EnableZstd(false))
	if err != nil {
		panic(err) // the options are these ones, always
	}
	return wrap(next)
}

// httpError is an error with the status that fits.
type httpError struct {
	status int
	error
}

func (e httpError) Unwrap() error { return e.error }

// conflict is an error of kind Input: what is asked for does not fit what is there.
func conflict(format string, args ...any) error {
	return httpError{http.StatusConflict, fault.New(fault.Input, format, args...)}
}

// answers turns a handler's error into an api.Error.
func (s *Server) answers(next func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := next(w, r)
		if err == nil {
			return
		}
		status := statusOf(err)
		message := err.Error()
		if status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		if status >= 500 {
			s.cfg.Log.Error("request failed", "method", r.Method, "path", r.URL.Path, "error", err)
		}
		if _, local := localCaller(r.Context()); status == http.StatusInternalServerError && !local {
			message = "the server failed; its log says why"
		}
		w.Header().Set("Content-Type", api.ProblemType)
		w.WriteHeader(status)
		_ = json.NewEncoder(w).Encode(api.Error{Type: "about:blank", Title: http.StatusText(status), Status: status, Message: message, Kind: fault.KindOf(err).String()})
	}
}

func statusOf(err error) int {
	var he httpError
	switch {
	case errors.As(err, &he):
		return he.status
	case errors.Is(err, errBadToken):
		return http.StatusUnauthorized
	case errors.Is(err, store.ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, blobs.ErrBusy), errors.Is(err, blobs.ErrOffset):
		return http.StatusConflict
	case errors.Is(err, blobs.ErrHash):
		return http.StatusUnprocessableEntity
	case errors.Is(err, blobs.ErrFull):
		return http.StatusInsufficientStorage
	case fault.Is(err, fault.Verification):
		return http.StatusUnprocessableEntity
	case fault.Is(err, fault.Input), fault.Is(err, fault.Network):
		return http.StatusBadRequest
	}
	return http.StatusInternalServerError
}

func reply(w http.ResponseWriter, v any) error {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(w).Encode(v) // whoever left does not miss it
	return nil
}

// read decodes a JSON body strictly.
func read(w http.ResponseWriter, r *http.Request, into any) error {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, api.MaxBody))
	if err != nil {
		return fault.New(fault.Input, "read the request: %w", err)
	}
	dec := json.NewDecoder(bytes.NewReader(body))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return fault.New(fault.Input, "the request is not the JSON wanted: %w", err)
	}
	if dec.More() {
		return fault.New(fault.Input, "the request is more than one JSON value")
	}
	return nil
}

func query(r *http.Request, name, missing string) string {
	if v := r.URL.Query().Get(name); v != "" {
		return v
	}
	return missing
}

// app returns the application that a request names.
func (s *Server) app(r *http.Request) (fleet.Application, error) {
	return s.store.Read().Application(r.Context(), query(r, "app", api.DefaultApp))
}

func (s *Server) applications(w http.ResponseWriter, r *http.Request) error {
	out, err := Applications(r.Context(), s.store.Read())
	if err != nil {
		return err
	}
	return reply(w, out)
}

func (s *Server) channels(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	out, err := Channels(r.Context(), s.store.Read(), app.ID)
	if err != nil {
		return err
	}
	return reply(w, out)
}

func (s *Server) setChannel(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	var set api.SetChannel
	if err := read(w, r, &set); err != nil {
		return err
	}
	var out api.Channel
	name, arch := r.PathValue("name"), query(r, "arch", api.DefaultArch)
	ctx := context.WithoutCancel(r.Context())
	err = s.store.Write(ctx, func(tx store.Tx) error {
		if err := unchanged(r, "channel "+name, func() (string, error) {
			c, err := tx.Channel(ctx, app.ID, name, arch)
			return describeChannel(&c).ETag, err
		}); err != nil {
			return err
		}
		out, err = SetChannel(ctx, tx, app.ID, name, arch, set.Version, who(r), s.cfg.Now().UTC())
		return err
	})
	if err != nil {
		return err
	}
	s.cfg.Log.Info("channel set", "application", app.Name, "channel", name, "arch", arch, "version", set.Version)
	return reply(w, out)
}

func (s *Server) releases(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	out, err := Releases(r.Context(), s.store.Read(), app.ID)
	if err != nil {
		return err
	}
	return reply(w, out)
}

func (s *Server) release(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	tx := s.store.Read()
	release, err := tx.Release(r.Context(), app.ID, query(r, "arch", api.DefaultArch), r.PathValue("version"))
	if err != nil {
		return err
	}
	out := api.ReleaseDetail{Release: describeRelease(&release)}
	w.Header().Set("ETag", out.ETag)
	if out.Manifest, out.Signature, err = tx.Manifest(r.Context(), release.ID); err != nil {
		return err
	}
	return reply(w, out)
}

func (s *Server) machine(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	out, err := MachineDetail(r.Context(), s.store.Read(), app.ID, r.PathValue("id"), s.cfg.Now())
	if err != nil {
		return err
	}
	return reply(w, out)
}

func (s *Server) blob(w http.ResponseWriter, r *http.Request) error {
	sum, err := blobs.ParseSum(r.PathValue("sha256"))
	if err != nil {
		return err
	}
	out := api.Blob{SHA256: sum.String()}
	known, err := s.store.Read().Blob(r.Context(), sum)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	size, whole, sizeErr := s.payloads.Size(r.Context(), sum)
	switch {
	case sizeErr != nil:
		return sizeErr
	case err == nil && whole && size == known.Size:
		out.Offset, out.Complete = size, true
	case !whole: // also of a file that was lost: it is uploaded again
		out.Offset = size
	default:
		// The server ended before the database, or the bucket, knew of the file: the next upload brings it there, without reading a byte.
	}
	return reply(w, out)
}

func (s *Server) putBlob(w http.ResponseWriter, r *http.Request) error {
	sum, err := blobs.ParseSum(r.PathValue("sha256"))
	if err != nil {
		return err
	}
	size, err := strconv.ParseInt(query(r, "size", ""), 10, 64)
	if err != nil {
		return fault.New(fault.Input, "size: want the file's size in bytes")
	}
	offset, err := strconv.ParseInt(query(r, "offset", "0"), 10, 64)
	if err != nil || offset < 0 || offset > size {
		return fault.New(fault.Input, "offset: want a number from 0 to the file's size")
	}
	if r.ContentLength != size-offset {
		return httpError{http.StatusLengthRequired, fault.New(fault.Input, "the body must have the %d bytes from the offset to the end, and say so", size-offset)}
	}
	// Not the request's own context: that ends when no byte was read for a while, also after the last one. The body's reader has a limit of its own.
	sum1, err := s.payloads.Append(context.WithoutCancel(r.Context()), sum, size, offset, stallReader{r.Body, http.NewResponseController(w)})
	if err != nil {
		return fmt.Errorf("upload of %s: %w", sum, err)
	}
	ctx := context.WithoutCancel(r.Context())
	err = s.store.Write(ctx, func(tx store.Tx) error {
		return tx.AddBlob(ctx, fleet.File{Size: size, SHA256: sum, SHA1: sum1}, s.cfg.Now())
	})
	if err != nil {
		return err
	}
	return reply(w, api.Blob{SHA256: sum.String(), Offset: size, Complete: true})
}
