// Package drain lets a machine's owner empty it before Semper reboots it, and fill it again afterwards.
//
// A drain hook is an executable in /usr/lib/semper/drain.d (the image's) or /etc/semper/drain.d (the machine's), found as package hook says:
//
//	NAME drain      before a reboot; anything but exit code 0 means: no reboot now
//	NAME undrain    after it, or when nothing came of it; must bear being called twice, and without the drain having come to its end
//
// Before a reboot all are called with "drain", in byte order of their names, with one time limit for all together. The first failure stops, and then those
// that were called, the failing one too since it may have done half of its work, are called with "undrain" in reverse order. What was called is on the disk
// before it is, so that a power cut or the reboot itself does not lose it:
//
//	/var/lib/semper/drain/drained.json     {"hooks": ["10-cluster", …], "reason": …, "from": …, "to": …, "at": …}
//
// Undrain calls what the record names, in reverse order, and forgets what succeeded; one that failed is called again by the next Undrain.
//
// Hooks do anything, so they cannot run inside of semper-installd's sandbox. They run in a service of their own, semper-drain.service, behind a socket that
// root alone may open, /run/semper/drain.sock. One connection carries one request and one reply, each a JSON object on a line of its own:
//
//	{"verb":"drain","reason":"update","from":"1.0.0","to":"1.1.0","limit_ns":300000000000}
//	{"verb":"undrain"}
//	{"verb":"warn","text":"reboot in 5 minutes","ttys":["pts/0","tty1"]}
//	{}                                                                                      done
//	{"failure":{"text":…,"kind":…,"hook":…,"output":…}}                                     not done, and why
//
// A client that hangs up during a drain takes its wish back: the running hook is killed and what was drained is undrained. Unknown JSON keys are refused:
// both programs are of the same image.
//
// Limits: 64 KiB a line; 100 hooks; 1 hour for all hooks; the last 4 KiB of a hook's output; a warning of 2 KiB to 256 terminals.
package drain

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/hook"
)

// Paths on a machine.
const (
	SocketPath = "/run/semper/drain.sock"
	StatePath  = "/var/lib/semper/drain"
)

const (
	maxLine  = 64 << 10
	maxHooks = 100
	maxText  = 2 << 10
	maxTTYs  = 256
	maxWord  = 256 // bytes of a version or a reason

	// DefaultLimit is the time for all hooks where the request does not say.
	DefaultLimit = 5 * time.Minute
	maxLimit     = time.Hour
)

// Folders hold the hooks, lowest precedence first, relative to the root folder.
var Folders = []string{"usr/lib/semper/drain.d", "etc/semper/drain.d"}

var set = hook.Set{What: "drain hooks", Folders: Folders, Max: maxHooks}

// Request says what is about to happen to the machine.
type Request struct {
	Reason string        // why it reboots, SEMPER_DRAIN_REASON
	From   string        // the running version, SEMPER_VERSION_FROM
	To     string        // the version it will boot, SEMPER_VERSION_TO
	Limit  time.Duration // for all hooks together; 0: DefaultLimit
}

type verb string

const (
	verbDrain   verb = "drain"
	verbUndrain verb = "undrain"
	verbWarn    verb = "warn"
)

// request is one line of a client.
type request struct {
	Verb   verb          `json:"verb"`
	Reason string        `json:"reason,omitempty"` // these four for drain only
	From   string        `json:"from,omitempty"`
	To     string        `json:"to,omitempty"`
	Limit  time.Duration `json:"limit_ns,omitempty"`
	Text   string        `json:"text,omitempty"` // these two for warn only
	TTYs   []string      `json:"ttys,omitempty"`
}

func inputf(format string, args ...any) error { return fault.New(fault.Input, format, args...) }

// decodeRequest reads and checks a client's line. Errors are of kind Input.
func decodeRequest(line []byte) (request, error) {
	var r request
	if err := decode(line, &r); err != nil {
		return request{}, inputf("request: %w", err)
	}
	if err := r.check(); err != nil {
		return request{}, inputf("request: %w", err)
	}
	return r, nil
}

func (r *request) check() error {
	forDrain := r.Reason != "" || r.From != "" || r.To != "" || r.Limit != 0
	forWarn := r.Text != "" || r.TTYs != nil
	switch r.Verb {
	case verbDrain:
		if forWarn {
			return errors.New("drain takes no text and no ttys")
		}
		for name, v := range map[string]string{"reason": r.Reason, "from": r.From, "to": r.To} {
			if len(v) > maxWord || strings.ContainsFunc(v, unicode.IsControl) || !utf8.ValidString(v) {
				return fmt.Errorf("%s has at most %d bytes and no control characters", name, maxWord)
			}
		}
		if r.Limit < 0 || r.Limit > maxLimit {
			return fmt.Errorf("the time limit is 0 to %s, not %s", maxLimit, r.Limit)
		}
	case verbUndrain:
		if forDrain || forWarn {
			return errors.New("undrain takes nothing")
		}
	case verbWarn:
		if forDrain {
			return errors.New("warn takes only text and ttys")
		}
		if r.Text == "" || len(r.Text) > maxText {
			return fmt.Errorf("the text has %d bytes, 1 to %d are allowed", len(r.Text), maxText)
		}
		if len(r.TTYs) > maxTTYs {
			return fmt.Errorf("%d ttys, at most %d are allowed", len(r.TTYs), maxTTYs)
		}
		for _, name := range r.TTYs {
			if err := checkTTY(name); err != nil {
				return err
			}
		}
	default:
		return fmt.Errorf("unknown verb %.40q", string(r.Verb))
	}
	return nil
}

// reply is the server's line.
type reply struct {
	Failure *failure `json:"failure,omitempty"` // nil: done
}

type failure struct {
	Text   string `json:"text"`
	Kind   string `json:"kind"`             // fault.Kind's word
	Hook   string `json:"hook,omitempty"`   // the hook that failed
	Output string `json:"output,omitempty"` // the end of what it printed
}

// HookError is a hook that failed.
type HookError struct {
	Hook   string // its file's name
	Text   string // "drain hook 10-cluster failed: exit status 1: two pods are left"
	Output string // the end of what it printed
}

func (e *HookError) Error() string { return e.Text }

// Longer texts are cut, so that a reply is far below maxLine however much JSON escapes.
const maxFailureText = 4 << 10

func clip(s string, limit int) string {
	if len(s) > limit {
		return strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}

func newReply(err error) reply {
	if err == nil {
		return reply{}
	}
	f := failure{Text: clip(err.Error(), maxFailureText), Kind: fault.KindOf(err).String()}
	var h *HookError
	if errors.As(err, &h) {
		f.Hook, f.Output = h.Hook, h.Output
	}
	return reply{Failure: &f}
}

// decodeReply reads a server's line and returns what it says: nil, or an error with its kind, a *HookError where a hook failed.
func decodeReply(line []byte) error {
	var r reply
	if err := decode(line, &r); err != nil {
		return inputf("answer of the drain service: %w", err)
	}
	if r.Failure == nil {
		return nil
	}
	f := r.Failure
	kind := fault.Internal
	for _, k := range []fault.Kind{fault.Usage, fault.Input, fault.Network, fault.Verification, fault.IO} {
		if k.String() == f.Kind {
			kind = k
		}
	}
	text := clip(f.Text, maxFailureText)
	if text == "" {
		text = "the drain service failed and does not say why"
	}
	if f.Hook != "" {
		return fault.Wrap(kind, &HookError{Hook: clip(f.Hook, maxWord), Text: text, Output: hook.Tail(f.Output)})
	}
	return fault.New(kind, "%s", text)
}

// decode reads exactly one JSON object with known keys only.
func decode(line []byte, v any) error {
	if line = bytes.TrimSpace(line); len(line) == 0 || line[0] != '{' {
		return errors.New("not a JSON object")
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(v); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the JSON object")
	}
	return nil
}

// readLine reads the one line that a peer sends.
func readLine(r io.Reader) ([]byte, error) {
	b := bufio.NewReader(io.LimitReader(r, maxLine+1))
	line, err := b.ReadBytes('\n')
	switch {
	case len(line) > maxLine:
		return nil, inputf("a line of more than %d bytes", maxLine)
	case errors.Is(err, io.EOF):
		return nil, fault.New(fault.IO, "the peer hung up")
	case err != nil:
		return nil, fault.New(fault.IO, "read: %w", err)
	case b.Buffered() > 0:
		return nil, inputf("more than one line")
	}
	return line, nil
}
