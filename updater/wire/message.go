package wire

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"unicode"
	"unicode/utf8"

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

	VerbDrain    Verb = "drain"
	VerbUndrain  Verb = "undrain"
	VerbWarn     Verb = "warn"
	VerbAllow    Verb = "allow"
	VerbRollback Verb = "rollback"
)

// Request is a control message of the client. Each field is for the verbs it names alone.
type Request struct {
	Verb    Verb   `json:"verb"`
	Begin   *Begin `json:"begin,omitempty"`   // begin
	Warn    *Warn  `json:"warn,omitempty"`    // warn
	Version string `json:"version,omitempty"` // allow: the older version that may be installed
	Reason  string `json:"reason,omitempty"`  // drain, rollback: why, for people
	Soft    bool   `json:"soft,omitempty"`    // reboot: by soft-reboot, if that will do
}

// Begin announces a payload. It is the server's word relayed by semperd; semper-installd uses it to find an interrupted installation and to bound the
// stream, and believes only the payload's own signed metadata.
type Begin struct {
	SHA256  string `json:"sha256"`  // of the whole payload, 64 lower-case hexadecimal digits
	Size    int64  `json:"size"`    // bytes of the whole payload, > 0
	Version string `json:"version"` // what the update server calls it
}

// Warn is a text for people who are logged in.
type Warn struct {
	Text string   `json:"text"`
	TTYs []string `json:"ttys"` // "tty1", "pts/0": names below /dev
}

// Bounds of what a request carries, in bytes unless the name says otherwise.
const (
	maxVersion = 128
	maxReason  = 2 << 10
	maxWarning = 2 << 10
	maxTTYs    = 64 // number of terminals
	maxTTY     = 32
)

// DecodeRequest reads and checks a client's control message. Errors are of kind Input.
func DecodeRequest(p []byte) (Request, error) {
	var r Request
	if err := decode(p, &r); err != nil {
		return Request{}, fault.Wrap(fault.Input, err)
	}
	if err := r.check(); err != nil {
		return Request{}, fault.New(fault.Input, "control message: %w", err)
	}
	return r, nil
}

// check refuses what a verb does not carry, as it does what no verb carries: nobody who speaks this protocol sends it.
func (r *Request) check() error {
	for _, f := range []struct {
		name string
		set  bool
		of   []Verb
	}{
		{"begin", r.Begin != nil, []Verb{VerbBegin}},
		{"warn", r.Warn != nil, []Verb{VerbWarn}},
		{"version", r.Version != "", []Verb{VerbAllow}},
		{"reason", r.Reason != "", []Verb{VerbDrain, VerbRollback}},
		{"soft", r.Soft, []Verb{VerbReboot}},
	} {
		if f.set && !slices.Contains(f.of, r.Verb) {
			return fmt.Errorf("verb %q has no %q", clip(string(r.Verb)), f.name)
		}
	}
	switch r.Verb {
	case VerbStatus, VerbFinish, VerbAbort, VerbDiscard, VerbReboot, VerbUndrain:
		return nil
	case VerbBegin:
		if r.Begin == nil {
			return errors.New("\"begin\" is missing")
		}
		if err := r.Begin.check(); err != nil {
			return fmt.Errorf("begin: %w", err)
		}
	case VerbWarn:
		if r.Warn == nil {
			return errors.New("\"warn\" is missing")
		}
		if err := r.Warn.check(); err != nil {
			return fmt.Errorf("warn: %w", err)
		}
	case VerbAllow:
		if r.Version == "" || len(r.Version) > maxVersion {
			return fmt.Errorf("version has %d characters, 1 to %d are allowed", len(r.Version), maxVersion)
		}
	case VerbDrain, VerbRollback:
		if err := checkText("reason", r.Reason, maxReason); err != nil {
			return err
		}
	default:
		return fmt.Errorf("unknown verb %q", clip(string(r.Verb)))
	}
	return nil
}

func (w *Warn) check() error {
	if err := checkText("text", w.Text, maxWarning); err != nil {
		return err
	}
	if len(w.TTYs) == 0 || len(w.TTYs) > maxTTYs {
		return fmt.Errorf("%d terminals, 1 to %d are allowed", len(w.TTYs), maxTTYs)
	}
	for _, tty := range w.TTYs {
		if len(tty) > maxTTY || !ttySyntax.MatchString(tty) {
			return fmt.Errorf("%q is not a terminal's name", clip(tty))
		}
	}
	return nil
}

// ttySyntax is what a terminal's name can be: nothing that leaves /dev, and no other device of it.
var ttySyntax = regexp.MustCompile(`^(tty[A-Za-z]{0,4}[0-9]{1,3}|pts/[0-9]{1,8}|console)$`)

// checkText refuses what would speak to a terminal rather than to who reads it.
func checkText(name, text string, limit int) error {
	if text == "" || len(text) > limit {
		return fmt.Errorf("%s has %d bytes, 1 to %d are allowed", name, len(text), limit)
	}
	for i, r := range text {
		if r == utf8.RuneError || r != '\n' && !unicode.IsPrint(r) {
			return fmt.Errorf("%s has an unprintable character at byte %d", name, i)
		}
	}
	return nil
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
	Reboot  *Going   `json:"reboot,omitempty"`  // after reboot
}

// Going says how the machine goes down.
type Going struct {
	Soft bool   `json:"soft"`          // by soft-reboot: the kernel stays
	Why  string `json:"why,omitempty"` // why not, where that was asked for
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
	return fault.Wrap(fault.ParseKind(r.Failure.Kind), &Error{*r.Failure})
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
