package store

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestDeliveries(t *testing.T) {
	onBoth(t, func(t *testing.T, name string) {
		s, _ := filled(t, name)
		ctx := t.Context()
		write(t, s, func(tx Tx) error {
			if err := tx.AddWebhook(ctx, &Webhook{ID: "w", URL: "https://x", Secret: "s", Events: []string{"halt", "done"}, Created: now}); err != nil {
				return err
			}
			for i := range MaxDeliveries + 5 {
				if err := tx.AddDelivery(ctx, &Delivery{Webhook: "w", Event: "halt", Body: []byte{'b'}, At: now.Add(time.Duration(i) * time.Second)}); err != nil {
					return err
				}
			}
			return nil
		})
		due, err := s.Read().DueDeliveries(ctx, now.Add(7*time.Second), 100)
		if err != nil || len(due) != 3 { // of 5, 6 and 7: older ones were forgotten
			t.Fatalf("%d due (%v)", len(due), err)
		}
		d := due[0]
		d.Attempts, d.Done, d.Status, d.Error = 1, true, 200, "e"
		write(t, s, func(tx Tx) error { return tx.PutDelivery(ctx, &d) })
		if n, err := s.Read().WaitingDeliveries(ctx, "w"); err != nil || n != MaxDeliveries-1 {
			t.Errorf("%d wait (%v)", n, err)
		}
		all, err := s.Read().Deliveries(ctx, "w", MaxDeliveries+1)
		if err != nil || len(all) != MaxDeliveries || fmt.Sprint(all[MaxDeliveries-1]) != fmt.Sprint(d) {
			t.Errorf("%d deliveries, the oldest %+v (%v)", len(all), all[len(all)-1], err)
		}
		if hooks, err := s.Read().Webhooks(ctx); err != nil || len(hooks) != 1 || fmt.Sprint(hooks[0].Events) != "[halt done]" {
			t.Errorf("webhooks %+v (%v)", hooks, err)
		}
		write(t, s, func(tx Tx) error { return tx.DeleteWebhook(ctx, "w") })
		if all, err := s.Read().Deliveries(ctx, "w", 1); err != nil || len(all) != 0 {
			t.Errorf("%d deliveries of no webhook (%v)", len(all), err)
		}
		err = s.Write(ctx, func(tx Tx) error { return tx.DeleteWebhook(ctx, "w") })
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("error %v", err)
		}
	})
}
