package wire

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"
)

// slowPeer is a stream that writes down which deadlines were set, and runs into one where its bytes end.
type slowPeer struct {
	in     *bytes.Reader
	out    bytes.Buffer
	limits []string
}

func (p *slowPeer) Read(b []byte) (int, error) {
	if p.in.Len() == 0 {
		return 0, os.ErrDeadlineExceeded
	}
	return p.in.Read(b)
}
func (p *slowPeer) Write(b []byte) (int, error) { return p.out.Write(b) }

func (p *slowPeer) note(what string, t time.Time) error {
	// Which of the limits it is, not to the second: the test must not depend on how fast it runs.
	if left := time.Until(t); left > quietLimit/2 {
		what += " quiet"
	} else if left > 0 {
		what += " frame"
	}
	p.limits = append(p.limits, what)
	return nil
}
func (p *slowPeer) SetReadDeadline(t time.Time) error  { return p.note("read", t) }
func (p *slowPeer) SetWriteDeadline(t time.Time) error { return p.note("write", t) }

// A peer that sends a frame byte by byte, or none, does not hold the installer for ever: a frame's time runs from its first byte, whatever comes after.
func TestSlowLoris(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []byte
		want []string
		end  []string // what is left of the session
	}{
		{"says nothing", nil, []string{"read quiet"}, nil},
		{"one byte", []byte{0}, []string{"read quiet", "read frame"}, nil},
		{"half a frame", frame('C', `{"verb":"status"}`)[:12], []string{"read quiet", "read frame"}, nil},
		{"a frame, then nothing", frame('C', `{"verb":"status"}`), []string{"read quiet", "read frame", "write frame", "read quiet"}, []string{"status"}},
		{
			"a session, then nothing",
			frame('C', `{"verb":"begin","begin":{"sha256":"`+begin.SHA256+`","size":9,"version":"1"}}`),
			[]string{"read quiet", "read frame", "write frame", "read quiet"},
			[]string{"begin 1 9", "abort"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &recorder{}
			p := &slowPeer{in: bytes.NewReader(c.in)}
			if err := Serve(context.Background(), p, h); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("error %v", err)
			}
			if len(p.limits) != len(c.want) {
				t.Fatalf("limits %q, want %q", p.limits, c.want)
			}
			for i := range c.want {
				if p.limits[i] != c.want[i] {
					t.Fatalf("limits %q, want %q", p.limits, c.want)
				}
			}
			if len(h.calls) != len(c.end) || len(c.end) > 0 && h.calls[len(h.calls)-1] != c.end[len(c.end)-1] {
				t.Errorf("calls %q, want %q", h.calls, c.end)
			}
		})
	}
}
