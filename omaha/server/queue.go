package server

import (
	"errors"
	"sync"
	"time"

	"github.com/semper-os/semper/omaha"
)

// maxAsks is how many requests are answered together.
const maxAsks = 256

// ask is a machine's request, and what it leads to.
type ask struct {
	req      *omaha.Request
	address  string
	now      time.Time
	outcomes []outcome
	done     chan error
}

// queue has requests answered together that come while others are being answered, in the order of their coming: one look at the database is for all of them.
type queue struct {
	asks    chan *ask
	stop    chan struct{}
	workers sync.WaitGroup
}

var errStopped = errors.New("the server is shutting down")

// newQueue starts so many workers, each of which answers a batch after the other.
func newQueue(workers int, answer func(*batch) error) *queue {
	q := &queue{asks: make(chan *ask), stop: make(chan struct{})}
	for range workers {
		q.workers.Go(func() {
			for {
				select {
				case a := <-q.asks:
					b := &batch{asks: []*ask{a}, from: q}
					b.gather()
					each(b, answer)
				case <-q.stop:
					return
				}
			}
		})
	}
	return q
}

// end waits for what is being answered. Who asks later is refused.
func (q *queue) end() {
	close(q.stop)
	q.workers.Wait()
}

// batch are requests that are answered together.
type batch struct {
	asks []*ask
	from *queue // nil: no more come to it
}

// gather takes what waits by now without waiting for more.
func (b *batch) gather() {
	for b.from != nil && len(b.asks) < maxAsks {
		select {
		case a := <-b.from.asks:
			b.asks = append(b.asks, a)
		default:
			return
		}
	}
}

// do has a request answered. It is, whether somebody still waits for it or not.
func (q *queue) do(a *ask) error {
	a.done = make(chan error, 1)
	select {
	case q.asks <- a:
		return <-a.done
	case <-q.stop:
		return errStopped
	}
}

// each answers a batch by one call for all, and where that fails by a call for each: if it is one request's doing, the others need not suffer for it.
func each(b *batch, answer func(*batch) error) {
	err := answer(b)
	if err != nil && len(b.asks) > 1 {
		for _, a := range b.asks {
			a.done <- answer(&batch{asks: []*ask{a}})
		}
		return
	}
	for _, a := range b.asks {
		a.done <- err
	}
}
