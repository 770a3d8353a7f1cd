package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

const halfHour = 30 * time.Minute

var silentHalf = rollout.Plan{Halt: rollout.Limit{Failures: 1, SilentAfter: rollout.Duration(halfHour)}}

// wait lets time pass while machines ask, as often as they do, and the server looks after its rollouts.
func (f *rolling) wait(d time.Duration, boxes ...*box) {
	f.Helper()
	for range int(d / (10 * time.Minute)) {
		f.clock.advance(10 * time.Minute)
		for _, b := range boxes {
			b.check()
		}
		f.sweep()
	}
}

// A machine that waits for its own window to reboot asks all the time: it is not silent, however long that takes.
func TestAskingIsNotSilence(t *testing.T) {
	f := startRolling(t)
	r := f.start(silentHalf)
	b := f.box("patient")
	b.check()
	b.reboots("1.1.0")
	f.wait(5*time.Hour, b)
	if got := f.rollout(r.ID); got.State != "ramping" || got.Counted.All.InFlight != 1 {
		t.Fatalf("while it asks the rollout is %s: %s %+v", got.State, got.Why, got.Counted)
	}
	f.wait(time.Hour)
	if got := f.rollout(r.ID); got.State != "halted" || !strings.Contains(got.Why, "silent for 30m0s after its reboot") {
		t.Errorf("after its last word the rollout is %s: %s", got.State, got.Why)
	}
	f.counted(r.ID)
}

// What a server that was off could not hear is not held against machines.
func TestServerWasOff(t *testing.T) {
	f := startRolling(t)
	r := f.start(silentHalf)
	b := f.box("m")
	b.check()
	b.reboots("1.1.0")
	f.clock.advance(5 * time.Hour)
	f.s.started = f.clock.now // as after a restart
	f.sweep()
	if got := f.rollout(r.ID); got.State != "ramping" {
		t.Fatalf("right after the server's start the rollout is %s: %s", got.State, got.Why)
	}
	b.healthy("1.1.0")
	f.sweep()
	if got := f.rollout(r.ID); got.Counted.All.Complete != 1 || got.Counted.All.Silent != 0 {
		t.Errorf("%+v", got.Counted)
	}
	f.counted(r.ID)
}

// A report that got lost: a machine that runs the release for long has it, whatever it said.
func TestLostReport(t *testing.T) {
	for _, silent := range []bool{false, true} {
		t.Run(fmt.Sprint("silent=", silent), func(t *testing.T) {
			f := startRolling(t)
			f.box("other").check()
			r := f.start(rollout.Plan{Halt: rollout.Limit{Failures: 5, SilentAfter: rollout.Duration(halfHour)}})
			b := f.box("m")
			b.check()
			b.reboots("1.1.0")
			if silent {
				f.wait(time.Hour)
				if got := f.rollout(r.ID); got.Counted.All.Silent != 1 {
					t.Fatalf("%+v", got.Counted)
				}
			}
			b.boot++
			b.version = "1.1.0"
			b.check()
			f.wait(20*time.Minute, b)
			if got := f.rollout(r.ID); got.Counted.All.Complete != 0 {
				t.Errorf("after 20 minutes, on trial still: %+v", got.Counted)
			}
			f.wait(time.Hour, b)
			if got := f.rollout(r.ID); got.Counted.All.Complete != 1 || got.Counted.All.Silent != 0 || got.Counted.All.InFlight != 0 {
				t.Errorf("after an hour with the release: %+v", got.Counted)
			}
			f.counted(r.ID)
		})
	}
}

// A machine that had the release and went back later speaks against it as well.
func TestWentBackLater(t *testing.T) {
	f := startRolling(t)
	f.box("other").check()
	r := f.start(rollout.Plan{Halt: rollout.Limit{Failures: 1}})
	b := f.box("m")
	b.update("1.1.0")
	b.version, b.boot = "1.0.0", b.boot+1
	if v, why := b.check(); v != "" || !strings.Contains(why, "failed on this machine") {
		t.Errorf("it is offered %q: %s", v, why)
	}
	got := f.rollout(r.ID)
	if got.State != "halted" || !strings.Contains(got.Why, "runs 1.0.0, and not 1.1.0") {
		t.Errorf("%s: %s", got.State, got.Why)
	}
	f.counted(r.ID)
}

// Nobody waits for machines that cannot have the release: pinned ones, newer ones, dead ends, those on which it failed before.
func TestNobodyWaitsForThem(t *testing.T) {
	f := startRolling(t)
	f.publish("semper", "1.0.5", "beta")
	f.steer("PUT", "groups/lab", nil, 200, nil)
	pinned, newer, stuck, broken, takes := f.box("pinned"), f.box("newer"), f.box("stuck"), f.box("broken"), f.box("takes")
	newer.version, stuck.version = "9.0.0", "1.0.5"
	for _, b := range []*box{pinned, newer, stuck, broken, takes} {
		f.steer("PUT", "machines/"+b.id+"/group", api.Member{Group: "lab"}, 200, nil)
		b.check()
	}
	f.steer("PUT", "machines/pinned/pin", api.Pin{Reason: "a demonstration"}, 200, nil)
	err := f.s.store.Write(t.Context(), func(tx store.Tx) error {
		return tx.AddFailure(t.Context(), f.app, "broken", &fleet.Failure{Version: "1.1.0", At: noon, Reason: "x", Running: "1.0.0"})
	})
	if err != nil {
		t.Fatal(err)
	}
	f.steer("PUT", "releases/1.0.5/road", api.Road{Road: "dead-end", Reason: "its loader cannot read newer kernels"}, 200, nil)
	r := f.start(rollout.Plan{Canary: rollout.CanaryPlan{Group: "lab", Healthy: rollout.Duration(halfHour)}})
	takes.update("1.1.0")
	f.wait(time.Hour, pinned, newer, stuck, broken, takes)
	if got := f.rollout(r.ID); got.State != "done" {
		t.Errorf("the rollout is %s: %s %+v", got.State, got.Why, got.Counted)
	}
}

// A machine that follows another channel while it updates is none of the rollout's machines any more.
func TestLeavesTheChannel(t *testing.T) {
	f := startRolling(t)
	r := f.start(silentHalf)
	b := f.box("m")
	b.check()
	b.reboots("1.1.0")
	b.track = "beta"
	b.check()
	if got := f.rollout(r.ID); got.Counted.All.InFlight != 0 {
		t.Errorf("%+v", got.Counted)
	}
	f.wait(2 * time.Hour)
	if got := f.rollout(r.ID); got.State != "done" {
		t.Errorf("the rollout is %s: %s", got.State, got.Why)
	}
	f.counted(r.ID)
}

// Of a rollout that is long over the failures are kept, and the counters.
func TestOldSteps(t *testing.T) {
	f := startRolling(t)
	f.box("waits").check()
	r := f.start(rollout.Plan{Halt: rollout.Limit{Failures: 9}})
	f.box("good").update("1.1.0")
	bad := f.box("bad")
	bad.update("1.1.0")
	bad.version, bad.boot = "1.0.0", bad.boot+1
	bad.check()
	f.steer("POST", fmt.Sprintf("rollouts/%d/abort", r.ID), api.Steer{Reason: "enough"}, 200, nil)
	want := f.rollout(r.ID)
	f.clock.advance(31 * 24 * time.Hour)
	f.sweep()
	counted, err := f.s.store.Read().CountSteps(t.Context(), r.ID)
	if err != nil {
		t.Fatal(err)
	}
	if counted.All.Failed != 1 {
		t.Errorf("steps left: %+v", counted)
	}
	if got := f.rollout(r.ID); got.Counted != want.Counted || len(got.Failures) != 1 {
		t.Errorf("%+v, want %+v", got, want)
	}
}
