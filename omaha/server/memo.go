package server

import (
	"hash/maphash"
	"sync"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/fleet"
)

const (
	memoShards = 64

	// memoMachines bounds the machines of a shard; with more it begins anew. One takes about 60 bytes.
	memoMachines = 65536
)

// memo remembers what machines were answered that had nothing to report, and to which nothing was offered: the usual poll, which changes nothing and asks the same again.
// What is remembered holds while the machine says the same, nothing else was heard of it, and store.Changes is the same. Answers that time or counters change, those of a
// rollout that is under way, are not remembered.
type memo struct {
	seed   maphash.Seed
	shards [memoShards]memoShard

	mu      sync.Mutex
	answers map[memoAnswer]*memoAnswer // machines that are answered the same share it
	at      int64                      // the changes that answers are of
}

type memoShard struct {
	mu    sync.Mutex
	polls map[uint64]memoPoll // by the hash of application and machine
	heard uint64              // counts what may have made an evaluation old that is under way
}

type memoPoll struct {
	said    uint64 // hash of all that the machine said
	changes int64
	answer  *memoAnswer
}

// memoAnswer is a check without an offer.
type memoAnswer struct {
	app    string
	cause  fleet.Cause
	reason string
	fresh  string
}

func newMemo() *memo {
	m := &memo{seed: maphash.MakeSeed(), answers: map[memoAnswer]*memoAnswer{}}
	for i := range m.shards {
		m.shards[i].polls = map[uint64]memoPoll{}
	}
	return m
}

// poll is a request that may be remembered, or its answer.
type poll struct {
	key, said uint64
	changes   int64
	heard     uint64
}

// of describes a request; ok is false for those that are never remembered.
func (m *memo) of(req *omaha.Request, changes int64) (p poll, ok bool) {
	if len(req.Apps) != 1 {
		return p, false
	}
	app := &req.Apps[0]
	id := req.Machine(app)
	if id == "" || app.ID == "" || !app.UpdateCheck {
		return p, false
	}
	for _, e := range app.Events {
		if !e.Idle() {
			return p, false
		}
	}
	var h maphash.Hash
	h.SetSeed(m.seed)
	write := func(s string) {
		_, _ = h.WriteString(s)
		_ = h.WriteByte(0) // none of them holds one
	}
	write(normalAppID(app.ID))
	write(id)
	p.key, p.changes = h.Sum64(), changes
	for _, s := range []string{app.MachineAlias, req.Arch(app), app.Version, app.Track, app.BootID, app.OEM, app.AlephVersion} {
		write(s)
	}
	p.said = h.Sum64()
	s := m.shard(p.key)
	s.mu.Lock()
	p.heard = s.heard
	s.mu.Unlock()
	return p, true
}

func (m *memo) shard(key uint64) *memoShard { return &m.shards[key%memoShards] }

// recall returns what the machine was answered to the same before, nil if that may not hold any more.
func (m *memo) recall(p poll) *memoAnswer {
	s := m.shard(p.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if have, ok := s.polls[p.key]; ok && have.said == p.said && have.changes == p.changes {
		return have.answer
	}
	return nil
}

// keep remembers an answer, unless something was heard since the request was described.
func (m *memo) keep(p poll, a memoAnswer) {
	m.mu.Lock()
	if m.at != p.changes {
		clear(m.answers)
		m.at = p.changes
	}
	shared := m.answers[a]
	if shared == nil {
		shared = &a
		if len(m.answers) < memoMachines {
			m.answers[a] = shared
		}
	}
	m.mu.Unlock()
	s := m.shard(p.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard != p.heard {
		return
	}
	if len(s.polls) >= memoMachines {
		clear(s.polls)
	}
	s.polls[p.key] = memoPoll{p.said, p.changes, shared}
}

// forget is told once what was heard of a machine is on record.
func (m *memo) forget(app, id string) {
	var h maphash.Hash
	h.SetSeed(m.seed)
	for _, s := range []string{app, id} {
		_, _ = h.WriteString(s)
		_ = h.WriteByte(0)
	}
	key := h.Sum64()
	s := m.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard++
	delete(s.polls, key)
}

// outcome is what the answer is to a request that was recalled.
func (a *memoAnswer) outcome(req *omaha.Request, address string, now time.Time) outcome {
	app := &req.Apps[0]
	o := outcome{app: app, status: omaha.AppOK, decision: &fleet.Decision{Cause: a.cause, Reason: a.reason}, fresh: a.fresh}
	m := &o.machine
	m.App, m.ID, m.Alias, m.Version, m.Address, m.LastSeen = a.app, req.Machine(app), app.MachineAlias, app.Version, address, now
	return o
}

// memorable reports whether an outcome would be the same as long as nothing changes, and what the answer was.
func (o *outcome) memorable() (memoAnswer, bool) {
	d := o.decision
	if o.status != omaha.AppOK || o.changed || d == nil || d.Offer != nil || !d.Next.IsZero() || o.course.rollout != nil {
		return memoAnswer{}, false
	}
	return memoAnswer{o.machine.App, d.Cause, d.Reason, o.fresh}, true
}
