package freshness

import (
	"errors"
	"fmt"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/payload/detached"
)

// ClockTolerance is how far a statement may be from the future: clocks differ.
const ClockTolerance = time.Hour

// Case is what a machine makes of a server's answer. Its text is stable: it is stored and shown.
type Case string

// The cases. Verify's errors have one of the last seven but Missing, see CaseOf.
const (
	Fresh        Case = "fresh"         // good, and what the server offers agrees with it
	Withheld     Case = "withheld"      // good, but the server has held the version back from this machine for long; it may have a reason
	Unannounced  Case = "unannounced"   // good, but the server offers a newer version than it names
	Missing      Case = "missing"       // the answer has none
	Malformed    Case = "malformed"     // it is no statement
	BadSignature Case = "bad-signature" // not signed by enough trusted keys
	WrongSubject Case = "wrong-subject" // another product's, channel's or architecture's
	Replayed     Case = "replayed"      // older than one that was seen before, or not the same under the same number
	Future       Case = "future"        // issued later than it is
	Expired      Case = "expired"       // it counts no more
)

// Error is why a statement is not believed.
type Error struct {
	Case Case
	Err  error
}

func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CaseOf returns the case of an error of Verify, or "" where this package gave none.
func CaseOf(err error) Case {
	var e *Error
	if errors.As(err, &e) {
		return e.Case
	}
	return ""
}

func refuse(c Case, format string, args ...any) error {
	kind := fault.Verification
	if c == Malformed {
		kind = fault.Input
	}
	return fault.Wrap(kind, &Error{c, fmt.Errorf(format, args...)})
}

// Machine is who reads a statement, and when.
type Machine struct {
	Product      string
	Channel      string
	Architecture string
	Now          time.Time
	NotBefore    time.Time // it cannot be earlier: when the running image was made. Zero where that is not known
}

func (m Machine) subject() Statement {
	return Statement{Product: m.Product, Channel: m.Channel, Architecture: m.Architecture}
}

// time returns the time that statements are judged by: the clock's, unless something that was signed says that it must be later.
func (m Machine) time(last Statement) time.Time {
	now := m.Now
	for _, bound := range []time.Time{m.NotBefore, last.Issued} {
		if now.Before(bound) {
			now = bound
		}
	}
	return now
}

// Verify opens an envelope and returns its statement if machine m may believe it. Last is the last statement that Verify returned here, the zero Statement if
// there was none; one of another channel only counts as a proof that time has passed.
//
// The order: size and form of the envelope, signatures, the document's form, what it is about, replay, time. Nothing in the document is looked at before the signatures.
func Verify(b []byte, trust payload.Trust, m Machine, last Statement) (Statement, error) {
	fail := func(c Case, format string, args ...any) (Statement, error) {
		return Statement{}, refuse(c, format, args...)
	}
	e, err := decode(b)
	if err != nil {
		return fail(Malformed, "%w", err)
	}
	if _, err := detached.Verify(e.Document, e.Signatures, trust); err != nil {
		return fail(BadSignature, "freshness statement: %w", err)
	}
	s, err := parse(e.Document)
	if err != nil {
		return fail(Malformed, "%w", err)
	}
	if !s.about(m.subject()) {
		return fail(WrongSubject, "the freshness statement is about %s %s for %s, not about %s %s for %s",
			s.Product, s.Channel, s.Architecture, m.Product, m.Channel, m.Architecture)
	}
	if s.about(last) {
		switch {
		case s.Sequence < last.Sequence, s.Issued.Before(last.Issued):
			return fail(Replayed, "the freshness statement %d of %s is older than %d of %s, which was seen before: the server shows an old one",
				s.Sequence, day(s.Issued), last.Sequence, day(last.Issued))
		case s.Sequence == last.Sequence && !s.Same(last):
			return fail(Replayed, "two different freshness statements have the number %d: one names %s until %s, the other %s until %s",
				s.Sequence, last.Version, day(last.Expires), s.Version, day(s.Expires))
		}
	}
	now := m.time(last)
	if s.Issued.After(now.Add(ClockTolerance)) {
		return fail(Future, "the freshness statement was issued on %s, and it is %s here%s: this machine's clock is behind, or the signer's was ahead",
			day(s.Issued), day(m.Now), m.early(now))
	}
	if !now.Before(s.Expires) {
		return fail(Expired, "the freshness statement of %s expired on %s, and it is %s here%s: the server keeps newer ones back, nobody signed one, or this machine's clock is wrong",
			day(s.Issued), day(s.Expires), day(m.Now), m.early(now))
	}
	return s, nil
}

// early says so where the clock was not believed.
func (m Machine) early(judged time.Time) string {
	if judged.Equal(m.Now) {
		return ""
	}
	return ", though it is certainly after " + day(judged)
}

func day(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
