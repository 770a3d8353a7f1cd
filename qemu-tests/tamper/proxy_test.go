package tamper

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func content() []byte { return bytes.Repeat([]byte("0123456789abcdef"), 10000) }

func start(t *testing.T) *Proxy {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/update" {
			_, _ = io.WriteString(w, "host "+r.Host)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content()))
	}))
	t.Cleanup(server.Close)
	p, err := Start(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

func get(t *testing.T, p *Proxy, path, ranges string) ([]byte, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.URL+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	return io.ReadAll(res.Body)
}

func TestPassesEverything(t *testing.T) {
	p := start(t)
	if b, err := get(t, p, "/v1/update", ""); err != nil || "http://"+strings.TrimPrefix(string(b), "host ") != p.URL {
		t.Errorf("the server saw %q, %v", b, err)
	}
	if b, err := get(t, p, "/payloads/x/full.crau", ""); err != nil || !bytes.Equal(b, content()) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if b, err := get(t, p, "/payloads/x/full.crau", "bytes=100000-"); err != nil || !bytes.Equal(b, content()[100000:]) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	f := p.Fetches()
	if len(f) != 2 || f[0].From != 0 || f[0].Served != 160000 || f[1].From != 100000 || f[1].Served != 60000 {
		t.Errorf("fetches: %+v", f)
	}
	if err := p.WaitServed(t.Context(), 160000); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.WaitServed(ctx, 160001); err == nil {
		t.Error("bytes beyond the end were served")
	}
}

func TestFlip(t *testing.T) {
	p := start(t)
	p.Flip(100001)
	for _, c := range []struct {
		ranges string
		from   int
	}{{"", 0}, {"bytes=99999-", 99999}, {"bytes=100001-", 100001}, {"bytes=100002-", 100002}} {
		want := content()[c.from:]
		if c.from <= 100001 {
			want = bytes.Clone(want)
			want[100001-c.from] ^= 1
		}
		if b, err := get(t, p, "/payloads/x", c.ranges); err != nil || !bytes.Equal(b, want) {
			t.Errorf("%q: not the one byte was changed (%v)", c.ranges, err)
		}
	}
	if b, err := get(t, p, "/other", ""); err != nil || !bytes.Equal(b, content()) {
		t.Errorf("something else than a payload was changed (%v)", err)
	}
}

func TestCut(t *testing.T) {
	p := start(t)
	p.CutAfter(70000)
	b, err := get(t, p, "/payloads/x", "")
	if err == nil || !bytes.Equal(b, content()[:len(b)]) || len(b) > 70000 {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if b, err := get(t, p, "/payloads/x", "bytes=80000-"); err == nil || len(b) != 0 {
		t.Errorf("behind the cut: %d bytes, %v", len(b), err)
	}
	p.CutAfter(-1)
	if b, err := get(t, p, "/payloads/x", "bytes=80000-"); err != nil || len(b) != 80000 {
		t.Errorf("afterwards: %d bytes, %v", len(b), err)
	}
}

func TestInstead(t *testing.T) {
	p := start(t)
	p.Instead(func(w http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != Payloads+"x" {
			return false
		}
		http.Error(w, "log in", http.StatusForbidden)
		return true
	})
	if b, err := get(t, p, Payloads+"x", ""); err != nil || string(b) != "log in\n" {
		t.Errorf("%q, %v", b, err)
	}
	p.Instead(nil)
	if b, err := get(t, p, Payloads+"x", ""); err != nil || !bytes.Equal(b, content()) {
		t.Errorf("afterwards: %d bytes, %v", len(b), err)
	}
}
