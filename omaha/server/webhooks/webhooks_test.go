package webhooks

import (
	"crypto/rand"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	standard "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"github.com/semper-os/semper/fault"
)

// TestSend has messages checked by the specification's own library.
func TestSend(t *testing.T) {
	secret, err := NewSecret(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	check, err := standard.NewWebhook(secret)
	if err != nil {
		t.Fatal(err)
	}
	other, err := standard.NewWebhook("whsec_" + strings.Repeat("A", 44))
	if err != nil {
		t.Fatal(err)
	}
	var got []byte
	answer := http.StatusNoContent
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got, _ = io.ReadAll(r.Body)
		if err := check.Verify(got, r.Header); err != nil {
			t.Errorf("signature: %v", err)
		}
		if other.Verify(got, r.Header) == nil || check.Verify(append(got, ' '), r.Header) == nil {
			t.Error("another key's, or another body's, signature counts")
		}
		w.Header().Set("Location", "/elsewhere")
		w.WriteHeader(answer)
	}))
	defer s.Close()
	m := &Message{ID: 17, URL: s.URL + "/hook", Secret: secret, Body: []byte(`{"type":"halt"}`)}
	sender := NewSender()
	if status, err := sender.Send(t.Context(), m, time.Now()); err != nil || status != 204 || string(got) != `{"type":"halt"}` {
		t.Errorf("status %d, %q (%v)", status, got, err)
	}
	for _, answer = range []int{302, 404, 500} {
		if status, err := sender.Send(t.Context(), m, time.Now()); !fault.Is(err, fault.Network) || status != answer {
			t.Errorf("status %d: %d (%v)", answer, status, err)
		}
	}
	s.Close()
	if status, err := sender.Send(t.Context(), m, time.Now()); !fault.Is(err, fault.Network) || status != 0 || strings.Contains(err.Error(), "/hook") {
		t.Errorf("nobody there: %d (%v)", status, err)
	}
}

func TestDelay(t *testing.T) {
	var all time.Duration
	n := 1
	for ; ; n++ {
		d, more := Delay(n)
		if !more {
			break
		}
		if all += d; d < 10*time.Second || d > 24*time.Hour {
			t.Errorf("attempt %d waits %v", n, d)
		}
	}
	if n != 11 || all < 60*time.Hour || all > 96*time.Hour {
		t.Errorf("%d attempts in %v", n, all)
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		url    string
		events []string
		ok     bool
	}{
		{"https://chat.example.org/x?y=z", []string{Halt}, true},
		{"http://127.0.0.1:8080/", Events, true},
		{"ftp://example.org", []string{Halt}, false},
		{"https://", []string{Halt}, false},
		{"/hook", []string{Halt}, false},
		{"https://example.org/" + strings.Repeat("x", maxURL), []string{Halt}, false},
		{"https://example.org/", nil, false},
		{"https://example.org/", []string{"halted"}, false},
		{"https://example.org/", []string{Halt, Halt}, false},
	} {
		if err := Check(c.url, c.events); (err == nil) != c.ok || err != nil && !fault.Is(err, fault.Input) {
			t.Errorf("%.40s %v: %v", c.url, c.events, err)
		}
	}
}
