package store

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

func TestRequests(t *testing.T) {
	onBoth(t, func(t *testing.T, name string) {
		s, _ := filled(t, name)
		ctx := t.Context()
		r := Request{Key: [32]byte{1}, Content: [32]byte{2}, At: now}
		if _, err := s.Read().Request(ctx, r.Key); !errors.Is(err, ErrNotFound) {
			t.Errorf("error %v", err)
		}
		write(t, s, func(tx Tx) error { return tx.PutRequest(ctx, &r) })
		r.Status, r.Answer = 200, []byte("{}")
		write(t, s, func(tx Tx) error { return tx.PutRequest(ctx, &r) })
		if got, err := s.Read().Request(ctx, r.Key); err != nil || fmt.Sprint(got) != fmt.Sprint(r) {
			t.Errorf("request %+v (%v)", got, err)
		}
		write(t, s, func(tx Tx) error {
			return tx.PutRequest(ctx, &Request{Key: [32]byte{3}, At: now.Add(KeepRequests + time.Second)})
		})
		if _, err := s.Read().Request(ctx, r.Key); !errors.Is(err, ErrNotFound) {
			t.Errorf("an old request: %v", err)
		}
	})
}
