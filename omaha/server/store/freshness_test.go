package store

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"testing"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/fleet"
)

func TestFreshness(t *testing.T) {
	dir := t.TempDir()
	s, _ := filled(t, dir)
	ctx := t.Context()
	if _, err := s.Read().Freshness(ctx, app, "stable", "amd64"); !errors.Is(err, ErrNotFound) {
		t.Errorf("before there is one: %v", err)
	}
	f := fleet.Freshness{
		App: app, Channel: "stable", Arch: "amd64", Envelope: []byte("e1"), Version: "1.1.0", Issued: now.Truncate(time.Second),
		Expires: now.Truncate(time.Second).Add(time.Hour), Sequence: 7, Stored: now,
	}
	write(t, s, func(tx Tx) error { return tx.PutFreshness(ctx, &f) })
	f.Envelope, f.Sequence = bytes.Repeat([]byte("x"), 16384), 8
	write(t, s, func(tx Tx) error { return tx.PutFreshness(ctx, &f) })
	s.Close()
	s = create(t, dir)
	got, err := s.Read().Freshness(ctx, app, "stable", "amd64")
	if err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("after reopening %+v (%v), want %+v", got, err, f)
	}
	all, err := s.Read().AllFreshness(ctx)
	if err != nil || !reflect.DeepEqual(all, []fleet.Freshness{f}) {
		t.Errorf("all %+v (%v)", all, err)
	}
	for name, change := range map[string]func(*fleet.Freshness){
		"too large":       func(f *fleet.Freshness) { f.Envelope = append(f.Envelope, 'x') },
		"unknown channel": func(f *fleet.Freshness) { f.Channel = "edge" },
		"unknown arch":    func(f *fleet.Freshness) { f.Arch = "arm64" },
	} {
		bad := got
		change(&bad)
		if err := s.Write(ctx, func(tx Tx) error { return tx.PutFreshness(ctx, &bad) }); !fault.Is(err, fault.IO) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

// TestOldSchemas brings databases forward that older servers made.
func TestOldSchemas(t *testing.T) {
	all := migrations
	t.Cleanup(func() { migrations = all })
	for version := 2; version < len(all); version++ {
		t.Run(fmt.Sprint(version), func(t *testing.T) { fromSchema(t, all, version) })
	}
}

func fromSchema(t *testing.T, all []string, version int) {
	dir := t.TempDir()
	migrations = all[:version]
	s, m := filled(t, dir)
	s.Close()
	migrations = all
	s = create(t, dir)
	if got, err := s.Read().Machine(t.Context(), app, "m1"); err != nil || !reflect.DeepEqual(got, m) {
		t.Errorf("machine %+v (%v), want %+v", got, err, m)
	}
	if all, err := s.Read().AllFreshness(t.Context()); err != nil || len(all) != 0 {
		t.Errorf("freshness %+v (%v)", all, err)
	}
}
