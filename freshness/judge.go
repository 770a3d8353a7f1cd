package freshness

import (
	"time"

	"github.com/semper-os/semper/partitions/bootentry"
	"github.com/semper-os/semper/payload"
)

// DefaultPatience is how long a server may hold a version back before that is worth a word: rollouts take days.
const DefaultPatience = 7 * 24 * time.Hour

// Situation is a machine that got an answer.
type Situation struct {
	Machine
	Running  string        // the version that runs, or the newer one that is installed and waits for its reboot
	Offered  string        // the version that the answer offers, "" for none
	Patience time.Duration // DefaultPatience when 0
}

// Memory is what a machine remembers from one answer to the next. The zero Memory is that of a new machine; as JSON it can be kept.
type Memory struct {
	Last   Statement `json:"last,omitzero"`   // the last one that was good
	Case   Case      `json:"case,omitempty"`  // of the last verdict
	Since  time.Time `json:"since,omitzero"`  // the first verdict of that case in a row
	Behind time.Time `json:"behind,omitzero"` // since when Last names a newer version than the machine has or is offered; zero: it does not
}

// Verdict is what an answer tells about the server.
type Verdict struct {
	Case      Case
	Since     time.Time // since when it has been so
	Statement Statement // the last good one about the machine's channel; zero if there never was one
	Behind    time.Time // since when Statement names a newer version than the machine has or is offered; zero: it does not
	Offered   string    // the version that the answer offers, "" for none
	Err       error     // why the answer's statement is not believed; nil for Fresh, Withheld, Unannounced and Missing
}

// Judge looks at the envelope of a server's answer, empty if it had none, and returns what to think of it and what to remember.
func Judge(b []byte, trust payload.Trust, s Situation, before Memory) (Verdict, Memory) {
	v, after := Verdict{Offered: s.Offered}, Memory{Last: before.Last}
	now := s.time(before.Last)
	same := before.Last.about(s.subject()) || before.Last == Statement{}
	if same {
		after.Behind = before.Behind
	}
	var good Statement
	if len(b) == 0 {
		v.Case = Missing
	} else if good, v.Err = Verify(b, trust, s.Machine, before.Last); v.Err != nil {
		v.Case = CaseOf(v.Err)
	} else {
		after.Last, after.Behind = good, s.behind(good, after.Behind, now)
		v.Case = s.compare(good, after.Behind, now)
	}
	if after.Last.about(s.subject()) {
		v.Statement = after.Last
	}
	after.Case, after.Since = v.Case, now
	if same && before.Case == v.Case && !before.Since.After(now) {
		after.Since = before.Since
	}
	v.Since, v.Behind = after.Since, after.Behind
	return v, after
}

// behind returns since when the machine has had less than good names, counted from the first time that it was so.
func (s Situation) behind(good Statement, since, now time.Time) time.Time {
	switch {
	case bootentry.Compare(good.Version, s.Running) <= 0, s.Offered != "" && bootentry.Compare(good.Version, s.Offered) <= 0:
		return time.Time{}
	case since.IsZero(), since.After(now): // a clock that was set back would count from the future
		return now
	}
	return since
}

func (s Situation) compare(good Statement, behind, now time.Time) Case {
	patience := s.Patience
	if patience == 0 {
		patience = DefaultPatience
	}
	switch {
	case s.Offered != "" && bootentry.Compare(s.Offered, good.Version) > 0:
		return Unannounced
	case !behind.IsZero() && now.Sub(behind) >= patience:
		return Withheld
	}
	return Fresh
}

// Allows reports whether a machine that asks for freshness may install what the answer offers: its statement is good, and names that version or a newer one.
func (v *Verdict) Allows() bool { return v.Case == Fresh || v.Case == Withheld }

// Alarming reports whether a person should hear of it: not of a version that is held back, since that may be the server's policy, and not of a server that never sent a
// statement, since there may be nobody who signs them.
func (v *Verdict) Alarming() bool {
	return !v.Allows() && (v.Case != Missing || v.Statement != Statement{})
}

// Sentence says it to people.
func (v *Verdict) Sentence() string {
	st := v.Statement
	switch v.Case {
	case Fresh, Withheld:
		said := "the newest version of channel " + st.Channel + " is " + st.Version + ", as was said on " + day(st.Issued)
		if v.Behind.IsZero() {
			return said
		}
		return said + "; the server has not offered it to this machine since " + day(v.Behind)
	case Unannounced:
		return "the server offers " + v.Offered + ", but the newest version of channel " + st.Channel + " is " + st.Version + ", as was said on " + day(st.Issued) +
			": it was published without a new statement, or is not meant for this channel"
	case Missing:
		if st == (Statement{}) {
			return "the server does not say how fresh its answers are"
		}
		return "since " + day(v.Since) + " the server does not say any more how fresh its answers are; the last time was on " + day(st.Issued)
	}
	return v.Err.Error()
}
