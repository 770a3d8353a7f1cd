package server

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/fleet"
	"github.com/semper-os/semper/omaha/server/store"
	"github.com/semper-os/semper/omaha/server/webhooks"
)

// What webhooks are told is kept in the transaction in which it happens, and brought afterwards, until it is taken: at least once, also across a crash, and by one of several servers at a time.

const (
	alertEvery    = 2 * time.Second
	alertBatch    = 16
	alertLease    = time.Minute // how long a server that took a message may need to bring it
	alertMachines = 20          // that are named in one message
	maxAlertError = 200
)

// alert is the body of what webhooks are told.
type alert struct {
	Type      string     `json:"type"`
	Timestamp time.Time  `json:"timestamp"`
	Data      alertAbout `json:"data"`
}

type alertAbout struct {
	App      string   `json:"app,omitempty"` // its id
	Rollout  int64    `json:"rollout,omitempty"`
	Version  string   `json:"version,omitempty"`
	Channel  string   `json:"channel,omitempty"`
	Arch     string   `json:"arch,omitempty"`
	Reason   string   `json:"reason"`
	Machines []string `json:"machines,omitempty"` // some of those that it is about
	Page     string   `json:"page"`               // of the console
}

func aboutRollout(r *fleet.Rollout, reason string) alertAbout {
	return alertAbout{App: r.App, Rollout: r.ID, Version: r.Version, Channel: r.Channel, Arch: r.Arch, Reason: reason, Page: rolloutPage(r.ID)}
}

// announce has the webhooks told that want to know of an event.
func announce(ctx context.Context, tx store.Tx, event string, about alertAbout, now time.Time) error {
	hooks, err := tx.Webhooks(ctx)
	if err != nil {
		return err
	}
	for i := range hooks {
		if slices.Contains(hooks[i].Events, event) {
			if err := tell(ctx, tx, &hooks[i], event, about, now); err != nil {
				return err
			}
		}
	}
	return nil
}

func tell(ctx context.Context, tx store.Tx, hook *store.Webhook, event string, about alertAbout, now time.Time) error {
	body, err := json.Marshal(alert{Type: event, Timestamp: now.UTC(), Data: about})
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	return tx.AddDelivery(ctx, &store.Delivery{Webhook: hook.ID, Event: event, Body: body, At: now})
}

// runAlerts brings what webhooks are to be told, until ctx ends.
func (s *Server) runAlerts(ctx context.Context) {
	sender := webhooks.NewSender()
	tick := time.NewTicker(alertEvery)
	defer tick.Stop()
	for {
		if err := s.bringAlerts(ctx, sender); err != nil && ctx.Err() == nil {
			s.cfg.Log.Error("webhooks could not be looked through", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// bringAlerts makes one attempt of each message that is due.
func (s *Server) bringAlerts(ctx context.Context, sender *webhooks.Sender) error {
	now := s.cfg.Now().UTC()
	due, err := s.store.Read().DueDeliveries(ctx, now, alertBatch)
	if err != nil || len(due) == 0 {
		return err
	}
	var hooks []store.Webhook
	err = s.store.Write(ctx, func(tx store.Tx) error { // only one server finds them due
		if hooks, err = tx.Webhooks(ctx); err != nil {
			return err
		}
		if due, err = tx.DueDeliveries(ctx, now, alertBatch); err != nil {
			return err
		}
		for i := range due {
			d := due[i]
			d.Next = now.Add(alertLease)
			if err := tx.PutDelivery(ctx, &d); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for i := range due {
		at := slices.IndexFunc(hooks, func(h store.Webhook) bool { return h.ID == due[i].Webhook })
		if at < 0 {
			continue // it was forgotten, and with it what it was to be told
		}
		all.Go(func() { s.attempt(ctx, sender, &hooks[at], &due[i]) })
	}
	all.Wait()
	ctx = context.WithoutCancel(ctx)
	return s.store.Write(ctx, func(tx store.Tx) error {
		for i := range due {
			if err := tx.PutDelivery(ctx, &due[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Server) attempt(ctx context.Context, sender *webhooks.Sender, hook *store.Webhook, d *store.Delivery) {
	status, err := sender.Send(ctx, &webhooks.Message{ID: d.ID, URL: hook.URL, Secret: hook.Secret, Body: d.Body}, s.cfg.Now())
	if ctx.Err() != nil { // the server ends: it was not tried
		return
	}
	d.Attempts++
	d.Status, d.Error, d.Done = status, "", err == nil
	if err == nil {
		return
	}
	d.Error = err.Error()
	d.Error = d.Error[:min(len(d.Error), maxAlertError)]
	delay, more := webhooks.Delay(d.Attempts)
	d.Next, d.Done = s.cfg.Now().UTC().Add(delay), !more
	s.cfg.Log.Warn("webhook was not told", "webhook", hook.ID, "event", d.Event, "attempt", d.Attempts, "error", err, "given_up", !more)
}

// Webhooks lists all webhooks, and how they were told.
func Webhooks(ctx context.Context, tx store.Tx) (api.Webhooks, error) {
	hooks, err := tx.Webhooks(ctx)
	out := api.Webhooks{Webhooks: []api.Webhook{}}
	for i := range hooks {
		h := describeWebhook(&hooks[i])
		if h.Waiting, err = tx.WaitingDeliveries(ctx, h.ID); err != nil {
			return out, err
		}
		last, err := tx.LastDelivery(ctx, h.ID)
		if err != nil {
			return out, err
		}
		if last != nil {
			h.Last = &api.Delivery{Event: last.Event, At: last.At, Attempts: last.Attempts, Brought: last.Done && last.Error == "", Status: last.Status, Error: last.Error}
		}
		out.Webhooks = append(out.Webhooks, h)
	}
	return out, err
}

func describeWebhook(h *store.Webhook) api.Webhook {
	return api.Webhook{ID: h.ID, URL: h.URL, Events: h.Events, Created: h.Created, CreatedBy: h.CreatedBy}
}

// webhookHost is as much of a webhook's address as all may read who may read the audit log: the rest of it is a secret at many places.
func webhookHost(h *store.Webhook) string {
	u, err := url.Parse(h.URL)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

func toldOf(h *store.Webhook) string { return "told of " + strings.Join(h.Events, ", ") }

// AddWebhook has an address told of events.
func AddWebhook(ctx context.Context, tx store.Tx, random io.Reader, n *api.NewWebhook, who string, now time.Time) (api.MadeWebhook, error) {
	if err := webhooks.Check(n.URL, n.Events); err != nil {
		return api.MadeWebhook{}, err
	}
	all, err := tx.Webhooks(ctx)
	if err != nil {
		return api.MadeWebhook{}, err
	}
	if len(all) >= store.MaxWebhooks {
		return api.MadeWebhook{}, conflict("there are %d webhooks, no more are allowed", len(all))
	}
	secret, err := webhooks.NewSecret(random)
	if err != nil {
		return api.MadeWebhook{}, err
	}
	id := make([]byte, tokenIDBytes)
	if _, err := io.ReadFull(random, id); err != nil {
		return api.MadeWebhook{}, fault.New(fault.IO, "draw a webhook's id: %w", err)
	}
	hook := store.Webhook{ID: hex.EncodeToString(id), URL: n.URL, Secret: secret, Events: n.Events, Created: now, CreatedBy: who}
	if err := tx.AddWebhook(ctx, &hook); err != nil {
		return api.MadeWebhook{}, err
	}
	err = tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who, What: "webhook-new", Subject: "webhook " + hook.ID, Detail: webhookHost(&hook), After: toldOf(&hook)})
	return api.MadeWebhook{Webhook: describeWebhook(&hook), Secret: secret}, err
}

func (s *Server) webhooks(w http.ResponseWriter, r *http.Request) error {
	out, err := Webhooks(r.Context(), s.store.Read())
	if err != nil {
		return err
	}
	return reply(w, out)
}

func (s *Server) newWebhook(w http.ResponseWriter, r *http.Request) error {
	var n api.NewWebhook
	if err := read(w, r, &n); err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	var out api.MadeWebhook
	err := s.store.Write(ctx, func(tx store.Tx) (err error) {
		if err := s.once(ctx, r, tx); err != nil {
			return err
		}
		out, err = AddWebhook(ctx, tx, s.cfg.Random, &n, who(r), s.cfg.Now().UTC())
		return err
	})
	if err != nil {
		return err
	}
	return reply(w, out)
}

// webhook is the one that a request is about.
func webhook(ctx context.Context, tx store.Tx, r *http.Request) (*store.Webhook, error) {
	hooks, err := tx.Webhooks(ctx)
	if err != nil {
		return nil, err
	}
	at := slices.IndexFunc(hooks, func(h store.Webhook) bool { return h.ID == r.PathValue("id") })
	if at < 0 {
		return nil, fault.New(fault.Input, "webhook %.40q: %w", r.PathValue("id"), store.ErrNotFound)
	}
	return &hooks[at], nil
}

func (s *Server) deleteWebhook(w http.ResponseWriter, r *http.Request) error {
	ctx := context.WithoutCancel(r.Context())
	err := s.store.Write(ctx, func(tx store.Tx) error {
		hook, err := webhook(ctx, tx, r)
		if err != nil {
			return err
		}
		if err := tx.DeleteWebhook(ctx, hook.ID); err != nil {
			return err
		}
		return tx.AddAudit(ctx, &fleet.Audit{At: s.cfg.Now().UTC(), Who: who(r), What: "webhook-delete", Subject: "webhook " + hook.ID, Detail: webhookHost(hook), Before: toldOf(hook)})
	})
	if err != nil {
		return err
	}
	return reply(w, api.Nothing{})
}

func (s *Server) testWebhook(w http.ResponseWriter, r *http.Request) error {
	ctx := context.WithoutCancel(r.Context())
	err := s.store.Write(ctx, func(tx store.Tx) error {
		if err := s.once(ctx, r, tx); err != nil {
			return err
		}
		hook, err := webhook(ctx, tx, r)
		if err != nil {
			return err
		}
		now := s.cfg.Now().UTC()
		return errors.Join(tell(ctx, tx, hook, webhooks.Test, alertAbout{Reason: "a test, by " + who(r), Page: "/people"}, now),
			tx.AddAudit(ctx, &fleet.Audit{At: now, Who: who(r), What: "webhook-test", Subject: "webhook " + hook.ID, Detail: webhookHost(hook)}))
	})
	if err != nil {
		return err
	}
	return reply(w, api.Nothing{})
}
