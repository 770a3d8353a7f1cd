package agent

import (
	"context"
	"slices"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
)

// maxBad bounds the memory of addresses that failed.
const maxBad = 32

// Bad is an address that failed: a server's or a payload's. Until its time is over, others are tried before it; it is never given up.
type Bad struct {
	Times int       `json:"times"` // in a row
	Until time.Time `json:"until"`
	Why   string    `json:"why"`
}

// First and longest time for which an address is passed over.
const (
	firstBad = 5 * time.Minute
	maxBadly = 24 * time.Hour
)

// bad remembers that an address failed.
func (a *Agent) bad(address string, err error) {
	a.change(func(s *State) {
		b := s.Bad[address]
		b.Times++
		b.Until = a.after(min(firstBad<<min(b.Times-1, 10), maxBadly))
		b.Why = clip(err.Error(), 300)
		if s.Bad == nil {
			s.Bad = map[string]Bad{}
		}
		s.Bad[address] = b
		for len(s.Bad) > maxBad {
			oldest := address
			for k, v := range s.Bad {
				if v.Until.Before(s.Bad[oldest].Until) {
					oldest = k
				}
			}
			if oldest == address {
				for oldest = range s.Bad {
					if oldest != address {
						break
					}
				}
			}
			delete(s.Bad, oldest)
		}
	})
}

// good forgets that an address failed.
func (a *Agent) good(address string) {
	if _, ok := a.state.Bad[address]; ok {
		a.change(func(s *State) { delete(s.Bad, address) })
	}
}

// inOrder sorts addresses into the order in which they are tried: those that are not known to be bad as they came, then the others, the one first that is
// soonest forgiven. A time far in the future is a clock that was wrong.
func inOrder[T any](a *Agent, all []T, address func(T) string) []T {
	until := func(x T) time.Time {
		b, ok := a.state.Bad[address(x)]
		if !ok || !b.Until.After(a.now()) || b.Until.Sub(a.now()) > maxBadly {
			return time.Time{}
		}
		return b.Until
	}
	out := slices.Clone(all)
	slices.SortStableFunc(out, func(x, y T) int { return until(x).Compare(until(y)) })
	return out
}

func (a *Agent) servers() []NamedServer {
	return inOrder(a, a.setup.Servers, func(s NamedServer) string { return s.URL })
}

// anyServer calls do with one server after the other until one answers.
func (a *Agent) anyServer(ctx context.Context, do func(NamedServer) error) (NamedServer, error) {
	var first error
	for _, s := range a.servers() {
		err := do(s)
		if err == nil {
			a.good(s.URL)
			a.mu.Lock()
			a.reached = true
			a.mu.Unlock()
			return s, nil
		}
		if ctx.Err() != nil {
			return s, err
		}
		a.bad(s.URL, err)
		if len(a.setup.Servers) > 1 {
			a.o.Log.Warn("update server", "server", s.URL, "error", err)
		}
		if first == nil {
			first = err
		}
	}
	if first == nil {
		first = errNoServer
	}
	return NamedServer{}, first
}

// send reports events to whichever server listens.
func (a *Agent) send(ctx context.Context, events ...omaha.Event) error {
	_, err := a.anyServer(ctx, func(s NamedServer) error { return s.Report(ctx, a.machine(), events...) })
	return err
}

// deliver sends what the server must still get, if it is time to try.
func (a *Agent) deliver(ctx context.Context) {
	if len(a.setup.Servers) == 0 || len(a.state.Outbox) == 0 || a.now().Before(a.nextReport) {
		return
	}
	events := a.state.outbox()
	if err := a.send(ctx, events...); err != nil {
		a.reports++
		a.nextReport = a.after(a.backoff(firstRetry, a.reports))
		a.o.Log.Warn("report", "events", len(events), "error", err, "next", a.nextReport)
		return
	}
	a.delivered(len(events))
}

func (a *Agent) delivered(n int) {
	a.reports, a.nextReport = 0, time.Time{}
	if n > 0 {
		a.change(func(s *State) { s.Outbox = s.Outbox[n:] })
	}
}

// announce sends all events before something that should not wait for long, for instance a reboot.
func (a *Agent) announce(ctx context.Context) {
	if len(a.setup.Servers) == 0 || len(a.state.Outbox) == 0 {
		return
	}
	limited, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	events := a.state.outbox()
	if err := a.send(limited, events...); err != nil {
		a.o.Log.Warn("report before the reboot; it will be sent again", "error", err)
		return
	}
	a.delivered(len(events))
}

// tell reports an event that may get lost.
func (a *Agent) tell(ctx context.Context, e omaha.Event) {
	limited, cancel := context.WithTimeout(ctx, reportLimit)
	defer cancel()
	events := append(a.state.outbox(), e)
	if err := a.send(limited, events...); err != nil {
		a.o.Log.Warn("report", "event", e.Sentence(), "error", err)
		return
	}
	a.delivered(len(events) - 1)
}

// probe finds out, on trial, whether a server can be reached: a version that cannot is no good, since nothing could ever replace it. The health checks
// wait for the answer.
func (a *Agent) probe(ctx context.Context) {
	if a.reached || len(a.setup.Servers) == 0 {
		return
	}
	if err := a.send(ctx); err != nil {
		a.o.Log.Warn("no update server answers yet", "error", err)
		return
	}
	a.publish()
}

// ask asks the servers for an update.
func (a *Agent) askServers(ctx context.Context, source client.Source, events []omaha.Event) (answer client.Answer, err error) {
	_, err = a.anyServer(ctx, func(s NamedServer) error {
		answer, err = s.Check(ctx, a.machine(), source, events...)
		return err
	})
	return answer, err
}

// errNoServer is the answer to a check on a machine without a server.
var errNoServer = fault.New(fault.Input, "no update server is set: write server = \"http://HOST/v1/update\" into a file in /etc/semper/update.d and restart semperd")
