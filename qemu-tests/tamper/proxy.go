// Package tamper is somebody between a machine and its update server: a proxy that passes everything on, except what it was told to change in
// the payloads' bytes. It remembers what was asked for.
package tamper

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Payloads is where the update server has its payloads.
const Payloads = "/payloads/"

// Proxy is a running proxy. Its methods may be called from several goroutines.
type Proxy struct {
	URL string // http://127.0.0.1:PORT

	server *http.Server

	mu      sync.Mutex
	flip    int64 // offset of the payload's byte to change; -1: none
	end     int64 // how many bytes of a payload exist as far as the client can see; -1: all
	fetches []Fetch
	instead func(http.ResponseWriter, *http.Request) bool
}

// Fetch is a request for a payload.
type Fetch struct {
	Path   string
	From   int64 // the first byte asked for
	Served int64 // bytes passed on so far
}

// Start starts a proxy in front of an update server.
func Start(server string) (*Proxy, error) {
	target, err := url.Parse(server)
	if err != nil {
		return nil, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p := &Proxy{URL: "http://" + listener.Addr().String(), flip: -1, end: -1}
	forward := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host // the server names payloads by the address that it was asked under: this one
		},
		ModifyResponse: p.change,
		ErrorLog:       log.New(io.Discard, "", 0), // connections are cut on purpose here
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	p.server = &http.Server{
		ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			instead := p.instead
			p.mu.Unlock()
			if instead == nil || !instead(w, r) {
				forward.ServeHTTP(w, r)
			}
		}),
	}
	go func() { _ = p.server.Serve(listener) }() // it ends with Close, and has nothing to say
	return p, nil
}

// Close ends the proxy and all its connections.
func (p *Proxy) Close() error { return p.server.Close() }

// Flip changes one bit of the payload's byte at an offset from now on; -1 ends that.
func (p *Proxy) Flip(offset int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flip = offset
}

// Instead has requests answered by a function in place of the server, where it returns true; nil ends that.
func (p *Proxy) Instead(answer func(http.ResponseWriter, *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.instead = answer
}

// CutAfter breaks each connection off when it has passed the payload's first n bytes; -1 ends that.
func (p *Proxy) CutAfter(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.end = n
}

// Fetches returns the requests for payloads so far.
func (p *Proxy) Fetches() []Fetch {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.fetches)
}

var contentRange = regexp.MustCompile(`^bytes (\d+)-\d+/\d+$`)

func (p *Proxy) change(r *http.Response) error {
	if !strings.HasPrefix(r.Request.URL.Path, Payloads) || r.Request.Method != http.MethodGet {
		return nil
	}
	var from int64
	if r.StatusCode == http.StatusPartialContent {
		found := contentRange.FindStringSubmatch(r.Header.Get("Content-Range"))
		if found == nil {
			return fmt.Errorf("the server's range is %q", r.Header.Get("Content-Range"))
		}
		var err error
		if from, err = strconv.ParseInt(found[1], 10, 64); err != nil {
			return err
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fetches = append(p.fetches, Fetch{Path: r.Request.URL.Path, From: from})
	r.Body = &body{p: p, number: len(p.fetches) - 1, from: r.Body, at: from}
	return nil
}

// body is a payload's bytes on the way.
type body struct {
	p      *Proxy
	number int
	from   io.ReadCloser
	at     int64
}

var errCut = errors.New("the connection was cut on purpose")

func (b *body) Read(p []byte) (int, error) {
	b.p.mu.Lock()
	flip, end := b.p.flip, b.p.end
	b.p.mu.Unlock()
	if end >= 0 {
		if b.at >= end {
			return 0, errCut
		}
		p = p[:min(int64(len(p)), end-b.at)]
	}
	n, err := b.from.Read(p)
	if flip >= b.at && flip < b.at+int64(n) {
		p[flip-b.at] ^= 0x01
	}
	b.at += int64(n)
	b.p.mu.Lock()
	b.p.fetches[b.number].Served += int64(n)
	b.p.mu.Unlock()
	return n, err
}

func (b *body) Close() error { return b.from.Close() }

// WaitServed waits until the payload's bytes up to n were passed on, by whatever number of requests.
func (p *Proxy) WaitServed(ctx context.Context, n int64) error {
	for {
		for _, f := range p.Fetches() {
			if f.From+f.Served >= n {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d bytes of a payload were not asked for: %w", n, context.Cause(ctx))
		case <-time.After(20 * time.Millisecond):
		}
	}
}
