package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/progress"
)

const (
	answerTimeout  = 2 * time.Minute // the server hashes and syncs an upload before it answers
	uploadAttempts = 5
)

// Client talks to one server with one token.
type Client struct {
	base  *url.URL
	token string
	http  *http.Client
	pause func(context.Context, time.Duration) error // between attempts
}

// StatusError is an answer that is no success.
type StatusError struct {
	Status int
	Answer Error
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
			// A redirect would carry the token to a place that nobody named.
			CheckRedirect: func(*http.Request, []*http.Request) error {
				return errors.New("the server redirects: name the address it redirects to")
			},
		},
	}, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Upload brings a file to the server and returns the number of bytes that had to be sent. It goes on where an earlier upload stopped,
// tries again when the connection breaks, and does nothing when the server has the file. The bar counts the file's bytes.
func (c *Client) Upload(ctx context.Context, f File, content io.ReaderAt, bar *progress.Bar) (sent int64, err error) {
	shown := int64(0)
	for attempt := range uploadAttempts {
		if attempt > 0 {
			if err := c.pause(ctx, time.Second<<attempt); err != nil {
				return sent, fault.Wrap(fault.Network, err)
			}
		}
		var state Blob
		if state, err = c.blob(ctx, f.SHA256); err == nil {
			if state.Complete {
				bar.Add(f.Size - shown)
				return sent, nil
			}
			if state.Offset < 0 || state.Offset >= f.Size {
				return sent, fault.New(fault.Input, "upload %s: the server claims to have %d of %d bytes", f.Name, state.Offset, f.Size)
			}
			bar.Add(state.Offset - shown)
			shown = state.Offset
			section := &counter{r: io.NewSectionReader(content, state.Offset, f.Size-state.Offset), bar: bar}
			err = c.putBlob(ctx, f, state.Offset, section)
			shown += section.n
			sent += section.n
			if err == nil {
				return sent, nil
			}
		}
		if !again(ctx, err) {
			break
		}
	}
	return sent, fmt.Errorf("upload %s: %w", f.Name, err)
}

// again reports whether the same request may succeed later.
func again(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	var status *StatusError
	if errors.As(err, &status) {
		return status.Status >= 500 && status.Status != http.StatusInsufficientStorage || status.Status == http.StatusConflict
	}
	return fault.Is(err, fault.Network)
}

type counter struct {
	r   io.Reader
	bar *progress.Bar
	n   int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.bar.Add(int64(n))
	return n, err
}

func (c *Client) blob(ctx context.Context, sum string) (Blob, error) {
	var b Blob
	return b, c.do(ctx, http.MethodGet, "blobs/"+sum, nil, nil, -1, &b)
}

func (c *Client) putBlob(ctx context.Context, f File, offset int64, body io.Reader) error {
	query := url.Values{"size": {strconv.FormatInt(f.Size, 10)}, "offset": {strconv.FormatInt(offset, 10)}}
	var b Blob
	if err := c.do(ctx, http.MethodPut, "blobs/"+f.SHA256, query, body, f.Size-offset, &b); err != nil {
		return err
	}
	if !b.Complete {
		return fault.New(fault.Input, "the server took all bytes and says that the file is not complete")
	}
	return nil
}

// PutRelease publishes a release whose payload was uploaded.
func (c *Client) PutRelease(ctx context.Context, app, arch, version string, r NewRelease) error {
	err := c.json(ctx, "releases/"+url.PathEscape(version), url.Values{"app": {app}, "arch": {arch}}, r, &Release{})
	if err != nil {
		return fmt.Errorf("publish release %s: %w", version, err)
	}
	return nil
}

// SetChannel makes a published release the current one of a channel.
func (c *Client) SetChannel(ctx context.Context, app, arch, channel, version string) error {
	err := c.json(ctx, "channels/"+url.PathEscape(channel), url.Values{"app": {app}, "arch": {arch}}, SetChannel{Version: version}, &Channel{})
	if err != nil {
		return fmt.Errorf("assign %s to channel %s: %w", version, channel, err)
	}
	return nil
}

// PutFreshness gives a channel a new freshness statement.
func (c *Client) PutFreshness(ctx context.Context, app, arch, channel string, envelope []byte) error {
	err := c.json(ctx, freshnessPath(channel), url.Values{"app": {app}, "arch": {arch}}, json.RawMessage(envelope), &Freshness{})
	if err != nil {
		return fmt.Errorf("bring the freshness statement to channel %s: %w", channel, err)
	}
	return nil
}

// Freshness returns a channel's freshness statement in its envelope, not verified; nil if the server has none, or knows no such thing.
func (c *Client) Freshness(ctx context.Context, app, arch, channel string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var envelope json.RawMessage
	err := c.do(ctx, http.MethodGet, freshnessPath(channel), url.Values{"app": {app}, "arch": {arch}}, nil, -1, &envelope)
	var status *StatusError
	if errors.As(err, &status) && status.Status == http.StatusNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("freshness statement of channel %s: %w", channel, err)
	}
	return envelope, nil
}

func freshnessPath(channel string) string {
	return "channels/" + url.PathEscape(channel) + "/freshness"
}

// json puts a message and reads the answer.
func (c *Client) json(ctx context.Context, path string, query url.Values, in, out any) error {
	body, err := json.Marshal(in)
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	return c.do(ctx, http.MethodPut, path, query, bytes.NewReader(body), int64(len(body)), out)
}

func (c *Client) do(ctx context.Context, method, path string, query url.Values, body io.Reader, size int64, out any) error {
	u := *c.base.JoinPath("api/v1", path)
	u.RawQuery = query.Encode()
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return fault.Wrap(fault.Input, err)
	}
	if size >= 0 {
		req.ContentLength = size
		req.Header.Set("Expect", "100-continue") // a refusal comes before the bytes, not after them
	}
	req.Header.Set("Authorization", "Bearer "+c.token)
	res, err := c.http.Do(req)
	if err != nil {
		return fault.Wrap(fault.Network, err)
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(res.Body, MaxBody))
	if err != nil {
		return fault.New(fault.Network, "read the server's answer: %w", err)
	}
	if res.StatusCode < 200 || res.StatusCode > 299 {
		e := &StatusError{Status: res.StatusCode}
		if json.Unmarshal(answer, &e.Answer) != nil {
			e.Answer = Error{}
		}
		return fault.Wrap(e.kind(), e)
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
