package semaphore

import (
	"context"
	"errors"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/status"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/etcdlock"
)

// session is one connection, for one call.
type session struct {
	l *Lock
	c *clientv3.Client
}

// bounded limits one request. Without a leader a member answers at once instead of waiting for one.
func (s session) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(clientv3.WithRequireLeader(ctx), s.l.o.RequestTimeout)
}

// read returns the group as it was at one revision.
func (s session) read(ctx context.Context) (group, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	// One key more than max and the holders that are allowed, to notice that there are too many.
	r, err := s.c.Get(ctx, s.l.root(), clientv3.WithPrefix(), clientv3.WithLimit(maxHolders+2))
	if err != nil {
		return group{}, err
	}
	return decode(s.l.root(), s.l.o.ID, r)
}

func (s session) grant(ctx context.Context) (clientv3.LeaseID, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	r, err := s.c.Grant(ctx, int64(s.l.o.TTL/time.Second))
	if err != nil {
		return 0, err
	}
	return r.ID, nil
}

// take puts our key with the lease, if the group is still as it was read.
func (s session) take(ctx context.Context, g group, lease clientv3.LeaseID) (bool, error) {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	since := g.mine.since
	if since.IsZero() {
		since = s.l.o.Now()
	}
	r, err := s.c.Txn(ctx).If(
		// Nothing was put below the group since: no new holder, no other max. Holders that went meanwhile do no harm.
		clientv3.Compare(clientv3.ModRevision(s.l.root()).WithPrefix(), "<", g.revision+1),
		// A max that was deleted is not in that range any more.
		clientv3.Compare(clientv3.ModRevision(s.l.root()+"max"), "=", g.maxRevision),
		// Our own slot, if we have counted on it, did not expire: it would be a new one.
		clientv3.Compare(clientv3.CreateRevision(s.l.key()), "=", g.mine.created),
	).Then(
		clientv3.OpPut(s.l.key(), encodeHolder(since), clientv3.WithLease(lease)),
	).Commit()
	if err != nil {
		return false, err
	}
	return r.Succeeded, nil
}

// prove renews the lease, then reads whether the slot still hangs on it. In this order a slot that is proved has a TTL before it.
func (s session) prove(ctx context.Context, lease clientv3.LeaseID) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	if _, err := s.c.KeepAliveOnce(ctx, lease); errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fault.Wrap(fault.Verification, etcdlock.ErrLost)
	} else if err != nil {
		return err
	}
	r, err := s.c.Get(ctx, s.l.key())
	if err != nil {
		return err
	}
	if len(r.Kvs) != 1 || clientv3.LeaseID(r.Kvs[0].Lease) != lease {
		return fault.Wrap(fault.Verification, etcdlock.ErrLost)
	}
	return nil
}

// release deletes the slot by its name: the lease of a slot taken before a reboot is known to etcd alone.
func (s session) release(ctx context.Context) error {
	limited, cancel := s.bounded(ctx)
	defer cancel()
	r, err := s.c.Delete(limited, s.l.key(), clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	for _, kv := range r.PrevKvs {
		s.revoke(ctx, clientv3.LeaseID(kv.Lease))
	}
	return nil
}

// revoke tidies up a lease that no slot hangs on. One that stays expires.
func (s session) revoke(ctx context.Context, lease clientv3.LeaseID) {
	if lease == 0 {
		return
	}
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	_, _ = s.c.Revoke(ctx, lease)
}

// classify gives an error of etcd's client a kind, where it has none. Cause is what the last request ended with.
func classify(err, cause error) error {
	for _, refused := range []error{
		rpctypes.ErrAuthFailed, rpctypes.ErrPermissionDenied, rpctypes.ErrInvalidAuthToken, rpctypes.ErrUserEmpty, rpctypes.ErrAuthNotEnabled,
	} {
		if errors.Is(err, refused) {
			return fault.New(fault.Verification, "etcd refuses the user: %w", err)
		}
	}
	if errors.Is(err, context.DeadlineExceeded) {
		if cause != nil {
			return fault.New(fault.Network, "etcd does not answer in time: %w: %s", err, status.Convert(cause).Message())
		}
		return fault.New(fault.Network, "etcd does not answer in time: %w", err)
	}
	if fault.KindOf(err) == fault.Internal { // nothing of ours: etcd's client, or the caller's context
		return fault.Wrap(fault.Network, err)
	}
	return err
}
