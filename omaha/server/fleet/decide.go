package fleet

import (
	"fmt"
	"slices"
	"time"

	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/partitions/bootentry"
)

// Cause is the rule that decided, a word for programs.
type Cause string

// The rules, in the order in which they are asked.
const (
	NoIdentity   Cause = "no-machine-id"
	NoArch       Cause = "unknown-architecture"
	NoChannel    Cause = "unknown-channel"
	NoRelease    Cause = "no-release"
	NoOrder      Cause = "unreadable-version"
	UpToDate     Cause = "up-to-date"
	TooOld       Cause = "below-min-version"
	FailedBefore Cause = "failed-before"
	Newer        Cause = "newer-release"
)

// Decision says whether a machine gets a release now, and why.
type Decision struct {
	Offer  *Release // nil: no update
	Cause  Cause
	Reason string // a sentence without a full stop
}

// Decide answers an update check of m. Channel is the one that m follows, nil when there is none of that name and architecture.
// Failures are the versions that failed on m.
func Decide(m *Machine, channel *Channel, failures []Failure) Decision {
	hold := func(c Cause, format string, args ...any) Decision {
		return Decision{Cause: c, Reason: fmt.Sprintf(format, args...)}
	}
	switch {
	case m.ID == "":
		return hold(NoIdentity, "the request names no machine")
	case m.Arch == "":
		return hold(NoArch, "the machine does not say which architecture it has")
	case channel == nil:
		return hold(NoChannel, "there is no channel %q for %s", m.Channel, m.Arch)
	case channel.Release == nil:
		return hold(NoRelease, "channel %s has no release for %s yet", channel.Name, channel.Arch)
	}
	release := channel.Release
	if omaha.CheckVersion(m.Version) != nil {
		return hold(NoOrder, "the machine runs %q, which cannot be compared with %s", m.Version, release.Version)
	}
	switch newer := bootentry.Compare(release.Version, m.Version); {
	case newer == 0:
		return hold(UpToDate, "the machine runs %s, the release of channel %s", m.Version, channel.Name)
	case newer < 0:
		return hold(UpToDate, "the machine runs %s, which is newer than %s, the release of channel %s", m.Version, release.Version, channel.Name)
	case release.MinVersion != "" && bootentry.Compare(m.Version, release.MinVersion) < 0:
		return hold(TooOld, "%s, the release of channel %s, can only be reached from %s or newer, and the machine runs %s",
			release.Version, channel.Name, release.MinVersion, m.Version)
	}
	if i := slices.IndexFunc(failures, func(f Failure) bool { return f.counts(release.Version, m.Version) }); i >= 0 {
		f := failures[i]
		return hold(FailedBefore, "%s failed on this machine on %s and is not offered to it again: %s",
			f.Version, f.At.UTC().Format(time.DateTime+" MST"), f.Reason)
	}
	return Decision{
		Offer: release, Cause: Newer,
		Reason: fmt.Sprintf("%s, the release of channel %s, is newer than %s", release.Version, channel.Name, m.Version),
	}
}
