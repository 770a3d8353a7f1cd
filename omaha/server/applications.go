package server

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

var (
	appID       = regexp.MustCompile(`^\{[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\}$`)
	appName     = regexp.MustCompile(`^[a-z][a-z0-9-]{0,31}$`)
	channelName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
)

// Applications lists them, by name.
func Applications(ctx context.Context, tx store.Tx) (api.Applications, error) {
	apps, err := tx.Applications(ctx)
	if err != nil {
		return api.Applications{}, err
	}
	out := api.Applications{Applications: []api.Application{}}
	for _, a := range apps {
		out.Applications = append(out.Applications, api.Application{ID: a.ID, Name: a.Name, Created: a.Created})
	}
	return out, nil
}

// AddApplication adds one, with its channels for each architecture.
func AddApplication(ctx context.Context, tx store.Tx, name, id string, channels []string, who string, now time.Time) error {
	a := fleet.Application{ID: normalAppID(id), Name: name, Created: now}
	if !appID.MatchString(a.ID) {
		return fault.New(fault.Input, "application id %.100q: want a UUID", id)
	}
	if !appName.MatchString(name) {
		return fault.New(fault.Input, "application %.100q: want 1 to 32 lower-case letters, digits and '-'", name)
	}
	for _, have := range []string{a.ID, name} {
		if known, err := tx.Application(ctx, have); err == nil {
			return conflict("there is an application %s with the id %s already", known.Name, known.ID)
		} else if !errors.Is(err, store.ErrNotFound) {
			return err
		}
	}
	if err := tx.AddApplication(ctx, a); err != nil {
		return err
	}
	for _, c := range channels {
		if !channelName.MatchString(c) {
			return fault.New(fault.Input, "channel %.100q: want 1 to 64 letters, digits, '.', '_' and '-'", c)
		}
		for _, arch := range []string{"amd64", "arm64"} {
			if err := tx.AddChannel(ctx, fleet.Channel{App: a.ID, Name: c, Arch: arch, Updated: now}); err != nil {
				return err
			}
		}
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "app-add", Subject: "application " + name, Detail: a.ID, After: "channels " + strings.Join(channels, ", ")})
}
