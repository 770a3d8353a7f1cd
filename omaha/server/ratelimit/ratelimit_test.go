package ratelimit

import (
	"net/netip"
	"testing"
	"time"
)

func TestLimit(t *testing.T) {
	l := New(2, 3)
	start := time.Unix(1000, 0)
	for i, c := range []struct {
		at   time.Duration
		addr string
		wait time.Duration
	}{
		{0, "192.0.2.1", 0},
		{0, "192.0.2.1", 0},
		{0, "192.0.2.1", 0},
		{0, "192.0.2.1", 500 * time.Millisecond},
		{0, "192.0.2.2", 0}, // another one's
		{250 * time.Millisecond, "192.0.2.1", 250 * time.Millisecond},
		{500 * time.Millisecond, "192.0.2.1", 0},
		{500 * time.Millisecond, "192.0.2.1", 500 * time.Millisecond},
		{-time.Hour, "192.0.2.1", 500 * time.Millisecond}, // set back
		{time.Hour, "192.0.2.1", 0},                       // no more than the burst has gathered
		{time.Hour, "192.0.2.1", 0},
		{time.Hour, "192.0.2.1", 0},
		{time.Hour, "192.0.2.1", 500 * time.Millisecond},
		{0, "2001:db8::1", 0}, // a /64 has one bucket
		{0, "2001:db8::2", 0},
		{0, "2001:db8::3", 0},
		{0, "2001:db8::4", 500 * time.Millisecond},
		{0, "2001:db8:0:1::1", 0},
	} {
		if got := l.Take(netip.MustParseAddr(c.addr), start.Add(c.at)); got != c.wait {
			t.Errorf("%d: %s at %s waits %s, want %s", i, c.addr, c.at, got, c.wait)
		}
	}
	if got := New(0, 5).Take(netip.Addr{}, start); got != 0 {
		t.Errorf("no limit waits %s", got)
	}
}

func TestMemoryIsBounded(t *testing.T) {
	l := New(1, 1)
	now := time.Unix(1000, 0)
	mine := netip.MustParseAddr("192.0.2.1")
	l.Take(mine, now)
	a := netip.MustParseAddr("10.0.0.0")
	for i := range 3 * MaxAddresses {
		l.Take(a, now)
		a = a.Next()
		if i%1000 == 0 && l.Take(mine, now) == 0 {
			t.Fatalf("an address that goes on asking was forgotten after %d others", i)
		}
	}
	if n := len(l.young) + len(l.older); n > 2*MaxAddresses {
		t.Errorf("%d buckets", n)
	}
}
