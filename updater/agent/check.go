package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
)

// Errors of an operation that a person ended.
var (
	errCancelled = fault.New(fault.IO, "cancelled by a person")
	errPaused    = fault.New(fault.IO, "the agent was paused")
)

// check asks the servers, and installs what they offer. Checked, if not nil, is told the answer as soon as it is there. The result is a sentence.
func (a *Agent) check(ctx context.Context, source client.Source, checked func(string, error)) (text string, err error) {
	if checked == nil {
		checked = func(string, error) {}
	}
	a.interruptible(ctx, func(ctx context.Context) { text, err = a.askAndInstall(ctx, source, checked) })
	return text, err
}

func (a *Agent) askAndInstall(ctx context.Context, source client.Source, checked func(string, error)) (string, error) {
	before := a.state.State
	a.enter(StateChecking, "asking the update server")
	events := a.state.outbox()
	answer, err := a.askServers(ctx, source, events)
	if err != nil {
		if ended := context.Cause(ctx); ended != nil {
			err = ended
		}
		a.checkFailed(err)
		a.enter(before, "the check failed")
		checked("", err)
		return "", err
	}
	a.delivered(len(events))
	a.retries = 0
	text, verdict := a.judge(answer)
	if err := a.judgeFreshness(answer); err != nil && verdict == install {
		text, verdict = text+", but: "+err.Error(), blocked
	}
	a.change(func(s *State) {
		s.LastCheck, s.CheckResult = a.now(), text
	})
	a.solved(ofServer)
	interval := a.setup.Settings.PollInterval
	if answer.PollInterval > 0 {
		interval = max(answer.PollInterval, minServerGap)
	}
	a.schedule(interval)
	a.o.Log.Info("checked", "answer", text, "next", a.state.NextCheck)
	checked(text, nil)
	switch verdict {
	case install:
		return a.update(ctx, *answer.Update)
	case blocked:
		err = fault.New(fault.Verification, "%s", text)
		a.enter(before, clip(text, 300))
		return "", err
	}
	a.enter(before, clip(text, 300))
	return text, nil
}

// checkFailedPrefix begins the result of a check that no server answered.
const checkFailedPrefix = "failed: "

func (a *Agent) checkFailed(err error) {
	a.retries++
	a.problem(ofServer, "", err)
	wait := a.backoff(firstRetry, a.retries)
	var status *client.StatusError
	if errors.As(err, &status) {
		wait = max(wait, status.RetryAfter)
	}
	a.change(func(s *State) {
		s.LastCheck, s.CheckResult, s.NextCheck = a.now(), checkFailedPrefix+clip(err.Error(), 500), a.after(wait)
	})
}

// verdict is what to do about an answer.
type verdict int

const (
	nothing verdict = iota
	install
	blocked // there is an update, but it failed here before, or is not wanted here
)

// judge puts an answer into words and says what to do.
func (a *Agent) judge(answer client.Answer) (string, verdict) {
	u := answer.Update
	switch {
	case u == nil && answer.Reason != "":
		return "no update: " + clip(answer.Reason, 500), nothing
	case u == nil:
		return "no update", nothing
	case u.Version == a.slots.Version:
		return fmt.Sprintf("the server offers %s, which runs", u.Version), nothing
	case a.slots.Pending != nil && a.slots.Pending.Version == u.Version:
		return fmt.Sprintf("the server offers %s, which is installed and waits for a reboot", u.Version), nothing
	}
	set := &a.setup.Settings
	if f := a.state.failed(u.Version, a.slots.Version, set.MaxFailures); f != nil {
		return fmt.Sprintf("the server offers %s, which failed here on %s and is not tried again: %s", u.Version, f.At.Format(time.DateTime+" UTC"), f.Reason), blocked
	}
	switch {
	case set.Pin != "" && set.Pin != u.Version:
		return fmt.Sprintf("the server offers %s, but this machine is pinned to %s (%s)", u.Version, set.Pin, a.from("pin")), nothing
	case a.metered():
		return fmt.Sprintf("the server offers %s, which is not downloaded over a metered line", u.Version), nothing
	}
	return fmt.Sprintf("the server offers %s", u.Version), install
}

// update downloads and installs u. Failures are reported, and remembered where the same would happen again.
func (a *Agent) update(ctx context.Context, u omaha.Payload) (string, error) {
	a.change(func(s *State) { s.Target = u.Version })
	a.mu.Lock()
	a.progress = Progress{Version: u.Version, Total: u.Size} // so that whoever hears of the state hears of the version with it
	a.mu.Unlock()
	a.enter(StateDownloading, "version "+u.Version)
	err := a.install(ctx, u)
	if err != nil && ctx.Err() != nil {
		cause := context.Cause(ctx)
		if !errors.Is(cause, errCancelled) && !errors.Is(cause, errPaused) {
			return "", err // semperd is being stopped: nothing failed, the download goes on at the next start
		}
		err = &coded{cause, omaha.CodeDeferredByPolicy}
		ctx = context.WithoutCancel(ctx)
	}
	a.change(func(s *State) { s.Target = "" })
	if err == nil {
		a.change(func(s *State) {
			s.post(omaha.Installed(u.Version))
			s.PendingSize = u.Size
			s.LastError = nil
		})
		looked := a.look(ctx) // first, so that whoever hears of the state hears of the version with it
		a.enter(StatePending, "version "+u.Version+" is installed")
		if !looked {
			return "", fmt.Errorf("version %s is installed, but then: %w", u.Version, a.slotsErr)
		}
		return fmt.Sprintf("version %s is installed and waits for a reboot", u.Version), nil
	}
	err = fmt.Errorf("update to %s: %w", u.Version, err)
	a.problem(ofUpdate, u.Version, err)
	code := codeOf(err)
	a.change(func(s *State) {
		s.post(omaha.Failed(u.Version, code, err.Error()))
		s.note(a.now(), err.Error())
		if lasting(err) {
			s.fail(Failed{Version: u.Version, Reason: clip(err.Error(), 1000), Code: int(code), At: a.now(), Running: a.slots.Version})
		}
	})
	if !lasting(err) && !errors.Is(err, errCancelled) {
		a.retries++
		a.change(func(s *State) { s.NextCheck = a.after(a.backoff(firstRetry, a.retries)) })
	}
	a.look(ctx) // a pending update that was there before may be gone
	switch {
	case a.slots.Pending != nil:
		a.enter(StatePending, pendingText(a.slots.Pending))
	case a.slots.Trial:
		a.enter(StateTrial, "the update to "+u.Version+" failed")
	default:
		a.enter(StateIdle, "the update to "+u.Version+" failed")
	}
	a.nextReport = time.Time{}
	return "", err
}

// lasting reports whether the same update would fail again. It goes by the code that is reported, as the server does, so that both agree on what is not
// tried again.
func lasting(err error) bool { return !codeOf(err).Passing() }
