// Package client asks an Omaha server for updates and reports events to it. It is what semperd uses; it keeps no state and never
// touches a disk.
//
//	c, err := client.New("http://updates.example.org", client.Options{})     // "/v1/update" is added when the URL has no path
//	m := client.Machine{App: omaha.SemperApp, ID: machineID, Version: "1.0.0", Channel: "stable", Board: "amd64-usr", …}
//
//	answer, err := c.Check(ctx, m, client.Scheduled, events...)              // one POST: ping, update check and events
//	if answer.Update != nil { … download answer.Update.URLs, in order … }    // size and SHA-256 are known and checked for sense
//	next := answer.PollInterval                                              // 0: the server leaves it to the machine
//	why := answer.Reason                                                     // a sentence when there is no update; may be empty
//	verdict, memory = freshness.Judge(answer.Freshness, …)                   // whether it is the newest that there is
//
//	err = c.Report(ctx, m, omaha.DownloadStarted("1.1.0"))
//
// The events of an update, in order, with the constructors of package omaha; version is always the new one, next:
//
//	DownloadStarted(next)          the first byte is asked for
//	DownloadFinished(next)         the last byte has arrived and the whole payload's hash was right
//	Installed(next)                the slot and its boot entry are on disk; the reboot is still to come
//	Completed(previous)            sent with Check after the boot into the new version was blessed; previous is the version left
//	Failed(next, code, reason)     the update ended; nothing was written, or what was written is not bootable
//	RolledBack(next, reason)       sent with Check after a boot that came back in the old version
//
// After Failed with a code that is not passing (see omaha.ErrorCode.Passing), and after RolledBack, the server does not offer that
// version to this machine again. A server has an event on disk once Report or Check returned nil; an event whose report failed should be
// kept and sent again, which does no harm when it had arrived.
//
// Errors have a kind of package fault. Network: the server could not be reached, broke off or answered with an HTTP error, which errors.As
// finds as *StatusError. Input: it answered something that is not Omaha, or does not know the application, which errors.As finds as
// *AppError.
//
// Limits: an answer has at most omaha.MaxResponseSize bytes and must come within the timeout. A redirect is followed only if it keeps the
// method and does not leave https, three times at most.
package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
)

// DefaultTimeout bounds one exchange, from the connection to the answer's last byte.
const DefaultTimeout = 90 * time.Second

const maxRedirects = 3

// Source says why a machine asks.
type Source string

// The two reasons to ask.
const (
	Scheduled Source = omaha.InstallScheduler
	OnDemand  Source = omaha.InstallOnDemand
)

// Machine describes who asks. App, ID, Version, Channel and Board must be set.
type Machine struct {
	App          string // omaha.SemperApp
	ID           string // 32 hexadecimal digits that stay the same; semperd derives them from /etc/machine-id, see agent.MachineID
	Alias        string // the host name, or a name that people gave
	BootID       string // /proc/sys/kernel/random/boot_id, in braces
	Version      string // IMAGE_VERSION of /etc/os-release
	FirstVersion string // the version that was installed first, if it is remembered
	Channel      string // "stable"
	Board        string // "amd64-usr" or "arm64-usr"
	Platform     string // vendor and product as the firmware tells them ("QEMU Standard PC (Q35 + ICH9, 2009)"), empty if it does not; for people only
	UserAgent    string // "semperd/1.0.0", with the version of the system, of which semperd is a part
}

// Answer is what the server said to a check.
type Answer struct {
	Update       *omaha.Payload // nil when there is none
	PollInterval time.Duration  // 0 when the server does not say
	Reason       string         // why there is no update, for people; may be empty
	Freshness    []byte         // the channel's freshness statement, at most omaha.MaxFreshness bytes, not verified; nil when the server has none
}

// StatusError is an answer with an HTTP status other than 200.
type StatusError struct {
	Status     int
	Text       string        // the beginning of the answer's first line, when it is plain text
	RetryAfter time.Duration // 0 when the server does not say; at most omaha.MaxPollInterval
}

func (e *StatusError) Error() string {
	s := fmt.Sprintf("the server answered %d %s", e.Status, http.StatusText(e.Status))
	if e.Text != "" {
		s += ": " + e.Text
	}
	return s
}

// Code is the error code to report for e, if the server can be reached at all by then.
func (e *StatusError) Code() omaha.ErrorCode { return omaha.CodeHTTPBase + omaha.ErrorCode(e.Status) }

// AppError is an answer that refuses the application.
type AppError struct {
	App    string
	Status omaha.AppStatus
}

func (e *AppError) Error() string {
	if e.Status == omaha.AppUnknown {
		return fmt.Sprintf("the server does not know the application %s", e.App)
	}
	return fmt.Sprintf("the server refuses the application %s: %s", e.App, e.Status)
}

// Options of a client. The zero value is what a machine wants.
type Options struct {
	Timeout   time.Duration     // DefaultTimeout when 0
	Transport http.RoundTripper // a transport of the client's own when nil
}

// Client talks to one server. Its methods may be called from several goroutines.
type Client struct {
	endpoint string
	http     *http.Client
}

// New returns a client for the server at an http or https URL. A URL without a path gets "/v1/update".
// The error of a URL that cannot be used has the kind fault.Input.
func New(server string, o Options) (*Client, error) {
	u, err := url.Parse(server)
	switch {
	case err != nil:
		return nil, fault.New(fault.Input, "update server: %w", err)
	case u.Scheme != "http" && u.Scheme != "https", u.Host == "":
		return nil, fault.New(fault.Input, "update server %q: want a URL such as https://updates.example.org", server)
	case u.User != nil:
		return nil, fault.New(fault.Input, "update server: the URL must not hold a password")
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/v1/update"
	}
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	if o.Transport == nil {
		o.Transport = &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout:    15 * time.Second,
			ResponseHeaderTimeout:  o.Timeout,
			MaxResponseHeaderBytes: 64 << 10,
			IdleConnTimeout:        30 * time.Second,
			MaxIdleConnsPerHost:    1,
			ForceAttemptHTTP2:      true,
		}
	}
	return &Client{
		endpoint: u.String(),
		http:     &http.Client{Timeout: o.Timeout, Transport: o.Transport, CheckRedirect: checkRedirect},
	}, nil
}

// checkRedirect refuses what would silently turn a report into a GET or carry it in the clear.
func checkRedirect(req *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return errors.New("too many redirects")
	case req.Method != http.MethodPost:
		return errors.New("the redirect drops the request's body (use status 307 or 308)")
	case via[len(via)-1].URL.Scheme == "https" && req.URL.Scheme != "https":
		return errors.New("the redirect leaves https")
	}
	return nil
}

// Check asks for an update and delivers events in the same POST. An answer with an update that cannot be used is an error.
func (c *Client) Check(ctx context.Context, m Machine, source Source, events ...omaha.Event) (Answer, error) {
	req := m.request(source)
	app := &req.Apps[0]
	app.Ping, app.UpdateCheck, app.Events = true, true, events
	res, err := c.post(ctx, m, req)
	if err != nil {
		return Answer{}, fmt.Errorf("check for an update: %w", err)
	}
	u := res.UpdateCheck
	if u == nil {
		return Answer{}, fault.New(fault.Input, "check for an update: the server's answer says nothing about the update")
	}
	a := Answer{PollInterval: u.PollInterval, Reason: u.Reason}
	if u.Freshness != "" {
		a.Freshness = []byte(u.Freshness)
	}
	switch u.Status {
	case omaha.NoUpdate:
		return a, nil
	case omaha.UpdateAvailable:
		p, err := u.Payload()
		if err != nil {
			return Answer{}, fmt.Errorf("check for an update: %w", err)
		}
		a.Update = &p
		return a, nil
	}
	return Answer{}, fault.New(fault.Input, "check for an update: the server's answer is %q", u.Status)
}

// Report delivers events.
func (c *Client) Report(ctx context.Context, m Machine, events ...omaha.Event) error {
	req := m.request(Scheduled)
	req.Apps[0].Events = events
	res, err := c.post(ctx, m, req)
	if err == nil && res.Events != len(events) {
		err = fault.New(fault.Input, "the server acknowledged %d of %d events", res.Events, len(events))
	}
	if err != nil {
		return fmt.Errorf("report to the update server: %w", err)
	}
	return nil
}

func (m *Machine) request(source Source) *omaha.Request {
	return &omaha.Request{
		Version: m.UserAgent, UpdaterVersion: m.UserAgent, InstallSource: string(source), IsMachine: true,
		OS: omaha.OS{Platform: "Semper"},
		Apps: []omaha.AppRequest{{
			ID: m.App, Version: m.Version, Track: m.Channel, MachineID: m.ID, MachineAlias: m.Alias, BootID: m.BootID,
			Board: m.Board, OEM: m.Platform, AlephVersion: m.FirstVersion,
		}},
	}
}

// post sends req and returns the answer to its only application.
func (c *Client) post(ctx context.Context, m Machine, req *omaha.Request) (*omaha.AppResponse, error) {
	hr, err := http.NewRequestWithContext(ctx, http.MethodPost, c.endpoint, bytes.NewReader(req.Encode()))
	if err != nil {
		return nil, fault.Wrap(fault.Input, err)
	}
	hr.Header.Set("Content-Type", "text/xml; charset=utf-8")
	hr.Header.Set("Accept", "text/xml")
	hr.Header.Set("User-Agent", m.UserAgent)
	res, err := c.http.Do(hr)
	if err != nil {
		return nil, fault.Wrap(fault.Network, err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, omaha.MaxResponseSize+1))
	if err != nil {
		return nil, fault.New(fault.Network, "read the answer of %s: %w", c.endpoint, err)
	}
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != http.StatusOK {
		return nil, fault.New(fault.Network, "%s: %w", c.endpoint, statusError(res, kind, body))
	}
	if kind != "text/xml" && kind != "application/xml" {
		return nil, fault.New(fault.Input, "%s is no Omaha server: its answer has the type %q, not text/xml", c.endpoint, kind)
	}
	answer, err := omaha.DecodeResponse(body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", c.endpoint, err)
	}
	for i := range answer.Apps {
		app := &answer.Apps[i]
		if !strings.EqualFold(app.ID, m.App) {
			continue
		}
		if app.Status != omaha.AppOK {
			return nil, fault.New(fault.Input, "%s: %w", c.endpoint, &AppError{App: m.App, Status: app.Status})
		}
		return app, nil
	}
	return nil, fault.New(fault.Input, "%s: the answer is not about the application %s", c.endpoint, m.App)
}

func statusError(res *http.Response, kind string, body []byte) *StatusError {
	e := &StatusError{Status: res.StatusCode}
	if kind == "text/plain" {
		line, _, _ := strings.Cut(string(body[:min(len(body), 200)]), "\n")
		e.Text = strings.Trim(strconv.QuoteToASCII(line), `"`) // quoted: foreign bytes end up in logs and terminals
	}
	if s, err := strconv.Atoi(res.Header.Get("Retry-After")); err == nil && s > 0 {
		e.RetryAfter = min(time.Duration(min(s, 1<<30))*time.Second, omaha.MaxPollInterval)
	}
	return e
}
