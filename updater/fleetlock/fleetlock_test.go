package fleetlock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/semper-os/semper/fault"
)

// server is written from the protocol's text alone: a counting semaphore with owned, recursive locks.
type server struct {
	slots int

	mu      sync.Mutex
	holders map[string]map[string]bool // group, id
	served  int
}

func (s *server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.served++
	refuse := func(status int, kind, value string) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		json.NewEncoder(w).Encode(map[string]string{"kind": kind, "value": value})
	}
	if r.Method != http.MethodPost {
		refuse(http.StatusMethodNotAllowed, "bad_method", r.Method)
		return
	}
	if v := r.Header["Fleet-Lock-Protocol"]; len(v) != 1 || v[0] != "true" {
		refuse(http.StatusBadRequest, "missing_header", fmt.Sprint(v))
		return
	}
	body, _ := io.ReadAll(r.Body)
	var m map[string]map[string]string // nothing but strings below client_params
	if err := json.Unmarshal(body, &m); err != nil || len(m) != 1 || len(m["client_params"]) != 2 {
		refuse(http.StatusBadRequest, "invalid_body", string(body))
		return
	}
	id, group := m["client_params"]["id"], m["client_params"]["group"]
	if id == "" || !regexp.MustCompile(`^[a-zA-Z0-9.-]+$`).MatchString(group) {
		refuse(http.StatusBadRequest, "invalid_client_identity", string(body))
		return
	}
	if s.holders[group] == nil {
		s.holders[group] = map[string]bool{}
	}
	switch r.URL.Path {
	case "/base/v1/pre-reboot":
		if !s.holders[group][id] && len(s.holders[group]) >= s.slots {
			refuse(http.StatusConflict, "failed_lock_semaphore_full", "semaphore currently full, all slots are locked already")
			return
		}
		s.holders[group][id] = true
	case "/base/v1/steady-state":
		delete(s.holders[group], id)
	default:
		http.NotFound(w, r)
	}
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.served
}

func client(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestProtocol(t *testing.T) {
	s := &server{slots: 1, holders: map[string]map[string]bool{}}
	h := httptest.NewServer(s)
	defer h.Close()
	a := client(t, Options{URL: h.URL + "/base/", ID: "a", HTTP: h.Client()})
	b := client(t, Options{URL: h.URL + "/base", ID: "b", Group: "default"})
	other := client(t, Options{URL: h.URL + "/base", ID: "b", Group: "web.1-a"})
	full := &Refused{Kind: "failed_lock_semaphore_full", Value: "semaphore currently full, all slots are locked already", Status: 409}
	for i, step := range []struct {
		call func(context.Context) error
		want *Refused
	}{
		{b.Release, nil}, // at its start a machine releases, whether it holds or not
		{a.Acquire, nil},
		{a.Acquire, nil}, // recursive
		{a.Held, nil},
		{b.Acquire, full},
		{b.Held, full},
		{other.Acquire, nil}, // another group
		{b.Release, nil},     // not its lock
		{a.Held, nil},
		{a.Release, nil},
		{a.Release, nil},
		{b.Acquire, nil},
		{a.Held, full},
	} {
		before := s.count()
		err := step.call(t.Context())
		if n := s.count() - before; n != 1 {
			t.Errorf("step %d: %d requests, want one", i, n)
		}
		if step.want == nil {
			if err != nil {
				t.Errorf("step %d: %v", i, err)
			}
			continue
		}
		var r *Refused
		if !errors.As(err, &r) || *r != *step.want || !fault.Is(err, fault.Verification) {
			t.Errorf("step %d: %v, want %+v", i, err, step.want)
		}
	}
}

func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name    string
		status  int
		kind    string // Content-Type
		body    string
		refused *Refused
		fault   fault.Kind
		text    string
	}{
		{"empty", 200, "", "", nil, 0, ""},
		{"json", 200, "application/json", "{}", nil, 0, ""},
		{"plain", 200, "text/plain", "ok", nil, 0, ""},
		{"portal", 200, "text/html; charset=utf-8", "<html>", nil, fault.Network, "a portal?"},
		{"created is not 200", 201, "", "", &Refused{Status: 201}, fault.Network, "HTTP status 201 without"},
		{"no content is not 200", 204, "", "", &Refused{Status: 204}, fault.Network, "HTTP status 204 without"},
		{"redirect", 302, "", "", &Refused{Status: 302}, fault.Network, "HTTP status 302 without"},
		{"permanent redirect", 308, "", "", &Refused{Status: 308}, fault.Network, "HTTP status 308 without"},
		{
			"airlock full", 500, "", `{"kind":"failed_lock","value":"lock failed"}`, &Refused{"failed_lock", "lock failed", 500}, fault.Verification,
			"FleetLock pre-reboot: lock failed (failed_lock, HTTP status 500)",
		},
		{"unknown group", 400, "", `{"kind":"unknown_group","value":"x"}`, &Refused{"unknown_group", "x", 400}, fault.Verification, "unknown_group"},
		{"more keys", 400, "", `{"kind":"k","value":"v","more":[1]}`, &Refused{"k", "v", 400}, fault.Verification, "v (k"},
		{"no value", 400, "", `{"kind":"k"}`, &Refused{"k", "refused", 400}, fault.Verification, "refused (k"},
		{"no kind", 400, "", `{"value":"v"}`, &Refused{Status: 400}, fault.Network, "HTTP status 400"},
		{"odd kind", 400, "", `{"kind":"a b\u001b","value":"v"}`, &Refused{Status: 400}, fault.Network, "HTTP status 400"},
		{"proxy", 502, "text/html", "<h1>Bad Gateway</h1>", &Refused{Status: 502}, fault.Network, "HTTP status 502"},
		{"terminal codes", 500, "", `{"kind":"k","value":"a\u001b[31m\nb\u202e"}`, &Refused{"k", "a[31m b", 500}, fault.Verification, ""},
		{"long", 500, "", `{"kind":"k","value":"` + strings.Repeat("é", 400) + `"}`, &Refused{"k", strings.Repeat("é", 150) + "…", 500}, fault.Verification, ""},
		{"endless", 500, "", `{"kind":"k","value":"` + strings.Repeat("x", 1<<20) + `"}`, &Refused{Status: 500}, fault.Network, "HTTP status 500"},
	} {
		t.Run(c.name, func(t *testing.T) {
			requests := 0
			h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				requests++
				w.Header()["Content-Type"] = nil
				if c.kind != "" {
					w.Header().Set("Content-Type", c.kind)
				}
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				io.WriteString(w, c.body)
			}))
			defer h.Close()
			err := client(t, Options{URL: h.URL, ID: "a"}).Acquire(t.Context())
			if requests != 1 {
				t.Errorf("%d requests, want 1", requests)
			}
			if c.refused == nil && c.text == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var r *Refused
			if (c.refused != nil) != errors.As(err, &r) || (r != nil && *r != *c.refused) || !fault.Is(err, c.fault) || !strings.Contains(err.Error(), c.text) {
				t.Errorf("%v: %+v, kind %v, want %+v, kind %v", err, r, fault.KindOf(err), c.refused, c.fault)
			}
		})
	}
}

func TestNoAnswer(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	url := strings.Replace(gone.URL, "http://", "http://user:secret@", 1)
	err := client(t, Options{URL: url, ID: "a"}).Acquire(t.Context())
	if !fault.Is(err, fault.Network) || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), "connection refused") {
		t.Errorf("nobody there: %v", err)
	}
	stop := make(chan struct{})
	silent := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stop }))
	defer silent.Close()
	defer close(stop)
	err = client(t, Options{URL: silent.URL, ID: "a", Timeout: 50 * time.Millisecond}).Held(t.Context())
	if !fault.Is(err, fault.Network) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("silence: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client(t, Options{URL: silent.URL, ID: "a"}).Release(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	broken := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.WriteHeader(http.StatusConflict)
		io.WriteString(w, `{"kind":`)
	}))
	defer broken.Close()
	if err := client(t, Options{URL: broken.URL, ID: "a"}).Acquire(t.Context()); !fault.Is(err, fault.Network) || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("broken off: %v", err)
	}
}

func TestOptions(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want string
	}{
		{Options{URL: "https://h", ID: "a"}, ""},
		{Options{URL: "http://h:1/p/q/", ID: strings.Repeat("a", 128), Group: strings.Repeat("g", 64), Timeout: 30 * time.Minute}, ""},
		{Options{URL: "", ID: "a"}, "base address"},
		{Options{URL: "h", ID: "a"}, "base address"},
		{Options{URL: "ftp://h", ID: "a"}, "base address"},
		{Options{URL: "https:///p", ID: "a"}, "base address"},
		{Options{URL: "https://h?x", ID: "a"}, "base address"},
		{Options{URL: "https://h#x", ID: "a"}, "base address"},
		{Options{URL: "https://h", ID: ""}, "FleetLock id"},
		{Options{URL: "https://h", ID: "a b"}, "FleetLock id"},
		{Options{URL: "https://h", ID: strings.Repeat("a", 129)}, "FleetLock id"},
		{Options{URL: "https://h", ID: "a", Group: "a_b"}, "FleetLock group"},
		{Options{URL: "https://h", ID: "a", Group: "a\n"}, "FleetLock group"},
		{Options{URL: "https://h", ID: "a", Group: strings.Repeat("g", 65)}, "FleetLock group"},
		{Options{URL: "https://h", ID: "a", Timeout: time.Hour}, "FleetLock timeout"},
		{Options{URL: "https://h", ID: "a", Timeout: -1}, "FleetLock timeout"},
	} {
		_, err := New(c.o)
		if (c.want == "") != (err == nil) || (err != nil && (!strings.Contains(err.Error(), c.want) || !fault.Is(err, fault.Input))) {
			t.Errorf("New(%+v): %v, want %q", c.o, err, c.want)
		}
	}
}

func FuzzParseError(f *testing.F) {
	for _, s := range []string{`{"kind":"failed_lock","value":"lock failed"}`, `{"kind":"","value":1}`, `[]`, `{"kind":"k","value":"\u001b[2J\u202e\ud800"}`, "\xff", "<html>"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		kind, value := parseError(body)
		if (kind == "") != (value == "") || len(kind) > 64 || len(value) > maxText+len("…") || !utf8.ValidString(value) || strings.ContainsFunc(kind+value, unicode.IsControl) {
			t.Errorf("%q: kind %q, value %q", body, kind, value)
		}
	})
}
