// Package webhooks brings messages to addresses that operators named, signed as the Standard Webhooks specification (version 1) has it:
//
//	POST url
//	Content-Type: application/json
//	Webhook-Id: 17                                       the same at each attempt: who has seen it need not look again
//	Webhook-Timestamp: 1795800000                        of the attempt; who receives it refuses what is old
//	Webhook-Signature: v1,BASE64(HMAC-SHA-256(key, id.timestamp.body))
//
// The secret is "whsec_" and the key in base64. What is answered with 2xx is brought; all else is tried again after Delay, until it says that there is no more to try. Redirects are not
// followed.
package webhooks

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

// The events that a webhook may want.
const (
	Halt      = "halt"      // a rollout stopped itself
	Done      = "done"      // a rollout came to its end
	Withdrawn = "withdrawn" // a release was withdrawn
	Silent    = "silent"    // machines fell silent in a rollout
	Test      = "test"      // a person asked for it; every webhook is told
)

// Events lists those that can be chosen.
var Events = []string{Halt, Done, Withdrawn, Silent}

const (
	keyBytes     = 32
	secretPrefix = "whsec_"

	timeout   = 10 * time.Second // of an attempt
	maxAnswer = 64 << 10         // bytes that are read of an answer
	maxURL    = 2048
)

// delays are between the attempts.
var delays = []time.Duration{
	10 * time.Second, time.Minute, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 6 * time.Hour, 6 * time.Hour, 12 * time.Hour, 12 * time.Hour, 24 * time.Hour,
}

// Delay is how long to wait after so many attempts that failed; more is false when it is given up.
func Delay(attempts int) (d time.Duration, more bool) {
	if attempts > len(delays) {
		return 0, false
	}
	return delays[max(attempts, 1)-1], true
}

// Check refuses what cannot be told anything. Errors are of kind Input.
func Check(address string, events []string) error {
	u, err := url.Parse(address)
	if err != nil || len(address) > maxURL || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.Fragment != "" {
		return fault.New(fault.Input, "webhook %.100q: want a URL such as https://chat.example.org/hooks/semper", address)
	}
	if len(events) == 0 {
		return fault.New(fault.Input, "a webhook needs events to be told of: %s", strings.Join(Events, ", "))
	}
	for i, e := range events {
		if !slices.Contains(Events, e) {
			return fault.New(fault.Input, "there is no event %.40q: want some of %s", e, strings.Join(Events, ", "))
		}
		if slices.Contains(events[:i], e) {
			return fault.New(fault.Input, "event %s is there twice", e)
		}
	}
	return nil
}

// NewSecret makes a secret.
func NewSecret(random io.Reader) (string, error) {
	key := make([]byte, keyBytes)
	if _, err := io.ReadFull(random, key); err != nil {
		return "", fault.New(fault.IO, "draw a secret: %w", err)
	}
	return secretPrefix + base64.StdEncoding.EncodeToString(key), nil
}

// Sign returns a message's signature.
func Sign(secret, id string, at time.Time, body []byte) (string, error) {
	key, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(secret, secretPrefix))
	if err != nil {
		return "", fault.New(fault.Internal, "a webhook's secret is broken: %w", err)
	}
	h := hmac.New(sha256.New, key)
	fmt.Fprintf(h, "%s.%d.%s", id, at.Unix(), body)
	return "v1," + base64.StdEncoding.EncodeToString(h.Sum(nil)), nil
}

// Message is what a webhook is to be told.
type Message struct {
	ID     int64
	URL    string
	Secret string
	Body   []byte
}

// Sender brings messages.
type Sender struct{ client *http.Client }

// NewSender returns one; its connections end with their messages.
func NewSender() *Sender {
	return &Sender{&http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: timeout}).DialContext,
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: maxAnswer,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Send makes one attempt. The status is that of the answer, 0 where there was none.
func (s *Sender) Send(ctx context.Context, m *Message, now time.Time) (status int, err error) {
	id := strconv.FormatInt(m.ID, 10)
	signature, err := Sign(m.Secret, id, now, m.Body)
	if err != nil {
		return 0, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, m.URL, bytes.NewReader(m.Body))
	if err != nil {
		return 0, fault.Wrap(fault.Input, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "semper-server")
	req.Header.Set("Webhook-Id", id)
	req.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	req.Header.Set("Webhook-Signature", signature)
	res, err := s.client.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // the address may hold a secret, and who reads the error knows it
		}
		return 0, fault.Wrap(fault.Network, err)
	}
	defer res.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(res.Body, maxAnswer)) // its status is all that counts
	if res.StatusCode < 200 || res.StatusCode > 299 {
		return res.StatusCode, fault.New(fault.Network, "it answered %d %s", res.StatusCode, http.StatusText(res.StatusCode))
	}
	return res.StatusCode, nil
}
