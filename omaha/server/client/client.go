// Package client calls the update server's REST interface (package api). Calls.go has a method for each of api.Operations and is made by 'go generate'; what is more than one request
// (Upload, AllMachines, Promote) is written by hand.
//
// A request that changes something and is a POST carries an Idempotency-Key, so that it can be sent again when its answer got lost: that is done here, a few times.
//
// Errors have package fault's kinds; those of an answer that is no success wrap a StatusError.
package client

//go:generate go run ./generate calls.go

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
)

const (
	answerTimeout  = 2 * time.Minute // the server hashes and syncs an upload before it answers
	uploadAttempts = 5
	callAttempts   = 3
	maxAnswer      = 64 << 20 // bytes
)

// Client talks to one server, with one token or within its process.
type Client struct {
	base  *url.URL
	token string // empty: none is shown
	local bool   // the server is in this process
	http  *http.Client
	pause func(context.Context, time.Duration) error // between attempts
}

// StatusError is an answer that is no success.
type StatusError struct {
	Status int
	Answer api.Error
}

func (e *StatusError) Error() string {
	if e.Answer.Message != "" {
		return strings.Map(printable, e.Answer.Message)
	}
	return fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
}

// printable keeps a server from steering the terminal that shows its words.
func printable(r rune) rune {
	if unicode.IsPrint(r) {
		return r
	}
	return ' '
}

// NewClient returns a client for the server at an http or https URL.
func NewClient(server, token string) (*Client, error) {
	u, err := url.Parse(server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.User != nil {
		return nil, fault.New(fault.Usage, "server %q: want a URL such as https://updates.example.org", server)
	}
	return &Client{
		base:  u,
		token: token,
		pause: sleep,
		http: &http.Client{
			Transport: &http.Transport{
				Proxy:                  http.ProxyFromEnvironment,
				DialContext:            (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
				TLSHandshakeTimeout:    15 * time.Second,
				ResponseHeaderTimeout:  answerTimeout,
				ExpectContinueTimeout:  10 * time.Second,
				MaxResponseHeaderBytes: 64 << 10,
			},
			CheckRedirect: stay,
		},
	}, nil
}

// NewLocalClient returns a client for a server in this process, whose answers are the transport's. No token is shown, nothing is asked twice, and when the server fails, its error
// has the kind that it has there.
func NewLocalClient(server http.RoundTripper) *Client {
	return &Client{
		base: &url.URL{Scheme: "http", Host: "localhost"}, local: true, pause: sleep,
		http: &http.Client{Transport: server, CheckRedirect: stay},
	}
}

// stay follows no redirect: it would carry the token to a place that nobody named.
func stay(*http.Request, []*http.Request) error {
	return errors.New("the server redirects: name the address it redirects to")
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Option changes one request.
type Option func(*request)

// IfMatch has the request refused, with the status 412, when what it changes is not any more in the state that an ETag names.
func IfMatch(tag string) Option { return func(r *request) { r.match = tag } }

// request is one request.
type request struct {
	method, path string // below /api/v1/
	query        url.Values
	body         io.Reader // nil: none
	size         int64     // of the body
	kind         string    // its media type; empty where nobody asks
	match, key   string    // If-Match and Idempotency-Key
}

// call sends a message, and reads the answer into out: a message, or a *[]byte.
func (c *Client) call(ctx context.Context, r *request, in, out any, options ...Option) error {
	for _, o := range options {
		o(r)
	}
	for name := range strings.SplitSeq(r.path, "/") {
		if name == "" || name == "." || name == ".." { // it would be the address of something else
			return fault.New(fault.Input, "nothing has the name %q", name)
		}
	}
	var body []byte
	switch in := in.(type) {
	case nil:
	case []byte:
		body = in
	default:
		var err error
		if body, err = json.Marshal(in); err != nil {
			return fault.Wrap(fault.Internal, err)
		}
		r.kind = "application/json"
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	attempts := 1
	if r.method == http.MethodPost && !c.local {
		r.key, attempts = rand.Text(), callAttempts
	}
	var err error
	for attempt := range attempts {
		if attempt > 0 && c.pause(ctx, time.Second<<attempt) != nil {
			break
		}
		if in != nil {
			r.body, r.size = bytes.NewReader(body), int64(len(body))
		}
		var status *StatusError
		if err = c.do(ctx, r, out); err == nil || errors.As(err, &status) || !fault.Is(err, fault.Network) {
			break
		}
	}
	return err
}

func (c *Client) do(ctx context.Context, r *request, out any) error {
	u := *c.base.JoinPath("api/v1", r.path)
	u.RawQuery = r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), r.body)
	if err != nil {
		return fault.Wrap(fault.Input, err)
	}
	if r.body != nil {
		req.ContentLength = r.size
		req.Header.Set("Expect", "100-continue") // a refusal comes before the bytes, not after them
	}
	for name, value := range map[string]string{"Content-Type": r.kind, "If-Match": r.match, "Idempotency-Key": r.key} {
		if value != "" {
			req.Header.Set(name, value)
		}
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return fault.Wrap(fault.Network, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return fault.New(fault.Network, "read the server's answer: %w", err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		e := &StatusError{Status: res.StatusCode}
		if json.Unmarshal(answer, &e.Answer) != nil {
			e.Answer = api.Error{}
		}
		if c.local && e.Status >= 500 {
			return fault.Wrap(fault.ParseKind(e.Answer.Kind), e)
		}
		return fault.Wrap(e.kind(), e)
	}
	if raw, ok := out.(*[]byte); ok {
		*raw = answer
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fault.New(fault.Input, "%s is no semper-server: its answer is not JSON: %w", c.base.Redacted(), err)
	}
	return nil
}

func (e *StatusError) kind() fault.Kind {
	switch {
	case e.Status == http.StatusUnauthorized, e.Status == http.StatusForbidden, e.Status == http.StatusUnprocessableEntity:
		return fault.Verification
	case e.Status >= 500:
		return fault.Network
	}
	return fault.Input
}
