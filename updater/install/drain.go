package install

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/wire"
)

const (
	// drainedFor is how long a drain excuses a reboot: whoever drains and does not reboot has let work come back meanwhile, or should have.
	drainedFor = 10 * time.Minute
	// drainLimit ends a drain whose hooks have no limit of their own.
	drainLimit   = time.Hour
	undrainLimit = 10 * time.Minute
	warnLimit    = 30 * time.Second
	// maxWarnings an hour is more than any strategy needs, and less than what keeps people from their work.
	maxWarnings = 60
)

// drain is what was done about the machine's work in this boot. It is kept in memory alone: a process that knows nothing asks for a new drain.
type drain struct {
	busy sync.Mutex // held while a hook runs

	mu     sync.Mutex // of all below
	at     time.Time  // of the last drain that succeeded and was not taken back; zero: none
	back   bool       // work was let back, so that there is nothing to undo
	warned []time.Time
}

// ready reports whether a drain is young enough at now. A clock that was set back makes it too old.
func (d *drain) ready(now time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	age := now.Sub(d.at)
	return !d.at.IsZero() && age >= 0 && age <= drainedFor
}

// since returns when the machine was drained, or nil.
func (d *drain) since() *time.Time {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.at.IsZero() {
		return nil
	}
	at := d.at.UTC().Truncate(time.Second)
	return &at
}

func (d *drain) set(at time.Time, back bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at, d.back = at, back
}

// remembers reports whether something would be lost with the process: a drain that still excuses a reboot.
func (c *Core) remembers() bool { return c.drain.ready(c.o.Now()) }

// errBusyDrain is passing: the hook that runs ends within its limit.
var errBusyDrain = fault.New(fault.IO, "the machine is being drained, or let work back, already")

// awaits returns the update that a reboot would lead into. Without one semperd may neither reboot the machine nor keep it from its work.
func (c *Core) awaits() (*wire.Pending, error) {
	st, err := c.Status()
	if err != nil {
		return nil, err
	}
	if st.Pending == nil {
		return nil, fault.New(fault.Verification, "no update waits for a reboot")
	}
	return st.Pending, nil
}

// Drain implements wire.Handler.
func (h *handler) Drain(ctx context.Context, reason string) error {
	c := h.c
	p, err := c.awaits()
	if err != nil || c.o.Drain == nil {
		return err
	}
	if !c.drain.busy.TryLock() {
		return errBusyDrain
	}
	defer c.drain.busy.Unlock()
	c.drain.set(time.Time{}, false) // from here on there is something to undo, however it ends
	c.o.Log.Info("drain", "version", p.Version, "reason", reason)
	ctx, cancel := context.WithTimeout(ctx, drainLimit)
	defer cancel()
	if err := c.o.Drain(ctx, c.o.Machine.Image.Version, p.Version); err != nil {
		return fmt.Errorf("drain: %w", err)
	}
	c.drain.set(c.o.Now(), false)
	c.o.Log.Info("drained", "version", p.Version)
	return nil
}

// Undrain implements wire.Handler. What is known to be undone is not undone again; a process that was started since does not know.
func (h *handler) Undrain(ctx context.Context) error {
	c := h.c
	if c.o.Undrain == nil {
		return nil
	}
	if !c.drain.busy.TryLock() {
		return errBusyDrain
	}
	defer c.drain.busy.Unlock()
	c.drain.mu.Lock()
	done := c.drain.back
	c.drain.at = time.Time{} // whatever comes of it, the machine is not drained any longer
	c.drain.mu.Unlock()
	if done {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, undrainLimit)
	defer cancel()
	if err := c.o.Undrain(ctx); err != nil {
		return fmt.Errorf("undrain: %w", err)
	}
	c.drain.set(time.Time{}, true)
	c.o.Log.Info("work may come back")
	return nil
}

// Warn implements wire.Handler.
func (h *handler) Warn(ctx context.Context, w wire.Warn) error {
	c := h.c
	if _, err := c.awaits(); err != nil || c.o.Warn == nil {
		return err
	}
	if err := c.drain.mayWarn(c.o.Now()); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, warnLimit)
	defer cancel()
	if err := c.o.Warn(ctx, w.Text, w.TTYs); err != nil {
		return fmt.Errorf("warn who is logged in: %w", err)
	}
	return nil
}

func (d *drain) mayWarn(now time.Time) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	recent := d.warned[:0]
	for _, t := range d.warned {
		if age := now.Sub(t); age >= 0 && age < time.Hour {
			recent = append(recent, t)
		}
	}
	d.warned = recent
	if len(recent) >= maxWarnings {
		return fault.New(fault.Verification, "%d warnings were written within an hour, that is enough", len(recent))
	}
	d.warned = append(d.warned, now)
	return nil
}

var errNotDrained = fault.New(fault.Verification, "this machine has drain hooks, and it was not drained within the last %d minutes", int(drainedFor.Minutes()))
