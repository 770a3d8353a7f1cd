// Package semaphore is the etcd side of package etcdlock, which says what the semaphore is, its keys and its limits. It is linked into the program semper-etcdlock alone.
package semaphore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/etcdlock"
)

const (
	prefix     = "semper/reboot/"
	defaultMax = 1
	maxHolders = 1000
	rounds     = 5
	maxReply   = 4 << 20
)

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
	o etcdlock.Options

	mu    sync.Mutex
	lease clientv3.LeaseID // of our slot, as far as this process knows; 0: not held
}

// New checks the options and connects to nothing. Errors are of kind Input. Lease is what an earlier Lock of this agent had, 0: none.
func New(o etcdlock.Options, lease int64) (*Lock, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	return &Lock{o: o, lease: clientv3.LeaseID(lease)}, nil
}

// Lease is what the slot hangs on, as far as this Lock knows; 0: not held.
func (l *Lock) Lease() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(l.lease)
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

// Held proves that the slot which this process acquired is still its own, and lets its TTL begin anew. etcdlock.ErrLost: it is not.
func (l *Lock) Held(ctx context.Context) error {
	return l.do(ctx, "prove", func(s session) error {
		if l.lease == 0 {
			return fault.Wrap(fault.Verification, etcdlock.ErrLost)
		}
		err := s.prove(ctx, l.lease)
		if errors.Is(err, etcdlock.ErrLost) {
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
