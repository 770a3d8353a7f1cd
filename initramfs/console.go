package initramfs

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Console prints lines with the time since the first one:
//
//	semper-init[  0.123]: root mounted
//
// A line goes to every console that the kernel uses, whole, and into the kernel's log, from where the journal has it later.
type Console struct {
	Debug bool

	mu    sync.Mutex
	outs  []io.Writer
	log   io.Writer // /dev/kmsg; each Write is a record
	since func() time.Duration
}

// NewConsole prints to outs. Log may be nil. Since is the time that has passed since the first line.
func NewConsole(since func() time.Duration, log io.Writer, outs ...io.Writer) *Console {
	return &Console{outs: outs, log: log, since: since}
}

// Printf prints a line.
func (c *Console) Printf(format string, args ...any) {
	t := c.since()
	text := oneLine(fmt.Sprintf(format, args...))
	c.write(fmt.Sprintf("semper-init[%3d.%03d]: %s\r\n", t/time.Second, t%time.Second/time.Millisecond, text))
	c.record("semper-init: " + text)
}

// Debugf prints a line if the command line asked for it; the kernel's log has it always.
func (c *Console) Debugf(format string, args ...any) {
	if c.Debug {
		c.Printf(format, args...)
		return
	}
	c.record("semper-init: " + oneLine(fmt.Sprintf(format, args...)))
}

// Frame prints lines between two rules, so that nobody overlooks them.
func (c *Console) Frame(lines []string) {
	rule := strings.Repeat("=", frameWidth)
	c.write("\r\n" + rule + "\r\n  " + strings.Join(lines, "\r\n  ") + "\r\n" + rule + "\r\n")
	for _, l := range lines {
		if l != "" {
			c.record("semper-init: " + l)
		}
	}
}

func (c *Console) write(s string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, w := range c.outs {
		_, _ = io.WriteString(w, s) // a console that is gone must not stop the boot
	}
}

// record writes to the kernel's log with a priority (debug) that the kernel itself does not print on the console again.
func (c *Console) record(s string) {
	if c.log == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _ = io.WriteString(c.log, "<7>"+s+"\n")
}

// Lines returns a writer for the output of a program: each line is printed with the program's name, empty ones and what exceeds 200 lines are not.
func (c *Console) Lines(name string) *LineWriter { return &LineWriter{c: c, name: name} }

// LineWriter is where a program's output goes.
type LineWriter struct {
	c     *Console
	name  string
	part  []byte
	count int
}

const (
	maxLines    = 200
	maxLineSize = 1024
)

// Write never fails.
func (w *LineWriter) Write(p []byte) (int, error) {
	for _, b := range p {
		// e2fsck draws its progress over itself with carriage returns and backspaces.
		if b == '\n' || b == '\r' || b == '\b' || len(w.part) == maxLineSize {
			w.flush()
		}
		if b >= ' ' && b != 0x7f {
			w.part = append(w.part, b)
		}
	}
	return len(p), nil
}

// Close prints what has not been ended with a new line.
func (w *LineWriter) Close() error {
	w.flush()
	return nil
}

func (w *LineWriter) flush() {
	if line := bytes.TrimSpace(w.part); len(line) > 0 {
		if w.count++; w.count <= maxLines {
			w.c.Printf("%s: %s", w.name, line)
		}
	}
	w.part = w.part[:0]
}

// oneLine keeps what foreign bytes hold (a label, an error's text) from drawing on the terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
			return ' '
		}
		return r
	}, s)
}

// openTerminal opens a console without making it ours, and without waiting for a modem.
func openTerminal(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_WRONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

// openConsoles opens what /sys/class/tty/console/active names, in its order. It falls back to /dev/console.
func openConsoles(active, dev string) []io.Writer {
	var outs []io.Writer
	b, _ := os.ReadFile(active)
	for _, name := range strings.Fields(string(b)) {
		if strings.ContainsAny(name, "/") {
			continue
		}
		if f, err := openTerminal(dev + "/" + name); err == nil {
			outs = append(outs, f)
		}
	}
	if len(outs) == 0 {
		if f, err := openTerminal(dev + "/console"); err == nil {
			outs = append(outs, f)
		}
	}
	return outs
}
