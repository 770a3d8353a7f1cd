package daemon

import (
	"context"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/bus"
)

// busStatus is a report as the bus shows it.
func busStatus(r *agent.Report) bus.Status {
	st := bus.Status{
		Version: r.Version, Slot: r.Slot, Channel: r.Channel, State: busState(r.State), Reason: r.Why, WaitingFor: r.Waiting,
		LastCheck: r.LastCheck, NextCheck: r.NextCheck, Metered: r.Metered,
	}
	if len(r.Servers) > 0 {
		st.Server = r.Servers[0]
	}
	if p := r.Progress; p != nil {
		st.NewVersion, st.NewSize = p.Version, p.Total
		if p.Total > 0 {
			st.Progress = float64(p.Done) / float64(p.Total)
		}
	}
	if r.Pending != nil {
		st.PendingVersion, st.PendingSize = r.Pending.Version, r.PendingSize
	}
	if b := r.RolledBack; b != nil {
		st.RolledBackVersion, st.RolledBackReason = b.Version, b.Reason
	}
	for _, f := range r.Failed {
		if max(f.Times, 1) >= r.MaxFailures {
			st.FailedVersions = append(st.FailedVersions, f.Version)
		}
	}
	if e := r.LastError; e != nil {
		st.LastError, st.LastErrorAt = e.Text, e.At
	}
	if p := r.Paused; p != nil {
		st.Paused, st.PauseReason = true, p.Reason
	}
	return st
}

// busState: the bus has no word for draining, which its watchers take for the reboot that it leads to.
func busState(s agent.StateName) bus.State {
	if s == agent.StateDraining {
		return bus.Rebooting
	}
	return bus.State(s)
}

// steering lets those whom package bus has authorised steer the agent.
type steering struct{ d *Daemon }

func (s steering) do(ctx context.Context, r agent.Request) error {
	_, err := s.d.agent.Do(ctx, r).Result()
	return err
}

// Check implements bus.Agent. The answer is not waited for: it is seen in the status.
func (s steering) Check(ctx context.Context) error {
	return s.do(ctx, agent.Request{Verb: agent.VerbCheck, Begin: true})
}

// Update implements bus.Agent: a check installs what it finds.
func (s steering) Update(ctx context.Context) error { return s.Check(ctx) }

// Cancel implements bus.Agent.
func (s steering) Cancel(ctx context.Context) error {
	return s.do(ctx, agent.Request{Verb: agent.VerbCancel})
}

// Pause implements bus.Agent.
func (s steering) Pause(ctx context.Context, on bool, reason string) error {
	if !on {
		return s.do(ctx, agent.Request{Verb: agent.VerbResume})
	}
	return s.do(ctx, agent.Request{Verb: agent.VerbPause, Reason: reason, By: "D-Bus"})
}

// SetMetered implements bus.Agent.
func (s steering) SetMetered(ctx context.Context, on bool) error {
	return s.do(ctx, agent.Request{Verb: agent.VerbMetered, On: on})
}

// Retry implements bus.Agent.
func (s steering) Retry(ctx context.Context, version string) error {
	return s.do(ctx, agent.Request{Verb: agent.VerbRetry, Version: version})
}

// Rollback implements bus.Agent. semper-installd goes back for root alone: a semperd that was taken over must not be able to put a machine back to a
// version with known holes.
func (s steering) Rollback(context.Context) error {
	return fault.New(fault.Usage, "semperd may not go back to an older version: root types 'semperctl rollback' on the machine")
}

// Reset implements bus.Agent, for the same reason.
func (s steering) Reset(context.Context) error {
	if s.d.agent.Report().Pending == nil {
		return nil
	}
	return fault.New(fault.Usage, "an installed update cannot be given up by semperd: root types 'semperctl pause', or lets a newer version replace it")
}
