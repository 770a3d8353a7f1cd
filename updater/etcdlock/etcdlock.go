// Package etcdlock is a semaphore in etcd v3: at most so many machines of a group reboot at the same time, and one that never comes back does not hold the
// others up for ever.
//
//	semper/reboot/GROUP/max              how many may hold a slot, "0" to "1000"; absent: 1. Written by a person, read by all
//	semper/reboot/GROUP/holders/ID       a slot; the machine's lease is attached, and etcd deletes the key when it expires
//
// A slot is taken in one transaction, which only takes effect if nothing was written below semper/reboot/GROUP/ since the holders were counted. So there are never
// more holders than max, whoever dies at which moment: etcd orders transactions. A smaller max takes nobody's slot away; it counts from the next Acquire on, and 0 lets
// nobody begin. A key below holders/ that a person puts there without a lease is a slot that does not expire.
//
// # The lease outlives the program
//
// Nothing here runs between two calls, so a machine keeps its slot while it is down. The price is that a dead machine keeps it for the rest of the TTL. The TTL must be
// longer than the longest way from the last Held before the reboot to the first Acquire after it: services stopping, firmware, boot, three tries of a
// version that does not come up, and the boot of the old one. 30 minutes, the default, is enough for servers whose firmware takes five. Shorter than the reboot: the slot is lost on the way and
// somebody else may be down at the same time. Longer: a dead machine holds its group up for longer, which is what one wants if it was the update that killed it.
//
// # A program of its own
//
// etcd's client is large: linked into semperd it would cost every machine 6 MiB of memory, for a strategy that few use. So semperd runs semper-etcdlock for each call,
// and the program ends after it:
//
//	Lock ──{"do":"acquire","lease":0,"options":{…}}──▶ semper-etcdlock ──▶ package semaphore ──▶ etcd
//	     ◀──{"lease":123}──  or  {"lease":0,"error":"…","kind":"network","lost":false}──
//
// # Use
//
//	Acquire    before the reboot, again and again until it is nil; after a restart of the agent or the machine, where the slot should be kept: it takes
//	           the machine's own slot over and begins a new TTL. Nil proves the slot as well as Held does
//	Held       right before the reboot, and while a version is on trial: proves the slot and begins a new TTL. Any error means: do not reboot, Acquire again
//	Release    when the new version is healthy, or the reboot was given up; works without an Acquire by this process
//
// fleetlock.Client has the same three. Each call connects anew, so that nothing is kept and nothing wakes up between calls, and a
// renewed certificate is used.
//
// Errors: ErrLost from Held; kind Verification, with the holders' names, when all slots are taken; else kind Network where etcd did not answer or has no leader, Verification where it refused the user, Input
// where what is stored is not what is written above, IO where a certificate cannot be read. After any other error of Acquire the slot may have been taken; the
// next Acquire takes it over, and without one it expires.
//
// Limits: 1000 slots and holders a group, 4 MiB an answer, 10 endpoints, 5 rounds of an Acquire against others, 2 minutes a call, 64 KiB an answer of the program.
package etcdlock

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/semper-os/semper/fault"
)

// Program is where images have semper-etcdlock.
const Program = "/usr/lib/semper/semper-etcdlock"

const (
	maxCall   = 2 * time.Minute
	maxAnswer = 64 << 10
	maxText   = 1000
)

// ErrLost says that the machine does not hold a slot, or that another process took it over: Acquire again, do not reboot.
var ErrLost = errors.New("the reboot lock is not held any more")

// What semper-etcdlock can be asked to do.
const (
	DoAcquire = "acquire"
	DoHeld    = "held"
	DoRelease = "release"
)

// Call is what semper-etcdlock reads on its standard input.
type Call struct {
	Do      string  `json:"do"`
	Lease   int64   `json:"lease"` // of the slot that the caller took, 0: none
	Options Options `json:"options"`
}

// Answer is what it writes to its standard output.
type Answer struct {
	Lease int64  `json:"lease"`           // what the next call is to bring; 0: not held
	Error string `json:"error,omitempty"` // empty: done
	Kind  string `json:"kind,omitempty"`  // the error's, a word of package fault
	Lost  bool   `json:"lost,omitempty"`  // the error is ErrLost
}

// Lock is one machine's way to its group's slots. Its methods may be called from several goroutines, one runs at a time.
type Lock struct {
	program string
	options Options

	mu    sync.Mutex
	lease int64
}

// New checks the options; it starts nothing.
func New(program string, o Options) (*Lock, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	return &Lock{program: program, options: o}, nil
}

// Acquire tries once to take a slot, or takes over the one that the machine has. Nil: it is held for a TTL from now.
func (l *Lock) Acquire(ctx context.Context) error { return l.do(ctx, DoAcquire) }

// Held proves that the slot which this agent acquired is still its own, and lets its TTL begin anew. ErrLost: it is not.
func (l *Lock) Held(ctx context.Context) error { return l.do(ctx, DoHeld) }

// Release gives the machine's slot back, whoever took it. It is no error if there is none.
func (l *Lock) Release(ctx context.Context) error { return l.do(ctx, DoRelease) }

func (l *Lock) do(ctx context.Context, what string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	a, err := l.run(ctx, Call{Do: what, Lease: l.lease, Options: l.options})
	if err != nil {
		return fmt.Errorf("%s etcd reboot lock: %w", what, err)
	}
	l.lease = a.Lease
	return a.err()
}

func (a *Answer) err() error {
	switch {
	case a.Lost:
		return fault.New(fault.Verification, "%s%w", strings.TrimSuffix(a.Error, ErrLost.Error()), ErrLost)
	case a.Error != "":
		return fault.New(fault.ParseKind(a.Kind), "%.*s", maxText, a.Error)
	}
	return nil
}

// run starts the program for one call. The options go through a pipe, since everyone on a machine can read command lines.
func (l *Lock) run(ctx context.Context, call Call) (*Answer, error) {
	ctx, cancel := context.WithTimeout(ctx, maxCall)
	defer cancel()
	input, err := json.Marshal(call)
	if err != nil {
		return nil, fmt.Errorf("encode call: %w", err)
	}
	c := exec.CommandContext(ctx, l.program)
	c.Env = []string{} // GOGC and GOMEMLIMIT are semperd's
	c.Dir = "/"
	c.WaitDelay = time.Second
	c.Stdin = bytes.NewReader(input)
	var out, problems limited
	c.Stdout, c.Stderr = &out, &problems
	if err := c.Run(); err != nil {
		if ctx.Err() != nil {
			return nil, fault.New(fault.Network, "%s was stopped: %w", l.program, context.Cause(ctx))
		}
		return nil, fault.New(fault.IO, "run %s: %w %.*s", l.program, err, maxText, strings.TrimSpace(problems.b.String()))
	}
	return ReadAnswer(&out.b)
}

// ReadAnswer reads what the program wrote. Errors are of kind IO: an answer that is not understood is no lock.
func ReadAnswer(r io.Reader) (*Answer, error) {
	var a Answer
	if err := readOne(r, &a); err != nil {
		return nil, fault.New(fault.IO, "answer of semper-etcdlock: %w", err)
	}
	if a.Error == "" && (a.Lost || a.Kind != "") {
		return nil, fault.New(fault.IO, "answer of semper-etcdlock: an error without a text")
	}
	return &a, nil
}

// ReadCall reads what a program is to do. Errors are of kind Input.
func ReadCall(r io.Reader) (*Call, error) {
	var c Call
	if err := readOne(r, &c); err != nil {
		return nil, fault.New(fault.Input, "call: %w", err)
	}
	switch c.Do {
	case DoAcquire, DoHeld, DoRelease:
	default:
		return nil, fault.New(fault.Input, "call: %.40q is not %s, %s or %s", c.Do, DoAcquire, DoHeld, DoRelease)
	}
	if err := c.Options.Check(); err != nil {
		return nil, err
	}
	return &c, nil
}

// readOne decodes one JSON value and wants nothing behind it.
func readOne(r io.Reader, v any) error {
	d := json.NewDecoder(io.LimitReader(r, maxAnswer))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is more than one value")
	}
	return nil
}

// limited keeps the beginning of what is written to it.
type limited struct{ b bytes.Buffer }

func (l *limited) Write(p []byte) (int, error) {
	l.b.Write(p[:min(len(p), maxAnswer-l.b.Len())])
	return len(p), nil
}
