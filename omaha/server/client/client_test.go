package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
)

// flaky is a server that takes an upload piece by piece, breaking the connection after each but the last.
type flaky struct {
	t      *testing.T
	have   bytes.Buffer
	pieces []int64
	status int // of refused uploads; 0 breaks the connection
	puts   int
}

func (f *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Authorization") != "Bearer secret" {
		f.t.Errorf("authorization %q", r.Header.Get("Authorization"))
	}
	if r.Method == http.MethodPut {
		f.puts++
		if len(f.pieces) > 0 {
			n := f.pieces[0]
			f.pieces = f.pieces[1:]
			_, _ = io.CopyN(&f.have, r.Body, n)
			if f.status == 0 {
				panic(http.ErrAbortHandler)
			}
			w.WriteHeader(f.status)
			_ = json.NewEncoder(w).Encode(api.Error{Message: "no \x1b[31mway", Kind: "io"})
			return
		}
		_, _ = io.Copy(&f.have, r.Body)
		_ = json.NewEncoder(w).Encode(api.Blob{Complete: true})
		return
	}
	_ = json.NewEncoder(w).Encode(api.Blob{Offset: int64(f.have.Len())})
}

var (
	content = bytes.Repeat([]byte("payload "), 1000)
	file    = api.File{Name: "full.crau", Size: int64(len(content)), SHA256: "aa"}
)

func upload(t *testing.T, f *flaky) (int64, time.Duration, error) {
	t.Helper()
	f.t = t
	s := httptest.NewServer(f)
	defer s.Close()
	c, err := NewClient(s.URL, "secret")
	if err != nil {
		t.Fatal(err)
	}
	var waited time.Duration
	c.pause = func(_ context.Context, d time.Duration) error {
		waited += d
		return nil
	}
	sent, err := c.Upload(t.Context(), file, bytes.NewReader(content), nil)
	return sent, waited, err
}

func TestUploadGoesOn(t *testing.T) {
	f := &flaky{pieces: []int64{1000, 1, 3000}}
	_, waited, err := upload(t, f)
	if err != nil || !bytes.Equal(f.have.Bytes(), content) || f.puts != 4 || waited != 14*time.Second {
		t.Errorf("%d bytes arrived in %d requests, waited %v (%v)", f.have.Len(), f.puts, waited, err)
	}
}

func TestUploadGivesUp(t *testing.T) {
	f := &flaky{pieces: []int64{1, 1, 1, 1, 1, 1}}
	if _, _, err := upload(t, f); !fault.Is(err, fault.Network) || f.puts != 5 {
		t.Errorf("%d requests, error %v", f.puts, err)
	}
	for _, c := range []struct {
		status, puts int
		kind         fault.Kind
	}{
		{401, 1, fault.Verification},
		{403, 1, fault.Verification},
		{422, 1, fault.Verification},
		{400, 1, fault.Input},
		{507, 1, fault.Network},
		{503, 5, fault.Network},
		{409, 5, fault.Input},
	} {
		f := &flaky{pieces: make([]int64, 100), status: c.status}
		_, _, err := upload(t, f)
		var status *StatusError
		if !errors.As(err, &status) || status.Status != c.status || !fault.Is(err, c.kind) || f.puts != c.puts {
			t.Errorf("status %d: %d requests, error %v (%v)", c.status, f.puts, err, fault.KindOf(err))
		}
		if want := "upload full.crau: no  [31mway"; err == nil || err.Error() != want {
			t.Errorf("status %d: error %q, want %q", c.status, err, want)
		}
	}
}

func TestStrangeServers(t *testing.T) {
	for _, c := range []struct {
		name string
		h    http.HandlerFunc
		kind fault.Kind
		want string
	}{
		{"no JSON", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, fault.Input, "is no semper-server"},
		{"error without JSON", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, fault.Input, "the server answered 404 Not Found"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusTemporaryRedirect)
		}, fault.Network, "the server redirects"},
		{"more than there is", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"offset":8000}`)) }, fault.Input, "claims to have 8000 of 8000 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := httptest.NewServer(c.h)
			defer s.Close()
			client, err := NewClient(s.URL, "secret")
			if err != nil {
				t.Fatal(err)
			}
			client.pause = func(context.Context, time.Duration) error { return nil }
			if _, err := client.Upload(t.Context(), file, bytes.NewReader(content), nil); !fault.Is(err, c.kind) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v (%v), want %q", err, fault.KindOf(err), c.want)
			}
		})
	}
}
