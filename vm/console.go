package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// escapeKey is Ctrl-A, the key that QEMU's own terminal uses, too.
const escapeKey = 0x01

// EscapeHelp says how to get out of a console that Interactive opened.
const EscapeHelp = "Ctrl-A X ends the machine, Ctrl-A R resets it, Ctrl-A Ctrl-A sends Ctrl-A"

// Interactive starts the machine with its serial console on the terminal in and out, and waits for its end. The terminal is in raw mode
// meanwhile, so that every key, Ctrl-C too, goes to the guest; EscapeHelp names the ones that do not. Where in is not a terminal nothing is
// set, and its end is not the machine's. Started, unless nil, is called once the machine runs, before the terminal changes.
func (m Machine) Interactive(ctx context.Context, in *os.File, out io.Writer, started func(*VM)) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var v *VM
	running := make(chan struct{})
	m.Console = out
	m.ConsoleInput = &escapeReader{
		in:   in,
		quit: func() { cancel(errQuit) },
		reset: func() {
			<-running
			_ = v.Monitor.Reset(ctx)
		},
	}
	v, err := m.Start(ctx)
	if err != nil {
		return err
	}
	close(running)
	if started != nil {
		started(v)
	}
	if fd := int(in.Fd()); term.IsTerminal(fd) {
		state, err := term.MakeRaw(fd)
		if err != nil {
			v.Kill()
			return errors.Join(fmt.Errorf("set the terminal to raw mode: %w", err), v.Wait())
		}
		defer func() { _ = term.Restore(fd, state) }()
	}
	err = v.Wait()
	if errors.Is(context.Cause(ctx), errQuit) {
		return nil
	}
	return err
}

var errQuit = errors.New("ended from the keyboard")

// escapeReader passes what is typed, except for the escape key and the one after it.
type escapeReader struct {
	in          io.Reader
	quit, reset func()
	escaped     bool
}

func (e *escapeReader) Read(p []byte) (int, error) {
	for {
		n, err := e.in.Read(p)
		kept := p[:0]
		for _, b := range p[:n] {
			switch {
			case !e.escaped && b == escapeKey:
				e.escaped = true
				continue
			case e.escaped && (b == 'x' || b == 'X'):
				e.quit()
			case e.escaped && (b == 'r' || b == 'R'):
				e.reset()
			default:
				kept = append(kept, b)
			}
			e.escaped = false
		}
		if len(kept) > 0 || err != nil {
			return len(kept), err
		}
	}
}
