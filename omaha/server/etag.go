package server

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"

	"github.com/semper-os/semper/fault"
)

// etag names a state of something: what people change of it, and not what changes by itself.
func etag(parts ...any) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v", parts))
	return `"` + hex.EncodeToString(sum[:8]) + `"`
}

// unchanged refuses a request that says with If-Match which state it is about, when that is not what there is now. It belongs into the transaction that makes the change.
func unchanged(r *http.Request, what string, now func() (string, error)) error {
	want := r.Header.Get("If-Match")
	if want == "" {
		return nil
	}
	is, err := now()
	if err != nil {
		return err
	}
	for tag := range strings.SplitSeq(want, ",") {
		if tag = strings.TrimSpace(tag); tag == "*" || tag == is {
			return nil
		}
	}
	return httpError{http.StatusPreconditionFailed, fault.New(fault.Input, "%s was changed since you looked: look again, and decide anew", what)}
}
