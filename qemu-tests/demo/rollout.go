package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"time"

	"github.com/semper-os/semper/omaha/server/api"
)

// canaries is the group that gets a release first. The demo's machine is all of it.
const canaries = "lab"

// serverVerb runs a verb of semper-server on the running server's data.
func (s *story) serverVerb(ctx context.Context, args ...string) (string, error) {
	return s.programs.Run(ctx, nil, "semper-server", append(args, "--data", filepath.Join(s.server.Dir, "data"))...)
}

// gather puts the machine into the canary group.
func (s *story) gather(ctx context.Context) error {
	m, err := s.server.Machine(ctx, "")
	if err != nil {
		return err
	}
	if _, err := s.serverVerb(ctx, "group", "create", canaries); err != nil {
		return err
	}
	if _, err := s.serverVerb(ctx, "group", "add", canaries, m.ID); err != nil {
		return err
	}
	s.line.add(serverW, "", "group %s has the machine %s", canaries, m.ID)
	return nil
}

// rollOut publishes a version and lets the canaries have it first.
func (s *story) rollOut(ctx context.Context, version string) (id int64, err error) {
	if err := s.server.Publish(ctx, nil, s.releases[version].Release, ""); err != nil {
		return 0, err
	}
	s.line.add(serverW, "", "%s is published and verified (payload %s), nobody is offered it yet", version, s.releases[version].size("full.crau"))
	out, err := s.serverVerb(ctx, "rollout", "plan", version, "--channel", "stable", "--canary-group", canaries, "--ramp", "1m", "--halt", "1", "--start", "--json")
	if err != nil {
		return 0, err
	}
	var r api.Rollout
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return 0, fmt.Errorf("semper-server rollout plan said %q: %w", out, err)
	}
	s.line.add(serverW, "", "rollout %d of %s is in state %s: group %s first, then everybody within a minute; one failure stops it", r.ID, version, r.State, canaries)
	return r.ID, nil
}

// seeRollout waits until a rollout is in a state, and says what the server says of it.
func (s *story) seeRollout(ctx context.Context, id int64, state string) error {
	ctx, cancel := context.WithTimeout(ctx, s.o.patience)
	defer cancel()
	var last api.RolloutDetail
	for {
		if err := s.server.Get(ctx, fmt.Sprintf("rollouts/%d", id), &last); err != nil {
			return err
		}
		if last.State == state {
			break
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("step %q was not seen at the server: rollout %d is %s: %s", "the rollout is "+state, id, last.State, last.Why)
		}
	}
	s.line.add(serverW, "", "rollout %d of %s is %s: %s", id, last.Version, last.State, last.Why)
	if state == "halted" {
		for _, f := range last.Failures {
			s.line.add(serverW, "", "  %s: %s", f.Machine, f.Why)
		}
		if len(last.Failures) != 1 || last.By != "" {
			return fmt.Errorf("step %q was not seen at the server: %+v", "the rollout has stopped by itself for one machine", last)
		}
	}
	s.line.add(demoW, "", "ok: the rollout of %s is %s (seen at the server)", last.Version, state)
	return nil
}
