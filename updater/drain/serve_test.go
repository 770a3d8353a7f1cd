package drain

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
)

// serve runs the service for m and returns a client.
func serve(t *testing.T, m machine, o Options) Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	o.Root, o.Now, o.Log = m.root, time.Now, slog.New(slog.DiscardHandler)
	if o.State == nil {
		o.State = newState()
	}
	if o.Allowed == nil {
		o.Allowed = []uint32{uint32(os.Getuid())}
	}
	if o.Idle == 0 {
		o.Idle = time.Hour
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, o) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return Client{Path: path}
}

func TestClient(t *testing.T) {
	m := newMachine(t, map[string]string{etc + "10-a": "", etc + "20-b": "[ $1 = undrain ] || [ -e " + filepath.Join(t.TempDir(), "ok") + " ] || { echo '<\"two\" pods>'; exit 7; }"})
	c := serve(t, m, Options{})
	err := c.Drain(t.Context(), Request{Reason: "update", From: "1", To: "2", Limit: time.Minute})
	var h *HookError
	if !errors.As(err, &h) || h.Hook != "20-b" || h.Output != "<\"two\" pods>\n" || err.Error() != `drain hook 20-b failed: exit status 7: <"two" pods>` || !fault.Is(err, fault.Verification) {
		t.Errorf("drain: %v, %+v", err, h)
	}
	if got := m.calls(t); got != "10-a drain, 20-b drain, 20-b undrain, 10-a undrain" {
		t.Errorf("called %s", got)
	}
	os.Remove(filepath.Join(m.root, etc, "20-b"))
	if err := c.Drain(t.Context(), Request{}); err != nil {
		t.Error(err)
	}
	if err := c.Undrain(t.Context()); err != nil {
		t.Error(err)
	}
	if got := m.calls(t); got != "10-a drain, 10-a undrain" {
		t.Errorf("called %s", got)
	}
	if err := c.Drain(t.Context(), Request{Reason: "a\nb"}); !fault.Is(err, fault.Input) {
		t.Errorf("a reason of two lines: %v", err)
	}
	if err := (Client{Path: filepath.Join(t.TempDir(), "nobody")}).Undrain(t.Context()); !fault.Is(err, fault.IO) || !strings.Contains(err.Error(), "connect to the drain service") {
		t.Errorf("no service: %v", err)
	}
}

// Who hangs up takes the wish back.
func TestHangUp(t *testing.T) {
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	m := newMachine(t, map[string]string{etc + "10-a": "", etc + "20-b": "[ $1 = undrain ] || { echo here >" + fifo + "; sleep 1000; }", etc + "30-c": ""})
	c := serve(t, m, Options{Limit: time.Hour})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- c.Drain(ctx, Request{}) }()
	if _, err := os.ReadFile(fifo); err != nil { // the hook runs
		t.Fatal(err)
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := c.Undrain(t.Context()); err != nil { // has its turn when the drain is over
		t.Error(err)
	}
	if got := m.calls(t); got != "10-a drain, 20-b drain, 20-b undrain, 10-a undrain" {
		t.Errorf("called %s", got)
	}
}

func TestStranger(t *testing.T) {
	m := newMachine(t, map[string]string{etc + "10-a": ""})
	c := serve(t, m, Options{Allowed: []uint32{uint32(os.Getuid()) + 1}})
	if err := c.Drain(t.Context(), Request{}); err == nil || m.calls(t) != "" {
		t.Errorf("another user was served: %v", err)
	}
}

func TestIdleExit(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Serve(t.Context(), l, Options{Root: t.TempDir(), State: newState(), Idle: time.Millisecond, Now: time.Now, Log: slog.New(slog.DiscardHandler)}); err != nil {
		t.Error(err)
	}
}

func TestRequests(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{`{"verb":"drain","reason":"update","from":"1.0.0","to":"1.1.0","limit_ns":300000000000}`, ""},
		{`{"verb":"undrain"}`, ""},
		{`{"verb":"warn","text":"soon","ttys":["pts/0","tty1","pts/1234"]}`, ""},
		{``, "request: not a JSON object"},
		{`[]`, "request: not a JSON object"},
		{`null`, "request: not a JSON object"},
		{`{"verb":"drain"} {}`, "request: data after the JSON object"},
		{`{"verb":"reboot"}`, `request: unknown verb "reboot"`},
		{`{"verb":"drain","force":true}`, `request: json: unknown field "force"`},
		{`{"verb":"drain","text":"x"}`, "request: drain takes no text and no ttys"},
		{`{"verb":"drain","limit_ns":-1}`, "request: the time limit is 0 to 1h0m0s, not -1ns"},
		{`{"verb":"drain","limit_ns":3600000000001}`, "request: the time limit is 0 to 1h0m0s, not 1h0m0.000000001s"},
		{`{"verb":"drain","to":"a\u0000b"}`, "request: to has at most 256 bytes and no control characters"},
		{`{"verb":"drain","from":"` + strings.Repeat("x", 257) + `"}`, "request: from has at most 256 bytes and no control characters"},
		{`{"verb":"undrain","to":"1"}`, "request: undrain takes nothing"},
		{`{"verb":"warn","text":"x","to":"1"}`, "request: warn takes only text and ttys"},
		{`{"verb":"warn","ttys":["pts/0"]}`, "request: the text has 0 bytes, 1 to 2048 are allowed"},
		{`{"verb":"warn","text":"` + strings.Repeat("x", 2049) + `"}`, "request: the text has 2049 bytes, 1 to 2048 are allowed"},
		{`{"verb":"warn","text":"x","ttys":["pts/../sda"]}`, `request: "pts/../sda" is not a terminal's name (examples: "pts/0", "tty1")`},
		{`{"verb":"warn","text":"x","ttys":[` + strings.TrimSuffix(strings.Repeat(`"tty1",`, 257), ",") + `]}`, "request: 257 ttys, at most 256 are allowed"},
	} {
		_, err := decodeRequest([]byte(c.line))
		if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want || !fault.Is(err, fault.Input)) {
			t.Errorf("%.80s: %v, want %q", c.line, err, c.want)
		}
	}
}

func TestLines(t *testing.T) {
	for _, c := range []struct {
		in   string
		kind fault.Kind
	}{{"{}\n{}\n", fault.Input}, {strings.Repeat("x", maxLine+10), fault.Input}, {strings.Repeat("x", maxLine) + "\n", fault.Input}, {"{}", fault.IO}, {"", fault.IO}} {
		if _, err := readLine(strings.NewReader(c.in)); !fault.Is(err, c.kind) {
			t.Errorf("%.20q…: %v", c.in, err)
		}
	}
	if line, err := readLine(strings.NewReader("{}\n")); err != nil || string(line) != "{}\n" {
		t.Errorf("%q, %v", line, err)
	}
}

// However much JSON escapes, a reply fits into a line.
func TestReplyFits(t *testing.T) {
	bad := strings.Repeat("\x01", 1<<20)
	data, err := json.Marshal(newReply(fault.Wrap(fault.Verification, &HookError{Hook: strings.Repeat("\x01", 255), Text: bad, Output: strings.Repeat("\x01", 4<<10)})))
	if err != nil || len(data) >= maxLine {
		t.Errorf("%d bytes, %v", len(data), err)
	}
	var h *HookError
	if err := decodeReply(data); !errors.As(err, &h) || !fault.Is(err, fault.Verification) {
		t.Errorf("%T", err)
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{`{"verb":"drain","reason":"update","from":"1","to":"2","limit_ns":1000}`, `{"verb":"undrain"}`, `{"verb":"warn","text":"a\u001b[2J","ttys":["pts/0"]}`, `{"verb":"warn","ttys":["../sda"]}`, `{`, "\n"} {
		f.Add([]byte(s))
	}
	root := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		s := newServer(Options{Root: root, State: newState(), Now: time.Now, Log: slog.New(slog.DiscardHandler)})
		s.write = func(name, text string) error {
			if !ttyName.MatchString(name) || strings.ContainsAny(strings.TrimPrefix(text, "\r\n\a"), "\x00\a\x1b\x7f\u009b") {
				t.Errorf("%q would get %q", name, text)
			}
			return nil
		}
		here, there := net.Pipe()
		done := make(chan error, 1)
		go func() {
			done <- s.handle(context.Background(), there)
			there.Close()
		}()
		go func() { _, _ = here.Write(append(data, '\n')) }()
		answer, err := io.ReadAll(here)
		here.Close()
		served := <-done
		// Exactly one line that the client understands, and that says the same.
		if err != nil || len(answer) == 0 || len(answer) > maxLine || strings.IndexByte(string(answer), '\n') != len(answer)-1 {
			t.Errorf("%q: answer %q, %v", data, answer, err)
		}
		if got := decodeReply(answer); (got == nil) != (served == nil) {
			t.Errorf("%q: served %v, said %v", data, served, got)
		}
	})
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{`{}`, `{"failure":{"text":"no","kind":"verification","hook":"10-a","output":"x"}}`, `{"failure":{}}`, `{"failure":null}`, `null`, `{"failure":{"kind":"none"}}`, ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		line, err := readLine(strings.NewReader(string(data) + "\n"))
		if err != nil {
			return
		}
		err = decodeReply(line)
		if err == nil {
			var r reply // only an answer without a failure is success
			if json.Unmarshal(line, &r) != nil || r.Failure != nil {
				t.Errorf("%q is taken for success", data)
			}
			return
		}
		var h *HookError
		if errors.As(err, &h) && (h.Hook == "" || len(h.Hook) > 300 || len(h.Output) > 13<<10) || err.Error() == "" {
			t.Errorf("%q: %v", data, err)
		}
	})
}
