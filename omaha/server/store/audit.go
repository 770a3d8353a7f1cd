package store

import (
	"context"
	"strconv"
	"strings"

	"github.com/semper-os/semper/omaha/server/fleet"
)

const (
	// MaxAudit is how many entries of the audit log are kept.
	MaxAudit = 100_000

	// auditRows bounds how many entries one search looks at.
	auditRows = 20_000
)

// AddAudit keeps an entry of the audit log, and forgets the oldest ones beyond MaxAudit.
func (tx Tx) AddAudit(ctx context.Context, a *fleet.Audit) error {
	err := tx.q.row(ctx, "INSERT INTO audit (at, who, what, subject, detail, was, became) VALUES (?, ?, ?, ?, ?, ?, ?) RETURNING id",
		millis(a.At), a.Who, a.What, a.Subject, a.Detail, a.Before, a.After).Scan(&a.ID)
	if err == nil {
		_, err = tx.q.exec(ctx, "DELETE FROM audit WHERE id <= ?", a.ID-MaxAudit)
	}
	return failed("keep an audit entry", err)
}

// Audits lists entries of the audit log, newest first: those before the one with an id, where that is not 0, which have a text somewhere, where there is one. The search goes on before the
// entry next; 0: it has come to its end.
func (tx Tx) Audits(ctx context.Context, before int64, text string, limit int) (entries []fleet.Audit, next int64, err error) {
	where, args := "", []any{before}
	if text != "" {
		where = ` WHERE lower(who) LIKE ?2 ESCAPE '\' OR lower(what) LIKE ?2 ESCAPE '\' OR lower(subject) LIKE ?2 ESCAPE '\' OR lower(detail) LIKE ?2 ESCAPE '\'
			OR lower(was) LIKE ?2 ESCAPE '\' OR lower(became) LIKE ?2 ESCAPE '\'`
		args = append(args, containing(text))
	}
	entries, err = list(ctx, tx.q, "list the audit log", func(a *fleet.Audit, scan func(...any) error) error {
		var at int64
		err := scan(&a.ID, &at, &a.Who, &a.What, &a.Subject, &a.Detail, &a.Before, &a.After)
		a.At = fromMillis(at)
		return err
	}, "SELECT id, at, who, what, subject, detail, was, became FROM (SELECT * FROM audit WHERE ?1 = 0 OR id < ?1 ORDER BY id DESC LIMIT "+
		strconv.Itoa(auditRows)+") AS audit"+where+" ORDER BY id DESC LIMIT "+strconv.Itoa(limit), args...)
	if err != nil || len(entries) == limit {
		if len(entries) > 0 {
			next = entries[len(entries)-1].ID
		}
		return entries, next, err
	}
	last, err := list(ctx, tx.q, "list the audit log", func(id *int64, scan func(...any) error) error { return scan(id) },
		"SELECT id FROM audit WHERE ?1 = 0 OR id < ?1 ORDER BY id DESC LIMIT 1 OFFSET "+strconv.Itoa(auditRows-1), before)
	if len(last) > 0 {
		next = last[0]
	}
	return entries, next, err
}

// containing is a pattern of LIKE for lower-case texts that have a part.
func containing(part string) string {
	return "%" + strings.NewReplacer(`\`, `\\`, "%", `\%`, "_", `\_`).Replace(strings.ToLower(part)) + "%"
}
