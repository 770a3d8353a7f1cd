package server

import (
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"crypto/sha1"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/blobs"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// Local answers the REST interface in the process that asks, on a server's database, whether a server runs on it or not. It is an http.RoundTripper, for package client.
//
// Who can open the database may do everything, so nobody shows a token: requests have the role admin, and are in the audit log under a name of the caller's. Nothing is
// listened on, swept, seeded or logged, and no machine is answered; payload files are not reached.
type Local struct {
	s      *Server
	routes *http.ServeMux
	as     caller
}

// OpenLocal opens the database of a server that was there before: the one in a data folder, or PostgreSQL's where it has a URL. Who is the name in the audit log.
func OpenLocal(ctx context.Context, p Place, who string) (*Local, error) {
	db, err := store.Open(ctx, cmp.Or(p.Database, p.Dir))
	if err != nil {
		return nil, err
	}
	s := &Server{
		cfg:   Config{Dir: p.Dir, Database: p.Database, Now: time.Now, Random: rand.Reader, Log: slog.New(slog.DiscardHandler)},
		local: true, store: db, payloads: unreached{}, metrics: newMetrics(),
	}
	l := &Local{s: s, routes: http.NewServeMux(), as: caller{name: who, who: who, via: fleet.ViaLocal, role: fleet.Admin}}
	s.restRoutes(l.routes)
	return l, nil
}

// Close closes the database. After a change that decides what machines are answered it takes a moment, in which a running server notices it.
func (l *Local) Close() error { return l.s.Close() }

// localKey is where the context of a request says that it was made in this process, and by whom. Contexts do not travel, and RoundTrip alone sets it: nothing that a network
// brings can be taken for it.
type localKey struct{}

// localCaller is who asks from within this process; ok is false where a request came by the network.
func localCaller(ctx context.Context) (c caller, ok bool) {
	c, ok = ctx.Value(localKey{}).(caller)
	return c, ok
}

// RoundTrip implements http.RoundTripper. The answer is in memory as a whole.
func (l *Local) RoundTrip(req *http.Request) (*http.Response, error) {
	in := req.Clone(context.WithValue(req.Context(), localKey{}, l.as))
	in.RequestURI = req.URL.RequestURI()
	if in.Body == nil {
		in.Body = http.NoBody
	}
	defer in.Body.Close()
	out := &localAnswer{header: http.Header{}, status: http.StatusOK}
	l.routes.ServeHTTP(out, in)
	return &http.Response{
		Status: strconv.Itoa(out.status) + " " + http.StatusText(out.status), StatusCode: out.status,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: out.header, Body: io.NopCloser(&out.body), ContentLength: int64(out.body.Len()), Request: req,
	}, nil
}

// localAnswer is an http.ResponseWriter that keeps what is written.
type localAnswer struct {
	header http.Header
	status int
	begun  bool
	body   bytes.Buffer
}

func (a *localAnswer) Header() http.Header { return a.header }

func (a *localAnswer) WriteHeader(status int) {
	if !a.begun {
		a.status, a.begun = status, true
	}
}

func (a *localAnswer) Write(p []byte) (int, error) {
	a.begun = true
	return a.body.Write(p)
}

// unreached is where payload files are for who has the database alone.
type unreached struct{}

var errUnreached = fault.New(fault.Input, "payload files are not reached by the database alone: ask the server")

func (unreached) File(context.Context, blobs.Sum, int64) (io.ReadSeekCloser, error) {
	return nil, errUnreached
}

func (unreached) Size(context.Context, blobs.Sum) (int64, bool, error) {
	return 0, false, errUnreached
}

func (unreached) Append(context.Context, blobs.Sum, int64, int64, io.Reader) ([sha1.Size]byte, error) {
	return [sha1.Size]byte{}, errUnreached
}
