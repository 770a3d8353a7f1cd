// Package etcdlock is a semaphore in etcd v3: at most so many machines of a group reboot at the same time, and one that never comes back does not hold the
// others up for ever.
//
//	semper/reboot/GROUP/max              how many may hold a slot, "0" to "1000"; absent: 1. Written by a person, read by all
//	semper/reboot/GROUP/holders/ID       a slot; the machine's lease is attached, and etcd deletes the key when it expires
//
// A slot is taken in one transaction, which only takes effect if nothing was written below semper/reboot/GROUP/ since the holders were counted. So there are never
// more holders than max, whoever dies at which moment: etcd orders transactions. A smaller max takes nobody's slot away; it counts from the next Acquire on, and 0 lets
// nobody begin. A key below holders/ that a person puts there without a lease is a slot that does not expire.
//
// # The lease outlives the program
//
// Nothing here runs between two calls, so a machine keeps its slot while it is down. The price is that a dead machine keeps it for the rest of the TTL. The TTL must be
// longer than the longest way from the last Held before the reboot to the first Acquire after it: services stopping, firmware, boot, three tries of a
// version that does not come up, and the boot of the old one. 30 minutes, the default, is enough for servers whose firmware takes five. Shorter than the reboot: the slot is lost on the way and
// somebody else may be down at the same time. Longer: a dead machine holds its group up for longer, which is what one wants if it was the update that killed it.
//
// # Use
//
//	Acquire    before the reboot, again and again until it is nil; after a restart of the agent or the machine, where the slot should be kept: it takes
//	           the machine's own slot over and begins a new TTL. Nil proves the slot as well as Held does
//	Held       right before the reboot, and while a version is on trial: proves the slot and begins a new TTL. Any error means: do not reboot, Acquire again
//	Release    when the new version is healthy, or the reboot was given up; works without an Acquire by this process
//
// fleetlock.Client has the same three. Each call connects anew, so that nothing is kept and nothing wakes up between calls, and a renewed certificate is used.
//
// Errors: *Busy when all slots are taken, ErrLost from Held; else kind Network where etcd did not answer or has no leader, Verification where it refused the user, Input
// where what is stored is not what is written above, IO where a certificate cannot be read. After an error of Acquire that is no *Busy the slot may have been taken; the
// next Acquire takes it over, and without one it expires.
//
// Limits: 1000 slots and holders a group, 4 MiB an answer, 10 endpoints, 5 rounds of an Acquire against others.
package etcdlock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/semper-os/semper/fault"
)

const (
	// DefaultTTL is how long a slot is kept without a call, see the package's documentation.
	DefaultTTL = 30 * time.Minute

	prefix       = "semper/reboot/"
	defaultMax   = 1
	maxHolders   = 1000
	rounds       = 5
	maxReply     = 4 << 20
	maxEndpoints = 10
)

// ErrLost says that the machine does not hold a slot, or that another process took it over: Acquire again, do not reboot.
var ErrLost = errors.New("the reboot lock is not held any more")

// Busy says that every slot of the group is taken.
type Busy struct {
	Group   string
	Max     int
	Holders []Holder // by id
}

// Error implements error; it names the first few holders.
func (b *Busy) Error() string {
	if b.Max == 0 {
		return fmt.Sprintf("reboot lock of group %s: max is 0, nobody may reboot", b.Group)
	}
	const some = 3
	text := fmt.Sprintf("reboot lock of group %s: %d of %d slots are taken, by ", b.Group, len(b.Holders), b.Max)
	for i, h := range b.Holders {
		if i == some {
			return text + fmt.Sprintf(" and %d more", len(b.Holders)-some)
		}
		if i > 0 {
			text += ", "
		}
		text += printable(h.ID)
		if !h.Since.IsZero() {
			text += " since " + h.Since.UTC().Format(time.RFC3339)
		}
	}
	return text
}

// Lock is one machine's way to its group's slots. Its methods may be called from several goroutines, one runs at a time.
type Lock struct {
	o Options

	mu    sync.Mutex
	lease clientv3.LeaseID // of our slot, as far as this process knows; 0: not held
}

// New checks the options and connects to nothing. Errors are of kind Input.
func New(o Options) (*Lock, error) {
	if err := o.check(); err != nil {
		return nil, fault.Wrap(fault.Input, fmt.Errorf("etcd reboot lock: %w", err))
	}
	return &Lock{o: o}, nil
}

func (l *Lock) root() string { return prefix + l.o.Group + "/" }
func (l *Lock) key() string  { return l.root() + "holders/" + l.o.ID }

// Acquire tries once to take a slot, or takes over the one that the machine has. Nil: it is held for a TTL from now.
func (l *Lock) Acquire(ctx context.Context) error {
	return l.do(ctx, "acquire", func(s session) error {
		l.lease = 0
		for range rounds {
			g, err := s.read(ctx)
			if err != nil {
				return err
			}
			if !g.mine.exists && len(g.holders) >= g.max {
				return fault.Wrap(fault.Verification, &Busy{Group: l.o.Group, Max: g.max, Holders: g.holders})
			}
			lease, err := s.grant(ctx)
			if err != nil {
				return err
			}
			won, err := s.take(ctx, g, lease)
			if err != nil {
				return err // the slot may be ours: the lease stays, for the next Acquire to find or to expire
			}
			if won {
				l.lease = lease
				s.revoke(ctx, g.mine.lease)
				return nil
			}
			s.revoke(ctx, lease)
		}
		return fault.New(fault.Network, "others took or gave back slots %d times meanwhile; try again", rounds)
	})
}

// Held proves that the slot which this process acquired is still its own, and lets its TTL begin anew. ErrLost: it is not.
func (l *Lock) Held(ctx context.Context) error {
	return l.do(ctx, "prove", func(s session) error {
		if l.lease == 0 {
			return fault.Wrap(fault.Verification, ErrLost)
		}
		err := s.prove(ctx, l.lease)
		if errors.Is(err, ErrLost) {
			l.lease = 0
		}
		return err
	})
}

// Release gives the machine's slot back, whoever took it. It is no error if there is none.
func (l *Lock) Release(ctx context.Context) error {
	return l.do(ctx, "release", func(s session) error {
		l.lease = 0
		return s.release(ctx)
	})
}

// do connects, calls f and disconnects.
func (l *Lock) do(ctx context.Context, what string, f func(session) error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var cause error
	c, err := l.connect(ctx, &cause)
	if err == nil {
		err = f(session{l: l, c: c})
		c.Close() //nolint:errcheck // what was asked is answered
	}
	if err != nil {
		return fmt.Errorf("%s etcd reboot lock: %w", what, classify(err, cause))
	}
	return nil
}
