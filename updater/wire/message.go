package wire

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/semper-os/semper/fault"
)

// Verb is what a Request asks for.
type Verb string

// The verbs, see the package's documentation.
const (
	VerbStatus  Verb = "status"
	VerbBegin   Verb = "begin"
	VerbFinish  Verb = "finish"
	VerbAbort   Verb = "abort"
	VerbDiscard Verb = "discard"
	VerbReboot  Verb = "reboot"
)

// Request is a control message of the client.
type Request struct {
	Verb  Verb   `json:"verb"`
	Begin *Begin `json:"begin,omitempty"` // exactly for VerbBegin
}

// Begin announces a payload. It is the server's word relayed by semperd; semper-installd uses it to find an interrupted installation and to bound the
// stream, and believes only the payload's own signed metadata.
type Begin struct {
	SHA256  string `json:"sha256"`  // of the whole payload, 64 lower-case hexadecimal digits
	Size    int64  `json:"size"`    // bytes of the whole payload, > 0
	Version string `json:"version"` // what the update server calls it
}

// maxVersion bounds a version's length in bytes.
const maxVersion = 128

// DecodeRequest reads and checks a client's control message. Errors are of kind Input.
func DecodeRequest(p []byte) (Request, error) {
	var r Request
	if err := decode(p, &r); err != nil {
		return Request{}, fault.Wrap(fault.Input, err)
	}
	switch r.Verb {
	case VerbStatus, VerbFinish, VerbAbort, VerbDiscard, VerbReboot:
		if r.Begin != nil {
			return Request{}, fault.New(fault.Input, "control message: verb %q has no \"begin\"", r.Verb)
		}
	case VerbBegin:
		if r.Begin == nil {
			return Request{}, fault.New(fault.Input, "control message: \"begin\" is missing")
		}
		if err := r.Begin.check(); err != nil {
			return Request{}, fault.New(fault.Input, "control message: begin: %w", err)
		}
	default:
		return Request{}, fault.New(fault.Input, "control message: unknown verb %q", clip(string(r.Verb)))
	}
	return r, nil
}

func (b *Begin) check() error {
	sum, err := hex.DecodeString(b.SHA256)
	if err != nil || len(sum) != 32 || hex.EncodeToString(sum) != b.SHA256 {
		return fmt.Errorf("sha256 %q is not 64 lower-case hexadecimal digits", clip(b.SHA256))
	}
	if b.Size <= 0 {
		return fmt.Errorf("size %d is not positive", b.Size)
	}
	if b.Version == "" || len(b.Version) > maxVersion {
		return fmt.Errorf("version has %d characters, 1 to %d are allowed", len(b.Version), maxVersion)
	}
	return nil
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}

// Reply answers one frame of the client.
type Reply struct {
	Failure *Failure `json:"failure,omitempty"` // nil: it worked
	Offset  int64    `json:"offset,omitempty"`  // after begin and data
	Status  *Status  `json:"status,omitempty"`  // after status
}

// Failure is an error that crossed the socket.
type Failure struct {
	Text string `json:"text"`
	Kind string `json:"kind"` // fault.Kind's word
	Code int    `json:"code"` // the error code for the update server, see package agent; 0: none is known
	Busy bool   `json:"busy,omitempty"`
}

// Error is a Failure as a Go error. Its fault kind is the one it had on the other side.
type Error struct{ Failure Failure }

func (e *Error) Error() string { return e.Failure.Text }

// Err returns the reply's failure as an *Error with its fault kind, or nil.
func (r Reply) Err() error {
	if r.Failure == nil {
		return nil
	}
	kind := fault.Internal
	for _, k := range []fault.Kind{fault.Usage, fault.Input, fault.Network, fault.Verification, fault.IO} {
		if k.String() == r.Failure.Kind {
			kind = k
		}
	}
	return fault.Wrap(kind, &Error{*r.Failure})
}

// Status is what semper-installd knows about the machine's slots.
type Status struct {
	Version  string `json:"version"`   // of the running system
	Slot     string `json:"slot"`      // "A" or "B"
	RootHash string `json:"root_hash"` // of the running root, hexadecimal
	// Trial: the running entry still has a boot counter, it is not blessed yet.
	Trial bool `json:"trial"`
	// WayBack: the other slot can be booted.
	WayBack bool `json:"way_back"`

	Pending    *Pending    `json:"pending,omitempty"`     // complete in the other slot and tried at the next boot
	Partial    *Partial    `json:"partial,omitempty"`     // an interrupted or running installation
	RolledBack *RolledBack `json:"rolled_back,omitempty"` // the last version that was installed here and did not come up
	Blessed    *Blessed    `json:"blessed,omitempty"`     // the last version that was installed here and is healthy
}

// Pending is an update that waits for a reboot.
type Pending struct {
	Version string    `json:"version"`
	From    string    `json:"from"` // the version that installed it
	At      time.Time `json:"at"`
}

// Partial is a payload that is partly written.
type Partial struct {
	SHA256 string `json:"sha256"`
	Offset int64  `json:"offset"` // bytes of the payload that need not be sent again
	Size   int64  `json:"size"`
}

// RolledBack is an update that was booted, or should have been, and that the machine came back from.
type RolledBack struct {
	Version string    `json:"version"`
	Reason  string    `json:"reason"`           // for people
	Check   string    `json:"check,omitempty"`  // the health check that failed, where one did
	Output  string    `json:"output,omitempty"` // its output's end
	At      time.Time `json:"at"`
}

// Blessed is an update that passed its health checks.
type Blessed struct {
	Version string    `json:"version"`
	From    string    `json:"from"`
	At      time.Time `json:"at"`
}

// DecodeReply reads a server's control message. Errors are of kind Input.
func DecodeReply(p []byte) (Reply, error) {
	var r Reply
	if err := decode(p, &r); err != nil {
		return Reply{}, fault.Wrap(fault.Input, err)
	}
	if r.Offset < 0 {
		return Reply{}, fault.New(fault.Input, "control message: negative offset %d", r.Offset)
	}
	return r, nil
}
