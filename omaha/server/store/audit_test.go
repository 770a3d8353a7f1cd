package store

import (
	"fmt"
	"testing"
)

func TestAudits(t *testing.T) {
	onBoth(t, func(t *testing.T, name string) {
		s, _ := filled(t, name)
		ctx := t.Context()
		const entries = auditRows + 10
		write(t, s, func(tx Tx) error {
			rows := make([][]any, entries)
			for i := range rows {
				rows[i] = []any{millis(now), "Ada", "test", fmt.Sprintf("s%d", i), "", "b", "a"}
			}
			return tx.q.many(ctx, "INSERT INTO audit (at, who, what, subject, detail, was, became) VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
		})
		log, next, err := s.Read().Audits(ctx, 0, "", 3)
		if err != nil || len(log) != 3 || log[0].Subject != fmt.Sprintf("s%d", entries-1) || next != log[2].ID || log[0].Before != "b" || log[0].After != "a" {
			t.Fatalf("%+v, next %d (%v)", log, next, err)
		}
		if log, _, err := s.Read().Audits(ctx, 0, "B", 3); err != nil || len(log) != 3 { // in what they were before
			t.Errorf("%d entries (%v)", len(log), err)
		}
		log, next, err = s.Read().Audits(ctx, next, "S7", 10_000)
		if err != nil || len(log) == 0 || next == 0 { // s7 itself is older than what one search looks at
			t.Fatalf("%d, next %d (%v)", len(log), next, err)
		}
		log, next, err = s.Read().Audits(ctx, next, "ada", 10_000)
		if err != nil || len(log) != 7 || next != 0 {
			t.Errorf("%d entries, next %d (%v)", len(log), next, err)
		}
	})
}
