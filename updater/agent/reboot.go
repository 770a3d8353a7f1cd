package agent

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/logind"
	"github.com/semper-os/semper/updater/wire"
)

// Times of the way to a reboot that are not settings.
const (
	gatePoll   = time.Minute      // how often it is looked whether users have left and inhibitors are gone
	lockFirst  = 30 * time.Second // after the lock was refused; doubles up to lockMax
	lockMax    = 5 * time.Minute
	drainFirst = 10 * time.Minute // after a drain hook failed; doubles up to maxRetry
	never      = 30 * 24 * time.Hour
	blindLimit = 24 * time.Hour  // for how long a logind that does not answer stops a reboot
	renewMax   = 5 * time.Minute // how often at least a machine on trial renews the lock
)

// gate is what the agent knows of the way to a reboot. It is not kept on disk: after a restart of the agent the way begins anew.
type gate struct {
	inhibitedSince time.Time // zero: nothing inhibits
	warnedAt       time.Time // logged-in users were warned; zero: not yet
	warned         map[string]bool
	lockTries      int // refused in a row
	lockNext       time.Time
	drainTries     int // failed in a row
	drainNext      time.Time
	unsure         bool // an earlier process, or a machine before a reinstallation, may hold the lock
	releaseNext    time.Time
	renewNext      time.Time
	taken          bool // by this process
	releaseTries   int
}

// goingDown reports whether a reboot was asked for in this boot, not long ago.
func (a *Agent) goingDown() bool {
	r := a.state.Reboots
	return a.slots.Pending != nil && r.Update.Equal(a.slots.Pending.At) && r.Boot == a.boot() &&
		a.now().Sub(r.Asked) < rebootWait && !r.Asked.After(a.now())
}

// wait remembers, and logs once, what a pending reboot waits for.
func (a *Agent) wait(why string) {
	if a.waiting == why {
		return
	}
	a.mu.Lock()
	a.waiting = why
	a.mu.Unlock()
	if why != "" {
		a.o.Log.Info("the reboot waits", "why", why)
	}
	a.publish()
}

// reboot has the machine rebooted into a pending update as soon as everything agrees. It returns when to look again, and a negative time when the machine
// goes down.
//
// The order is: strategy, pause, window, inhibitors, users, lock, drain hooks. The lock comes after all that may take hours, since others wait for it, and
// the hooks after the lock, since what they stop stays stopped. Before the last step window and lock are looked at again.
func (a *Agent) reboot(ctx context.Context) time.Duration {
	p := a.slots.Pending
	if p == nil {
		return never
	}
	if a.goingDown() {
		return -1
	}
	why, again := a.held(ctx, p)
	if why != "" {
		a.gate.lockTries = 0
		a.letGo(ctx) // a lock that was asked for, and perhaps given, must not be held over hours
		a.wait(why)
		return again
	}
	if again = a.patience(); again > 0 {
		return again
	}
	why, again = a.takeLock(ctx)
	if why != "" {
		a.wait(why)
		return again
	}
	if why, again = a.drain(ctx, p); why != "" {
		a.wait(why)
		return again
	}
	a.wait("")
	if err := a.goDown(ctx, p); err != nil {
		if ctx.Err() != nil { // the agent ends, most likely because the machine goes down before the answer was there
			return -1
		}
		a.problem(ofUpdate, p.Version, fmt.Errorf("reboot into %s: %w", p.Version, err))
		a.enter(StatePending, "the reboot was refused")
		a.undrain(ctx)
		a.letGo(ctx)
		a.wait("the reboot was refused: " + clip(err.Error(), 300))
		return a.backoff(firstRetry, a.state.Reboots.Count)
	}
	return -1
}

// held returns what keeps the machine from rebooting that costs nothing to ask for, and when to look again.
func (a *Agent) held(ctx context.Context, p *wire.Pending) (why string, again time.Duration) {
	set := &a.setup.Settings.Reboot
	switch {
	case set.Strategy == config.RebootOff:
		return "reboot.strategy is off: somebody else reboots", never
	case a.paused() != nil:
		return "the agent is paused: " + a.paused().Reason, never
	case a.spent(p):
		return fmt.Sprintf("%d reboots did not lead into version %s: the boot loader does not choose it", a.state.Reboots.Count, p.Version), never
	}
	if why, again := a.window(); why != "" {
		return why, again
	}
	if why := a.inhibited(ctx); why != "" {
		return why, gatePoll
	}
	if why := a.occupied(ctx, p); why != "" {
		return why, gatePoll
	}
	return "", 0
}

// patience is how long to wait after a lock that was refused or a hook that failed. A time far ahead is a clock that was set back.
func (a *Agent) patience() time.Duration {
	for _, t := range []time.Time{a.gate.drainNext, a.gate.lockNext} {
		if wait := t.Sub(a.now()); wait > 0 && wait <= maxRetry {
			return wait
		}
	}
	return 0
}

// spent reports whether the reboots into p are used up: more would be a loop that leads nowhere.
func (a *Agent) spent(p *wire.Pending) bool {
	r := a.state.Reboots
	if !r.Update.Equal(p.At) || r.Count < a.setup.Settings.Reboot.MaxReboots {
		return false
	}
	if !r.GaveUp {
		a.change(func(s *State) { s.Reboots.GaveUp = true })
		a.problem(ofUpdate, p.Version, fault.New(fault.IO, "version %s is installed, but after %d reboots the machine still runs %s: the boot loader does not choose it",
			p.Version, r.Count, a.slots.Version))
		a.change(func(s *State) { s.post(omaha.Deferred(p.Version, s.LastError.Text)) })
	}
	return true
}

// window waits for the next time at which a reboot may begin.
func (a *Agent) window() (why string, again time.Duration) {
	windows := &a.setup.Windows
	if len(windows.Windows) == 0 {
		return "", 0
	}
	now := a.o.Clock.Now()
	if open, _ := windows.Open(now); open {
		return "", 0
	}
	opens, ok := windows.Next(now)
	if !ok {
		return "no reboot window ever opens", never
	}
	return "waits for its reboot window, which opens " + opens.In(windows.Location).Format("Mon 2006-01-02 15:04 MST"), opens.Sub(now)
}

// inhibited reports what asked logind not to shut down, for as long as the settings have patience with it.
func (a *Agent) inhibited(ctx context.Context) string {
	if a.o.Login == nil {
		return ""
	}
	all, err := a.o.Login.Inhibitors(ctx)
	limit := a.setup.Settings.Reboot.InhibitorGrace
	if err != nil {
		// Nobody knows what would be interrupted. But a machine whose logind is broken for good needs its update all the more.
		a.o.Log.Warn("ask logind for inhibitors", "error", err)
		all = []logind.Inhibitor{{Who: "logind does not answer", Why: clip(err.Error(), 200)}}
		if limit == 0 {
			limit = blindLimit
		}
	}
	if len(all) == 0 {
		a.gate.inhibitedSince = time.Time{}
		return ""
	}
	if a.gate.inhibitedSince.IsZero() {
		a.gate.inhibitedSince = a.now()
	}
	if limit > 0 && a.now().Sub(a.gate.inhibitedSince) >= limit {
		a.o.Log.Warn("inhibitors are no longer honoured", "since", a.gate.inhibitedSince, "limit", limit)
		return ""
	}
	var names []string
	for _, i := range all {
		names = append(names, fmt.Sprintf("%s (%s)", i.Who, i.Why))
	}
	why := "waits for what inhibits the shutdown: " + clip(strings.Join(names, ", "), 300)
	if limit > 0 {
		why += ", until " + a.gate.inhibitedSince.Add(limit).Format(time.DateTime+" UTC") + " at most"
	}
	return why
}

// occupied warns whoever is logged in, and gives them time.
func (a *Agent) occupied(ctx context.Context, p *wire.Pending) string {
	grace := a.setup.Settings.Reboot.UserGrace
	if a.o.Login == nil || grace == 0 {
		return ""
	}
	sessions, err := a.o.Login.Sessions(ctx)
	if err != nil {
		a.o.Log.Warn("ask logind for sessions", "error", err)
		return ""
	}
	if len(sessions) == 0 {
		a.gate.warnedAt, a.gate.warned = time.Time{}, nil
		return ""
	}
	if a.gate.warnedAt.IsZero() {
		a.gate.warnedAt, a.gate.warned = a.now(), map[string]bool{}
	}
	end := a.gate.warnedAt.Add(grace)
	a.warn(ctx, sessions, fmt.Sprintf("This machine reboots into %s version %s at %s, when the last user has logged out or then in any case.\n"+
		"'semperctl pause' puts it off.", "Semper", p.Version, end.Format("15:04 UTC")))
	if !a.now().Before(end) {
		return ""
	}
	var names []string
	for _, s := range sessions {
		names = append(names, s.User)
	}
	return fmt.Sprintf("waits for users to log out, until %s at most: %s", end.Format(time.DateTime+" UTC"), clip(strings.Join(names, ", "), 200))
}

// warn writes to the terminals of those who were not warned yet.
func (a *Agent) warn(ctx context.Context, sessions []logind.Session, text string) {
	var ttys []string
	for _, s := range sessions {
		if s.TTY != "" && !a.gate.warned[s.ID] {
			ttys = append(ttys, s.TTY)
		}
		a.gate.warned[s.ID] = true
	}
	if len(ttys) == 0 {
		return
	}
	if err := a.with(ctx, func(i Installer) error { return i.Warn(text, ttys) }); err != nil {
		a.o.Log.Warn("warn logged-in users", "error", err)
	}
}

// takeLock asks for the fleet's lock. That it may be held from now on is on disk before the question is out, so that a crash does not forget it.
func (a *Agent) takeLock(ctx context.Context) (why string, again time.Duration) {
	lock := a.setup.Lock
	if lock == nil {
		return "", 0
	}
	if !a.state.Locked {
		a.change(func(s *State) { s.Locked = true })
	}
	if err := lock.Acquire(ctx); err != nil {
		a.gate.lockTries++
		wait := min(a.backoff(lockFirst, a.gate.lockTries), lockMax)
		a.gate.lockNext = a.after(wait)
		return "waits for the fleet's reboot lock: " + clip(err.Error(), 300), wait
	}
	if a.gate.lockTries > 0 || a.waiting != "" {
		a.o.Log.Info("the reboot lock is ours", "strategy", a.setup.Settings.Reboot.Strategy)
	}
	a.gate.lockTries, a.gate.lockNext, a.gate.taken = 0, time.Time{}, true
	return "", 0
}

// drain runs the drain hooks, and then asks again whether the machine may still go.
func (a *Agent) drain(ctx context.Context, p *wire.Pending) (why string, again time.Duration) {
	a.enter(StateDraining, "before the reboot into version "+p.Version)
	a.change(func(s *State) { s.Drained = true })
	if err := a.with(ctx, func(i Installer) error { return i.Drain("reboot into version " + p.Version) }); err != nil {
		a.gate.drainTries++
		wait := a.backoff(drainFirst, a.gate.drainTries)
		a.gate.drainNext = a.after(wait)
		err = fmt.Errorf("no reboot into %s: %w", p.Version, err)
		a.problem(ofUpdate, p.Version, err)
		a.change(func(s *State) { s.post(omaha.Deferred(p.Version, err.Error())) })
		a.enter(StatePending, clip(err.Error(), 500))
		a.letGo(ctx)
		return "a drain hook failed: " + clip(err.Error(), 300), wait
	}
	a.gate.drainTries, a.gate.drainNext = 0, time.Time{}
	off := func(why string, again time.Duration) (string, time.Duration) {
		a.enter(StatePending, why)
		a.undrain(ctx)
		a.letGo(ctx)
		return why, again
	}
	if why, again := a.window(); why != "" {
		return off(why, again)
	}
	if a.setup.Lock != nil {
		if err := a.setup.Lock.Held(ctx); err != nil {
			a.gate.lockTries++
			wait := min(a.backoff(lockFirst, a.gate.lockTries), lockMax)
			a.gate.lockNext = a.after(wait)
			return off("the reboot lock was lost while the drain hooks ran, and is asked for again: "+clip(err.Error(), 300), wait)
		}
	}
	return "", 0
}

// goDown reports and asks for the reboot.
func (a *Agent) goDown(ctx context.Context, p *wire.Pending) error {
	a.announce(ctx)
	soft, how := a.byWhat(p)
	r := a.state.Reboots
	if !r.Update.Equal(p.At) {
		r = Reboots{Update: p.At}
	}
	r.Count, r.Boot, r.Asked = r.Count+1, a.boot(), a.now()
	a.change(func(s *State) { s.Reboots = r })
	text := "into version " + p.Version
	if how != "" {
		text += ", by " + how
	}
	a.enter(StateRebooting, text)
	return a.with(ctx, func(i Installer) error { return a.order(i, soft) })
}

// lockKeys are the settings that say whose lock, and which, is asked for. The others say how.
var lockKeys = []string{"reboot.strategy", "reboot.fleetlock.url", "reboot.fleetlock.group", "reboot.etcd.endpoints", "reboot.etcd.group"}

// changeLock prepares for other settings. A lock that stays the same is kept. One that is another's from now on is given back, unless this machine's
// reboot is on the way: then somebody else would go down too, and the settings must wait.
func (a *Agent) changeLock(ctx context.Context, changed []string, next Lock) error {
	i := slices.IndexFunc(changed, func(key string) bool { return slices.Contains(lockKeys, key) })
	if i < 0 {
		a.gate.taken = false // by next; Acquire takes over what the lock before it held
		return nil
	}
	if a.setup.Lock != nil && a.state.Locked && a.slots != nil && (a.slots.Trial || a.goingDown()) {
		return fault.New(fault.Usage, "%s cannot change while the machine holds the reboot lock for a reboot that is not over: reload again when the version that boots is healthy", changed[i])
	}
	a.gate.releaseNext = time.Time{}
	a.letGo(ctx)
	a.gate.taken, a.gate.unsure = false, next != nil
	a.gate.lockTries, a.gate.lockNext = 0, time.Time{} // another's refusals
	return nil
}

// renewal is how often the lock is renewed: a lease must outlive two renewals that fail.
func (a *Agent) renewal() time.Duration {
	if set := &a.setup.Settings.Reboot; set.Strategy == config.RebootEtcd {
		return min(renewMax, set.Etcd.Lease/3)
	}
	return renewMax
}

// renew keeps the lock while a version is on trial: it is given back when that is healthy, however long it takes.
func (a *Agent) renew(ctx context.Context) {
	if a.setup.Lock == nil || !a.state.Locked || a.now().Before(a.gate.renewNext) {
		return
	}
	a.gate.renewNext = a.after(a.renewal())
	renew := a.setup.Lock.Held
	if !a.gate.taken { // an earlier process took it
		renew = a.setup.Lock.Acquire
	}
	if err := renew(ctx); err != nil {
		a.o.Log.Warn("renew the reboot lock on trial", "error", err)
		return
	}
	a.gate.taken = true
}

// undrain undoes what the drain hooks did, if they may have done something. Where that fails it is tried again at the next step.
func (a *Agent) undrain(ctx context.Context) {
	if !a.state.Drained {
		return
	}
	if err := a.with(ctx, func(i Installer) error { return i.Undrain() }); err != nil {
		a.problem(ofDrain, "", fmt.Errorf("undo the drain: %w", err))
		return
	}
	a.change(func(s *State) { s.Drained = false })
	a.solved(ofDrain)
}

// settle undoes the way to a reboot once it is over, one way or the other: the running version is healthy, so others may have the lock, and what was
// drained may come back.
func (a *Agent) settle(ctx context.Context) {
	if a.goingDown() {
		return
	}
	a.undrain(ctx)
	if a.slots.Pending == nil || a.gate.lockTries == 0 { // not while it is being asked for
		a.letGo(ctx)
	}
}

// letGo releases the lock, if it is or may be held. Where that fails it is tried again at one of the next steps; leases end by themselves.
func (a *Agent) letGo(ctx context.Context) {
	if !a.state.Locked && !a.gate.unsure {
		return
	}
	if a.setup.Lock == nil {
		a.change(func(s *State) { s.Locked = false })
		return
	}
	if a.now().Before(a.gate.releaseNext) {
		return
	}
	if err := a.setup.Lock.Release(ctx); err != nil {
		a.gate.releaseTries++
		a.gate.releaseNext = a.after(min(a.backoff(lockFirst, a.gate.releaseTries), lockMax))
		a.problem(ofLock, "", fmt.Errorf("give the reboot lock back: %w", err))
		return
	}
	a.gate.releaseTries, a.gate.releaseNext, a.gate.unsure = 0, time.Time{}, false
	a.solved(ofLock)
	if a.state.Locked {
		a.o.Log.Info("the reboot lock is given back")
		a.change(func(s *State) {
			s.Locked = false
			s.note(a.now(), "the reboot lock is given back")
		})
	}
}
