package daemon_test

import (
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// semperLocks is Semper's server as the keeper of reboot locks; its operator works on the data folder, as semper-server's verbs do.
type semperLocks struct {
	t   *testing.T
	url string
	db  *store.Store
}

func startSemperLocks(t *testing.T, address string) *semperLocks {
	t.Helper()
	dir := t.TempDir()
	s, err := server.Open(t.Context(), server.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", address+":0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: s.Handler(), ReadHeaderTimeout: patience}
	go func() { _ = web.Serve(l) }()
	db, err := store.Open(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, end := range []func() error{db.Close, web.Close, s.Close} {
			if err := end(); err != nil {
				t.Error(err)
			}
		}
	})
	return &semperLocks{t, "http://" + l.Addr().String(), db}
}

// set gives the group its slots.
func (s *semperLocks) set(slots int) {
	s.t.Helper()
	err := s.db.Write(s.t.Context(), func(tx store.Tx) error {
		_, err := server.SetRebootGroup(s.t.Context(), tx, "fleet", slots, lease, "test", time.Now())
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
}

// claims are the machines that have a slot or wait for one.
func (s *semperLocks) claims() []fleet.RebootClaim {
	s.t.Helper()
	c, err := s.db.Read().RebootClaims(s.t.Context(), "fleet")
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}
