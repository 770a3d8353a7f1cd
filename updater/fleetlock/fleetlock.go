// Package fleetlock asks a FleetLock server for leave to reboot. The protocol is Zincati's: https://coreos.github.io/zincati/development/fleetlock/protocol/
//
//	POST BASE/v1/pre-reboot      take a slot for this machine, or keep the one it has      Acquire, Held
//	POST BASE/v1/steady-state    give it back, if it has one                               Release
//
//	fleet-lock-protocol: true
//	{"client_params":{"id":"…","group":"…"}}
//
// 200 is done; the server knows machines by their id, so both may be repeated. Anything else is a refusal, with {"kind":"…","value":"…"} for people. Each call is one
// request; there are no retries here and no redirects are followed, since a redirected POST may arrive as something else. An answer of 200 with an HTML page is
// no lock: portals of hotels and broken proxies answer so.
//
// A FleetLock server has no leases: it keeps a dead machine's slot until a person frees it, or by a rule of its own.
//
// Errors: *Refused where the server answered no, of kind Verification, or Network where it was no answer of a FleetLock server (a proxy's 502); else Network.
//
// Limits: 16 KiB of an answer are read; texts from the server are cut to 300 characters and cleaned of control characters.
package fleetlock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

const (
	// DefaultTimeout bounds one request. It is long, because servers may move a machine's work away before they answer.
	DefaultTimeout = 5 * time.Minute

	maxTimeout = 30 * time.Minute
	maxAnswer  = 16 << 10
	maxText    = 300
)

// Options say where the server is and who we are.
type Options struct {
	URL     string        // the base: http or https, may have a path
	Group   string        // ^[a-zA-Z0-9.-]{1,64}$; "": "default"
	ID      string        // 1 to 128 printable ASCII characters, the agent's machine id
	HTTP    *http.Client  // nil: http.DefaultClient. Its CheckRedirect is not used
	Timeout time.Duration // of a request, up to 30 min; 0: DefaultTimeout
}

// Client is one machine's way to the server.
type Client struct {
	base    *url.URL
	body    []byte
	http    *http.Client
	timeout time.Duration
}

// Refused is an answer that is not 200.
type Refused struct {
	Kind   string // the server's word, such as "failed_lock_semaphore_full"; empty where the answer is not FleetLock's
	Value  string // the server's sentence
	Status int    // of HTTP
}

// Error implements error.
func (r *Refused) Error() string {
	if r.Kind == "" {
		return fmt.Sprintf("HTTP status %d without a FleetLock error (is the address right?)", r.Status)
	}
	return fmt.Sprintf("%s (%s, HTTP status %d)", r.Value, r.Kind, r.Status)
}

var groupName = regexp.MustCompile(`^[a-zA-Z0-9.-]{1,64}$`)

// New checks the options. Errors are of kind Input.
func New(o Options) (*Client, error) {
	if o.Group == "" {
		o.Group = "default"
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.HTTP == nil {
		o.HTTP = http.DefaultClient
	}
	u, err := url.Parse(o.URL)
	switch {
	case err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || len(o.URL) > 2000:
		return nil, fault.New(fault.Input, "%.200q is not the base address of a FleetLock server (example: \"https://locks.example.org\")", o.URL)
	case !groupName.MatchString(o.Group):
		return nil, fault.New(fault.Input, "FleetLock group %.100q: want 1 to 64 letters, digits, '.' and '-'", o.Group)
	case o.ID == "" || len(o.ID) > 128 || strings.ContainsFunc(o.ID, func(r rune) bool { return r <= ' ' || r > '~' }):
		return nil, fault.New(fault.Input, "FleetLock id %.200q: want 1 to 128 printable ASCII characters", o.ID)
	case o.Timeout < 0 || o.Timeout > maxTimeout:
		return nil, fault.New(fault.Input, "FleetLock timeout %s is out of range (to %s)", o.Timeout, maxTimeout)
	}
	var m message
	m.Params.ID, m.Params.Group = o.ID, o.Group
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode FleetLock request: %w", err)
	}
	client := *o.HTTP
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{base: u, body: body, http: &client, timeout: o.Timeout}, nil
}

type message struct {
	Params struct {
		ID    string `json:"id"`
		Group string `json:"group"`
	} `json:"client_params"`
}

// Acquire asks once for leave to reboot. Nil: the machine has a slot.
func (c *Client) Acquire(ctx context.Context) error { return c.post(ctx, "pre-reboot") }

// Held proves the slot, by asking for it again, which the protocol calls recursive: a machine that has one is told yes. Any error means: do not reboot.
func (c *Client) Held(ctx context.Context) error { return c.post(ctx, "pre-reboot") }

// Release gives the slot back. It is no error if the machine has none.
func (c *Client) Release(ctx context.Context) error { return c.post(ctx, "steady-state") }

func (c *Client) post(ctx context.Context, verb string) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if err := c.ask(ctx, verb); err != nil {
		return fmt.Errorf("FleetLock %s: %w", verb, err)
	}
	return nil
}

func (c *Client) ask(ctx context.Context, verb string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base.JoinPath("v1", verb).String(), bytes.NewReader(c.body))
	if err != nil {
		return fault.Wrap(fault.Input, err)
	}
	req.Header.Set("Fleet-Lock-Protocol", "true")
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		var u *url.Error // names the address; a password in it is left out
		if errors.As(err, &u) {
			err = u.Err
		}
		return fault.New(fault.Network, "%s: %w", c.base.Redacted(), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		if kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); kind == "text/html" {
			return fault.New(fault.Network, "%s answers with a web page, it is not a FleetLock server (a portal?)", c.base.Redacted())
		}
		return nil
	}
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fault.New(fault.Network, "%s: HTTP status %d, then: %w", c.base.Redacted(), resp.StatusCode, err)
	}
	r := &Refused{Status: resp.StatusCode}
	if r.Kind, r.Value = parseError(answer); r.Kind == "" {
		return fault.New(fault.Network, "%s: %w", c.base.Redacted(), r)
	}
	return fault.Wrap(fault.Verification, r)
}

// parseError reads the body of a refusal. Kind is a word of letters, digits, '_', '-' and '.', fit for a metric's label, or empty where the body is something else.
func parseError(body []byte) (kind, value string) {
	var e struct {
		Kind  string `json:"kind"`
		Value string `json:"value"`
	}
	if json.Unmarshal(body, &e) != nil || !kindWord.MatchString(e.Kind) {
		return "", ""
	}
	value = clean(e.Value)
	if value == "" {
		value = "refused"
	}
	return e.Kind, value
}

var kindWord = regexp.MustCompile(`^[a-zA-Z0-9_.-]{1,64}$`)

// clean makes foreign text fit for a line of a log.
func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t' || r == '\r':
			return ' '
		case r < ' ' || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == '\u2028' || r == '\u2029' || (r >= '\u202a' && r <= '\u202e') || (r >= '\u2066' && r <= '\u2069'):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	s = strings.TrimSpace(s)
	if len(s) > maxText {
		s = strings.TrimSpace(strings.ToValidUTF8(s[:maxText], "")) + "…"
	}
	return s
}
