package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/server/rollout"
	"github.com/semper-os/semper/partitions/bootentry"
)

// Cause is the rule that decided, a word for programs. Where a rollout decided it is one of package rollout's.
type Cause string

// The rules, in the order in which they are asked.
const (
	NoIdentity   Cause = "no-machine-id"
	NoArch       Cause = "unknown-architecture"
	NoChannel    Cause = "unknown-channel"
	NoOrder      Cause = "unreadable-version"
	Held         Cause = "pinned"     // by a person, to a version or where it is
	AtDeadEnd    Cause = "dead-end"   // what it runs leads nowhere
	NoRelease    Cause = "no-release" // of the channel
	UpToDate     Cause = "up-to-date" //
	TooOld       Cause = "below-min-version"
	FailedBefore Cause = "failed-before"
	Withdrawn    Cause = "withdrawn"
	Newer        Cause = "newer-release"
	OnTheWay     Cause = "floor" // a version that it must pass through
)

// Question is what Decide needs to know.
type Question struct {
	Machine  *Machine
	Channel  *Channel  // that the machine follows; nil: there is none of that name and architecture
	Failures []Failure // versions that failed on the machine
	Pin      *Pin      // nil: none
	Pinned   *Release  // the pin's; nil: it is not published
	Marked   []Release // the releases of the application and architecture that are floors or dead ends

	Rollout *Rollout // under way in the channel; nil: none
	Step    rollout.Step
	Group   string // the machine's; empty: none

	Now time.Time
}

// Decision says whether a machine gets a release now, and why.
type Decision struct {
	Offer  *Release // nil: no update
	Cause  Cause
	Reason string    // a sentence without a full stop
	Next   time.Time // when it may get one; zero: that is not known, or a person decides

	Rollout *rollout.Decision // of the offer or the hold; nil: no rollout had a say in it
}

func hold(c Cause, format string, args ...any) Decision {
	return Decision{Cause: c, Reason: fmt.Sprintf(format, args...)}
}

// Decide answers an update check.
//
// A release that is on its way through a rollout comes first. Where that has nothing for the machine yet, the channel's own release is next, so that an old machine is not
// kept waiting for what it can have.
func Decide(q *Question) Decision {
	m := q.Machine
	switch {
	case m.ID == "":
		return hold(NoIdentity, "the request names no machine")
	case m.Arch == "":
		return hold(NoArch, "the machine does not say which architecture it has")
	case q.Channel == nil:
		return hold(NoChannel, "there is no channel %q for %s", m.Channel, m.Arch)
	case q.Pin == nil && q.Channel.Release == nil && q.Rollout == nil:
		return hold(NoRelease, "channel %s has no release for %s yet", q.Channel.Name, q.Channel.Arch)
	case omaha.CheckVersion(m.Version) != nil:
		return hold(NoOrder, "the machine runs %q, which cannot be compared with a release's version", m.Version)
	}
	if q.Pin != nil {
		return q.pinned()
	}
	if i := slices.IndexFunc(q.Marked, func(r Release) bool { return r.Road == DeadEnd && r.Version == m.Version }); i >= 0 {
		return hold(AtDeadEnd, "%s is a dead end and leads to no newer version by itself: %s", m.Version, q.Marked[i].RoadWhy)
	}
	if q.Rollout != nil {
		d, ours := q.rolledOut()
		if ours && (d.Offer != nil || q.Channel.Release == nil || bootentry.Compare(q.Channel.Release.Version, m.Version) <= 0) {
			return d
		}
		if q.Channel.Release == nil {
			return d
		}
		if own := q.offer(q.Channel.Release, "the release of channel "+q.Channel.Name); own.Offer != nil || !ours {
			return own
		}
		return d
	}
	return q.offer(q.Channel.Release, "the release of channel "+q.Channel.Name)
}

// pinned answers a machine that a person keeps to a version.
func (q *Question) pinned() Decision {
	p := q.Pin
	by := fmt.Sprintf("%s on %s", p.Who, p.At.UTC().Format(time.DateOnly))
	if p.Why != "" {
		by += ": " + p.Why
	}
	switch {
	case p.Version == "":
		return hold(Held, "the machine is held where it is by %s", by)
	case q.Pinned == nil:
		return hold(Held, "the machine is pinned to %s, which is not published for %s, by %s", p.Version, q.Machine.Arch, by)
	case bootentry.Compare(q.Pinned.Version, q.Machine.Version) <= 0:
		return hold(Held, "the machine runs %s and is pinned to %s by %s", q.Machine.Version, p.Version, by)
	}
	return q.offer(q.Pinned, "to which it is pinned by "+by)
}

// rolledOut asks the channel's rollout. Ours is false where that has nothing to do with the machine, since its release is not for it.
func (q *Question) rolledOut() (d Decision, ours bool) {
	r := q.Rollout
	d = q.offer(&r.Release, "which is being rolled out in channel "+r.Channel)
	if d.Offer == nil || d.Cause == OnTheWay {
		return d, d.Cause != UpToDate
	}
	canary := r.Plan.Canary.Group != "" && r.Plan.Canary.Group == q.Group
	turn := r.Decide(rollout.Machine{ID: q.Machine.ID, Canary: canary, Step: q.Step}, q.Now)
	d = Decision{Cause: Cause(turn.Cause), Reason: turn.Reason, Next: turn.Next, Rollout: &turn}
	if turn.Offer {
		d.Offer = &r.Release
	}
	return d, true
}

// offer says whether the machine can have a release at all, and which one it passes through first. Which is what the release is to it.
func (q *Question) offer(release *Release, which string) Decision {
	m := q.Machine
	switch newer := bootentry.Compare(release.Version, m.Version); {
	case newer == 0:
		return hold(UpToDate, "the machine runs %s, %s", m.Version, which)
	case newer < 0:
		return hold(UpToDate, "the machine runs %s, which is newer than %s, %s", m.Version, release.Version, which)
	}
	cause, reason := Newer, fmt.Sprintf("%s, %s, is newer than %s", release.Version, which, m.Version)
	if floor := q.floor(release); floor != nil {
		cause, reason = OnTheWay, fmt.Sprintf("on the way from %s to %s, %s, the machine must pass through %s", m.Version, release.Version, which, floor.Version)
		if floor.RoadWhy != "" {
			reason += ": " + floor.RoadWhy
		}
		release = floor
	}
	if !release.Withdrawn.IsZero() {
		return hold(Withdrawn, "%s, %s, was withdrawn on %s: %s", release.Version, which, release.Withdrawn.UTC().Format(time.DateTime+" MST"), release.WithdrawnWhy)
	}
	if release.MinVersion != "" && bootentry.Compare(m.Version, release.MinVersion) < 0 {
		return hold(TooOld, "%s, %s, can only be reached from %s or newer, and the machine runs %s", release.Version, which, release.MinVersion, m.Version)
	}
	if i := slices.IndexFunc(q.Failures, func(f Failure) bool { return f.counts(release.Version, m.Version) }); i >= 0 {
		f := q.Failures[i]
		return hold(FailedBefore, "%s failed on this machine on %s and is not offered to it again: %s",
			f.Version, f.At.UTC().Format(time.DateTime+" MST"), f.Reason)
	}
	return Decision{Offer: release, Cause: cause, Reason: reason}
}

// floor is the oldest release that the machine must pass through on its way to another.
func (q *Question) floor(to *Release) *Release {
	var first *Release
	for i := range q.Marked {
		r := &q.Marked[i]
		if r.Road == Floor && bootentry.Compare(r.Version, q.Machine.Version) > 0 && bootentry.Compare(r.Version, to.Version) < 0 &&
			(first == nil || bootentry.Compare(r.Version, first.Version) < 0) {
			first = r
		}
	}
	return first
}

// Follows reports whether a machine that runs a version can come to r: it is newer, and reached from there, directly or by way of the floors among the marked releases.
func (r *Release) Follows(version string, marked []Release) bool {
	for range len(marked) + 1 {
		if omaha.CheckVersion(version) != nil {
			return false
		}
		q := Question{Machine: &Machine{Version: version}, Marked: marked}
		if slices.ContainsFunc(marked, func(m Release) bool { return m.Road == DeadEnd && m.Version == version }) {
			return false
		}
		d := q.offer(r, "")
		if d.Offer == nil {
			return false
		}
		if d.Cause != OnTheWay {
			return true
		}
		version = d.Offer.Version
	}
	return false
}
