package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

// Channels lists an application's channels.
func Channels(ctx context.Context, tx store.Tx, app string) (api.Channels, error) {
	channels, err := tx.Channels(ctx, app)
	if err != nil {
		return api.Channels{}, err
	}
	out := api.Channels{Channels: []api.Channel{}}
	all, err := tx.AllFreshness(ctx)
	if err != nil {
		return out, err
	}
	for i := range channels {
		c := describeChannel(&channels[i])
		for j := range all {
			if f := &all[j]; f.App == app && f.Channel == c.Name && f.Arch == c.Arch {
				c.Freshness = describeFreshness(f)
			}
		}
		out.Channels = append(out.Channels, c)
	}
	return out, nil
}

// SetChannel makes a published release the current one of a channel. An older release than the current one is accepted: it stops the
// newer one's spread, and no machine goes back.
func SetChannel(ctx context.Context, tx store.Tx, app, name, arch, version, who string, now time.Time) (api.Channel, error) {
	before, err := tx.Channel(ctx, app, name, arch)
	if err != nil {
		return api.Channel{}, err
	}
	release, err := tx.Release(ctx, app, arch, version)
	if errors.Is(err, store.ErrNotFound) {
		return api.Channel{}, httpError{http.StatusConflict, fault.New(fault.Input, "version %q for %s is not published: its files must be there before a channel can offer it", version, arch)}
	}
	if err != nil {
		return api.Channel{}, err
	}
	if !release.Withdrawn.IsZero() {
		return api.Channel{}, conflict("%s for %s was withdrawn: %s", version, arch, release.WithdrawnWhy)
	}
	if err := tx.SetChannel(ctx, app, name, arch, release.ID, now); err != nil {
		return api.Channel{}, err
	}
	if err := auditChannel(ctx, tx, &before, &release, "", who, now); err != nil {
		return api.Channel{}, err
	}
	c, err := tx.Channel(ctx, app, name, arch)
	out := describeChannel(&c)
	if err != nil {
		return out, err
	}
	f, err := tx.Freshness(ctx, app, name, arch)
	if errors.Is(err, store.ErrNotFound) {
		return out, nil
	}
	out.Freshness = describeFreshness(&f)
	return out, err
}

// Releases lists an application's releases.
func Releases(ctx context.Context, tx store.Tx, app string) (api.Releases, error) {
	releases, err := tx.Releases(ctx, app)
	if err != nil {
		return api.Releases{}, err
	}
	out := api.Releases{Releases: []api.Release{}}
	for i := range releases {
		out.Releases = append(out.Releases, describeRelease(&releases[i]))
	}
	return out, nil
}

// MachineDetail tells all about one machine, and what it would be answered if it asked now.
func MachineDetail(ctx context.Context, tx store.Tx, app, id string, now time.Time) (api.MachineDetail, error) {
	m, err := tx.Machine(ctx, app, id)
	if err != nil {
		return api.MachineDetail{}, err
	}
	out := api.MachineDetail{Machine: describeMachine(&m), FailedVersions: []api.Failure{}, Events: []api.Event{}}
	if out.Why, err = Why(ctx, tx, &m, now); err != nil {
		return out, err
	}
	groups, err := tx.GroupsOf(ctx, app, []string{id})
	if err != nil {
		return out, err
	}
	out.Group = groups[id]
	pin, err := tx.Pin(ctx, app, id)
	if err != nil {
		return out, err
	}
	if pin != nil {
		out.Pin = &api.Pin{Version: pin.Version, Reason: pin.Why, By: pin.Who, At: pin.At}
	}
	failures, err := tx.Failures(ctx, app, id)
	if err != nil {
		return out, err
	}
	for _, f := range failures {
		out.FailedVersions = append(out.FailedVersions, api.Failure{Version: f.Version, At: f.At, Code: int64(f.Code), Reason: f.Reason})
	}
	events, err := tx.Events(ctx, app, id)
	if err != nil {
		return out, err
	}
	for i := range events {
		out.Events = append(out.Events, describeEvent(&events[i]))
	}
	return out, nil
}

// Why says what a machine would be answered if it asked now.
func Why(ctx context.Context, tx store.Tx, m *fleet.Machine, now time.Time) (api.Why, error) {
	known, err := recordsOf(ctx, tx, m)
	if err != nil {
		return api.Why{}, fmt.Errorf("why machine %s has no update: %w", m.ID, err)
	}
	asking := *m
	c := known.course(&asking)
	q := known.question(&asking, &c, nil)
	q.Now = now
	d := fleet.Decide(q)
	out := api.Why{Cause: string(d.Cause), Sentence: d.Reason, Next: d.Next}
	if d.Offer != nil {
		out.Offer = d.Offer.Version
	}
	if c.rollout != nil {
		out.Rollout = c.rollout.ID
	}
	return out, nil
}

func recordsOf(ctx context.Context, tx store.Tx, m *fleet.Machine) (*records, error) {
	p, err := loadPolicy(ctx, tx)
	if err != nil {
		return nil, err
	}
	known, err := readRecords(ctx, tx, p, []fleet.Machine{*m})
	if err != nil {
		return nil, err
	}
	return known, known.readPinned(ctx, tx, m)
}

func describeMachine(m *fleet.Machine) api.Machine {
	return api.Machine{
		ID: m.ID, Alias: m.Alias, Arch: m.Arch, Version: m.Version, Channel: m.Channel, State: string(m.State), StateSince: m.StateSince,
		Target: m.Target, Detail: m.Detail, Platform: m.Platform, FirstVersion: m.FirstVersion, BootID: m.BootID, Address: m.Address,
		FirstSeen: m.FirstSeen, LastSeen: m.LastSeen, Retired: m.Retired,
	}
}

func describeEvent(e *fleet.Event) api.Event {
	return api.Event{
		At: e.At, Type: int(e.Type), Result: int(e.Result), Code: int64(e.ErrorCode), Version: e.Version,
		PreviousVersion: e.PreviousVersion, NextVersion: e.NextVersion, Reason: e.Reason, Sentence: e.Sentence(),
	}
}

func describeChannel(c *fleet.Channel) api.Channel {
	out := api.Channel{Name: c.Name, Arch: c.Arch, Updated: c.Updated}
	if c.Release != nil {
		out.Version = c.Release.Version
	}
	out.ETag = etag(out)
	return out
}

func describeFreshness(f *fleet.Freshness) *api.Freshness {
	return &api.Freshness{Channel: f.Channel, Arch: f.Arch, Version: f.Version, Issued: f.Issued, Expires: f.Expires, Sequence: f.Sequence}
}

func describeRelease(r *fleet.Release) api.Release {
	return api.Release{
		ETag:    etag(r.ID, r.Road, r.RoadWhy, r.Withdrawn),
		Version: r.Version, Arch: r.Arch, MinVersion: r.MinVersion, Road: string(r.Road), RoadWhy: r.RoadWhy, Published: r.Published,
		Payload: api.File{Name: r.Payload.Name, Size: r.Payload.Size, SHA256: hex.EncodeToString(r.Payload.SHA256[:])}, URLs: r.URLs,
		Withdrawn: r.Withdrawn, WithdrawnWhy: r.WithdrawnWhy,
	}
}
