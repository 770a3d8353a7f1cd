package vm

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semper-os/semper/fault"
)

// maxQMPLine bounds one message of QEMU's. The longest answer asked for here has a few kilobytes.
const maxQMPLine = 4 << 20

// Monitor is a client of QEMU's machine protocol: one JSON object a line, commands answered in order, events in between.
// Its methods may be called from several goroutines.
type Monitor struct {
	conn   net.Conn
	nextID atomic.Uint64

	writing sync.Mutex

	mu      sync.Mutex
	pending map[string]chan answer
	events  []Event
	changed chan struct{} // closed and replaced at each event, and when the connection ends
	err     error         // why the connection ended
}

// Event is something that happened to the machine: RESET, SHUTDOWN, STOP, RESUME, JOB_STATUS_CHANGE …
type Event struct {
	Name string
	Data json.RawMessage
	Time time.Time
}

type answer struct {
	Return json.RawMessage
	Err    error
}

type qmpMessage struct {
	QMP    json.RawMessage `json:"QMP"`
	ID     string          `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

// newMonitor talks on a fresh connection: greeting, then leaving the negotiation mode.
func newMonitor(ctx context.Context, conn net.Conn) (*Monitor, error) {
	m := &Monitor{conn: conn, pending: map[string]chan answer{}, changed: make(chan struct{})}
	go m.read()
	if _, err := m.Execute(ctx, "qmp_capabilities", nil); err != nil {
		conn.Close()
		return nil, err
	}
	return m, nil
}

func (m *Monitor) read() {
	scanner := bufio.NewScanner(m.conn)
	scanner.Buffer(make([]byte, 64<<10), maxQMPLine)
	for scanner.Scan() {
		if err := m.message(scanner.Bytes()); err != nil {
			m.conn.Close()
			m.end(err)
			return
		}
	}
	err := scanner.Err()
	if err == nil {
		err = errors.New("QEMU closed its monitor")
	}
	m.end(err)
}

func (m *Monitor) message(line []byte) error {
	var msg qmpMessage
	if err := json.Unmarshal(line, &msg); err != nil {
		return fmt.Errorf("a message of QEMU's monitor is not JSON: %w", err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case msg.Event != "":
		at := time.Unix(msg.Timestamp.Seconds, msg.Timestamp.Microseconds*1000)
		m.events = append(m.events, Event{Name: msg.Event, Data: msg.Data, Time: at})
		close(m.changed)
		m.changed = make(chan struct{})
	case msg.ID != "":
		if ch := m.pending[msg.ID]; ch != nil {
			delete(m.pending, msg.ID)
			a := answer{Return: msg.Return}
			if msg.Error != nil {
				a.Err = errors.New(msg.Error.Desc)
			}
			ch <- a
		}
	}
	return nil
}

func (m *Monitor) end(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = fault.Wrap(fault.IO, err)
	for id, ch := range m.pending {
		delete(m.pending, id)
		ch <- answer{Err: m.err}
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

// Execute runs one command. Args is encoded as JSON; nil sends none.
func (m *Monitor) Execute(ctx context.Context, command string, args any) (json.RawMessage, error) {
	id := fmt.Sprint(m.nextID.Add(1))
	request := map[string]any{"execute": command, "id": id}
	if args != nil {
		request["arguments"] = args
	}
	line, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	ch := make(chan answer, 1)
	m.mu.Lock()
	if m.err != nil {
		defer m.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", command, m.err)
	}
	m.pending[id] = ch
	m.mu.Unlock()

	m.writing.Lock()
	_, err = m.conn.Write(append(line, '\n'))
	m.writing.Unlock()
	if err != nil {
		return nil, fault.New(fault.IO, "%s: %w", command, err)
	}
	select {
	case a := <-ch:
		if a.Err != nil {
			return nil, fmt.Errorf("QEMU: %s: %w", command, a.Err)
		}
		return a.Return, nil
	case <-ctx.Done():
		m.mu.Lock()
		delete(m.pending, id)
		m.mu.Unlock()
		return nil, fmt.Errorf("QEMU: %s: %w", command, ctx.Err())
	}
}

// Human runs a line of the human monitor and returns what it prints. An empty answer means success for most commands.
func (m *Monitor) Human(ctx context.Context, line string) (string, error) {
	raw, err := m.Execute(ctx, "human-monitor-command", map[string]string{"command-line": line})
	if err != nil {
		return "", err
	}
	var out string
	if err := json.Unmarshal(raw, &out); err != nil {
		return "", fmt.Errorf("QEMU: %s: %w", line, err)
	}
	return out, nil
}

// Status returns the machine's run state: "running", "paused", "shutdown", "internal-error" …
func (m *Monitor) Status(ctx context.Context) (string, error) {
	raw, err := m.Execute(ctx, "query-status", nil)
	if err != nil {
		return "", err
	}
	var s struct {
		Status string `json:"status"`
	}
	if err := json.Unmarshal(raw, &s); err != nil {
		return "", fmt.Errorf("QEMU: query-status: %w", err)
	}
	return s.Status, nil
}

// Reset presses the reset button.
func (m *Monitor) Reset(ctx context.Context) error { return m.do(ctx, "system_reset") }

// PowerDown presses the power button; it is the guest's to react.
func (m *Monitor) PowerDown(ctx context.Context) error { return m.do(ctx, "system_powerdown") }

// Stop halts the virtual processors; Continue lets them go on.
func (m *Monitor) Stop(ctx context.Context) error { return m.do(ctx, "stop") }

// Continue lets a stopped machine go on.
func (m *Monitor) Continue(ctx context.Context) error { return m.do(ctx, "cont") }

func (m *Monitor) do(ctx context.Context, command string) error {
	_, err := m.Execute(ctx, command, nil)
	return err
}

// Events returns how many events came so far and the ones after the first n.
func (m *Monitor) Events(n int) []Event {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.events[min(n, len(m.events)):])
}

// Count returns the number of events with the name so far: Count("RESET") is how often the machine restarted.
func (m *Monitor) Count(name string) int {
	n := 0
	for _, e := range m.Events(0) {
		if e.Name == name {
			n++
		}
	}
	return n
}

// WaitEvent returns the first event after the first n for which match is true.
func (m *Monitor) WaitEvent(ctx context.Context, n int, match func(Event) bool) (Event, error) {
	for {
		m.mu.Lock()
		events, changed, ended := m.events, m.changed, m.err
		m.mu.Unlock()
		for ; n < len(events); n++ {
			if match(events[n]) {
				return events[n], nil
			}
		}
		if ended != nil {
			return Event{}, ended
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return Event{}, ctx.Err()
		}
	}
}

// snapshotJob runs snapshot-save or snapshot-load, which work in the background and report through events.
func (m *Monitor) snapshotJob(ctx context.Context, command, tag string, drives []string) error {
	id := fmt.Sprintf("%s-%d", command, m.nextID.Add(1))
	seen := len(m.Events(0))
	args := map[string]any{"job-id": id, "tag": tag, "vmstate": drives[0], "devices": drives}
	if _, err := m.Execute(ctx, command, args); err != nil {
		return err
	}
	_, err := m.WaitEvent(ctx, seen, func(e Event) bool {
		if e.Name != "JOB_STATUS_CHANGE" {
			return false
		}
		var d struct{ ID, Status string }
		return json.Unmarshal(e.Data, &d) == nil && d.ID == id && d.Status == "concluded"
	})
	if err != nil {
		return fmt.Errorf("%s %s: %w", command, tag, err)
	}
	raw, err := m.Execute(ctx, "query-jobs", nil)
	if err != nil {
		return err
	}
	var jobs []struct{ ID, Error string }
	if err := json.Unmarshal(raw, &jobs); err != nil {
		return fmt.Errorf("QEMU: query-jobs: %w", err)
	}
	for _, j := range jobs {
		if j.ID == id && j.Error != "" {
			return fault.New(fault.IO, "%s %s: %s", command, tag, j.Error)
		}
	}
	_, err = m.Execute(ctx, "job-dismiss", map[string]string{"id": id})
	return err
}
