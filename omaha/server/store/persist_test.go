package store

import (
	"errors"
	"path/filepath"
	"testing"
)

// gated is a database whose disk answers when it is told to.
type gated struct {
	engine
	asked  chan struct{}
	answer chan error
}

func (g *gated) persist() error {
	g.asked <- struct{}{}
	return errors.Join(<-g.answer, g.engine.persist())
}

func openGated(t *testing.T) (*Store, *gated) {
	t.Helper()
	db, err := openSQLite(t.Context(), filepath.Join(t.TempDir(), fileName))
	if err != nil {
		t.Fatal(err)
	}
	g := &gated{db, make(chan struct{}), make(chan error)}
	s, err := begin(t.Context(), g)
	if err != nil {
		t.Fatal(err)
	}
	return s, g
}

// began starts a write and returns once it has run; what becomes of it is told later.
func began(t *testing.T, s *Store) <-chan error {
	t.Helper()
	ran, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- s.Write(t.Context(), func(Tx) error {
			close(ran)
			return nil
		})
	}()
	<-ran
	return done
}

// TestWriteWaitsForDisk has a write wait for its own sync, and others run meanwhile and share the next one.
func TestWriteWaitsForDisk(t *testing.T) {
	s, disk := openGated(t)
	defer s.Close()
	first := began(t, s)
	<-disk.asked
	second := began(t, s) // runs although the disk is busy
	select {
	case err := <-first:
		t.Fatalf("a write returned before its sync: %v", err)
	case err := <-second:
		t.Fatalf("a write returned before its sync: %v", err)
	default:
	}
	disk.answer <- nil
	if err := <-first; err != nil {
		t.Error(err)
	}
	<-disk.asked
	select {
	case err := <-second:
		t.Fatalf("a write returned with the sync of another: %v", err)
	default:
	}
	disk.answer <- nil
	if err := <-second; err != nil {
		t.Error(err)
	}
}

// TestSyncFails has the write fail, and all that come later: nobody knows what is on disk.
func TestSyncFails(t *testing.T) {
	s, disk := openGated(t)
	rotten := errors.New("input/output error")
	first := began(t, s)
	<-disk.asked
	disk.answer <- rotten
	if err := <-first; !errors.Is(err, rotten) {
		t.Errorf("error %v, want %v", err, rotten)
	}
	go func() {
		for range disk.asked {
			disk.answer <- nil
		}
	}()
	ran := false
	if err := s.Write(t.Context(), func(Tx) error { ran = true; return nil }); !errors.Is(err, rotten) || ran {
		t.Errorf("error %v, want %v; it ran: %v", err, rotten, ran)
	}
	if err := s.Ping(t.Context()); !errors.Is(err, rotten) {
		t.Errorf("it answers: %v, want %v", err, rotten)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	close(disk.asked)
}
