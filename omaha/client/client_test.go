package client

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
)

var machine = Machine{App: omaha.SemperApp, ID: "m", Version: "1.0.0", Channel: "stable", Board: "amd64-usr", UserAgent: "semperd/1.0.0"}

func answerer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Retry-After", "120")
		w.WriteHeader(status)
		_, _ = w.Write([]byte(body))
	}
}

func check(t *testing.T, h http.Handler) (Answer, error) {
	t.Helper()
	s := httptest.NewServer(h)
	defer s.Close()
	c, err := New(s.URL, Options{})
	if err != nil {
		t.Fatal(err)
	}
	return c.Check(t.Context(), machine, Scheduled)
}

func app(inside string) string {
	return `<response protocol="3.0"><app appid="{5E3E2F0A-9D1B-4C58-8F53-7D1F0C6B7A11}" status="ok">` + inside + `</app></response>`
}

// TestAnswersThatAreNone: whatever stands between a machine and its server is told apart, and never taken for an update.
func TestAnswersThatAreNone(t *testing.T) {
	for _, c := range []struct {
		name string
		h    http.HandlerFunc
		kind fault.Kind
		want string
	}{
		{"captive portal", answerer(200, "text/html", "<html>"), fault.Input, `is no Omaha server: its answer has the type "text/html"`},
		{"no type", answerer(200, "", ""), fault.Input, "is no Omaha server"},
		{"broken XML", answerer(200, "text/xml", "<response"), fault.Input, "omaha response: line 1"},
		{"too large", answerer(200, "text/xml", strings.Repeat(" ", omaha.MaxResponseSize+100)), fault.Input, "more than 262144 bytes"},
		{"another application", answerer(200, "text/xml", `<response protocol="3.0"><app appid="{x}" status="ok"/></response>`), fault.Input, "the answer is not about the application"},
		{"unknown application", answerer(200, "text/xml", strings.Replace(app(""), `"ok"`, `"error-unknownApplication"`, 1)), fault.Input, "does not know the application " + omaha.SemperApp},
		{"refused application", answerer(200, "text/xml", strings.Replace(app(""), `"ok"`, `"restricted"`, 1)), fault.Input, "refuses the application " + omaha.SemperApp + ": restricted"},
		{"nothing about the update", answerer(200, "text/xml", app("")), fault.Input, "says nothing about the update"},
		{"error status", answerer(200, "text/xml", app(`<updatecheck status="error-internal"/>`)), fault.Input, `the server's answer is "error-internal"`},
		{"unusable update", answerer(200, "text/xml", app(`<updatecheck status="ok"/>`)), fault.Input, "offered update: there is none"},
		{"HTTP error", answerer(503, "text/plain; charset=utf-8", "busy \x1b[31m\nsecond line"), fault.Network, `the server answered 503 Service Unavailable: busy \x1b[31m`},
		{"HTTP error with a page", answerer(502, "text/html", "<html>"), fault.Network, "the server answered 502 Bad Gateway"},
		{"redirect to GET", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, fault.Network, "drops the request's body"},
		{"redirect in a circle", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusTemporaryRedirect) }, fault.Network, "too many redirects"},
		{"connection broken", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, fault.Network, "EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a, err := check(t, c.h)
			if err == nil || a.Update != nil || !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("answer %+v, error %v (%v); want %q of kind %v", a, err, fault.KindOf(err), c.want, c.kind)
			}
		})
	}
}

func TestStatusError(t *testing.T) {
	_, err := check(t, answerer(503, "text/plain", "busy"))
	var status *StatusError
	if !errors.As(err, &status) || status.Status != 503 || status.Text != "busy" || status.RetryAfter != 2*time.Minute || status.Code() != 2503 {
		t.Errorf("%v as %+v", err, status)
	}
}

func TestRequest(t *testing.T) {
	var got *omaha.Request
	h := http.NewServeMux()
	h.HandleFunc("POST /v1/update", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/elsewhere", http.StatusPermanentRedirect) // kept as a POST with its body
	})
	h.HandleFunc("POST /elsewhere", func(w http.ResponseWriter, r *http.Request) {
		if ct, ua := r.Header.Get("Content-Type"), r.Header.Get("User-Agent"); ct != "text/xml; charset=utf-8" || ua != "semperd/1.0.0" {
			t.Errorf("content type %q, user agent %q", ct, ua)
		}
		body := make([]byte, r.ContentLength)
		_, _ = r.Body.Read(body)
		var err error
		if got, err = omaha.DecodeRequest(body); err != nil {
			t.Error(err)
		}
		answerer(200, "text/xml", app(`<updatecheck status="noupdate" PollInterval="90" reason="none yet" semper_freshness="{&#34;a&#34;:&quot;b&#34;}"/>`))(w, r)
	})
	a, err := check(t, h)
	if err != nil || !reflect.DeepEqual(a, Answer{PollInterval: 90 * time.Second, Reason: "none yet", Freshness: []byte(`{"a":"b"}`)}) {
		t.Errorf("answer %+v (%v)", a, err)
	}
	if got == nil || len(got.Apps) != 1 || !got.Apps[0].Ping || !got.Apps[0].UpdateCheck || got.Apps[0].MachineID != "m" ||
		got.InstallSource != "scheduler" || !got.IsMachine || got.Arch(&got.Apps[0]) != "amd64" {
		t.Errorf("request %+v", got)
	}
}

func TestReportWantsEveryEventAcknowledged(t *testing.T) {
	s := httptest.NewServer(answerer(200, "text/xml", app(`<event status="ok"/>`)))
	defer s.Close()
	c, err := New(s.URL+"/v1/update", Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Report(t.Context(), machine, omaha.Installed("1.1.0")); err != nil {
		t.Error(err)
	}
	if err := c.Report(t.Context(), machine, omaha.Installed("1.1.0"), omaha.Completed("1.0.0")); !fault.Is(err, fault.Input) {
		t.Errorf("one of two events acknowledged: %v", err)
	}
}

func TestNewRefuses(t *testing.T) {
	for _, url := range []string{"", "disabled", "updates.example.org", "ftp://updates.example.org", "http://", "http://u:p@updates.example.org", "http://[::1"} {
		if _, err := New(url, Options{}); !fault.Is(err, fault.Input) {
			t.Errorf("%q: %v", url, err)
		}
	}
}

func TestSilentServer(t *testing.T) {
	hold := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-hold }))
	defer s.Close()
	defer close(hold)
	c, err := New(s.URL, Options{Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Check(t.Context(), machine, Scheduled); !fault.Is(err, fault.Network) || !strings.Contains(err.Error(), "imeout") {
		t.Errorf("error %v", err)
	}
}
