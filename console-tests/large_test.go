package consoletests

import (
	"context"
	"fmt"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/omaha/server/store"
)

const (
	largeMachines = 1_000_000
	largeReleases = 1000
	largeRollouts = 300
	largeBatch    = 20_000 // machines in one transaction
)

func largeVersion(n int) string { return fmt.Sprintf("%d.%d.0", 1+n/100, n%100) }

// fillLarge gives a server the state of a large and old fleet: releases, rollouts that are over and one under way, a week of counts, and machines of which one in a thousand failed,
// one in a hundred is silent for days, and one in fifty is retired.
func (r *running) fillLarge(ctx context.Context) {
	now := r.now().UTC()
	const channel, arch = "stable", "amd64"
	last := largeVersion(largeReleases - 1)
	r.write(func(tx store.Tx) error {
		for n := range largeReleases {
			rel := fleet.Release{App: omaha.SemperApp, Arch: arch, Version: largeVersion(n), Published: now.Add(-time.Duration(largeReleases-n) * 12 * time.Hour)}
			e := api.External{URLs: []string{"https://cdn.example.org/"}, Name: "full.crau", Size: 160 << 20, SHA256: fmt.Sprintf("%064x", n+1), SHA1: fmt.Sprintf("%040x", n+1)}
			if err := server.AddExternal(ctx, tx, &rel, &e, "bench"); err != nil {
				return err
			}
			if err := tx.PutPackages(ctx, rel.ID, packagesOf(rel.Version, arch)); err != nil {
				return err
			}
		}
		if _, err := server.SetChannel(ctx, tx, omaha.SemperApp, channel, arch, largeVersion(largeReleases-2), "bench", now); err != nil {
			return err
		}
		_, err := server.AddGroup(ctx, tx, omaha.SemperApp, "canaries", "bench", now)
		return err
	})
	r.write(func(tx store.Tx) error { return largePlans(ctx, tx, channel, arch, now) })
	var open int64
	r.write(func(tx store.Tx) error {
		ro := fleet.Rollout{App: omaha.SemperApp, Channel: channel, Arch: arch}
		ro.Plan = rollout.Plan{Ramp: rollout.Ramp{Over: hours(48)}, Halt: rollout.Limit{Percent: 50}}
		if err := server.PlanRollout(ctx, tx, &ro, last, "bench", now); err != nil {
			return err
		}
		open = ro.ID
		_, err := server.SteerRollout(ctx, tx, ro.ID, "start", "", "bench", now)
		return err
	})
	for from := 0; from < largeMachines; from += largeBatch {
		r.write(func(tx store.Tx) error { return largeFleet(ctx, tx, open, from, now) })
	}
	r.write(func(tx store.Tx) error {
		for ago := 7 * 24 * time.Hour; ago > 0; ago -= store.SampleEvery {
			if err := tx.AddSample(ctx, omaha.SemperApp, now.Add(-ago)); err != nil {
				return err
			}
		}
		return nil
	})
}

// largePlans leaves rollouts behind that came to nothing.
func largePlans(ctx context.Context, tx store.Tx, channel, arch string, now time.Time) error {
	for n := range largeRollouts {
		ro := fleet.Rollout{App: omaha.SemperApp, Channel: channel, Arch: arch}
		ro.Plan.Ramp.Over = hours(24)
		if err := server.PlanRollout(ctx, tx, &ro, largeVersion(largeReleases-3-n), "bench", now); err != nil {
			return err
		}
		if _, err := server.SteerRollout(ctx, tx, ro.ID, "abort", "superseded", "bench", now); err != nil {
			return err
		}
	}
	return nil
}

// largeFleet adds some of the machines, with an event each; half of those with the newest release have it from the rollout.
func largeFleet(ctx context.Context, tx store.Tx, open int64, from int, now time.Time) error {
	var changes []store.Change
	for n := from; n < from+largeBatch; n++ {
		var steps []store.MachineStep
		m := &fleet.Machine{
			App: omaha.SemperApp, ID: largeID(n), Alias: fmt.Sprintf("rack%02d-node%05d", n%64, n/64), Arch: "amd64", Channel: "stable", Version: largeVersion(largeReleases - 2),
			BootID: "{" + largeID(n) + "}", Platform: []string{"metal", "aws", "azure", "gcp", "qemu"}[n%5], FirstVersion: largeVersion(n % 900), Address: fmt.Sprintf("10.%d.%d.%d", n>>16&255, n>>8&255, n&255),
			State: fleet.Complete, StateSince: now.Add(-time.Duration(n%1000) * time.Hour), FirstSeen: now.Add(-1000 * time.Hour), LastSeen: now.Add(-time.Duration(n%2700) * time.Second), Events: 1,
		}
		switch {
		case n%1000 == 7:
			m.State, m.Target, m.Detail = fleet.Failed, largeVersion(largeReleases-1), "check web failed"
		case n%100 == 8:
			m.LastSeen = now.Add(-time.Duration(2+n%20) * 24 * time.Hour)
		case n%10 == 9:
			m.Version = largeVersion(largeReleases - 3 - n%40)
		case n%10 == 6:
			m.Version = largeVersion(largeReleases - 1)
			steps = append(steps, store.MachineStep{Rollout: open, RolloutStep: fleet.RolloutStep{Machine: m.ID, Step: rollout.Complete, Since: now}})
		}
		done := fleet.Event{At: m.StateSince}
		done.Type, done.Result, done.Version = omaha.EventUpdateComplete, omaha.ResultSuccessReboot, m.Version
		changes = append(changes, store.Change{After: m, Events: []fleet.Event{done}, Steps: steps})
	}
	return tx.PutMachines(ctx, changes)
}

// largeID is in order: a database is filled faster so.
func largeID(n int) string { return fmt.Sprintf("%08x%024x", n, uint64(n+1)*0x9e3779b97f4a7c15) }
