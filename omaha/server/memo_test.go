package server

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// recalled reports whether a poll of b would be answered from memory.
func (b *box) recalled() bool {
	b.f.Helper()
	r := omaha.Request{Apps: []omaha.AppRequest{b.request(true)}}
	req, err := omaha.DecodeRequest(r.Encode())
	if err != nil {
		b.f.Fatal(err)
	}
	p, ok := b.f.s.memo.of(req, b.f.s.store.Changes())
	return ok && b.f.s.memo.recall(p) != nil
}

// What is remembered of polls is what would be decided: after each of many random changes every machine gets the answer that why gives, which remembers nothing.
func TestMemoTellsTheTruth(t *testing.T) {
	f := startRolling(t)
	rnd := rand.New(rand.NewPCG(5, 6))
	var boxes []*box
	for i := range 6 {
		boxes = append(boxes, f.box(fmt.Sprint("m", i)))
	}
	write := func(do func(tx store.Tx) error) {
		t.Helper()
		if err := f.s.store.Write(t.Context(), do); err != nil {
			t.Fatal(err)
		}
	}
	versions := []string{"1.0.0", "1.1.0"}
	hits := 0
	for step := range 400 {
		b := boxes[rnd.IntN(len(boxes))]
		what := ""
		switch rnd.IntN(9) {
		case 0:
			v := versions[rnd.IntN(2)]
			what = "channel " + v
			write(func(tx store.Tx) error {
				_, err := SetChannel(t.Context(), tx, f.app, "stable", "amd64", v, "t", f.clock.now)
				return err
			})
		case 1:
			what = "pin " + b.id
			write(func(tx store.Tx) error {
				return tx.PutPin(t.Context(), &fleet.Pin{App: f.app, Machine: b.id, Why: fmt.Sprint("step ", step), Who: "t", At: f.clock.now})
			})
		case 2:
			what = "unpin " + b.id
			write(func(tx store.Tx) error {
				_, err := tx.DeletePin(t.Context(), f.app, b.id)
				return err
			})
		case 3:
			what = "failure of " + b.id
			b.ask(false, omaha.Failed("1.1.0", omaha.CodePayloadHash, ""))
		case 4:
			what = "retry of " + b.id
			write(func(tx store.Tx) error {
				_, err := tx.ForgetFailures(t.Context(), f.app, b.id)
				return err
			})
		case 5:
			what = "boot of " + b.id
			b.boot++
			b.version = versions[rnd.IntN(2)]
		case 6:
			what = "dead end"
			road := []fleet.Road{fleet.Open, fleet.DeadEnd}[rnd.IntN(2)]
			write(func(tx store.Tx) error {
				_, err := MarkRelease(t.Context(), tx, f.app, "amd64", "1.0.0", road, "x", "t", f.clock.now)
				return err
			})
		default:
			what = "time"
			f.clock.advance(time.Minute)
		}
		for _, b := range boxes {
			if b.recalled() {
				hits++
			}
			version, reason := b.check()
			why, err := MachineDetail(t.Context(), f.s.store.Read(), f.app, b.id, f.clock.now)
			if err != nil {
				t.Fatal(err)
			}
			if version != why.Why.Offer || version == "" && reason != why.Why.Sentence {
				t.Fatalf("step %d, after %s: %s is answered %q %q, and why says %q %q", step, what, b.id, version, reason, why.Why.Offer, why.Why.Sentence)
			}
		}
	}
	if hits < 500 {
		t.Errorf("%d of 2400 polls were answered from memory", hits)
	}
}

// Another program's change is noticed soon.
func TestMemoSeesOtherPrograms(t *testing.T) {
	f := startRolling(t)
	b := f.box("m")
	b.check()
	b.check()
	if !b.recalled() {
		t.Fatal("the second poll is not remembered")
	}
	other, err := store.Open(t.Context(), cmp.Or(f.s.cfg.Database, f.s.cfg.Dir))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	err = other.Write(t.Context(), func(tx store.Tx) error {
		return tx.PutPin(t.Context(), &fleet.Pin{App: f.app, Machine: "m", Why: "x", Who: "t", At: f.clock.now})
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 500 {
		if !b.recalled() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("after five seconds the old answer is remembered still")
}
