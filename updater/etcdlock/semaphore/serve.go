package semaphore

import (
	"context"
	"encoding/json"
	"errors"
	"io"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/etcdlock"
)

// Serve does one call: it is what the program semper-etcdlock is. An error of the lock goes into the answer; Serve's own error means that there is none.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	call, err := etcdlock.ReadCall(in)
	if err != nil {
		return err
	}
	l, err := New(call.Options, call.Lease)
	if err != nil {
		return err
	}
	switch call.Do {
	case etcdlock.DoAcquire:
		err = l.Acquire(ctx)
	case etcdlock.DoHeld:
		err = l.Held(ctx)
	case etcdlock.DoRelease:
		err = l.Release(ctx)
	}
	a := etcdlock.Answer{Lease: l.Lease()}
	if err != nil {
		a.Error, a.Kind, a.Lost = err.Error(), fault.KindOf(err).String(), errors.Is(err, etcdlock.ErrLost)
	}
	if err := json.NewEncoder(out).Encode(a); err != nil {
		return fault.New(fault.IO, "write answer: %w", err)
	}
	return nil
}
