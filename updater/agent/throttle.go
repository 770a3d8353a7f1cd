package agent

import (
	"context"
	"time"
)

// throttle spreads bytes over time, so that a download takes no more of the line than the settings allow. There are no bursts: whoever pays by the peak
// pays for the rate that was set.
type throttle struct {
	clock Clock
	rate  int64 // bytes a second; 0: no limit
	next  time.Time
}

// wait returns when the n bytes that were just taken have had their time.
func (t *throttle) wait(ctx context.Context, n int) error {
	if t.rate <= 0 {
		return nil
	}
	now := t.clock.Now()
	if t.next.Before(now) {
		t.next = now
	}
	t.next = t.next.Add(time.Duration(float64(n) / float64(t.rate) * float64(time.Second)))
	return t.clock.Sleep(ctx, t.next.Sub(now))
}
