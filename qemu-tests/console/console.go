// Package console keeps what a machine prints on its serial port, and waits for what it should print.
//
// The log is a list of lines, without colours and cursor movements, each with the time at which it began. Lines are counted from 0 for the life of the
// log, over reboots; only the last ones are kept, everything goes to the file. The line being printed counts, too: a prompt has no end of line.
//
// Limits: the last 5000 lines, 4096 bytes of each.
package console

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	maxLines  = 5000
	maxLine   = 4096
	shownLast = 50
)

// Line is a line of the console.
type Line struct {
	Number int
	Time   time.Time
	Text   string
}

// Log is an io.Writer for the console's bytes. Its methods may be called from several goroutines.
type Log struct {
	copyTo io.Writer
	now    func() time.Time

	mu      sync.Mutex
	lines   []Line // the last one is being printed
	begun   bool   // whether lines holds one being printed
	next    int    // number of the next line to begin
	escape  []byte // an escape sequence that is not complete yet
	changed chan struct{}
}

// New returns an empty log that also copies every byte to w, unless w is nil.
func New(w io.Writer, now func() time.Time) *Log {
	return &Log{copyTo: w, now: now, changed: make(chan struct{})}
}

// Write takes what the machine printed.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, b := range p {
		l.put(b)
	}
	close(l.changed)
	l.changed = make(chan struct{})
	if l.copyTo != nil {
		if _, err := l.copyTo.Write(p); err != nil {
			return 0, fmt.Errorf("keep the console's log: %w", err)
		}
	}
	return len(p), nil
}

func (l *Log) put(b byte) {
	switch {
	case len(l.escape) > 0:
		l.escape = append(l.escape, b)
		if escapeEnds(l.escape) {
			// Firmware and loader move the cursor instead of ending lines.
			if b == 'H' || b == 'J' {
				l.endLine()
			}
			l.escape = l.escape[:0]
		}
	case b == 0x1b:
		l.escape = append(l.escape, b)
	case b == '\n':
		l.beginLine()
		l.endLine()
	case b < 0x20 && b != '\t':
	default:
		l.beginLine()
		if last := &l.lines[len(l.lines)-1]; len(last.Text) < maxLine {
			last.Text += string([]byte{b})
		}
	}
}

func (l *Log) beginLine() {
	if l.begun {
		return
	}
	if len(l.lines) == maxLines {
		l.lines = append(l.lines[:0], l.lines[maxLines/2:]...)
	}
	l.lines = append(l.lines, Line{Number: l.next, Time: l.now()})
	l.next++
	l.begun = true
}

func (l *Log) endLine() { l.begun = false }

// escapeEnds tells whether s is a whole escape sequence: ESC [ … letter, ESC ] … BEL or ST, or ESC and one more byte.
func escapeEnds(s []byte) bool {
	if len(s) < 2 {
		return false
	}
	last := s[len(s)-1]
	switch s[1] {
	case '[':
		return len(s) > 2 && last >= 0x40 && last <= 0x7e || len(s) > 64
	case ']', 'P':
		return last == 0x07 || bytes.HasSuffix(s, []byte("\x1b\\")) || len(s) > 256
	case '(', ')', '#', '%':
		return len(s) == 3
	}
	return true
}

// Mark returns the number of the next line that will begin: a Wait from there does not see what was printed before.
func (l *Log) Mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.next
}

// Wait returns the first line with a number of at least from that matches. When the context ends first, the error shows the console's last lines.
func (l *Log) Wait(ctx context.Context, from int, re *regexp.Regexp) (Line, error) {
	for {
		l.mu.Lock()
		for _, line := range l.lines {
			if line.Number >= from && re.MatchString(line.Text) {
				l.mu.Unlock()
				return line, nil
			}
		}
		changed := l.changed
		l.mu.Unlock()
		select {
		case <-changed:
		case <-ctx.Done():
			return Line{}, fmt.Errorf("the console did not show %q: %w; its last lines:\n%s", re, context.Cause(ctx), l.Tail())
		}
	}
}

// Matches returns the kept lines with a number of at least from that match.
func (l *Log) Matches(from int, re *regexp.Regexp) []Line {
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []Line
	for _, line := range l.lines {
		if line.Number >= from && re.MatchString(line.Text) {
			found = append(found, line)
		}
	}
	return found
}

// Tail returns the last 50 lines, indented. Empty ones, of which a firmware's menus are full, are left out.
func (l *Log) Tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var last []string
	for i := len(l.lines) - 1; i >= 0 && len(last) < shownLast; i-- {
		if line := l.lines[i]; strings.TrimSpace(line.Text) != "" {
			last = append(last, fmt.Sprintf("    %s %s\n", line.Time.Format("15:04:05"), line.Text))
		}
	}
	slices.Reverse(last)
	var b strings.Builder
	for _, line := range last {
		b.WriteString(line)
	}
	if b.Len() == 0 {
		return "    (nothing at all)\n"
	}
	return b.String()
}
