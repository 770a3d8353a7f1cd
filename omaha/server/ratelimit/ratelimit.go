// Package ratelimit bounds what one address may ask in a time: a token bucket each.
//
//	bucket: Burst tokens at first; a request takes one; Rate of them come back a second
//
// An address is an IPv4 address or an IPv6 /64, which is what one subscriber has. Memory is bounded: of two generations with MaxAddresses each,
// the older is forgotten when the younger is full. Forgetting makes a full bucket, so whoever commands that many addresses is not stopped here.
package ratelimit

import (
	"crypto/sha256"
	"math"
	"net/netip"
	"sync"
	"time"
)

// MaxAddresses bounds a generation of buckets; one has about 100 bytes.
const MaxAddresses = 1 << 16

// Limit has the buckets of one kind of request. Its methods may be called from several goroutines. A nil Limit lets everything through.
type Limit struct {
	rate, burst float64

	mu           sync.Mutex
	young, older map[netip.Addr]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// New returns a limit of rate requests a second, and of burst at once; nil, no limit, where rate is 0.
func New(rate, burst float64) *Limit {
	if rate <= 0 {
		return nil
	}
	return &Limit{rate: rate, burst: max(burst, 1), young: map[netip.Addr]bucket{}}
}

// Take takes a token of an address. Where there is none it returns how long until there is one.
func (l *Limit) Take(a netip.Addr, now time.Time) (wait time.Duration) { return l.use(a, now, 1) }

// Wait tells how long until an address has a token, and takes none.
func (l *Limit) Wait(a netip.Addr, now time.Time) time.Duration { return l.use(a, now, 0) }

func (l *Limit) use(a netip.Addr, now time.Time, n float64) time.Duration {
	if l == nil {
		return 0
	}
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			a = p.Addr()
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.young[a]
	if !known {
		if b, known = l.older[a]; !known {
			b = bucket{l.burst, now}
		}
	}
	if since := now.Sub(b.at).Seconds(); since > 0 { // a clock that was set back gives nothing and takes nothing
		b.tokens = min(l.burst, b.tokens+since*l.rate)
	}
	b.at = now
	var wait time.Duration
	if b.tokens >= 1 {
		b.tokens -= n
	} else {
		wait = time.Duration(math.Ceil((1 - b.tokens) / l.rate * float64(time.Second)))
	}
	if len(l.young) >= MaxAddresses {
		l.older, l.young = l.young, map[netip.Addr]bucket{}
	}
	l.young[a] = b
	return wait
}

// Named is an address that stands for a name, for a limit that is not on addresses.
func Named(name string) netip.Addr {
	sum := sha256.Sum256([]byte(name))
	return netip.AddrFrom16([16]byte(sum[:16])) // the first half counts
}
