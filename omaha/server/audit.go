package server

import (
	"net/http"
	"strconv"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha/server/api"
)

func (s *Server) audit(w http.ResponseWriter, r *http.Request) error {
	limit, err := limitOf(r)
	if err != nil {
		return err
	}
	before, err := strconv.ParseInt(query(r, "before", "0"), 10, 64)
	if err != nil || before < 0 {
		return fault.New(fault.Input, "before %.40q: want the next of the page before", query(r, "before", ""))
	}
	text, err := textOf(r)
	if err != nil {
		return err
	}
	log, next, err := s.store.Read().Audits(r.Context(), before, text, limit)
	if err != nil {
		return err
	}
	out := api.Audits{Entries: []api.Audit{}, Next: next}
	for _, a := range log {
		out.Entries = append(out.Entries, api.Audit(a))
	}
	return reply(w, out)
}

// maxText is how long a text may be that is searched for, in bytes.
const maxText = 200

// textOf is the text that a request searches for.
func textOf(r *http.Request) (string, error) {
	text := query(r, "text", "")
	if len(text) > maxText {
		return "", fault.New(fault.Input, "text: %d bytes, at most %d are searched for", len(text), maxText)
	}
	return text, nil
}
