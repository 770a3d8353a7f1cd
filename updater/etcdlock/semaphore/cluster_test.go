package semaphore

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/semper-os/semper/updater/etcdlock"
)

// TestClusterContention has machines reboot in turn while the members of a cluster of three are killed and come back, each once, the leader included. Then the store's
// history says, revision by revision, whether there were ever more holders than max. A machine that dies with a slot comes last.
func TestClusterContention(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 3, "http")
	c := direct(t, clientv3.Config{Endpoints: endpoints(members)})
	ready(t, c)
	for _, most := range []int{1, 2} {
		if _, err := c.Put(t.Context(), fmt.Sprintf("%sfleet%d/max", prefix, most), strconv.Itoa(most)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var rebooted [3]atomic.Int64
	var down [3]atomic.Int64 // by max
	var machines sync.WaitGroup
	for most := 1; most <= 2; most++ {
		for i := range 3 {
			machines.Go(func() {
				o := etcdlock.Options{Endpoints: endpoints(members), Group: fmt.Sprintf("fleet%d", most), ID: fmt.Sprintf("m%d", i), TTL: 10 * time.Minute, RequestTimeout: 2 * time.Second}
				for n := 0; ctx.Err() == nil; n++ {
					if !reboot(ctx, t, o, n, most, &down[most]) {
						return
					}
					if most == 1 {
						rebooted[i].Add(1)
					}
				}
			})
		}
	}
	// Every machine gets its turn, again and again, with one member missing.
	turn := func(what string) {
		var before [3]int64
		for i := range before {
			before[i] = rebooted[i].Load()
		}
		eventually(t, what, func(context.Context) error {
			for i := range before {
				if rebooted[i].Load() == before[i] {
					return fmt.Errorf("machine %d waits", i)
				}
			}
			return nil
		})
	}
	turn("with all members")
	for _, m := range members {
		m.kill()
		turn(m.name + " killed")
		m.start(t)
		alone := direct(t, clientv3.Config{Endpoints: []string{m.client}})
		ready(t, alone)
	}
	stop()
	machines.Wait()
	for most := 1; most <= 2; most++ {
		taken, peak := history(t, c, fmt.Sprintf("fleet%d", most))
		t.Logf("max %d: %d slots taken, never more than %d at once", most, taken, peak)
		if peak > most || taken < 12 {
			t.Errorf("max %d: %d holders at once, %d slots taken", most, peak, taken)
		}
		if most == 2 && peak != 2 {
			t.Errorf("two slots, but never two holders")
		}
	}

	// The holder dies mid-reboot, and a member with it.
	dead := lock(t, etcdlock.Options{Endpoints: endpoints(members), Group: "mourning", ID: "dead", TTL: 3 * time.Second})
	eventually(t, "acquire", dead.Acquire)
	members[0].kill()
	other := lock(t, etcdlock.Options{Endpoints: endpoints(members), Group: "mourning", ID: "other"})
	eventually(t, "the fleet goes on after the lease", other.Acquire)
	if taken, peak := history(t, c, "mourning"); taken != 2 || peak != 1 {
		t.Errorf("%d slots taken, %d at once, want 2 and 1", taken, peak)
	}
	eventually(t, "the dead one is told", func(ctx context.Context) error {
		if err := dead.Held(ctx); !errors.Is(err, etcdlock.ErrLost) {
			return fmt.Errorf("held: %w", err)
		}
		return nil
	})
}

// reboot is one machine's turn: wait for a slot, prove it, be down, come back, release. It is false when the test ends meanwhile.
func reboot(ctx context.Context, t *testing.T, o etcdlock.Options, n, most int, down *atomic.Int64) bool {
	wait := func() { time.Sleep(20 * time.Millisecond) }
	l := lock(t, o)
	for l.Acquire(ctx) != nil { // busy, or a member is away: both mean to ask again
		if ctx.Err() != nil {
			return false
		}
		wait()
	}
	if n%3 == 1 { // the agent starts anew in between
		l = lock(t, o)
		if l.Acquire(ctx) != nil {
			return ctx.Err() == nil // it may have the slot; the next turn finds out
		}
	}
	if l.Held(ctx) != nil {
		return ctx.Err() == nil
	}
	if now := down.Add(1); now > int64(most) {
		t.Errorf("%s: %d machines are down, max is %d", o.ID, now, most)
	}
	wait()
	down.Add(-1)
	l = lock(t, o) // the new boot knows no lease
	for l.Release(ctx) != nil {
		if ctx.Err() != nil {
			return false
		}
		wait()
	}
	return true
}

// history replays everything that was ever written below a group and returns how many slots were taken, and the most holders at one revision.
func history(t *testing.T, c *clientv3.Client, group string) (taken, peak int) {
	t.Helper()
	root := prefix + group + "/"
	var end int64
	eventually(t, "mark the end", func(ctx context.Context) error {
		r, err := c.Put(ctx, root+"end", "")
		if err == nil {
			end = r.Header.Revision
		}
		return err
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	holders := map[string]bool{}
	for r := range c.Watch(ctx, root, clientv3.WithPrefix(), clientv3.WithRev(1)) {
		if err := r.Err(); err != nil {
			t.Fatal(err)
		}
		for i, e := range r.Events {
			id, ok := strings.CutPrefix(string(e.Kv.Key), root+"holders/")
			switch {
			case ok && e.Type == clientv3.EventTypeDelete:
				delete(holders, id)
			case ok:
				if e.IsCreate() {
					taken++
				}
				holders[id] = true
			}
			if i+1 == len(r.Events) || r.Events[i+1].Kv.ModRevision != e.Kv.ModRevision {
				peak = max(peak, len(holders))
			}
			if e.Kv.ModRevision >= end {
				return taken, peak
			}
		}
	}
	t.Fatalf("the history of %s ended before revision %d", group, end)
	return 0, 0
}
