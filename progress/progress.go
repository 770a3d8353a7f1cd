// Package progress shows how far long work has come: a bar that redraws itself on a terminal, nothing at all in a pipe.
//
// A nil *Bar is valid and silent, so that code deep in a build can report without asking whether anyone looks.
package progress

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/term"
)

const redrawEvery = 100 * time.Millisecond

// Bar is one line of progress. Its methods may be called from several goroutines.
type Bar struct {
	w     io.Writer
	label string
	total int64
	width int

	mu    sync.Mutex
	done  int64
	start time.Time
	last  time.Time
}

// New starts a bar on f when it is a terminal, and returns nil (a silent bar) when it is not.
// Total is in bytes; 0 means unknown, and then only the amount and the time are shown.
func New(f *os.File, label string, total int64) *Bar {
	if f == nil || !term.IsTerminal(int(f.Fd())) {
		return nil
	}
	width, _, err := term.GetSize(int(f.Fd()))
	if err != nil || width < 40 {
		width = 80
	}
	b := &Bar{w: f, label: label, total: total, width: width, start: time.Now()}
	b.mu.Lock()
	b.draw()
	b.mu.Unlock()
	return b
}

// Add says that n more bytes are done.
func (b *Bar) Add(n int64) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.done += n
	if now := time.Now(); now.Sub(b.last) >= redrawEvery {
		b.last = now
		b.draw()
	}
}

// Done draws the bar's last state and ends its line.
func (b *Bar) Done() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.draw()
	fmt.Fprintln(b.w)
}

// Writer returns a writer that passes everything to w and counts it.
func (b *Bar) Writer(w io.Writer) io.Writer {
	if b == nil {
		return w
	}
	return writerFunc(func(p []byte) (int, error) {
		n, err := w.Write(p)
		b.Add(int64(n))
		return n, err
	})
}

// Reader returns a reader that passes everything from r and counts it.
func (b *Bar) Reader(r io.Reader) io.Reader {
	if b == nil {
		return r
	}
	return readerFunc(func(p []byte) (int, error) {
		n, err := r.Read(p)
		b.Add(int64(n))
		return n, err
	})
}

func (b *Bar) draw() {
	right := fmt.Sprintf("%s %5.1fs", Size(b.done), time.Since(b.start).Seconds())
	line := fmt.Sprintf("%-28.28s ", b.label)
	if room := b.width - len(line) - len(right) - 4; b.total > 0 && room >= 10 {
		full := int(float64(room) * min(1, float64(b.done)/float64(b.total)))
		line += "[" + strings.Repeat("=", full) + strings.Repeat(" ", room-full) + "] "
	}
	fmt.Fprintf(b.w, "\r%s%s", line, right)
}

// Size prints a number of bytes for people, in binary units: "312.4 MiB".
func Size(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	default:
		return fmt.Sprintf("%.2f GiB", float64(n)/(1<<30))
	}
}

type (
	writerFunc func([]byte) (int, error)
	readerFunc func([]byte) (int, error)
)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }
func (f readerFunc) Read(p []byte) (int, error)  { return f(p) }
