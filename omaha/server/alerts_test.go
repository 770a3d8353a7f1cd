package server

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/webhooks"
)

// receiver is an address that is told of what happens.
type receiver struct {
	*httptest.Server
	mu     sync.Mutex
	status int
	ids    []string
	got    []alert
}

func startReceiver(t *testing.T) *receiver {
	t.Helper()
	r := &receiver{status: 200}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		var a alert
		if err != nil || json.Unmarshal(body, &a) != nil {
			t.Errorf("told %q (%v)", body, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.ids, r.got = append(r.ids, req.Header.Get("Webhook-Id")), append(r.got, a)
		w.WriteHeader(r.status)
	}))
	t.Cleanup(r.Close)
	return r
}

// take returns what came since it was asked last.
func (r *receiver) take() (types []string, all []alert) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, a := range r.got {
		types = append(types, a.Type)
	}
	all, r.got = r.got, nil
	slices.Sort(types)
	return types, all
}

// TestWebhooks has things happen, and an address that is told of them, sometimes later.
func TestWebhooks(t *testing.T) {
	f := startRolling(t)
	operator := f.operator
	admin := f.newToken(fleet.Admin)
	everything, some := startReceiver(t), startReceiver(t)
	add := func(url string, events ...string) api.MadeWebhook {
		t.Helper()
		var made api.MadeWebhook
		f.operator = admin
		f.steer("POST", "webhooks", api.NewWebhook{URL: url, Events: events}, 200, &made)
		f.operator = operator
		return made
	}
	hook := add(everything.URL, webhooks.Events...)
	add(some.URL, webhooks.Done)
	sender := webhooks.NewSender()
	bring := func() {
		t.Helper()
		if err := f.s.bringAlerts(t.Context(), sender); err != nil {
			t.Fatal(err)
		}
	}
	want := func(r *receiver, types ...string) []alert {
		t.Helper()
		got, all := r.take()
		if !slices.Equal(got, types) {
			t.Errorf("told %v, want %v", got, types)
		}
		return all
	}

	// A rollout that halts, over a machine that fell silent.
	f.s.started = noon.Add(-48 * time.Hour)
	r := f.start(rollout.Plan{Halt: rollout.Limit{Failures: 2}})
	m1, m2 := f.box("m1"), f.box("m2")
	for _, b := range []*box{m1, m2} {
		b.check()
		b.reboots("1.1.0")
	}
	m1.boot++
	m1.ask(true, omaha.Failed("1.1.0", omaha.CodeRollback, "it broke"))
	f.clock.advance(2 * time.Hour)
	f.sweep()
	everything.status = 503
	bring()
	want(everything, "halt", "silent")
	bring()
	want(everything) // it waits
	first := slices.Clone(everything.ids)
	everything.status = 200
	f.clock.advance(10 * time.Second)
	bring()
	for _, a := range want(everything, "halt", "silent") {
		if a.Data.Rollout != r.ID || a.Data.Version != "1.1.0" || !slices.Contains(a.Data.Machines, "m2") || a.Data.Page != "/rollouts/1" {
			t.Errorf("told %+v", a)
		}
	}
	if again := everything.ids[2:]; !slices.Equal(slices.Sorted(slices.Values(again)), slices.Sorted(slices.Values(first))) {
		t.Errorf("ids %v at first, %v again", first, again)
	}
	f.clock.advance(time.Hour)
	bring()
	want(everything)

	// It is resumed and comes to its end.
	f.steer("POST", "rollouts/1/resume", api.Steer{Reason: "they were broken before"}, 200, nil)
	m3 := f.box("m3")
	m3.update("1.1.0")
	f.clock.advance(25 * time.Hour)
	m3.ask(true)
	f.sweep()
	if got := f.rollout(r.ID); got.State != "done" {
		t.Fatalf("rollout %+v", got.Rollout)
	}
	bring()
	want(everything, "done")
	want(some, "done")

	f.steer("PUT", "releases/1.1.0/withdrawal", api.Steer{Reason: "it eats disks"}, 200, nil)
	bring()
	if all := want(everything, "withdrawn"); len(all) == 1 && all[0].Data.Reason != "it eats disks" {
		t.Errorf("told %+v", all[0])
	}
	f.operator = admin
	f.steer("POST", "webhooks/"+hook.ID+"/test", nil, 200, nil)
	bring()
	want(everything, "test")
	want(some)

	known := func() api.Webhook {
		t.Helper()
		var all api.Webhooks
		f.steer("GET", "webhooks", nil, 200, &all)
		i := slices.IndexFunc(all.Webhooks, func(w api.Webhook) bool { return w.ID == hook.ID })
		if len(all.Webhooks) != 2 || i < 0 {
			t.Fatalf("webhooks %+v", all)
		}
		return all.Webhooks[i]
	}
	if w := known(); w.Waiting != 0 || w.Last == nil || !w.Last.Brought {
		t.Errorf("webhook %+v", w)
	}

	// One that never answers is given up, in days.
	everything.status = 500
	f.steer("POST", "webhooks/"+hook.ID+"/test", nil, 200, nil)
	for range 200 {
		bring()
		f.clock.advance(time.Hour)
	}
	if types, _ := everything.take(); len(types) != 11 {
		t.Errorf("%d attempts", len(types))
	}
	if w := known(); w.Waiting != 0 || w.Last == nil || w.Last.Brought || w.Last.Status != 500 || w.Last.Attempts != 11 {
		t.Errorf("given up: %+v %+v", w, w.Last)
	}
	f.steer("DELETE", "webhooks/"+hook.ID, nil, 200, nil)
	f.steer("DELETE", "webhooks/"+hook.ID, nil, 404, nil)
	f.steer("POST", "webhooks", api.NewWebhook{URL: "gopher://x", Events: []string{"halt"}}, 400, nil)
}
