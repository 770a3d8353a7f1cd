package server

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
	"github.com/semper-os/semper/updater/fleetlock"
)

// lockClient is Semper's own client of the protocol.
func (f *fixture) lockClient(group, id string) *fleetlock.Client {
	f.Helper()
	c, err := fleetlock.New(fleetlock.Options{URL: f.http.URL, Group: group, ID: id, HTTP: f.http.Client()})
	if err != nil {
		f.Fatal(err)
	}
	return c
}

// still is a clock that moves when it is told to.
type still struct {
	mu  sync.Mutex
	now time.Time
}

func (c *still) read() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *still) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (f *fixture) setGroup(name string, slots int, lease time.Duration) {
	f.Helper()
	err := f.s.store.Write(f.Context(), func(tx store.Tx) error {
		_, err := SetRebootGroup(f.Context(), tx, name, slots, lease, "test", f.s.cfg.Now())
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
}

func TestFleetLock(t *testing.T) {
	clock := &still{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	dir := t.TempDir()
	f := serve(t, dir, Config{Now: clock.read})
	ctx := t.Context()
	f.setGroup("rack", 1, time.Hour)
	a, b := f.lockClient("rack", "a"), f.lockClient("rack", "b")
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	refused := func(what string, err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", what, err, want)
		}
	}
	must("a takes the slot", a.Acquire(ctx))
	must("a asks again", a.Acquire(ctx))
	refused("b", b.Acquire(ctx), "all 1 slots of group rack are taken: by a since 2026-01-02T03:04:05Z")
	must("b gives back what it has not", b.Release(ctx))
	refused("b still", b.Acquire(ctx), "failed_lock_semaphore_full")
	must("another group is another matter", f.lockClient("default", "b").Acquire(ctx))
	// Slots that change while they are in use.
	f.setGroup("rack", 2, -1)
	must("b with two slots", b.Acquire(ctx))
	f.setGroup("rack", 1, -1)
	must("nobody's slot is taken away", a.Held(ctx))
	must("a is healthy", a.Release(ctx))
	must("and again", a.Release(ctx))
	refused("one slot, and b has it", a.Acquire(ctx), "by b")
	// A lease lasts from the last word on.
	clock.advance(59 * time.Minute)
	must("b is on its way", b.Held(ctx))
	clock.advance(59 * time.Minute)
	refused("b's lease goes on", a.Acquire(ctx), "by b")
	clock.advance(time.Minute)
	must("after b's lease", a.Acquire(ctx))
	refused("b is late", b.Held(ctx), "by a")
	f.setGroup("rack", 0, -1)
	must("a keeps it", a.Held(ctx))
	must("a gives it back", a.Release(ctx))
	refused("no slots", a.Acquire(ctx), "nobody may reboot")
	f.setGroup("rack", 1, 0)
	must("a, for ever", a.Acquire(ctx))
	clock.advance(1000 * time.Hour)
	refused("b waits for a person", b.Acquire(ctx), "by a")
	must("a person", f.s.store.Write(ctx, func(tx store.Tx) error {
		return ForceRelease(ctx, tx, "rack", "a", "token ann", "it burnt down", clock.read())
	}))
	must("b at last", b.Acquire(ctx))
	if err := f.s.store.Write(ctx, func(tx store.Tx) error { return ForceRelease(ctx, tx, "rack", "x", "token ann", "", clock.read()) }); err == nil {
		t.Error("a slot that nobody has is freed")
	}
	log, _, err := f.s.store.Read().Audits(ctx, 0, "", 2)
	if err != nil || len(log) != 2 || log[0] != (fleet.Audit{ID: log[0].ID, At: clock.read(), Who: "token ann", What: "reboot-release", Subject: "rack/a", Detail: "it burnt down", Before: "holds a slot", After: "neither holds nor waits"}) || log[1].What != "reboot-group" {
		t.Errorf("audit log %+v, %v", log, err)
	}

	// What was granted outlives the server.
	f.stop()
	f = serve(t, dir, Config{Now: clock.read})
	refused("after a restart", f.lockClient("rack", "a").Acquire(ctx), "by b")
	must("b's own", f.lockClient("rack", "b").Acquire(ctx))
}

// What is no FleetLock request is told so in FleetLock's words.
func TestFleetLockRefusals(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	const good = `{"client_params":{"id":"a","group":"default"}}`
	for _, c := range []struct {
		name, method, body string
		header             []string
		status             int
		kind               string
	}{
		{"good", "POST", good, []string{"fleet-lock-protocol", "true"}, 200, ""},
		{"unknown fields are of the future", "POST", `{"x":1,"client_params":{"id":"a","group":"default","y":2}}`, []string{"fleet-lock-protocol", "true"}, 200, ""},
		{"no header", "POST", good, nil, 400, "missing_protocol_header"},
		{"another method", "GET", "", []string{"fleet-lock-protocol", "true"}, 405, ""},
		{"no JSON", "POST", "id=a", []string{"fleet-lock-protocol", "true"}, 400, "invalid_request"},
		{"two", "POST", good + good, []string{"fleet-lock-protocol", "true"}, 400, "invalid_request"},
		{"deep", "POST", strings.Repeat("[", 10000), []string{"fleet-lock-protocol", "true"}, 400, "invalid_request"},
		{"large", "POST", `{"client_params":{"id":"` + strings.Repeat("a", 20000) + `"}}`, []string{"fleet-lock-protocol", "true"}, 400, "invalid_request"},
		{"no id", "POST", `{"client_params":{"group":"default"}}`, []string{"fleet-lock-protocol", "true"}, 400, "invalid_client_identity"},
		{"id with a space", "POST", `{"client_params":{"id":"a b","group":"default"}}`, []string{"fleet-lock-protocol", "true"}, 400, "invalid_client_identity"},
		{"group's letters", "POST", `{"client_params":{"id":"a","group":"a/b"}}`, []string{"fleet-lock-protocol", "true"}, 400, "invalid_client_identity"},
		{"unknown group", "POST", `{"client_params":{"id":"a","group":"nobody"}}`, []string{"fleet-lock-protocol", "true"}, 400, "unknown_group"},
	} {
		status, _, body := f.do(c.method, "/v1/pre-reboot", c.body, c.header...)
		var r lockRefusal
		if c.kind != "" {
			if err := json.Unmarshal([]byte(body), &r); err != nil {
				t.Errorf("%s: %v in %s", c.name, err, body)
			}
		}
		if status != c.status || r.Kind != c.kind || c.kind != "" && r.Value == "" {
			t.Errorf("%s: status %d %s, want %d %s", c.name, status, body, c.status, c.kind)
		}
	}
}

// Many machines at once: there are never more holders than slots.
func TestFleetLockContention(t *testing.T) {
	f := serve(t, t.TempDir(), Config{})
	const slots, machines, turns = 3, 20, 5
	f.setGroup("rack", slots, time.Hour)
	var down, most, done atomic.Int64
	var all sync.WaitGroup
	for i := range machines {
		all.Go(func() {
			c := f.lockClient("rack", fmt.Sprint("m", i))
			for range turns {
				for c.Acquire(context.Background()) != nil {
					time.Sleep(time.Millisecond)
				}
				now := down.Add(1)
				for {
					was := most.Load()
					if now <= was || most.CompareAndSwap(was, now) {
						break
					}
				}
				time.Sleep(time.Millisecond)
				down.Add(-1)
				if err := c.Release(context.Background()); err != nil {
					t.Error(err)
				}
				done.Add(1)
			}
		})
	}
	all.Wait()
	if most.Load() > slots || done.Load() != machines*turns {
		t.Errorf("%d at once, %d turns", most.Load(), done.Load())
	}
	if status, _, _ := f.do(http.MethodGet, "/metrics", ""); status != 200 {
		t.Errorf("metrics: %d", status)
	}
}
