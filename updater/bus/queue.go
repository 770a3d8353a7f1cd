package bus

import (
	"math"
	"slices"
	"strings"
	"sync"
	"unicode/utf8"
)

// Bounds of what goes out.
const (
	maxWaiting = 16   // states that a slow bus has not been told of
	maxText    = 1000 // bytes of one text
	maxList    = 32
)

// queue is what one connection must still tell.
type queue struct {
	wake chan struct{} // holds a token while something waits

	mu      sync.Mutex
	now     Status
	waiting []Status
}

func newQueue() *queue { return &queue{wake: make(chan struct{}, 1), now: Status{State: Idle}} }

func (q *queue) push(s Status) {
	q.mu.Lock()
	q.now = s
	switch n := len(q.waiting); {
	case n > 0 && q.waiting[n-1].State == s.State && (q.waiting[n-1].Progress == 0) == (s.Progress == 0): // Flatcar has two words for downloading
		q.waiting[n-1] = s
	case n == maxWaiting:
		q.waiting = append(slices.Delete(q.waiting, 0, 1), s)
	default:
		q.waiting = append(q.waiting, s)
	}
	q.mu.Unlock()
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// take returns what waits, oldest first.
func (q *queue) take() []Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	w := q.waiting
	q.waiting = nil
	return w
}

// latest is what is true now.
func (q *queue) latest() Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.now
}

// restart drops what waits: whoever watches a new connection begins with what is true now.
func (q *queue) restart() Status {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = nil
	return q.now
}

// clean makes s fit for the bus, which closes a connection that sends a text that is not UTF-8.
func (s Status) clean() Status {
	for _, text := range []*string{
		&s.Version, &s.Slot, &s.Server, &s.Channel, (*string)(&s.State), &s.Reason, &s.WaitingFor, &s.NewVersion, &s.PendingVersion,
		&s.RolledBackVersion, &s.RolledBackReason, &s.LastError, &s.PauseReason,
	} {
		*text = clean(*text)
	}
	list := make([]string, 0, min(len(s.FailedVersions), maxList))
	for _, v := range s.FailedVersions[max(0, len(s.FailedVersions)-maxList):] {
		list = append(list, clean(v))
	}
	s.FailedVersions = list
	if math.IsNaN(s.Progress) {
		s.Progress = 0
	}
	s.Progress = min(max(s.Progress, 0), 1)
	s.NewSize, s.PendingSize = max(s.NewSize, 0), max(s.PendingSize, 0)
	return s
}

func clean(text string) string {
	if !utf8.ValidString(text) || strings.ContainsRune(text, 0) {
		text = strings.ReplaceAll(strings.ToValidUTF8(text, "\uFFFD"), "\x00", "\uFFFD")
	}
	if len(text) > maxText {
		text = strings.ToValidUTF8(text[:maxText-len("…")], "") + "…"
	}
	return text
}
