package server

import (
	"context"

	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

// policy is what decides what machines are answered and is the same for many of them. It is read once for each number of store.Changes, and never changed.
type policy struct {
	changes int64
	apps    map[string]bool // by id; whether one has pins
	streams map[stream]*streamPolicy
	marked  map[stream][]fleet.Release // by application and architecture
}

// stream is what machines of one architecture get that follow a channel.
type stream struct{ app, channel, arch string }

type streamPolicy struct {
	channel fleet.Channel
	fresh   string // its freshness statement
	rollout int64  // the one that is not over, or 0; its counters change all the time
	rolling bool   // it gives its release to machines
	rolls   string // the version of its release
}

func loadPolicy(ctx context.Context, tx store.Tx) (*policy, error) {
	p := &policy{apps: map[string]bool{}, streams: map[stream]*streamPolicy{}, marked: map[stream][]fleet.Release{}}
	var err error
	if p.changes, err = tx.Changes(ctx); err != nil { // first: what changes meanwhile is read again
		return nil, err
	}
	apps, err := tx.Applications(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range apps {
		if p.apps[a.ID], err = tx.HasPins(ctx, a.ID); err != nil {
			return nil, err
		}
		channels, err := tx.Channels(ctx, a.ID)
		if err != nil {
			return nil, err
		}
		for _, c := range channels {
			p.streams[stream{a.ID, c.Name, c.Arch}] = &streamPolicy{channel: c}
		}
		marked, err := tx.MarkedReleases(ctx, a.ID)
		if err != nil {
			return nil, err
		}
		for _, r := range marked {
			at := stream{app: a.ID, arch: r.Arch}
			p.marked[at] = append(p.marked[at], r)
		}
	}
	fresh, err := tx.AllFreshness(ctx)
	if err != nil {
		return nil, err
	}
	for _, f := range fresh {
		if s := p.streams[stream{f.App, f.Channel, f.Arch}]; s != nil {
			s.fresh = string(f.Envelope)
		}
	}
	open, err := tx.Rollouts(ctx, "", true, maxOpenRollouts)
	if err != nil {
		return nil, err
	}
	for i := range open {
		r := &open[i]
		if s := p.streams[stream{r.App, r.Channel, r.Arch}]; s != nil {
			s.rollout, s.rolls, s.rolling = r.ID, r.Version, r.State == rollout.Canary || r.State == rollout.Ramping
		}
	}
	return p, nil
}

// policyNow is the policy as the database has it, or had it a moment ago.
func (s *Server) policyNow(ctx context.Context) (*policy, error) {
	if p := s.policy.Load(); p != nil && p.changes == s.store.Changes() {
		return p, nil
	}
	s.policyLoading.Lock()
	defer s.policyLoading.Unlock()
	if p := s.policy.Load(); p != nil && p.changes == s.store.Changes() {
		return p, nil
	}
	p, err := loadPolicy(ctx, s.store.Read())
	if err == nil {
		s.policy.Store(p)
	}
	return p, err
}

// policyIn is the policy as a write finds it, which may have changed it already: nobody else may see it.
func (s *Server) policyIn(ctx context.Context, tx store.Tx) (*policy, error) {
	if p := s.policy.Load(); p != nil {
		n, err := tx.Changes(ctx)
		if err != nil || n == p.changes {
			return p, err
		}
	}
	return loadPolicy(ctx, tx)
}

// rollout is the number of the rollout that is not over for a machine, or 0.
func (p *policy) rollout(m *fleet.Machine) int64 {
	if s := p.streams[stream{m.App, m.Channel, m.Arch}]; s != nil {
		return s.rollout
	}
	return 0
}
