package server

import (
	"context"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/store"
)

// The feed tells whoever listens that something changed, not what it is now: they ask for what they show. While somebody listens the database is looked at once a second, so that it does not
// matter which of several servers, or which program, made a change.

const (
	feedEvery     = time.Second
	feedAlive     = 20 * time.Second // a line that keeps proxies from hanging up
	feedFor       = 10 * time.Minute // then the browser connects anew, and shows anew who it is
	feedListeners = 500
	feedNews      = 100 // entries of the audit log that are looked at, at a time
)

// The topics that are not the first word of an audit entry's What.
const (
	topicMachines = "machines"
	topicChannels = "channels"
	topicRollouts = "rollouts"
	topicReboots  = "reboots"
	topicAudit    = "audit"
)

// feeds are those who listen.
type feeds struct {
	mu        sync.Mutex
	listeners map[chan []string]bool
	stop      context.CancelFunc // of the watch; nil: nobody listens
	closed    bool
}

// join starts to listen; nil where there are too many.
func (s *Server) join() chan []string {
	f := &s.feeds
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed || len(f.listeners) >= feedListeners {
		return nil
	}
	if f.listeners == nil {
		f.listeners = map[chan []string]bool{}
	}
	c := make(chan []string, 4)
	f.listeners[c] = true
	if f.stop == nil {
		var ctx context.Context
		ctx, f.stop = context.WithCancel(context.Background())
		go s.watch(ctx)
	}
	return c
}

// leave ends listening.
func (f *feeds) leave(c chan []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listeners[c] {
		delete(f.listeners, c)
		close(c)
	}
	if len(f.listeners) == 0 && f.stop != nil {
		f.stop()
		f.stop = nil
	}
}

// close ends all listening, for good.
func (f *feeds) close() {
	f.mu.Lock()
	f.closed = true
	all := slices.Collect(maps.Keys(f.listeners))
	f.mu.Unlock()
	for _, c := range all {
		f.leave(c)
	}
}

// tell tells all listeners; one that does not keep up is told everything at its next turn, since topics say nothing but that there is something.
func (f *feeds) tell(topics []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for c := range f.listeners {
		select {
		case c <- topics:
		default:
		}
	}
}

func (s *Server) watch(ctx context.Context) {
	tick := time.NewTicker(feedEvery)
	defer tick.Stop()
	last, _ := glance(ctx, s.store.Read(), nil) // nil where it failed: the next look is the first then
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now, err := glance(ctx, s.store.Read(), last)
		if err != nil {
			continue // the next look may do better, and who asks is told
		}
		if last != nil {
			if topics := now.news(last); len(topics) > 0 {
				s.feeds.tell(topics)
			}
		}
		last = now
	}
}

// sight is what is seen of the state at a glance.
type sight struct {
	audit   int64             // the newest entry
	changes map[string]bool   // topics of the entries since the last glance
	digests map[string]uint64 // of what changes without an entry
}

func glance(ctx context.Context, tx store.Tx, last *sight) (*sight, error) {
	out := &sight{changes: map[string]bool{}, digests: map[string]uint64{}}
	log, _, err := tx.Audits(ctx, 0, "", feedNews)
	if err != nil {
		return nil, err
	}
	if len(log) > 0 {
		out.audit = log[0].ID
	}
	for _, a := range log {
		if last == nil || a.ID <= last.audit {
			break
		}
		kind, _, _ := strings.Cut(a.What, "-")
		out.changes[kind+"s"] = true
		if kind == "rollout" { // it may have made its release the channel's
			out.changes[topicChannels] = true
		}
	}
	apps, err := tx.Applications(ctx)
	if err != nil {
		return nil, err
	}
	machines, rollouts := fnv.New64a(), fnv.New64a()
	for _, app := range apps {
		counts, err := tx.CountFleet(ctx, app.ID)
		if err != nil {
			return nil, err
		}
		fmt.Fprintln(machines, counts)
		open, err := tx.Rollouts(ctx, app.ID, true, maxOpenRollouts)
		if err != nil {
			return nil, err
		}
		for i := range open {
			fmt.Fprintln(rollouts, open[i].ID, open[i].State, open[i].Counted.All)
		}
	}
	out.digests[topicMachines], out.digests[topicRollouts] = machines.Sum64(), rollouts.Sum64()
	claims, err := tx.RebootClaimsDigest(ctx)
	if err != nil {
		return nil, err
	}
	out.digests[topicReboots] = uint64(claims)
	stated, err := tx.FreshnessDigest(ctx)
	out.digests[topicChannels] = uint64(stated)
	return out, err
}

// news are the topics of what changed since an earlier sight.
func (s *sight) news(last *sight) []string {
	topics := maps.Clone(s.changes)
	if s.audit != last.audit {
		topics[topicAudit] = true
	}
	for topic, digest := range s.digests {
		if digest != last.digests[topic] {
			topics[topic] = true
		}
	}
	return slices.Sorted(maps.Keys(topics))
}

func (s *Server) feed(w http.ResponseWriter, r *http.Request) error {
	if !strings.Contains(r.Header.Get("Accept"), "text/event-stream") {
		return httpError{http.StatusNotAcceptable, fault.New(fault.Input, "the feed is text/event-stream, which the request's Accept does not want")}
	}
	c := s.join()
	if c == nil {
		return httpError{http.StatusServiceUnavailable, fault.New(fault.Network, "%d listen already, or the server is shutting down", feedListeners)}
	}
	defer s.feeds.leave(c)
	rc := http.NewResponseController(w)
	if err := rc.SetReadDeadline(time.Time{}); err != nil { // the server's limit is for requests that send something
		return fault.Wrap(fault.Internal, err)
	}
	h := w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no")
	write := func(text string) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(stallTimeout))
		_, err := w.Write([]byte(text))
		return err == nil && rc.Flush() == nil
	}
	if !write("retry: 2000\n\n") {
		return nil
	}
	alive, end := time.NewTicker(feedAlive), time.NewTimer(feedFor)
	defer alive.Stop()
	defer end.Stop()
	for {
		select {
		case topics, more := <-c:
			data, err := json.Marshal(map[string][]string{"topics": topics})
			if err != nil || !more || !write("event: changed\ndata: "+string(data)+"\n\n") {
				return nil
			}
		case <-alive.C:
			if !write(":\n\n") {
				return nil
			}
		case <-end.C:
			return nil
		case <-r.Context().Done():
			return nil
		}
	}
}
