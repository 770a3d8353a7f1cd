package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"strings"
	"testing"
)

// fakeQEMU answers each command with what reply returns; an empty reply closes the connection.
func fakeQEMU(t *testing.T, reply func(command, id string) string) (*Monitor, error) {
	t.Helper()
	client, server := net.Pipe()
	t.Cleanup(func() { client.Close(); server.Close() })
	go func() {
		defer server.Close()
		fmt.Fprintln(server, `{"QMP": {"version": {}, "capabilities": []}}`)
		lines := bufio.NewScanner(server)
		for lines.Scan() {
			var m struct{ Execute, ID string }
			if json.Unmarshal(lines.Bytes(), &m) != nil {
				return
			}
			r := `{"return": {}, "id": "` + m.ID + `"}`
			if m.Execute != "qmp_capabilities" {
				r = reply(m.Execute, m.ID)
			}
			if r == "" {
				return
			}
			fmt.Fprintln(server, r)
		}
	}()
	return newMonitor(t.Context(), client)
}

func TestMonitorAnswers(t *testing.T) {
	m, err := fakeQEMU(t, func(command, id string) string {
		switch command {
		case "query-status":
			return `{"event": "STOP", "timestamp": {"seconds": 7, "microseconds": 5}}` + "\n" +
				`{"return": {"status": "paused"}, "id": "unknown"}` + "\n" +
				`{"return": {"status": "paused"}, "id": "` + id + `"}`
		case "stop":
			return `{"error": {"class": "GenericError", "desc": "not today"}, "id": "` + id + `"}`
		default:
			return ""
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if s, err := m.Status(t.Context()); err != nil || s != "paused" {
		t.Errorf("status %q, %v", s, err)
	}
	e, err := m.WaitEvent(t.Context(), 0, func(e Event) bool { return e.Name == "STOP" })
	if err != nil || e.Time.Unix() != 7 || m.Count("STOP") != 1 || m.Count("RESET") != 0 {
		t.Errorf("event %+v, %v", e, err)
	}
	if err := m.Stop(t.Context()); err == nil || err.Error() != "QEMU: stop: not today" {
		t.Errorf("got %v", err)
	}
	if err := m.Continue(t.Context()); err == nil || !strings.Contains(err.Error(), "closed its monitor") {
		t.Errorf("got %v", err)
	}
	if err := m.Continue(t.Context()); err == nil || !strings.Contains(err.Error(), "closed its monitor") {
		t.Errorf("a second time: got %v", err)
	}
	if _, err := m.WaitEvent(t.Context(), 1, func(Event) bool { return true }); err == nil {
		t.Error("WaitEvent waits on a closed connection")
	}
}

func TestMonitorContext(t *testing.T) {
	m, err := fakeQEMU(t, func(string, string) string { return `{"event": "NOTHING"}` })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Status(ctx); err == nil || !strings.Contains(err.Error(), "canceled") {
		t.Errorf("got %v", err)
	}
}

func TestMonitorGarbage(t *testing.T) {
	m, err := fakeQEMU(t, func(string, string) string { return "no JSON" })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := m.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "not JSON") {
		t.Errorf("got %v", err)
	}
}

func FuzzMonitorMessage(f *testing.F) {
	f.Add([]byte(`{"return": {}, "id": "1"}`))
	f.Add([]byte(`{"error": {"class": "x", "desc": "y"}, "id": "1"}`))
	f.Add([]byte(`{"event": "RESET", "data": {"guest": true}, "timestamp": {"seconds": 1, "microseconds": 2}}`))
	f.Add([]byte(`{"QMP": {}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m := &Monitor{pending: map[string]chan answer{"1": make(chan answer, 1)}, changed: make(chan struct{})}
		err := m.message(line)
		if err == nil && !json.Valid(line) {
			t.Errorf("%q is not JSON, yet taken", line)
		}
	})
}
