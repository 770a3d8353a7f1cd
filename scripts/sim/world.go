package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

const (
	oldVersion, newVersion = "1.0.0", "1.1.0"

	canaries = 20
	interval = 45 * time.Minute
	workers  = 32
	patience = 72 * time.Hour
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// scenario is a fleet, a plan, and what must come of it.
type scenario struct {
	name          string
	machines      int
	plan          rollout.Plan
	fails, silent float64 // shares
	halts         bool
	touched       float64 // the largest share of the fleet that may have been given the release when it halts
	http          bool
}

// machine is one of the fleet.
type machine struct {
	id      string
	place   float64
	state   int8
	canary  bool
	acts    int64 // when it does something next, in minutes since the start
	version string
	boot    int
}

// What a machine is doing.
const (
	asks int8 = iota
	installs
	boots
	rests // has the release, failed with it, or is silent
)

// world is a server, a fleet and a clock.
type world struct {
	*scenario
	dir      string
	now      atomic.Int64 // minutes since noon
	server   *server.Server
	store    *store.Store
	handler  http.Handler
	http1    *httptest.Server
	all      []machine
	rollout  int64
	rng      *rand.Rand
	requests atomic.Int64
	points   []point
	verdict  string
}

// point is what a minute looked like.
type point struct {
	minute                                   int64
	reached                                  float64
	granted, inFlight, complete, failed, sil int64
}

func (w *world) clock() time.Time { return noon.Add(time.Duration(w.now.Load()) * time.Minute) }

func newWorld(dir string, s *scenario) (*world, error) {
	w := &world{scenario: s, rng: rand.New(rand.NewPCG(1, 2))}
	var err error
	if w.dir, err = os.MkdirTemp(dir, "semper-sim-"); err != nil {
		return nil, err
	}
	ctx := context.Background()
	if w.server, err = server.Open(ctx, server.Config{Dir: w.dir, Now: w.clock, Log: slog.New(slog.DiscardHandler)}); err != nil {
		return nil, errors.Join(err, os.RemoveAll(w.dir))
	}
	if w.store, err = store.Open(ctx, w.dir); err != nil {
		return nil, errors.Join(err, w.close())
	}
	w.handler = w.server.Handler()
	if s.http {
		w.http1 = httptest.NewServer(w.handler)
	}
	if err := w.fill(ctx); err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

func (w *world) close() error {
	var errs []error
	if w.http1 != nil {
		w.http1.Close()
	}
	if w.store != nil {
		errs = append(errs, w.store.Close())
	}
	return errors.Join(append(errs, w.server.Close(), os.RemoveAll(w.dir))...)
}

// fill makes the fleet, as it is known to the server, and begins the rollout.
func (w *world) fill(ctx context.Context) error {
	now := w.clock()
	w.all = make([]machine, w.machines)
	for i := range w.all {
		id := fmt.Sprintf("m%07d", i)
		w.all[i] = machine{id: id, place: rollout.Place(id, newVersion), canary: i < canaries, acts: int64(w.rng.IntN(int(interval / time.Minute))), version: oldVersion, boot: 1}
	}
	for from := 0; from < len(w.all); from += 20_000 {
		err := w.store.Write(ctx, func(tx store.Tx) error {
			var fresh []store.Change
			for i := from; i < min(from+20_000, len(w.all)); i++ {
				m := &w.all[i]
				fresh = append(fresh, store.Change{After: &fleet.Machine{
					App: omaha.SemperApp, ID: m.id, Arch: "amd64", Version: oldVersion, Channel: "stable", BootID: m.bootID(), State: fleet.Unknown, StateSince: now, FirstSeen: now, LastSeen: now,
				}})
			}
			return tx.PutMachines(ctx, fresh)
		})
		if err != nil {
			return err
		}
	}
	return w.store.Write(ctx, func(tx store.Tx) error {
		for _, version := range []string{oldVersion, newVersion} {
			r := fleet.Release{App: omaha.SemperApp, Arch: "amd64", Version: version, Published: now}
			e := api.External{URLs: []string{"http://127.0.0.1/"}, Name: "full.crau", Size: 1 << 20, SHA256: strings.Repeat("a", 64), SHA1: strings.Repeat("b", 40)}
			if err := server.AddExternal(ctx, tx, &r, &e, "sim"); err != nil {
				return err
			}
		}
		if _, err := server.SetChannel(ctx, tx, omaha.SemperApp, "stable", "amd64", oldVersion, "sim", now); err != nil {
			return err
		}
		if err := tx.AddGroup(ctx, omaha.SemperApp, w.plan.Canary.Group, now); err != nil {
			return err
		}
		for i := range canaries {
			if err := tx.SetMember(ctx, omaha.SemperApp, w.all[i].id, w.plan.Canary.Group); err != nil {
				return err
			}
		}
		r := fleet.Rollout{App: omaha.SemperApp, Channel: "stable", Arch: "amd64"}
		r.Plan = w.plan
		if err := server.PlanRollout(ctx, tx, &r, newVersion, "sim", now); err != nil {
			return err
		}
		w.rollout = r.ID
		_, err := server.SteerRollout(ctx, tx, r.ID, "start", "", "sim", now)
		return err
	})
}

func (m *machine) bootID() string { return fmt.Sprintf("{%s-%d}", m.id, m.boot) }

// say sends a machine's request and returns the version that it is offered.
func (w *world) say(m *machine, check bool, events ...omaha.Event) (offer string, err error) {
	w.requests.Add(1)
	r := omaha.Request{Apps: []omaha.AppRequest{{
		ID: omaha.SemperApp, Version: m.version, Track: "stable", MachineID: m.id, BootID: m.bootID(), Board: "amd64-usr", UpdateCheck: check, Events: events,
	}}}
	status, body, err := w.post(r.Encode())
	if err != nil {
		return "", err
	}
	if status != http.StatusOK {
		return "", fmt.Errorf("machine %s: status %d: %s", m.id, status, body)
	}
	res, err := omaha.DecodeResponse(body)
	if err != nil {
		return "", err
	}
	if u := res.Apps[0].UpdateCheck; u != nil && u.Manifest != nil {
		return u.Manifest.Version, nil
	}
	return "", nil
}

func (w *world) post(body []byte) (int, []byte, error) {
	if w.http1 != nil {
		res, err := w.http1.Client().Post(w.http1.URL+"/v1/update/", "text/xml", bytes.NewReader(body))
		if err != nil {
			return 0, nil, err
		}
		defer res.Body.Close()
		answer, err := io.ReadAll(res.Body)
		return res.StatusCode, answer, err
	}
	rec := httptest.NewRecorder()
	req := httptest.NewRequest(http.MethodPost, "http://sim/v1/update/", bytes.NewReader(body))
	req.Header.Set("Content-Type", "text/xml")
	w.handler.ServeHTTP(rec, req)
	return rec.Code, rec.Body.Bytes(), nil
}

// each calls do for some machines, several at a time.
func (w *world) each(some []*machine, do func(m *machine) error) error {
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, workers)
	for i := range workers {
		group.Go(func() {
			for errs[i] == nil {
				n := int(next.Add(1)) - 1
				if n >= len(some) {
					return
				}
				errs[i] = do(some[n])
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}
