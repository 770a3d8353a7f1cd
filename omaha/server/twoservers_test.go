package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

// twins are two servers on one PostgreSQL database.
func twins(t *testing.T) [2]*Server {
	t.Helper()
	url := postgresOf(t, t.Name())
	var out [2]*Server
	var group sync.WaitGroup
	var errs [2]error
	for i := range out { // both at once, on an empty database
		group.Go(func() { out[i], errs[i] = Open(t.Context(), Config{Dir: t.TempDir(), Database: url}) })
	}
	group.Wait()
	if err := errors.Join(errs[:]...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(out[0].Close(), out[1].Close()); err != nil {
			t.Error(err)
		}
	})
	return out
}

func post(s *Server, body string) string {
	w := httptest.NewRecorder()
	s.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/v1/update", strings.NewReader(body)))
	return fmt.Sprintf("%d %s", w.Code, w.Body)
}

// TestTwoServersKeepLimits has many machines ask two servers at once: between them they give the release to no more machines than the plan allows at once, and then to no more
// than it allows in a period.
func TestTwoServersKeepLimits(t *testing.T) {
	const machines, atOnce, perPeriod = 120, 17, 40
	for _, c := range []struct {
		name   string
		limits rollout.Limits
		want   int64
	}{
		{"at once", rollout.Limits{AtOnce: atOnce}, atOnce},
		{"per period", rollout.Limits{PerPeriod: perPeriod, Period: rollout.Duration(time.Hour)}, perPeriod},
	} {
		t.Run(c.name, func(t *testing.T) {
			servers := twins(t)
			err := servers[0].store.Write(t.Context(), func(tx store.Tx) error {
				return fillRollout(t.Context(), tx, c.limits)
			})
			if err != nil {
				t.Fatal(err)
			}
			var granted atomic.Int64
			var group sync.WaitGroup
			for i := range machines {
				group.Go(func() {
					id := fmt.Sprintf("machine-%d", i)
					for _, s := range []int{i % 2, (i + 1) % 2} { // each asks both
						answer := post(servers[s], vector(t, "1-first-check", machineID, id))
						switch {
						case !strings.HasPrefix(answer, "200 "):
							t.Errorf("answer %s", answer)
						case strings.Contains(answer, `version="2.0.0"`):
							granted.Add(1)
							return
						}
					}
				})
			}
			group.Wait()
			if got := granted.Load(); got != c.want {
				t.Errorf("%d machines were given the release, want %d", got, c.want)
			}
			for i, s := range servers {
				r, err := s.store.Read().Rollout(t.Context(), 1)
				if err != nil || r.Counted.All.InFlight != c.want {
					t.Errorf("server %d counts %+v (%v)", i, r.Counted.All, err)
				}
				afresh, err := s.store.Read().CountSteps(t.Context(), 1)
				if err != nil || afresh.All != r.Counted.All {
					t.Errorf("server %d: counted afresh %+v (%v), want %+v", i, afresh.All, err, r.Counted.All)
				}
			}
		})
	}
}

// TestTwoServersAgree changes at one server what machines are answered, and asks the other.
func TestTwoServersAgree(t *testing.T) {
	servers := twins(t)
	ctx := t.Context()
	now := time.Now().UTC()
	if err := servers[0].store.Write(ctx, func(tx store.Tx) error { return fillRollout(ctx, tx, rollout.Limits{}) }); err != nil {
		t.Fatal(err)
	}
	steer := func(verb string) func(store.Tx) error {
		return func(tx store.Tx) error {
			_, err := SteerRollout(ctx, tx, 1, verb, "", "test", now)
			return err
		}
	}
	id := func() string { // of a machine that has its place in the rollout from the beginning
		for i := 0; ; i++ {
			if name := fmt.Sprintf("machine-%d", i); rollout.Place(name, "2.0.0") < 0.9 {
				return name
			}
		}
	}()
	for _, c := range []struct {
		verb string
		want string
	}{{"pause", "noupdate"}, {"resume", `version="2.0.0"`}} {
		// The other has answered, and may remember.
		before := post(servers[1], vector(t, "1-first-check", machineID, id))
		if err := servers[0].store.Write(ctx, steer(c.verb)); err != nil {
			t.Fatal(err)
		}
		deadline := time.Now().Add(10 * time.Second)
		for answer := before; !strings.Contains(answer, c.want); answer = post(servers[1], vector(t, "1-first-check", machineID, id)) {
			if time.Now().After(deadline) {
				t.Fatalf("after %s the other server still answers %s", c.verb, answer)
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
	// A reboot lock that one gave is taken at the other.
	for i, want := range []string{"200", "409"} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/v1/pre-reboot", strings.NewReader(fmt.Sprintf(`{"client_params":{"id":"m%d","group":"default"}}`, i)))
		r.Header.Set("fleet-lock-protocol", "true")
		servers[i].Handler().ServeHTTP(w, r)
		if got := fmt.Sprint(w.Code); got != want {
			t.Errorf("machine %d is answered %s, want %s: %s", i, got, want, w.Body)
		}
	}
}

// fillRollout has a release that goes to all machines by a rollout with limits, which never comes to everybody, or it would be over before there are machines.
func fillRollout(ctx context.Context, tx store.Tx, limits rollout.Limits) error {
	now := time.Now().UTC()
	if err := AddApplication(ctx, tx, "flatcar", flatcarApp, []string{"stable"}, "test", now); err != nil {
		return err
	}
	r := fleet.Release{App: flatcarApp, Arch: "amd64", Version: "2.0.0", Published: now}
	e := api.External{URLs: []string{"http://127.0.0.1/"}, Name: "x", Size: 1, SHA256: strings.Repeat("a", 64), SHA1: strings.Repeat("b", 40)}
	if err := AddExternal(ctx, tx, &r, &e, "test"); err != nil {
		return err
	}
	plan := fleet.Rollout{App: flatcarApp, Channel: "stable", Arch: "amd64"}
	plan.Plan = rollout.Plan{Ramp: rollout.Ramp{Start: 99, Over: rollout.Duration(1000 * time.Hour)}, Limits: limits}
	if err := PlanRollout(ctx, tx, &plan, "2.0.0", "test", now); err != nil {
		return err
	}
	_, err := SteerRollout(ctx, tx, plan.ID, "start", "", "test", now)
	return err
}
