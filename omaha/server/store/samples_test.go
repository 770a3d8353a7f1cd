package store

import (
	"testing"
	"time"
)

func TestSamples(t *testing.T) {
	onBoth(t, func(t *testing.T, name string) {
		s, _ := filled(t, name)
		ctx := t.Context()
		begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
		if at, err := s.Read().LastSample(ctx, app); err != nil || !at.IsZero() {
			t.Errorf("last sample %v (%v)", at, err)
		}
		const days = 10
		write(t, s, func(tx Tx) error {
			for at := begin; at.Before(begin.Add(days * 24 * time.Hour)); at = at.Add(SampleEvery) {
				if err := tx.AddSample(ctx, app, at); err != nil {
					return err
				}
			}
			return nil
		})
		end := begin.Add(days * 24 * time.Hour)
		count := func(from, to time.Time, step time.Duration) int {
			t.Helper()
			all, err := s.Read().Samples(ctx, app, "stable", "", from, to, step)
			if err != nil {
				t.Fatal(err)
			}
			for _, sample := range all {
				if sample.Machines != 1 {
					t.Fatalf("sample %+v", sample)
				}
			}
			return len(all)
		}
		if n := count(begin, end, SampleEvery); n != days*96 {
			t.Errorf("%d samples", n)
		}
		if n := count(begin, end, 6*time.Hour); n != days*4 {
			t.Errorf("%d samples every six hours", n)
		}
		write(t, s, func(tx Tx) error {
			n, err := tx.ForgetSamples(ctx, app, end)
			if n != (days-7)*72 { // three quarters of them
				t.Errorf("%d forgotten", n)
			}
			return err
		})
		if n := count(begin, end, SampleEvery); n != 7*96+(days-7)*24 {
			t.Errorf("%d samples kept", n)
		}
		write(t, s, func(tx Tx) error {
			n, err := tx.ForgetSamples(ctx, app, end.Add(keepSamples))
			if want := int64(7*96 + (days-7)*24); n != want {
				t.Errorf("%d old ones forgotten, want %d", n, want)
			}
			return err
		})
	})
}
