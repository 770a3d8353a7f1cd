package semaphore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/etcdlock"
)

var epoch = time.Date(2026, 11, 26, 3, 0, 0, 0, time.UTC)

func lock(t *testing.T, o etcdlock.Options) *Lock {
	t.Helper()
	if o.Now == nil {
		o.Now = func() time.Time { return epoch }
	}
	if o.RequestTimeout == 0 { // a busy machine is no failure
		o.RequestTimeout, o.DialTimeout = patience, patience
	}
	l, err := New(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestBusyText(t *testing.T) {
	for want, b := range map[string]*Busy{
		"reboot lock of group g: max is 0, nobody may reboot":                                 {Group: "g"},
		"reboot lock of group g: 1 of 1 slots are taken, by a since 2026-11-26T03:00:00Z":     {Group: "g", Max: 1, Holders: []Holder{{"a", epoch}}},
		"reboot lock of group g: 4 of 4 slots are taken, by a, b?, c and 1 more":              {Group: "g", Max: 4, Holders: []Holder{{ID: "a"}, {ID: "b\x1b"}, {ID: "c"}, {ID: "d"}}},
		"reboot lock of group g: 1 of 1 slots are taken, by " + strings.Repeat("x", 64) + "…": {Group: "g", Max: 1, Holders: []Holder{{ID: strings.Repeat("x", 65)}}},
	} {
		if b.Error() != want {
			t.Errorf("got  %s\nwant %s", b, want)
		}
	}
}

func TestDecode(t *testing.T) {
	const root = "semper/reboot/g/"
	kv := func(name, value string) *mvccpb.KeyValue {
		return &mvccpb.KeyValue{Key: []byte(root + name), Value: []byte(value), ModRevision: 7, CreateRevision: 5, Lease: 3}
	}
	for _, c := range []struct {
		name string
		kvs  []*mvccpb.KeyValue
		more bool
		want string
	}{
		{"empty", nil, false, "max 1 at 0, [], mine {false 0 0}"},
		{"max", []*mvccpb.KeyValue{kv("max", " 12\n")}, false, "max 12 at 7, [], mine {false 0 0}"},
		{"no slots", []*mvccpb.KeyValue{kv("max", "0")}, false, "max 0 at 7, [], mine {false 0 0}"},
		{
			"others and mine",
			[]*mvccpb.KeyValue{kv("holders/a", `{"since":"2026-11-26T03:00:00Z"}`), kv("holders/me", ""), kv("other", "x")},
			false,
			"max 1 at 0, [{a 2026-11-26 03:00:00 +0000 UTC} {me 0001-01-01 00:00:00 +0000 UTC}], mine {true 5 3}",
		},
		{
			"odd holders count",
			[]*mvccpb.KeyValue{kv("holders/", ""), kv("holders/x/y", "\xff")},
			false,
			"max 1 at 0, [{ 0001-01-01 00:00:00 +0000 UTC} {x/y 0001-01-01 00:00:00 +0000 UTC}], mine {false 0 0}",
		},
		{"max is a word", []*mvccpb.KeyValue{kv("max", "two")}, false, `error: semper/reboot/g/max: "two" is not a number of slots`},
		{"max is empty", []*mvccpb.KeyValue{kv("max", "")}, false, `error: semper/reboot/g/max: "" is not a number`},
		{"max is negative", []*mvccpb.KeyValue{kv("max", "-1")}, false, `error: semper/reboot/g/max: "-1" is not a number`},
		{"max is huge", []*mvccpb.KeyValue{kv("max", "1001")}, false, `error: semper/reboot/g/max: "1001" is not a number`},
		{"too many", nil, true, "error: more than 1000 keys"},
		{"foreign key", []*mvccpb.KeyValue{{Key: []byte("x")}}, false, "error: etcd answered with a key outside"},
	} {
		g, err := decode(root, "me", &clientv3.GetResponse{Kvs: c.kvs, More: c.more})
		got := fmt.Sprintf("max %d at %d, %v, mine {%v %d %d}", g.max, g.maxRevision, g.holders, g.mine.exists, g.mine.created, g.mine.lease)
		if err != nil {
			got = "error: " + err.Error()
			if !fault.Is(err, fault.Input) {
				t.Errorf("%s: kind %v", c.name, fault.KindOf(err))
			}
		}
		if got != c.want && (err == nil || !strings.HasPrefix(got, c.want)) {
			t.Errorf("%s: got  %s\nwant %s", c.name, got, c.want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add("max", "2", "holders/me", `{"since":"2026-11-26T03:00:00Z"}`)
	f.Add("max", "-0", "holders/", `{"since":[`)
	f.Add("holders/a", "\x00", "holders/b", `{"since":"99999-01-01T00:00:00Z"}`)
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2 string) {
		g, err := decode("r/", "me", &clientv3.GetResponse{Kvs: []*mvccpb.KeyValue{{Key: []byte("r/" + k1), Value: []byte(v1)}, {Key: []byte("r/" + k2), Value: []byte(v2)}}})
		if err != nil {
			return
		}
		if g.max < 0 || g.max > maxHolders || len(g.holders) > 2 {
			t.Errorf("%+v", g)
		}
		if text := (&Busy{Group: "g", Max: 1, Holders: g.holders}).Error(); strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' && r != '…' }) {
			t.Errorf("message %q", text)
		}
	})
}

func wantBusy(t *testing.T, err error, most int, holders ...string) {
	t.Helper()
	var b *Busy
	if !errors.As(err, &b) || !fault.Is(err, fault.Verification) {
		t.Fatalf("got %v, want Busy", err)
	}
	var ids []string
	for _, h := range b.Holders {
		ids = append(ids, h.ID)
	}
	if b.Max != most || fmt.Sprint(ids) != fmt.Sprint(holders) {
		t.Errorf("busy with max %d and %v, want %d and %v", b.Max, ids, most, holders)
	}
}

func wantNil(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestOneMember(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1, "http")
	c := direct(t, clientv3.Config{Endpoints: endpoints(members)})
	ready(t, c)
	ctx := t.Context()
	machine := func(t *testing.T, group, id string, ttl time.Duration) *Lock {
		return lock(t, etcdlock.Options{Endpoints: endpoints(members), Group: group, ID: id, TTL: ttl})
	}
	put := func(t *testing.T, key, value string) {
		t.Helper()
		_, err := c.Put(ctx, prefix+key, value)
		wantNil(t, err)
	}
	key := func(t *testing.T, key string) *mvccpb.KeyValue {
		t.Helper()
		r, err := c.Get(ctx, prefix+key)
		wantNil(t, err)
		if len(r.Kvs) == 0 {
			return nil
		}
		return r.Kvs[0]
	}
	leaseGone := func(t *testing.T, id int64) {
		t.Helper()
		r, err := c.TimeToLive(ctx, clientv3.LeaseID(id))
		if (err != nil && !errors.Is(err, rpctypes.ErrLeaseNotFound)) || (err == nil && r.TTL != -1) {
			t.Errorf("lease %x: %+v, %v, want none", id, r, err)
		}
	}

	t.Run("one slot", func(t *testing.T) {
		a, b := machine(t, "one", "a", 0), machine(t, "one", "b", 0)
		if err := a.Held(ctx); !errors.Is(err, etcdlock.ErrLost) || !fault.Is(err, fault.Verification) {
			t.Errorf("Held without a slot: %v", err)
		}
		wantNil(t, a.Acquire(ctx))
		wantNil(t, a.Held(ctx))
		wantBusy(t, b.Acquire(ctx), 1, "a")
		if err := b.Held(ctx); !errors.Is(err, etcdlock.ErrLost) {
			t.Errorf("Held of the other: %v", err)
		}
		kv := key(t, "one/holders/a")
		if string(kv.Value) != `{"since":"2026-11-26T03:00:00Z"}` {
			t.Errorf("value %s", kv.Value)
		}
		if r, err := c.TimeToLive(ctx, clientv3.LeaseID(kv.Lease)); err != nil || r.GrantedTTL != int64(etcdlock.DefaultTTL/time.Second) {
			t.Errorf("lease %+v, %v", r, err)
		}
		wantNil(t, b.Release(ctx)) // not its slot
		wantNil(t, a.Held(ctx))
		wantNil(t, a.Release(ctx))
		wantNil(t, a.Release(ctx))
		leaseGone(t, kv.Lease)
		if err := a.Held(ctx); !errors.Is(err, etcdlock.ErrLost) {
			t.Errorf("Held after Release: %v", err)
		}
		wantNil(t, b.Acquire(ctx))
		wantBusy(t, a.Acquire(ctx), 1, "b")
	})
	t.Run("a restart takes its own slot over", func(t *testing.T) {
		before := machine(t, "restart", "a", time.Minute)
		wantNil(t, before.Acquire(ctx))
		old := key(t, "restart/holders/a")
		after := lock(t, etcdlock.Options{Endpoints: endpoints(members), Group: "restart", ID: "a", TTL: time.Hour, Now: func() time.Time { return epoch.Add(time.Hour) }})
		wantNil(t, after.Acquire(ctx))
		wantNil(t, after.Held(ctx))
		now := key(t, "restart/holders/a")
		if now.Lease == old.Lease || string(now.Value) != string(old.Value) {
			t.Errorf("slot %v became %v, want another lease and the same since", old, now)
		}
		leaseGone(t, old.Lease)
		if err := before.Held(ctx); !errors.Is(err, etcdlock.ErrLost) {
			t.Errorf("Held of the process before: %v", err)
		}
		wantBusy(t, machine(t, "restart", "b", 0).Acquire(ctx), 1, "a")
		wantNil(t, machine(t, "restart", "a", 0).Release(ctx)) // by the id alone
		if kv := key(t, "restart/holders/a"); kv != nil {
			t.Errorf("still there: %v", kv)
		}
		leaseGone(t, now.Lease)
	})
	t.Run("acquiring twice", func(t *testing.T) {
		a := machine(t, "twice", "a", time.Minute)
		wantNil(t, a.Acquire(ctx))
		wantNil(t, a.Acquire(ctx))
		wantNil(t, a.Held(ctx))
		wantNil(t, a.Release(ctx))
	})
	t.Run("a dead holder's slot comes free", func(t *testing.T) {
		a, b := machine(t, "dead", "a", 2*time.Second), machine(t, "dead", "b", time.Minute)
		wantNil(t, a.Acquire(ctx))
		eventually(t, "the lease expires", func(context.Context) error {
			err := b.Acquire(ctx)
			if err != nil {
				wantBusy(t, err, 1, "a")
			}
			return err
		})
		if err := a.Held(ctx); !errors.Is(err, etcdlock.ErrLost) {
			t.Errorf("Held of the dead: %v", err)
		}
		wantBusy(t, a.Acquire(ctx), 1, "b")
	})
	t.Run("held renews", func(t *testing.T) {
		a := machine(t, "renew", "a", time.Minute)
		wantNil(t, a.Acquire(ctx))
		lease := clientv3.LeaseID(key(t, "renew/holders/a").Lease)
		left := func() int64 {
			r, err := c.TimeToLive(ctx, lease)
			wantNil(t, err)
			return r.TTL
		}
		eventually(t, "some of the TTL passes", func(context.Context) error {
			if n := left(); n > 58 {
				return fmt.Errorf("%d s left", n)
			}
			return nil
		})
		eventually(t, "the TTL begins anew", func(context.Context) error { // at once, unless this machine is busy in between
			wantNil(t, a.Held(ctx))
			if n := left(); n <= 58 {
				return fmt.Errorf("%d s left after Held", n)
			}
			return nil
		})
	})
	t.Run("a lease that was taken away", func(t *testing.T) {
		a := machine(t, "revoked", "a", time.Minute)
		wantNil(t, a.Acquire(ctx))
		_, err := c.Revoke(ctx, clientv3.LeaseID(key(t, "revoked/holders/a").Lease))
		wantNil(t, err)
		if err := a.Held(ctx); !errors.Is(err, etcdlock.ErrLost) {
			t.Errorf("Held: %v", err)
		}
		wantNil(t, a.Acquire(ctx))
		_, err = c.Delete(ctx, prefix+"revoked/holders/a") // the lease lives, the slot does not
		wantNil(t, err)
		if err := a.Held(ctx); !errors.Is(err, etcdlock.ErrLost) {
			t.Errorf("Held without the key: %v", err)
		}
		wantNil(t, a.Acquire(ctx))
		r, err := c.Grant(ctx, 60)
		wantNil(t, err)
		_, err = c.Put(ctx, prefix+"revoked/holders/a", "", clientv3.WithLease(r.ID)) // both live, but apart: another process took over
		wantNil(t, err)
		if err := a.Held(ctx); !errors.Is(err, etcdlock.ErrLost) {
			t.Errorf("Held with another's lease: %v", err)
		}
	})
	t.Run("max", func(t *testing.T) {
		a, b, d := machine(t, "max", "a", 0), machine(t, "max", "b", 0), machine(t, "max", "d", 0)
		put(t, "max/max", "2")
		wantNil(t, a.Acquire(ctx))
		wantNil(t, b.Acquire(ctx))
		wantBusy(t, d.Acquire(ctx), 2, "a", "b")
		put(t, "max/max", "3")
		wantNil(t, d.Acquire(ctx))
		put(t, "max/max", "1") // takes nothing away
		wantNil(t, a.Held(ctx))
		wantNil(t, machine(t, "max", "b", 0).Acquire(ctx)) // its own
		wantNil(t, a.Release(ctx))
		wantBusy(t, a.Acquire(ctx), 1, "b", "d")
		put(t, "max/max", "0")
		wantNil(t, b.Release(ctx))
		wantNil(t, d.Release(ctx))
		wantBusy(t, a.Acquire(ctx), 0)
		put(t, "max/max", "many")
		if err := a.Acquire(ctx); !fault.Is(err, fault.Input) || !strings.Contains(err.Error(), "semper/reboot/max/max") {
			t.Errorf("a bad max: %v", err)
		}
		_, err := c.Delete(ctx, prefix+"max/max")
		wantNil(t, err)
		wantNil(t, a.Acquire(ctx))
		wantBusy(t, b.Acquire(ctx), 1, "a")
	})
	t.Run("a slot put by hand", func(t *testing.T) {
		put(t, "hand/holders/maintenance", "")
		wantBusy(t, machine(t, "hand", "a", 0).Acquire(ctx), 1, "maintenance")
		wantNil(t, machine(t, "hand", "maintenance", 0).Release(ctx))
		wantNil(t, machine(t, "hand", "a", 0).Acquire(ctx))
	})
	t.Run("nothing is taken when the group changed after it was read", func(t *testing.T) {
		for name, change := range map[string]func(){
			"another holder":  func() { put(t, "stale/holders/b", "") },
			"another max":     func() { put(t, "stale/max", "1") },
			"max deleted":     func() { c.Delete(ctx, prefix+"stale/max") },
			"our own expired": func() { c.Delete(ctx, prefix+"stale/holders/a") },
		} {
			put(t, "stale/max", "2")
			a := machine(t, "stale", "a", time.Minute)
			wantNil(t, a.Acquire(ctx))
			if name != "our own expired" {
				wantNil(t, a.Release(ctx))
			}
			s := session{l: a, c: c}
			g, err := s.read(ctx)
			wantNil(t, err)
			change()
			lease, err := s.grant(ctx)
			wantNil(t, err)
			if won, err := s.take(ctx, g, lease); won || err != nil {
				t.Errorf("%s: took the slot all the same (%v)", name, err)
			}
			if _, err := c.Delete(ctx, prefix+"stale/", clientv3.WithPrefix()); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("nobody there", func(t *testing.T) {
		l := lock(t, etcdlock.Options{Endpoints: []string{"http://" + freeAddress(t)}, Group: "g", ID: "a", RequestTimeout: time.Second})
		for name, f := range map[string]func(context.Context) error{"acquire": l.Acquire, "release": l.Release} {
			err := f(ctx)
			if !fault.Is(err, fault.Network) || !strings.HasPrefix(err.Error(), name+" etcd reboot lock: ") || !strings.Contains(err.Error(), "connection refused") {
				t.Errorf("%s: kind %v: %v", name, fault.KindOf(err), err)
			}
		}
		stopped, cancel := context.WithCancel(ctx)
		cancel()
		if err := machine(t, "g", "a", 0).Acquire(stopped); !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled: %v", err)
		}
	})
}
