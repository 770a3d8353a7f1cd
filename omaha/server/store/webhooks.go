package store

import (
	"context"
	"fmt"
	"strings"
	"time"
)

const (
	// MaxWebhooks bounds the webhooks.
	MaxWebhooks = 50

	// MaxDeliveries bounds what waits, or was brought, for one webhook; the oldest are forgotten.
	MaxDeliveries = 1000
)

// Webhook is an address that is told of what happens.
type Webhook struct {
	ID        string
	URL       string
	Secret    string // signs what is sent; it is needed in the clear
	Events    []string
	Created   time.Time
	CreatedBy string
}

// AddWebhook keeps a webhook.
func (tx Tx) AddWebhook(ctx context.Context, w *Webhook) error {
	_, err := tx.q.exec(ctx, "INSERT INTO webhooks (id, url, secret, events, created_at, created_by) VALUES (?, ?, ?, ?, ?, ?)",
		w.ID, w.URL, w.Secret, strings.Join(w.Events, " "), millis(w.Created), w.CreatedBy)
	return failed("keep a webhook", err)
}

// Webhooks lists all webhooks, the oldest first.
func (tx Tx) Webhooks(ctx context.Context) ([]Webhook, error) {
	return list(ctx, tx.q, "list webhooks", func(w *Webhook, scan func(...any) error) error {
		var created int64
		var events string
		err := scan(&w.ID, &w.URL, &w.Secret, &events, &created, &w.CreatedBy)
		w.Created, w.Events = fromMillis(created), strings.Fields(events)
		return err
	}, "SELECT id, url, secret, events, created_at, created_by FROM webhooks ORDER BY created_at, id")
}

// DeleteWebhook forgets a webhook and what waits for it; ErrNotFound where there is none of that id.
func (tx Tx) DeleteWebhook(ctx context.Context, id string) error {
	n, err := tx.q.exec(ctx, "DELETE FROM webhooks WHERE id = ?", id)
	if err == nil && n == 0 {
		return fmt.Errorf("webhook %s: %w", id, ErrNotFound)
	}
	return failed("forget a webhook", err)
}

// Delivery is something that a webhook is told.
type Delivery struct {
	ID       int64
	Webhook  string
	Event    string
	Body     []byte
	At       time.Time
	Attempts int
	Next     time.Time // of the next attempt
	Done     bool      // brought, or given up
	Status   int       // of the last answer; 0: there was none
	Error    string    // of the last attempt
}

const deliveryColumns = "id, webhook, event, body, at, attempts, next, done, status, error"

func scanDelivery(d *Delivery, scan func(...any) error) error {
	var at, next int64
	err := scan(&d.ID, &d.Webhook, &d.Event, &d.Body, &at, &d.Attempts, &next, &d.Done, &d.Status, &d.Error)
	d.At, d.Next = fromMillis(at), fromMillis(next)
	return err
}

// AddDelivery has a webhook told something; what is too old is forgotten.
func (tx Tx) AddDelivery(ctx context.Context, d *Delivery) error {
	err := tx.q.row(ctx, "INSERT INTO deliveries (webhook, event, body, at, attempts, next, done, status, error) VALUES (?, ?, ?, ?, 0, ?, 0, 0, '') RETURNING id",
		d.Webhook, d.Event, d.Body, millis(d.At), millis(d.At)).Scan(&d.ID)
	if err == nil {
		_, err = tx.q.exec(ctx, `DELETE FROM deliveries WHERE id IN (SELECT id FROM deliveries WHERE webhook = ? ORDER BY id DESC LIMIT 10 OFFSET ?)`, d.Webhook, MaxDeliveries)
	}
	return failed("keep a delivery", err)
}

// DueDeliveries lists deliveries whose next attempt is due, the longest waiting first.
func (tx Tx) DueDeliveries(ctx context.Context, now time.Time, limit int) ([]Delivery, error) {
	return list(ctx, tx.q, "list deliveries", scanDelivery, "SELECT "+deliveryColumns+" FROM deliveries WHERE done = 0 AND next <= ? ORDER BY next, id LIMIT ?", millis(now), limit)
}

// PutDelivery keeps how an attempt went.
func (tx Tx) PutDelivery(ctx context.Context, d *Delivery) error {
	_, err := tx.q.exec(ctx, "UPDATE deliveries SET attempts = ?, next = ?, done = ?, status = ?, error = ? WHERE id = ?",
		d.Attempts, millis(d.Next), flag(d.Done), d.Status, d.Error, d.ID)
	return failed("keep a delivery", err)
}

// Deliveries lists the newest deliveries of a webhook, the newest first.
func (tx Tx) Deliveries(ctx context.Context, webhook string, limit int) ([]Delivery, error) {
	return list(ctx, tx.q, "list deliveries", scanDelivery, "SELECT "+deliveryColumns+" FROM deliveries WHERE webhook = ? ORDER BY id DESC LIMIT ?", webhook, limit)
}

// LastDelivery is the newest delivery of a webhook that was tried; nil: none was.
func (tx Tx) LastDelivery(ctx context.Context, webhook string) (*Delivery, error) {
	last, err := list(ctx, tx.q, "last delivery", scanDelivery, "SELECT "+deliveryColumns+" FROM deliveries WHERE webhook = ? AND attempts > 0 ORDER BY id DESC LIMIT 1", webhook)
	if err != nil || len(last) == 0 {
		return nil, err
	}
	return &last[0], nil
}

// WaitingDeliveries counts what was not brought to a webhook yet.
func (tx Tx) WaitingDeliveries(ctx context.Context, webhook string) (n int64, err error) {
	return n, failed("count deliveries", tx.q.row(ctx, "SELECT count(*) FROM deliveries WHERE webhook = ? AND done = 0", webhook).Scan(&n))
}
