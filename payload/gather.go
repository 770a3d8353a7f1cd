package payload

import (
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
)

// gatherSize is how much of a tree is written at once: enough to go past the page cache, little enough to hold a few of.
const gatherSize = 256 << 10

// gatherer makes few large writes of many small ones. It may be used by several goroutines; flush comes after
// them. A part that was written as a whole is not kept.
type gatherer struct {
	w io.WriterAt

	mu    sync.Mutex
	parts map[int64]*gathered // by number
	spare [][]byte
}

type gathered struct {
	data  []byte // of gatherSize
	spans []span // that were written, sorted, neither overlapping nor touching
}

type span struct{ from, to int64 }

// WriteAt implements io.WriterAt. A failure may be told by a later call.
func (g *gatherer) WriteAt(p []byte, off int64) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	done := 0
	for done < len(p) {
		n := min(gatherSize-int(off%gatherSize), len(p)-done)
		if err := g.keep(p[done:done+n], off); err != nil {
			return done, err
		}
		done, off = done+n, off+int64(n)
	}
	return done, nil
}

// keep takes bytes of one part.
func (g *gatherer) keep(p []byte, off int64) error {
	number, at := off/gatherSize, off%gatherSize
	if g.parts == nil {
		g.parts = map[int64]*gathered{}
	}
	part := g.parts[number]
	if part == nil {
		part = &gathered{data: g.take()}
		g.parts[number] = part
	}
	copy(part.data[at:], p)
	part.add(span{at, at + int64(len(p))})
	if part.spans[0] == (span{0, gatherSize}) {
		return g.write(number, part)
	}
	return nil
}

func (g *gatherer) take() []byte {
	if n := len(g.spare); n > 0 {
		b := g.spare[n-1]
		g.spare = g.spare[:n-1]
		return b
	}
	return make([]byte, gatherSize)
}

// add notes what was written.
func (p *gathered) add(s span) {
	i := 0
	for i < len(p.spans) && p.spans[i].to < s.from {
		i++
	}
	j := i
	for ; j < len(p.spans) && p.spans[j].from <= s.to; j++ {
		s = span{min(s.from, p.spans[j].from), max(s.to, p.spans[j].to)}
	}
	p.spans = slices.Replace(p.spans, i, j, s)
}

// write writes what a part has, and forgets it.
func (g *gatherer) write(number int64, part *gathered) error {
	delete(g.parts, number)
	g.spare = append(g.spare, part.data)
	for _, s := range part.spans {
		if _, err := g.w.WriteAt(part.data[s.from:s.to], number*gatherSize+s.from); err != nil {
			return err
		}
	}
	return nil
}

// flush writes what is left.
func (g *gatherer) flush() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var errs []error
	for _, number := range slices.Sorted(maps.Keys(g.parts)) {
		errs = append(errs, g.write(number, g.parts[number]))
	}
	return errors.Join(errs...)
}
