package server

import (
	"io"
	"net/http"
	"time"
)

// stallWriter gives every write a deadline of its own, so that a large payload may take hours as long as bytes move, and a client that
// stopped reading is let go.
type stallWriter struct {
	http.ResponseWriter
	c *http.ResponseController
}

func newStallWriter(w http.ResponseWriter) stallWriter {
	return stallWriter{w, http.NewResponseController(w)}
}

func (w stallWriter) Write(p []byte) (int, error) {
	if err := w.c.SetWriteDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	return w.ResponseWriter.Write(p)
}

// stallReader does the same for a request's body.
type stallReader struct {
	r io.Reader
	c *http.ResponseController
}

func (r stallReader) Read(p []byte) (int, error) {
	if err := r.c.SetReadDeadline(time.Now().Add(stallTimeout)); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
