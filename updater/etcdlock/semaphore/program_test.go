package semaphore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/etcdlock"
)

// asProgram in the environment makes this test binary semper-etcdlock.
const asProgram = "SEMPER_TEST_ETCDLOCK"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		if err := Serve(context.Background(), os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(fault.ExitCode(err))
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// program is the way to this test binary as semper-etcdlock: its caller gives it no environment.
func program(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "semper-etcdlock")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+asProgram+"=1 exec '"+self+"'\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestProgram goes the way that semperd goes: each call is a process of its own, and the lease goes from one to the next.
func TestProgram(t *testing.T) {
	t.Parallel()
	members := newCluster(t, 1, "http")
	way := program(t)
	machine := func(id string) *etcdlock.Lock {
		l, err := etcdlock.New(way, etcdlock.Options{Endpoints: endpoints(members), Group: "g", ID: id, TTL: time.Hour, DialTimeout: patience, RequestTimeout: patience})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a, b := machine("a"), machine("b")
	ctx := t.Context()
	if err := a.Held(ctx); !errors.Is(err, etcdlock.ErrLost) || !fault.Is(err, fault.Verification) {
		t.Errorf("held before it was acquired: %v", err)
	}
	for range 2 {
		if err := errors.Join(a.Acquire(ctx), a.Held(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.Acquire(ctx); !fault.Is(err, fault.Verification) || !strings.Contains(err.Error(), "1 of 1 slots are taken, by a since") {
		t.Errorf("a second holder: %v", err)
	}
	if err := errors.Join(machine("a").Release(ctx), b.Acquire(ctx)); err != nil {
		t.Fatal(err)
	}
	if err := a.Held(ctx); !errors.Is(err, etcdlock.ErrLost) || strings.Count(err.Error(), etcdlock.ErrLost.Error()) != 1 {
		t.Errorf("held after it was given back: %v", err)
	}
	members[0].kill()
	short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
	defer cancel()
	if err := b.Held(short); !fault.Is(err, fault.Network) || errors.Is(err, etcdlock.ErrLost) {
		t.Errorf("without etcd: %v", err)
	}
}
