package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
)

const maxMachineID = 128

func checkMachine(id string) error {
	if id == "" || len(id) > maxMachineID {
		return fault.New(fault.Input, "machine %.40q: an id has 1 to %d bytes", id, maxMachineID)
	}
	return nil
}

// AddGroup makes a group; one that is there stays as it is.
func AddGroup(ctx context.Context, tx store.Tx, app, name, who string, now time.Time) (fleet.Group, error) {
	if err := fleet.CheckGroup(name); err != nil {
		return fleet.Group{}, err
	}
	g, err := tx.Group(ctx, app, name)
	if !errors.Is(err, store.ErrNotFound) {
		return g, err
	}
	all, err := tx.Groups(ctx, app)
	if err != nil {
		return g, err
	}
	if len(all) >= store.MaxGroups {
		return g, conflict("there are %d groups, no more are allowed", len(all))
	}
	if err := tx.AddGroup(ctx, app, name, now); err != nil {
		return g, err
	}
	if err := tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "group-add", Subject: name, After: machinesOf(0)}); err != nil {
		return g, err
	}
	return tx.Group(ctx, app, name)
}

// DeleteGroup forgets a group that no rollout needs.
func DeleteGroup(ctx context.Context, tx store.Tx, app, name, who string, now time.Time) error {
	open, err := tx.Rollouts(ctx, app, true, maxOpenRollouts)
	if err != nil {
		return err
	}
	for i := range open {
		if open[i].Plan.Canary.Group == name {
			return conflict("the canaries of the rollout of %s in channel %s are group %s", open[i].Version, open[i].Channel, name)
		}
	}
	before, err := tx.Group(ctx, app, name)
	if errors.Is(err, store.ErrNotFound) {
		return fault.New(fault.Input, "there is no group %s: %w", name, store.ErrNotFound)
	}
	if err != nil {
		return err
	}
	if _, err := tx.DeleteGroup(ctx, app, name); err != nil {
		return err
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "group-delete", Subject: name, Before: machinesOf(before.Members)})
}

func machinesOf(members int64) string { return fmt.Sprintf("%d machines", members) }

// memberOf says in the audit log which group a machine is in.
func memberOf(group string) string {
	if group == "" {
		return "in no group"
	}
	return "in group " + group
}

// SetMember puts a machine, which need not have been seen yet, into a group, or with an empty name out of the one that it is in.
func SetMember(ctx context.Context, tx store.Tx, app, machine, group, who string, now time.Time) error {
	if err := checkMachine(machine); err != nil {
		return err
	}
	if group != "" {
		if _, err := tx.Group(ctx, app, group); errors.Is(err, store.ErrNotFound) {
			return conflict("there is no group %.100q: make it first", group)
		} else if err != nil {
			return err
		}
	}
	before, err := tx.GroupsOf(ctx, app, []string{machine})
	if err != nil {
		return err
	}
	if err := tx.SetMember(ctx, app, machine, group); err != nil {
		return err
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "machine-group", Subject: machine, Before: memberOf(before[machine]), After: memberOf(group)})
}

// PinMachine keeps a machine to a version, or with an empty one where it is. Neither need be known yet.
func PinMachine(ctx context.Context, tx store.Tx, p fleet.Pin) error {
	if err := checkMachine(p.Machine); err != nil {
		return err
	}
	if err := checkReason(p.Why); err != nil {
		return err
	}
	if p.Version != "" {
		if err := omaha.CheckVersion(p.Version); err != nil {
			return err
		}
	}
	before, err := tx.Pin(ctx, p.App, p.Machine)
	if err != nil {
		return err
	}
	if err := tx.PutPin(ctx, &p); err != nil {
		return err
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: p.At, Who: p.Who, What: "machine-pin", Subject: p.Machine, Before: pinned(before), After: pinned(&p)})
}

// pinned says in the audit log to what a machine is pinned, and why.
func pinned(p *fleet.Pin) string {
	switch {
	case p == nil:
		return "not pinned"
	case p.Version == "":
		return because("held where it is", p.Why)
	}
	return because("pinned to "+p.Version, p.Why)
}

// UnpinMachine lets a machine go with its channel again.
func UnpinMachine(ctx context.Context, tx store.Tx, app, machine, who string, now time.Time) error {
	before, err := tx.Pin(ctx, app, machine)
	if err != nil {
		return err
	}
	if before == nil {
		return fault.New(fault.Input, "machine %.100q is not pinned: %w", machine, store.ErrNotFound)
	}
	if _, err := tx.DeletePin(ctx, app, machine); err != nil {
		return err
	}
	return tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "machine-unpin", Subject: machine, Before: pinned(before), After: pinned(nil)})
}

// forgetFailures lets a machine have the versions again that failed on it, and returns how many there were.
func forgetFailures(ctx context.Context, tx store.Tx, app, machine, who string, now time.Time) (int64, error) {
	if _, err := tx.Machine(ctx, app, machine); err != nil {
		return 0, err
	}
	failed, err := tx.Failures(ctx, app, machine)
	if err != nil || len(failed) == 0 {
		return 0, err
	}
	n, err := tx.ForgetFailures(ctx, app, machine)
	if err != nil {
		return 0, err
	}
	versions := make([]string, len(failed))
	for i := range failed {
		versions[i] = failed[i].Version
	}
	return n, tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "machine-retry", Subject: machine, Before: "failed: " + strings.Join(versions, ", "), After: "none failed"})
}

// MarkRelease says what a release is on the way to newer ones.
func MarkRelease(ctx context.Context, tx store.Tx, app, arch, version string, road fleet.Road, why, who string, now time.Time) (fleet.Release, error) {
	if !road.Valid() {
		return fleet.Release{}, fault.New(fault.Input, "mark %.40q: want floor, dead-end, or nothing", string(road))
	}
	if err := checkReason(why); err != nil {
		return fleet.Release{}, err
	}
	if road == fleet.DeadEnd && why == "" {
		return fleet.Release{}, fault.New(fault.Input, "a dead end needs a reason: it is what the machines' owners are told")
	}
	r, err := tx.Release(ctx, app, arch, version)
	if err != nil {
		return r, err
	}
	before := marked(&r)
	if err := tx.MarkRelease(ctx, r.ID, road, why); err != nil {
		return r, err
	}
	r.Road, r.RoadWhy = road, why
	return r, tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "release-mark", Subject: releaseSubject(&r), Before: before, After: marked(&r)})
}

// marked says in the audit log what a release is on the way to newer ones, and why.
func marked(r *fleet.Release) string { return because(cmp.Or(string(r.Road), "open"), r.RoadWhy) }

// change does what a request asks for in one transaction.
func (s *Server) change(r *http.Request, do func(ctx context.Context, tx store.Tx, app string) error) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	return s.store.Write(ctx, func(tx store.Tx) error { return do(ctx, tx, app.ID) })
}

func (s *Server) groups(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	all, err := s.store.Read().Groups(r.Context(), app.ID)
	if err != nil {
		return err
	}
	out := api.Groups{Groups: []api.Group{}}
	for _, g := range all {
		out.Groups = append(out.Groups, DescribeGroup(g))
	}
	return reply(w, out)
}

// DescribeGroup is a group as it is shown.
func DescribeGroup(g fleet.Group) api.Group {
	return api.Group{Name: g.Name, Members: g.Members, Created: g.Created}
}

func (s *Server) group(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	tx := s.store.Read()
	g, err := tx.Group(r.Context(), app.ID, r.PathValue("name"))
	if err != nil {
		return err
	}
	out := api.Members{Group: DescribeGroup(g)}
	if out.Machines, err = tx.Members(r.Context(), app.ID, g.Name, query(r, "after", ""), limit); err != nil {
		return err
	}
	if len(out.Machines) == limit {
		out.Next = out.Machines[limit-1]
	}
	return reply(w, out)
}

func (s *Server) addGroup(w http.ResponseWriter, r *http.Request) error {
	var g fleet.Group
	err := s.change(r, func(ctx context.Context, tx store.Tx, app string) (err error) {
		g, err = AddGroup(ctx, tx, app, r.PathValue("name"), who(r), s.cfg.Now().UTC())
		return err
	})
	if err != nil {
		return err
	}
	return reply(w, DescribeGroup(g))
}

func (s *Server) deleteGroup(w http.ResponseWriter, r *http.Request) error {
	err := s.change(r, func(ctx context.Context, tx store.Tx, app string) error {
		return DeleteGroup(ctx, tx, app, r.PathValue("name"), who(r), s.cfg.Now().UTC())
	})
	if err != nil {
		return err
	}
	return reply(w, struct{}{})
}

func (s *Server) setMember(w http.ResponseWriter, r *http.Request) error {
	var m api.Member
	if err := read(w, r, &m); err != nil {
		return err
	}
	err := s.change(r, func(ctx context.Context, tx store.Tx, app string) error {
		return SetMember(ctx, tx, app, r.PathValue("id"), m.Group, who(r), s.cfg.Now().UTC())
	})
	if err != nil {
		return err
	}
	return reply(w, m)
}

func (s *Server) pin(w http.ResponseWriter, r *http.Request) error {
	var p api.Pin
	if err := read(w, r, &p); err != nil {
		return err
	}
	p.By, p.At = who(r), s.cfg.Now().UTC()
	err := s.change(r, func(ctx context.Context, tx store.Tx, app string) error {
		return PinMachine(ctx, tx, fleet.Pin{App: app, Machine: r.PathValue("id"), Version: p.Version, Why: p.Reason, Who: p.By, At: p.At})
	})
	if err != nil {
		return err
	}
	return reply(w, p)
}

func (s *Server) unpin(w http.ResponseWriter, r *http.Request) error {
	err := s.change(r, func(ctx context.Context, tx store.Tx, app string) error {
		return UnpinMachine(ctx, tx, app, r.PathValue("id"), who(r), s.cfg.Now().UTC())
	})
	if err != nil {
		return err
	}
	return reply(w, struct{}{})
}

func (s *Server) forgetFailures(w http.ResponseWriter, r *http.Request) error {
	var out api.Forgotten
	err := s.change(r, func(ctx context.Context, tx store.Tx, app string) (err error) {
		out.Forgotten, err = forgetFailures(ctx, tx, app, r.PathValue("id"), who(r), s.cfg.Now().UTC())
		return err
	})
	if err != nil {
		return err
	}
	return reply(w, out)
}

func (s *Server) markRelease(w http.ResponseWriter, r *http.Request) error {
	var road api.Road
	if err := read(w, r, &road); err != nil {
		return err
	}
	var release fleet.Release
	err := s.change(r, func(ctx context.Context, tx store.Tx, app string) (err error) {
		if err := releaseUnchanged(ctx, r, tx, app); err != nil {
			return err
		}
		release, err = MarkRelease(ctx, tx, app, query(r, "arch", api.DefaultArch), r.PathValue("version"), fleet.Road(road.Road), road.Reason, who(r), s.cfg.Now().UTC())
		return err
	})
	if err != nil {
		return err
	}
	return reply(w, describeRelease(&release))
}

func (s *Server) why(w http.ResponseWriter, r *http.Request) error {
	app, err := s.app(r)
	if err != nil {
		return err
	}
	tx := s.store.Read()
	m, err := tx.Machine(r.Context(), app.ID, r.PathValue("id"))
	if err != nil {
		return err
	}
	out, err := Why(r.Context(), tx, &m, s.cfg.Now().UTC())
	if err != nil {
		return err
	}
	return reply(w, out)
}
