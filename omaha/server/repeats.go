package server

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/omaha/server/store"
)

// A POST may come with an Idempotency-Key. When its answer got lost it is sent again with the same key, and is not done again: it gets the same answer. The key is kept in the transaction
// that does what is asked for (once), and the answer after it: where the server ended between the two, the repeat is told that it was done. Answers with secrets are not kept.

const (
	repeatHeader = "Idempotency-Key"
	maxRepeatKey = 200
)

// secretAnswers are the operations whose answers are told once.
var secretAnswers = map[string]bool{"NewToken": true, "NewWebhook": true}

type repeatKey struct{}

// repeatable lets an operation be sent again.
func (s *Server) repeatable(o *api.Operation, next handler) handler {
	return func(w http.ResponseWriter, r *http.Request) error {
		key := r.Header.Get(repeatHeader)
		if key == "" {
			return next(w, r)
		}
		if len(key) > maxRepeatKey {
			return fault.New(fault.Input, "%s: at most %d bytes", repeatHeader, maxRepeatKey)
		}
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, api.MaxBody))
		if err != nil {
			return fault.New(fault.Input, "read the request: %w", err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		asked := &store.Request{
			Key:     sha256.Sum256(fmt.Appendf(nil, "%q %q %q", who(r), callerOf(r).person, key)),
			Content: sha256.Sum256(fmt.Appendf(nil, "%q %q", r.Method+" "+r.URL.RequestURI(), body)),
			At:      s.cfg.Now().UTC(),
		}
		known, err := s.store.Read().Request(r.Context(), asked.Key)
		switch {
		case errors.Is(err, store.ErrNotFound):
		case err != nil:
			return err
		default:
			return repeated(w, &known, asked)
		}
		kept := &keptAnswer{ResponseWriter: w}
		if err := next(kept, r.WithContext(context.WithValue(r.Context(), repeatKey{}, asked))); err != nil || secretAnswers[o.Name] {
			return err
		}
		asked.Status, asked.Answer = http.StatusOK, kept.body.Bytes()
		ctx := context.WithoutCancel(r.Context())
		if err := s.store.Write(ctx, func(tx store.Tx) error { return tx.PutRequest(ctx, asked) }); err != nil {
			s.cfg.Log.Error("an answer was not kept for repeats", "operation", o.Name, "error", err) // it was done and is answered
		}
		return nil
	}
}

// once makes a request that may be sent again known, in the transaction that does what it asks for.
func (s *Server) once(ctx context.Context, r *http.Request, tx store.Tx) error {
	asked, ok := r.Context().Value(repeatKey{}).(*store.Request)
	if !ok {
		return nil
	}
	if _, err := tx.Request(ctx, asked.Key); err == nil {
		return conflict("a request with this %s is being done", repeatHeader)
	} else if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return tx.PutRequest(ctx, asked)
}

func repeated(w http.ResponseWriter, known, asked *store.Request) error {
	switch {
	case known.Content != asked.Content:
		return conflict("the %s was used for another request: each needs one of its own", repeatHeader)
	case known.Status == 0:
		return conflict("a request with this %s was done, and what it was answered is told once: look what there is now", repeatHeader)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("Idempotent-Replayed", "true")
	w.WriteHeader(known.Status)
	_, _ = w.Write(known.Answer) // whoever left does not miss it
	return nil
}

// keptAnswer keeps what is written.
type keptAnswer struct {
	http.ResponseWriter
	body bytes.Buffer
}

func (k *keptAnswer) Write(p []byte) (int, error) {
	k.body.Write(p)
	return k.ResponseWriter.Write(p)
}
