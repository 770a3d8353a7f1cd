package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

const fillBatch = 20_000

// fill makes a server's data with two releases and so many machines. Database is PostgreSQL's URL, or empty.
func fill(dir, database string, machines int) error {
	ctx := context.Background()
	data := filepath.Join(dir, "data")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	s, err := server.Open(ctx, server.Config{Dir: data, Database: database})
	if err != nil {
		return err
	}
	if err := s.Close(); err != nil {
		return err
	}
	st, err := store.Open(ctx, cmp.Or(database, data))
	if err != nil {
		return err
	}
	return errors.Join(fillStore(ctx, st, machines), st.Close())
}

func fillStore(ctx context.Context, st *store.Store, machines int) error {
	now := time.Now().UTC()
	err := st.Write(ctx, func(tx store.Tx) error {
		for _, version := range []string{"1.0.0", "1.1.0"} {
			r := fleet.Release{App: omaha.SemperApp, Arch: "amd64", Version: version, Published: now}
			e := api.External{URLs: []string{"http://127.0.0.1/"}, Name: "full.crau", Size: 160 << 20, SHA256: strings.Repeat("a", 64), SHA1: strings.Repeat("b", 40)}
			if err := server.AddExternal(ctx, tx, &r, &e, "benchserver"); err != nil {
				return err
			}
		}
		_, err := server.SetChannel(ctx, tx, omaha.SemperApp, "stable", "amd64", "1.0.0", "benchserver", now)
		return err
	})
	if err != nil {
		return err
	}
	for from := 0; from < machines; from += fillBatch {
		err := st.Write(ctx, func(tx store.Tx) error {
			var fresh []store.Change
			for i := from; i < min(from+fillBatch, machines); i++ {
				fresh = append(fresh, store.Change{After: &fleet.Machine{
					App: omaha.SemperApp, ID: name(i), Arch: "amd64", Version: "1.0.0", Channel: "stable", BootID: "{" + name(i) + "}", Platform: "qemu", FirstVersion: "1.0.0",
					Address: "127.0.0.1", State: fleet.Complete, StateSince: now, Target: "1.0.0", FirstSeen: now, LastSeen: now,
				}})
			}
			return tx.PutMachines(ctx, fresh)
		})
		if err != nil {
			return fmt.Errorf("machines from %d: %w", from, err)
		}
	}
	return nil
}
