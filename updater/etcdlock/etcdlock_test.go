package etcdlock

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
)

func TestOptions(t *testing.T) {
	good := Options{Endpoints: []string{"https://10.0.0.1:2379", "https://[::1]:2379"}, Group: "web.1-a", ID: "0123abc"}
	for _, c := range []struct {
		name, want string
		change     func(*Options)
	}{
		{"good", "", func(*Options) {}},
		{"all of it", "", func(o *Options) {
			o.CA, o.Cert, o.Key, o.Username, o.Password, o.TTL = "a", "b", "c", "d", "e", 24*time.Hour
			o.DialTimeout, o.RequestTimeout = time.Second, time.Minute
		}},
		{"no endpoint", "0 endpoints", func(o *Options) { o.Endpoints = nil }},
		{"many endpoints", "11 endpoints", func(o *Options) { o.Endpoints = make([]string, 11) }},
		{"no scheme", "is not an endpoint", func(o *Options) { o.Endpoints = []string{"10.0.0.1:2379"} }},
		{"no port", "is not an endpoint", func(o *Options) { o.Endpoints = []string{"https://10.0.0.1"} }},
		{"path", "is not an endpoint", func(o *Options) { o.Endpoints = []string{"https://10.0.0.1:2379/"} }},
		{"user", "is not an endpoint", func(o *Options) { o.Endpoints = []string{"https://u:p@10.0.0.1:2379"} }},
		{"mixed", "all http or all https", func(o *Options) { o.Endpoints = append(o.Endpoints, "http://10.0.0.1:2379") }},
		{"cert alone", "needs its key", func(o *Options) { o.Cert = "x" }},
		{"user alone", "needs a password", func(o *Options) { o.Username = "x" }},
		{"http and ca", "write https", func(o *Options) { o.Endpoints, o.CA = []string{"http://10.0.0.1:2379"}, "x" }},
		{"group", "group \"a/b\"", func(o *Options) { o.Group = "a/b" }},
		{"no group", "group \"\"", func(o *Options) { o.Group = "" }},
		{"id", "id \"a/b\"", func(o *Options) { o.ID = "a/b" }},
		{"id with a line end", "id", func(o *Options) { o.ID = "a\n" }},
		{"short ttl", "ttl 1s is out of range", func(o *Options) { o.TTL = time.Second }},
		{"long ttl", "ttl 25h0m0s is out of range", func(o *Options) { o.TTL = 25 * time.Hour }},
		{"timeout", "timeout 2m0s is out of range", func(o *Options) { o.RequestTimeout = 2 * time.Minute }},
		{"negative timeout", "timeout -1s is out of range", func(o *Options) { o.DialTimeout = -time.Second }},
	} {
		o := good
		o.Endpoints = append([]string{}, good.Endpoints...)
		c.change(&o)
		l, err := New("program", o)
		if c.want == "" {
			if err != nil || l.options.RequestTimeout == 0 || l.options.DialTimeout == 0 || l.options.TTL == 0 {
				t.Errorf("%s: %+v, %v", c.name, l, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), c.want) || !fault.Is(err, fault.Input) {
			t.Errorf("%s: %v, want an input error with %q", c.name, err, c.want)
		}
	}
}

// A program that answers nonsense, fails or is not there gives no lock. What a real one does is package semaphore's test.
func TestNoAnswer(t *testing.T) {
	for _, c := range []struct {
		name, script string
		kind         fault.Kind
		want         string
	}{
		{"nothing", "exit 0", fault.IO, "answer of semper-etcdlock: EOF"},
		{"fails", "echo no memory >&2; exit 3", fault.IO, "exit status 3 no memory"},
		{"no JSON", "echo yes", fault.IO, "answer of semper-etcdlock"},
		{"two values", `echo '{"lease":1}{"lease":1}'`, fault.IO, "more than one value"},
		{"unknown field", `echo '{"lease":1,"ok":true}'`, fault.IO, "unknown field"},
		{"error without text", `echo '{"lease":1,"kind":"network"}'`, fault.IO, "without a text"},
		{"too long", `echo '{"lease":1,"error":"'; head -c 100000 /dev/zero | tr '\0' a`, fault.IO, "answer of semper-etcdlock"},
		{"kind", `echo '{"lease":0,"error":"no","kind":"network"}'`, fault.Network, "no"},
		{"unknown kind", `echo '{"lease":0,"error":"no","kind":"fun"}'`, fault.Internal, "no"},
	} {
		t.Run(c.name, func(t *testing.T) {
			program := filepath.Join(t.TempDir(), "program")
			if err := os.WriteFile(program, []byte("#!/bin/sh\n"+c.script+"\n"), 0o755); err != nil {
				t.Fatal(err)
			}
			l, err := New(program, Options{Endpoints: []string{"http://127.0.0.1:1"}, Group: "g", ID: "a"})
			if err != nil {
				t.Fatal(err)
			}
			if err := l.Acquire(t.Context()); err == nil || fault.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v (%v), want %v with %q", err, fault.KindOf(err), c.kind, c.want)
			}
		})
	}
	l, err := New("/nonexistent/semper-etcdlock", Options{Endpoints: []string{"http://127.0.0.1:1"}, Group: "g", ID: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Held(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without the program: %v", err)
	}
}

func FuzzReadCall(f *testing.F) {
	f.Add([]byte(`{"do":"acquire","lease":7,"options":{"Endpoints":["https://10.0.0.1:2379"],"Group":"g","ID":"a","TTL":60000000000}}`))
	f.Add([]byte(`{"do":"reboot"}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		c, err := ReadCall(bytes.NewReader(p))
		if err != nil {
			if !fault.Is(err, fault.Input) {
				t.Errorf("%v is no input error", err)
			}
			return
		}
		again, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ReadCall(bytes.NewReader(again)); err != nil {
			t.Errorf("%s: %v", again, err)
		}
	})
}

func FuzzReadAnswer(f *testing.F) {
	f.Add([]byte(`{"lease":7}`))
	f.Add([]byte(`{"lease":0,"error":"x","kind":"network","lost":true}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		if a, err := ReadAnswer(bytes.NewReader(p)); err == nil && a.Error == "" && a.err() != nil {
			t.Errorf("%q: an answer without error gives %v", p, a.err())
		}
	})
}
