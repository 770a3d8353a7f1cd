package wire

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
)

// recorder is a Handler that writes down its calls and fails where it is told to.
type recorder struct {
	calls  []string
	offset int64
	fail   map[string]error
}

func (r *recorder) note(call string) error {
	r.calls = append(r.calls, call)
	name, _, _ := strings.Cut(call, " ")
	return r.fail[name]
}

func (r *recorder) Status() (Status, error) {
	return Status{Version: "1.1.0", Slot: "A", Pending: &Pending{Version: "1.2.0", At: time.Unix(1, 0).UTC()}}, r.note("status")
}

func (r *recorder) Begin(b Begin) (int64, error) {
	return r.offset, r.note(fmt.Sprintf("begin %s %d", b.Version, b.Size))
}

func (r *recorder) Data(p []byte) (int64, error) {
	r.offset += int64(len(p))
	return r.offset, r.note(fmt.Sprintf("data %d", len(p)))
}
func (r *recorder) Finish() error  { return r.note("finish") }
func (r *recorder) Abort() error   { return r.note("abort") }
func (r *recorder) Discard() error { return r.note("discard") }

func (r *recorder) Reboot(soft bool) (Going, error) {
	if soft {
		return Going{Soft: true}, r.note("reboot soft")
	}
	return Going{Why: "asked so"}, r.note("reboot")
}

func (r *recorder) Drain(_ context.Context, reason string) error { return r.note("drain " + reason) }
func (r *recorder) Undrain(context.Context) error                { return r.note("undrain") }
func (r *recorder) Warn(_ context.Context, w Warn) error {
	return r.note(fmt.Sprintf("warn %v %s", w.TTYs, w.Text))
}
func (r *recorder) Allow(version string) error   { return r.note("allow " + version) }
func (r *recorder) Rollback(reason string) error { return r.note("rollback " + reason) }

type coded struct{ error }

func (coded) OmahaCode() int { return 18 }

// pair connects a client to a server with handler h over a socket pair; the returned function hangs up and returns Serve's error.
func pair(t *testing.T, h Handler) (*Client, func() error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := Dial(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	uid, err := Peer(s.(*net.UnixConn))
	if err != nil || int(uid) != os.Getuid() {
		t.Fatalf("peer is %d (%v), this test runs as %d", uid, err, os.Getuid())
	}
	done := make(chan error, 1)
	go func() { done <- Serve(context.Background(), s, h); s.Close() }()
	return c, func() error { c.Close(); return <-done }
}

func reboot(c *Client, soft bool, want Going) error {
	got, err := c.Reboot(soft)
	if err == nil && got != want {
		err = fmt.Errorf("reboot: %+v, want %+v", got, want)
	}
	return err
}

var begin = Begin{SHA256: strings.Repeat("0a", 32), Size: 100, Version: "1.2.0"}

func TestConversation(t *testing.T) {
	h := &recorder{offset: 40}
	c, hangUp := pair(t, h)
	st, err := c.Status()
	if err != nil || st.Version != "1.1.0" || st.Pending.Version != "1.2.0" {
		t.Fatalf("status %+v, %v", st, err)
	}
	offset, err := c.Begin(begin)
	if err != nil || offset != 40 {
		t.Fatalf("begin: %d, %v", offset, err)
	}
	for _, size := range []int{60, MaxFrame, 0, 4097} {
		if err := c.Data(make([]byte, size)); err != nil {
			t.Fatalf("data of %d bytes: %v", size, err)
		}
	}
	for _, do := range []func() error{
		c.Finish, func() error { return reboot(c, false, Going{Why: "asked so"}) }, func() error { return reboot(c, true, Going{Soft: true}) },
		func() error { return c.Drain("an update") }, c.Undrain,
		func() error { return c.Warn("restart\nsoon", []string{"pts/0", "tty1"}) },
		func() error { return c.Allow("1.0.0") }, func() error { return c.Rollback("asked by a person") },
	} {
		if err := do(); err != nil {
			t.Fatal(err)
		}
	}
	if err := hangUp(); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"status", "begin 1.2.0 100", "data 60", "data 262144", "data 0", "data 4097", "finish", "reboot", "reboot soft",
		"drain an update", "undrain", "warn [pts/0 tty1] restart\nsoon", "allow 1.0.0", "rollback asked by a person",
	}
	if !reflect.DeepEqual(h.calls, want) {
		t.Errorf("calls %q, want %q", h.calls, want)
	}
}

func TestSessionEnds(t *testing.T) {
	for _, c := range []struct {
		name string
		fail string
		do   func(*Client) error
		want []string
	}{
		{"by hanging up", "", func(c *Client) error { return nil }, []string{"abort"}},
		{"by abort", "", (*Client).Abort, []string{"abort"}},
		{"by discard", "", (*Client).Discard, []string{"discard"}},
		{"by failing data", "data", func(c *Client) error { return c.Data([]byte{1}) }, []string{"data 1", "abort"}},
		{"by failing finish", "finish", (*Client).Finish, []string{"finish", "abort"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &recorder{fail: map[string]error{c.fail: fault.Wrap(fault.Verification, coded{errors.New("signature: no key fits")})}}
			client, hangUp := pair(t, h)
			if _, err := client.Begin(begin); err != nil {
				t.Fatal(err)
			}
			err := c.do(client)
			if c.fail != "" {
				var e *Error
				if !errors.As(err, &e) || e.Failure.Code != 18 || !fault.Is(err, fault.Verification) || err.Error() != "signature: no key fits" {
					t.Errorf("error %#v", err)
				}
				if err := client.Data(nil); err == nil || !strings.Contains(err.Error(), "no installation was begun") {
					t.Errorf("data after the session: %v", err)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if err := hangUp(); err != nil {
				t.Fatal(err)
			}
			if want := append([]string{"begin 1.2.0 100"}, c.want...); !reflect.DeepEqual(h.calls, want) {
				t.Errorf("calls %q, want %q", h.calls, want)
			}
		})
	}
}

func TestBusyCrossesTheSocket(t *testing.T) {
	c, hangUp := pair(t, &recorder{fail: map[string]error{"begin": ErrBusy}})
	_, err := c.Begin(begin)
	var e *Error
	if !errors.As(err, &e) || !e.Failure.Busy {
		t.Errorf("error %v", err)
	}
	if err := c.Finish(); err == nil { // no session was opened
		t.Error("finish without a session worked")
	}
	if err := hangUp(); err != nil {
		t.Fatal(err)
	}
}

func TestSecondBeginRefused(t *testing.T) {
	h := &recorder{}
	c, hangUp := pair(t, h)
	if _, err := c.Begin(begin); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Begin(begin); err == nil {
		t.Error("a second begin worked")
	}
	if err := c.Finish(); err != nil {
		t.Errorf("the first session did not survive: %v", err)
	}
	if err := hangUp(); err != nil {
		t.Fatal(err)
	}
}

func frame(kind byte, text string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(text)))
	return append(append(b, kind), text...)
}

func TestServerRefusesNonsense(t *testing.T) {
	sum := strings.Repeat("0a", 32)
	for _, c := range []struct {
		name  string
		input []byte
		want  string
	}{
		{"unknown kind", frame('X', ""), "unknown kind 0x58"},
		{"frame too long", []byte{0, 4, 0, 1, 'D'}, "262145 bytes, at most 262144"},
		{"header cut off", []byte{0, 0}, "unexpected EOF"},
		{"body cut off", frame('C', "{}")[:6], "unexpected EOF"},
		{"not JSON", frame('C', "verb=status"), "control message: invalid character"},
		{"two values", frame('C', `{"verb":"status"}{}`), "data after the JSON value"},
		{"unknown verb", frame('C', `{"verb":"format"}`), `unknown verb "format"`},
		{"unknown key", frame('C', `{"verb":"status","force":true}`), `unknown field "force"`},
		{"begin without begin", frame('C', `{"verb":"begin"}`), `"begin" is missing`},
		{"begin where none belongs", frame('C', `{"verb":"finish","begin":{}}`), `has no "begin"`},
		{"begin of another verb", frame('C', `{"verb":"reboot","begin":{"sha256":"`+sum+`","size":1,"version":"1"}}`), `verb "reboot" has no "begin"`},
		{"soft status", frame('C', `{"verb":"status","soft":true}`), `verb "status" has no "soft"`},
		{"status of a version", frame('C', `{"verb":"status","version":"1"}`), `verb "status" has no "version"`},
		{"reason to allow", frame('C', `{"verb":"allow","version":"1","reason":"x"}`), `verb "allow" has no "reason"`},
		{"warning to drain", frame('C', `{"verb":"drain","reason":"x","warn":{"text":"x","ttys":["tty1"]}}`), `verb "drain" has no "warn"`},
		{"drain without reason", frame('C', `{"verb":"drain"}`), "reason has 0 bytes"},
		{"long reason", frame('C', `{"verb":"rollback","reason":"`+strings.Repeat("x", 2049)+`"}`), "reason has 2049 bytes"},
		{"allow nothing", frame('C', `{"verb":"allow"}`), "version has 0 characters"},
		{"warn without warn", frame('C', `{"verb":"warn"}`), `"warn" is missing`},
		{"warning that steers the terminal", frame('C', `{"verb":"warn","warn":{"text":"\u001b[2J","ttys":["tty1"]}}`), "unprintable character at byte 0"},
		{"warning that is no text", frame('C', "{\"verb\":\"warn\",\"warn\":{\"text\":\"\xff\",\"ttys\":[\"tty1\"]}}"), "unprintable character at byte 0"},
		{"warning to nobody", frame('C', `{"verb":"warn","warn":{"text":"x","ttys":[]}}`), "0 terminals"},
		{"warning to a crowd", frame('C', `{"verb":"warn","warn":{"text":"x","ttys":["tty1"`+strings.Repeat(`,"tty1"`, 64)+`]}}`), "65 terminals"},
		{"warning to the disk", frame('C', `{"verb":"warn","warn":{"text":"x","ttys":["vda"]}}`), `"vda" is not a terminal's name`},
		{"warning elsewhere", frame('C', `{"verb":"warn","warn":{"text":"x","ttys":["pts/../vda"]}}`), `"pts/../vda" is not a terminal's name`},
		{"short hash", frame('C', `{"verb":"begin","begin":{"sha256":"0a","size":1,"version":"1"}}`), "is not 64 lower-case"},
		{"upper-case hash", frame('C', `{"verb":"begin","begin":{"sha256":"`+strings.ToUpper(sum)+`","size":1,"version":"1"}}`), "is not 64 lower-case"},
		{"no size", frame('C', `{"verb":"begin","begin":{"sha256":"`+sum+`","version":"1"}}`), "size 0 is not positive"},
		{"no version", frame('C', `{"verb":"begin","begin":{"sha256":"`+sum+`","size":1}}`), "version has 0 characters"},
		{"long version", frame('C', `{"verb":"begin","begin":{"sha256":"`+sum+`","size":1,"version":"`+strings.Repeat("1", 129)+`"}}`), "version has 129 characters"},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &recorder{}
			var out bytes.Buffer
			err := Serve(context.Background(), struct {
				io.Reader
				io.Writer
			}{bytes.NewReader(c.input), &out}, h)
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
			if len(h.calls) != 0 {
				t.Errorf("the handler was called: %q", h.calls)
			}
			if strings.HasSuffix(c.want, "EOF") {
				return
			}
			_, p, err := NewConn(&out).Receive()
			if err != nil {
				t.Fatalf("no answer: %v", err)
			}
			if r, err := DecodeReply(p); err != nil || r.Failure == nil || !strings.Contains(r.Failure.Text, c.want) {
				t.Errorf("answer %+v, %v", r, err)
			}
		})
	}
}

func TestClientRefusesNonsense(t *testing.T) {
	for _, c := range []struct {
		name  string
		input []byte
		want  string
	}{
		{"hangs up", nil, "hung up"},
		{"data", frame('D', "x"), "sent payload data"},
		{"negative offset", frame('C', `{"offset":-1}`), "negative offset"},
		{"offset behind the end", frame('C', `{"offset":101}`), "wants byte 101 of a payload of 100 bytes"},
		{"unknown key", frame('C', `{"ok":true}`), "unknown field"},
	} {
		t.Run(c.name, func(t *testing.T) {
			client := &Client{c: NewConn(struct {
				io.Reader
				io.Writer
			}{bytes.NewReader(c.input), io.Discard})}
			if _, err := client.Begin(begin); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("error %v, want one with %q", err, c.want)
			}
		})
	}
}

func TestLongFailureIsCut(t *testing.T) {
	c, hangUp := pair(t, &recorder{fail: map[string]error{"status": errors.New(strings.Repeat("x", MaxFrame))}})
	if _, err := c.Status(); err == nil || len(err.Error()) > maxFailureText+10 {
		t.Errorf("got %d bytes of error", len(err.Error()))
	}
	if err := hangUp(); err != nil {
		t.Fatal(err)
	}
}

// FuzzServe feeds a hostile semperd to the server. It must not panic, must not call data or finish outside a session, and must close every session.
func FuzzServe(f *testing.F) {
	ok := frame('C', `{"verb":"begin","begin":{"sha256":"`+strings.Repeat("0a", 32)+`","size":9,"version":"1"}}`)
	f.Add(frame('C', `{"verb":"status"}`))
	f.Add(bytes.Join([][]byte{ok, frame('D', "123"), frame('C', `{"verb":"finish"}`)}, nil))
	f.Add(bytes.Join([][]byte{ok, frame('C', `{"verb":"discard"}`), frame('D', "123")}, nil))
	f.Add([]byte{255, 255, 255, 255, 'C'})
	f.Fuzz(func(t *testing.T, in []byte) {
		h := &recorder{}
		_ = Serve(context.Background(), struct {
			io.Reader
			io.Writer
		}{bytes.NewReader(in), io.Discard}, h)
		open := false
		for _, call := range h.calls {
			name, _, _ := strings.Cut(call, " ")
			switch name {
			case "begin":
				if open {
					t.Fatalf("begin in a session: %q", h.calls)
				}
				open = true
			case "data":
				if !open {
					t.Fatalf("data outside a session: %q", h.calls)
				}
			case "finish", "abort", "discard":
				if !open {
					t.Fatalf("%s outside a session: %q", name, h.calls)
				}
				open = false
			}
		}
		if open {
			t.Fatalf("session left open: %q", h.calls)
		}
	})
}

// FuzzClient feeds a hostile semper-installd to the client.
func FuzzClient(f *testing.F) {
	f.Add(frame('C', `{"offset":7}`))
	f.Add(frame('C', `{"failure":{"text":"x","kind":"io","code":9}}`))
	f.Add(frame('C', `{"status":{"version":"1.0.0","slot":"A","root_hash":"","trial":true}}`))
	f.Fuzz(func(t *testing.T, in []byte) {
		client := func() *Client {
			return &Client{c: NewConn(struct {
				io.Reader
				io.Writer
			}{bytes.NewReader(in), io.Discard})}
		}
		if offset, err := client().Begin(begin); err == nil && (offset < 0 || offset > begin.Size) {
			t.Fatalf("offset %d", offset)
		}
		_, _ = client().Status()
		_ = client().Finish()
	})
}
