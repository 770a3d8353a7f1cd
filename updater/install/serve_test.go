package install_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/install/installtest"
	"github.com/semper-os/semper/updater/wire"
)

// serve starts the installer of m on a socket; the returned function stops it and waits.
func serve(t *testing.T, m *installtest.Machine, allowed []uint32, idle time.Duration) (path string, stop func() error, done <-chan error) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "install.sock")
	l, err := net.Listen("unix", path)
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	s := install.Server{Core: m.Core(), Allowed: allowed, Idle: idle, Log: discard}
	end := make(chan error, 1)
	go func() { end <- s.Serve(ctx, l) }()
	return path, func() error { cancel(); return <-end }, end
}

func TestServer(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	r := keys.Release(t, "1.1.0")
	path, stop, _ := serve(t, m, []uint32{uint32(os.Getuid())}, time.Hour)
	c, err := wire.Dial(t.Context(), path)
	must(t, err)
	defer c.Close()
	b := wire.Begin{SHA256: r.SHA256Hex(), Size: int64(len(r.Payload)), Version: r.Version}
	_, err = c.Begin(b)
	must(t, err)
	half := len(r.Payload) / 2
	must(t, c.Data(r.Payload[:half]))

	other, err := wire.Dial(t.Context(), path)
	must(t, err)
	if _, err := other.Begin(b); err == nil || !strings.Contains(err.Error(), "another installation is running") {
		t.Errorf("second begin: %v", err)
	}
	must(t, other.Close())

	// The service manager stops the program in the middle: what was written stays good for another try.
	must(t, stop())
	equal(t, "boot", m.Boot(t).Version, "1.0.0")
	path, stop, _ = serve(t, m, []uint32{uint32(os.Getuid())}, time.Hour)
	c2, err := wire.Dial(t.Context(), path)
	must(t, err)
	defer c2.Close()
	offset, err := c2.Begin(b)
	must(t, err)
	if offset == 0 || offset > int64(half) {
		t.Errorf("offset %d after %d bytes", offset, half)
	}
	must(t, c2.Data(r.Payload[offset:]))
	must(t, c2.Finish())
	must(t, second(c2.Reboot(false)))
	equal(t, "reboots", m.Reboots, 1)
	must(t, stop())
	equal(t, "boot", m.Boot(t).Version, "1.1.0")
}

func TestServerRefusesStrangers(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	path, stop, _ := serve(t, m, []uint32{uint32(os.Getuid()) + 1}, time.Hour)
	c, err := wire.Dial(t.Context(), path)
	must(t, err)
	defer c.Close()
	if st, err := c.Status(); err == nil {
		t.Errorf("a stranger was told %+v", st)
	}
	must(t, stop())
}

func TestServerEndsWhenIdle(t *testing.T) {
	keys := installtest.NewKeys(t)
	m := installtest.NewMachine(t, keys, keys.Release(t, "1.0.0"))
	path, _, done := serve(t, m, []uint32{uint32(os.Getuid())}, 100*time.Millisecond)
	c, err := wire.Dial(t.Context(), path)
	if err == nil { // it may have been idle for long enough already
		_, err = c.Status()
		c.Close()
	}
	select {
	case err := <-done:
		must(t, err)
	case <-time.After(10 * time.Second):
		t.Fatalf("still running (%v)", err)
	}
}
