package store

import (
	"context"
	"encoding/hex"
	"time"
)

// KeepRequests is how long a request that was sent again is known.
const KeepRequests = 24 * time.Hour

// Request is one that may be sent again, with the answer that it got.
type Request struct {
	Key     [32]byte // of who sent it and the key that it came with
	Content [32]byte // its hash
	At      time.Time
	Status  int // of the answer; 0: what it asks for was done, and the answer was not kept
	Answer  []byte
}

// Request returns the request with a key, or ErrNotFound.
func (tx Tx) Request(ctx context.Context, key [32]byte) (Request, error) {
	r := Request{Key: key}
	var content string
	var at int64
	err := tx.q.row(ctx, "SELECT request, at, status, answer FROM requests WHERE key = ?", hex.EncodeToString(key[:])).Scan(&content, &at, &r.Status, &r.Answer)
	if err == nil {
		r.At, err = fromMillis(at), unhex(r.Content[:], content)
	}
	return r, failed("look for a request", err)
}

// PutRequest keeps a request and forgets some that are old.
func (tx Tx) PutRequest(ctx context.Context, r *Request) error {
	if r.Answer == nil {
		r.Answer = []byte{}
	}
	_, err := tx.q.exec(ctx, `INSERT INTO requests (key, request, at, status, answer) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (key) DO UPDATE SET status = excluded.status, answer = excluded.answer`,
		hex.EncodeToString(r.Key[:]), hex.EncodeToString(r.Content[:]), millis(r.At), r.Status, r.Answer)
	if err == nil {
		_, err = tx.q.exec(ctx, "DELETE FROM requests WHERE key IN (SELECT key FROM requests WHERE at < ? ORDER BY at LIMIT 10)", millis(r.At.Add(-KeepRequests)))
	}
	return failed("keep a request", err)
}
