package people

import (
	"encoding/base64"
	"encoding/binary"
	"io"
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
)

// Flow is a sign-in under way, as the browser keeps it in a cookie.
//
//	state.nonce.verifier.expires.next     each in base64url: 32 bytes, 32 bytes, 32 bytes, 8 bytes (seconds since 1970, big-endian), a path
type Flow struct {
	state, nonce, verifier string // in base64url, as they are sent
	expires                time.Time
	Next                   string // where the browser goes then; local
}

const drawn = 32 // bytes each of state, nonce and verifier

var encoding = base64.RawURLEncoding.Strict()

// maxFlow is as long as a Flow can be.
var maxFlow = 3*(encoding.EncodedLen(drawn)+1) + encoding.EncodedLen(8) + 1 + encoding.EncodedLen(MaxNext)

func newFlow(random io.Reader, next string, now time.Time) (*Flow, error) {
	bits := make([]byte, 3*drawn)
	if _, err := io.ReadFull(random, bits); err != nil {
		return nil, fault.New(fault.IO, "draw a state: %w", err)
	}
	part := func(i int) string { return encoding.EncodeToString(bits[i*drawn : (i+1)*drawn]) }
	return &Flow{part(0), part(1), part(2), now.Add(FlowLife).Truncate(time.Second), Local(next)}, nil
}

// String is the cookie's value.
func (f *Flow) String() string {
	expires := binary.BigEndian.AppendUint64(nil, uint64(f.expires.Unix()))
	return strings.Join([]string{f.state, f.nonce, f.verifier, encoding.EncodeToString(expires), encoding.EncodeToString([]byte(f.Next))}, ".")
}

// ParseFlow reads a cookie's value; there is none that is too old.
func ParseFlow(text string, now time.Time) (*Flow, error) {
	bad := fault.New(fault.Verification, "the sign-in did not begin in this browser, or too long ago")
	parts := strings.Split(text, ".")
	if len(text) > maxFlow || len(parts) != 5 {
		return nil, bad
	}
	for _, p := range parts[:3] {
		if b, err := encoding.DecodeString(p); err != nil || len(b) != drawn {
			return nil, bad
		}
	}
	expires, err := encoding.DecodeString(parts[3])
	if err != nil || len(expires) != 8 {
		return nil, bad
	}
	next, err := encoding.DecodeString(parts[4])
	if err != nil || string(next) != Local(string(next)) {
		return nil, bad
	}
	seconds := binary.BigEndian.Uint64(expires)
	if seconds > 1<<40 {
		return nil, bad
	}
	f := &Flow{parts[0], parts[1], parts[2], time.Unix(int64(seconds), 0), string(next)}
	if left := f.expires.Sub(now); left <= 0 || left > FlowLife {
		return nil, bad
	}
	return f, nil
}
