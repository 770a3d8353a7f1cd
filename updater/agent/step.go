package agent

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/updater/wire"
)

// Step does what is due and returns how long there is nothing to do.
func (a *Agent) Step(ctx context.Context) time.Duration {
	a.setBack()
	if !a.look(ctx) {
		return min(a.backoff(firstRetry, a.blind), maxBlind)
	}
	if a.slots.Trial && (a.slots.WayBack || a.now().Sub(a.started) < trialLimit) {
		a.enter(StateTrial, "version "+a.slots.Version+" must pass its health checks")
		if a.news {
			a.publish()
		}
		a.deliver(ctx)
		a.probe(ctx)
		a.renew(ctx)
		return trialPoll
	}
	a.settle(ctx)
	a.examine()
	if a.slots.Pending != nil {
		if !a.goingDown() {
			a.enter(StatePending, pendingText(a.slots.Pending))
		}
	} else {
		a.wait("")
		if a.state.State != StateIdle {
			a.enter(StateIdle, "version "+a.slots.Version+" runs")
		}
	}
	if a.news { // nothing else changed, as when the agent was started anew
		a.publish()
	}
	again := a.reboot(ctx)
	if again < 0 { // the machine goes down
		return rebootWait
	}
	if a.paused() == nil && a.due() {
		_, _ = a.check(ctx, client.Scheduled, nil)
		if again = a.reboot(ctx); again < 0 {
			return rebootWait
		}
	}
	a.deliver(ctx)
	return min(a.untilNext(), again)
}

// setBack voids what was planned and measured by a clock that has been set back since: it would come years late. The next check has a rule of its own, see due.
func (a *Agent) setBack() {
	now := a.now()
	if by := a.lastStep.Sub(now); by > clockSlack {
		a.o.Log.Warn("the clock was set back", "by", by)
		a.change(func(s *State) {
			s.note(now, "the clock was set back by "+by.Round(time.Minute).String()+": what was planned by it is void")
		})
		a.started, a.nextReport = now, time.Time{}
		g := &a.gate
		g.lockNext, g.drainNext, g.releaseNext, g.renewNext = time.Time{}, time.Time{}, time.Time{}, time.Time{}
		if !g.inhibitedSince.IsZero() {
			g.inhibitedSince = now
		}
		if !g.warnedAt.IsZero() {
			g.warnedAt = now
		}
	}
	a.lastStep = now
}

func pendingText(p *wire.Pending) string {
	if p.Back {
		return "the way back to version " + p.Version + " is prepared"
	}
	return "version " + p.Version + " is installed"
}

// look asks semper-installd what is true and draws the conclusions. Without an answer nothing else makes sense.
func (a *Agent) look(ctx context.Context) bool {
	st, err := a.ask(ctx)
	a.mu.Lock()
	a.slotsErr = err
	if err == nil {
		a.news = a.news || !reflect.DeepEqual(a.slots, &st)
		a.slots = &st
	}
	a.mu.Unlock()
	if err != nil {
		a.blind++
		a.problem(ofInstaller, "", fmt.Errorf("ask semper-installd: %w", err))
		return false
	}
	a.blind = 0
	a.solved(ofInstaller)
	a.learn(st)
	return true
}

// with calls do with a connection to semper-installd that ends with ctx.
func (a *Agent) with(ctx context.Context, do func(Installer) error) error {
	inst, err := a.o.Dial(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = inst.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = inst.Close() })
	defer stop()
	return do(inst)
}

func (a *Agent) ask(ctx context.Context) (st wire.Status, err error) {
	err = a.with(ctx, func(i Installer) error {
		st, err = i.Status()
		return err
	})
	return st, err
}

// learn turns what happened since the last look, possibly a reboot ago, into events and history. Each happening counts once.
func (a *Agent) learn(st wire.Status) {
	if a.state.FirstVersion == "" {
		a.change(func(s *State) { s.FirstVersion = st.Version })
	}
	if b := st.Blessed; b != nil && b.Version == st.Version && !b.At.Equal(a.state.SeenBlessed) {
		a.change(func(s *State) {
			s.SeenBlessed = b.At
			s.post(omaha.Completed(b.From))
			s.forgive(b.Version)
			s.note(a.now(), fmt.Sprintf("version %s is healthy; it replaced %s", b.Version, b.From))
			s.LastError = nil
			s.Reboots = Reboots{}
		})
		a.o.Log.Info("update completed", "version", b.Version, "from", b.From)
	}
	if r := st.RolledBack; r != nil && r.Version != st.Version && !r.At.Equal(a.state.SeenRollback) {
		reason := r.Reason
		a.change(func(s *State) {
			s.SeenRollback = r.At
			s.post(omaha.RolledBack(r.Version, eventReason(*r)))
			s.fail(Failed{Version: r.Version, Reason: reason, Code: int(omaha.CodeRollback), At: r.At, Running: st.Version})
			s.note(a.now(), fmt.Sprintf("went back from %s to %s: %s", r.Version, st.Version, reason))
			s.LastError = &Problem{Of: ofUpdate, Text: fmt.Sprintf("rolled back from %s: %s", r.Version, reason), Version: r.Version, Code: int(omaha.CodeRollback), At: r.At}
			s.Reboots = Reboots{}
		})
		a.o.Log.Error("rolled back", "version", r.Version, "reason", reason)
	}
}

// eventReason is what the server is told of a rollback: the reason and the end of the failing check's output, on one line, since an attribute of XML
// has no line breaks.
func eventReason(r wire.RolledBack) string {
	text := r.Reason
	if out := strings.TrimSpace(r.Output); !strings.HasSuffix(text, out) { // the reason ends with the output's last line
		text += " | " + strings.ReplaceAll(out, "\n", " | ")
	}
	return clip(text, omaha.MaxReason)
}

// due reports whether the scheduled check is due. At the agent's first step there is no next check yet.
func (a *Agent) due() bool {
	if len(a.setup.Servers) == 0 {
		return false
	}
	set := &a.setup.Settings
	if next := a.state.NextCheck; next.IsZero() || next.Sub(a.now()) > set.PollInterval+set.Jitter+maxRetry {
		// The first start, or a clock that was wrong when the time was set.
		a.schedule(set.InitialDelay)
		return set.InitialDelay == 0
	}
	return !a.now().Before(a.state.NextCheck)
}

// Start sets the first check of this run: a start is a reason to look soon, whatever was planned before, and at once where an update was under way.
func (a *Agent) Start() {
	if len(a.setup.Servers) == 0 {
		return
	}
	if a.state.Target != "" { // a download was interrupted
		a.change(func(s *State) { s.NextCheck = a.now() })
		return
	}
	a.schedule(a.setup.Settings.InitialDelay)
}

// schedule plans the next check after d, moved by the jitter.
func (a *Agent) schedule(d time.Duration) {
	if j := int64(min(a.setup.Settings.Jitter, d)); j > 0 {
		d += time.Duration(a.o.Rand.Int64N(2*j+1) - j)
	}
	a.change(func(s *State) { s.NextCheck = a.after(d) })
}

// backoff is the wait after n failures in a row: anything up to first, doubled each time, but not less than a tenth of that. The whole range is drawn
// from, so that a fleet that lost its server at one moment does not come back at one moment.
func (a *Agent) backoff(first time.Duration, n int) time.Duration {
	d := min(first<<min(max(n-1, 0), 10), maxRetry)
	return d/10 + time.Duration(a.o.Rand.Int64N(int64(d-d/10)+1))
}

// untilNext is the time to the next thing to do.
func (a *Agent) untilNext() time.Duration {
	wait := time.Hour
	until := func(t time.Time) { wait = min(wait, max(0, t.Sub(a.now()))) }
	if a.state.Locked && !a.gate.releaseNext.IsZero() {
		until(a.gate.releaseNext)
	}
	if len(a.setup.Servers) > 0 {
		if a.paused() == nil {
			until(a.state.NextCheck)
		}
		if len(a.state.Outbox) > 0 {
			until(a.nextReport)
		}
	}
	return wait
}

// Pause is why the agent does nothing: no checks, no downloads, no reboots.
type Pause struct {
	Reason string    `json:"reason"`
	By     string    `json:"by"`
	At     time.Time `json:"at,omitzero"`
}

// paused returns why the agent is paused, or nil.
func (a *Agent) paused() *Pause {
	if a.setup.Settings.Paused {
		return &Pause{Reason: "paused = true", By: a.from("paused")}
	}
	return a.state.Paused
}

// metered reports whether the line costs: then nothing is downloaded.
func (a *Agent) metered() bool { return a.setup.Settings.Network.Metered || a.state.Metered }
