package fleet

import (
	"strings"
	"testing"
	"time"

	"github.com/semper-os/semper/omaha"
)

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	later = start.Add(time.Hour)
)

func TestAdvance(t *testing.T) {
	const noNext = ""
	for _, c := range []struct {
		name   string
		state  State
		runs   string
		target string
		event  omaha.Event
		want   State
		then   string // the target afterwards
		failed string // the version that is not offered again
	}{
		{"download started", Granted, "1.0.0", "1.1.0", omaha.DownloadStarted(noNext), Downloading, "1.1.0", ""},
		{"download finished", Downloading, "1.0.0", "1.1.0", omaha.DownloadFinished(noNext), Downloaded, "1.1.0", ""},
		{"installed", Downloaded, "1.0.0", "1.1.0", omaha.Installed(noNext), Installed, "1.1.0", ""},
		{"completed", Installed, "1.1.0", "1.1.0", omaha.Completed("1.0.0"), Complete, "1.1.0", ""},
		{"a lost report does not matter", Granted, "1.0.0", "1.1.0", omaha.Installed(noNext), Installed, "1.1.0", ""},
		{"the machine knows the version better", Granted, "1.0.0", "1.1.0", omaha.DownloadStarted("1.2.0"), Downloading, "1.2.0", ""},
		{"completion of a version nobody granted", Unknown, "1.1.0", "", omaha.Completed("1.0.0"), Complete, "1.1.0", ""},
		{"3/2 after installation", Unknown, "1.0.0", "", omaha.Completed("0.0.0.0"), Unknown, "", ""},
		{"3/2 with every check", Installed, "1.0.0", "1.1.0", omaha.Completed(""), Installed, "1.1.0", ""},
		{"rolled back, version named", Installed, "1.0.0", "1.1.0", omaha.RolledBack("1.2.0", "x"), Failed, "1.2.0", "1.2.0"},
		{"rolled back, Flatcar", Installed, "1.0.0", "1.1.0", omaha.RolledBack(noNext, ""), Failed, "1.1.0", "1.1.0"},
		{"rolled back after completion", Complete, "1.0.0", "1.1.0", omaha.RolledBack(noNext, ""), Failed, "1.1.0", "1.1.0"},
		{"bad signature, Flatcar", Downloading, "1.0.0", "1.1.0", omaha.Failed(noNext, 18|omaha.FlagOtherServer, ""), Failed, "1.1.0", "1.1.0"},
		{"connection broke off", Downloading, "1.0.0", "1.1.0", omaha.Failed(noNext, omaha.CodeTransfer, ""), Failed, "1.1.0", ""},
		{"connection broke off, version named", Downloading, "1.0.0", "1.1.0", omaha.Failed("1.1.0", omaha.CodeTransfer, ""), Failed, "1.1.0", ""},
		{"the machine's disk failed", Downloading, "1.0.0", "1.1.0", omaha.Failed("1.1.0", omaha.CodeWrite, "x"), Failed, "1.1.0", ""},
		{"Semper's own fault", Downloading, "1.0.0", "1.1.0", omaha.Failed("1.1.0", omaha.CodeError, "x"), Failed, "1.1.0", ""},
		{"refused by rules", Downloading, "1.0.0", "1.1.0", omaha.Failed("1.1.0", omaha.CodeIgnoredByPolicy, "x"), Failed, "1.1.0", "1.1.0"},
		{"a check failed while nothing was under way", Complete, "1.1.0", "1.1.0", omaha.Failed(noNext, 2503, ""), Complete, "1.1.0", ""},
		{"failure without any version", Unknown, "1.0.0", "", omaha.Failed(noNext, omaha.CodePostinstall, ""), Failed, "", ""},
		{"the running version is not condemned", Complete, "1.1.0", "1.1.0", omaha.Failed(noNext, omaha.CodePostinstall, ""), Failed, "1.1.0", ""},
		{"another event changes nothing", Granted, "1.0.0", "1.1.0", omaha.Event{Type: 40, Result: 1}, Granted, "1.1.0", ""},
		{"deferred changes nothing", Granted, "1.0.0", "1.1.0", omaha.Event{Type: 3, Result: 9}, Granted, "1.1.0", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := Machine{ID: "m", Version: c.runs, State: c.state, StateSince: start, Target: c.target}
			f := m.Advance(c.event, later)
			if m.State != c.want || m.Target != c.then {
				t.Errorf("state %s with target %q, want %s with %q", m.State, m.Target, c.want, c.then)
			}
			if since := map[bool]time.Time{true: start, false: later}[c.want == c.state]; !m.StateSince.Equal(since) {
				t.Errorf("since %v, want %v", m.StateSince, since)
			}
			if (m.Detail != "") != (m.State == Failed) {
				t.Errorf("detail %q in state %s", m.Detail, m.State)
			}
			got := ""
			if f != nil {
				got = f.Version
				if f.Reason != m.Detail || !f.At.Equal(later) || f.Code != c.event.ErrorCode || f.Running != c.runs {
					t.Errorf("failure %+v, detail %q", f, m.Detail)
				}
			}
			if got != c.failed {
				t.Errorf("failed version %q, want %q", got, c.failed)
			}
		})
	}
}

func TestFailureTellsTheReason(t *testing.T) {
	m := Machine{Version: "1.0.0"}
	if m.Advance(omaha.RolledBack("1.2.0", "health check web: connection refused"), later); m.Detail != "health check web: connection refused (code 44 rollback)" {
		t.Errorf("detail %q", m.Detail)
	}
	if m.Advance(omaha.Failed("1.2.0", 29|omaha.FlagOtherServer, ""), later); m.Detail != "an operation's data has another hash than the manifest says (code 29 operation-hash)" {
		t.Errorf("detail %q", m.Detail)
	}
}

func TestGrant(t *testing.T) {
	m := Machine{State: Unknown, StateSince: start}
	if !m.Grant("1.1.0", later) || m.State != Granted || m.Target != "1.1.0" || !m.StateSince.Equal(later) {
		t.Errorf("after the first grant %+v", m)
	}
	m.Advance(omaha.Installed(""), later)
	if m.Grant("1.1.0", later.Add(1)) || m.State != Installed {
		t.Errorf("the same grant again took the machine back: %+v", m)
	}
	if !m.Grant("1.2.0", later.Add(2)) || m.State != Granted || m.Target != "1.2.0" {
		t.Errorf("a grant of another version is not noted: %+v", m)
	}
	m.Advance(omaha.Failed("", omaha.CodeTransfer, ""), later.Add(3))
	if !m.Grant("1.2.0", later.Add(4)) || m.State != Granted || m.Detail != "" {
		t.Errorf("a new try is not noted: %+v", m)
	}
}

func TestDecide(t *testing.T) {
	channel := func(version string) *Channel {
		return &Channel{Name: "stable", Arch: "amd64", Release: &Release{Version: version}}
	}
	least := func(c *Channel, version string) *Channel {
		c.Release.MinVersion = version
		return c
	}
	failed := []Failure{
		{Version: "1.0.5", At: start, Reason: "x"},
		{Version: "1.2.0", At: start, Code: 44, Reason: "health check web failed (code 44 rollback)", Running: "1.0.0"},
		{Version: "1.3.0", At: start, Code: 35 | omaha.FlagOtherServer, Reason: "1.0.0 is not newer than 1.1.0 (code 35 ignored-by-policy)", Running: "1.1.0"},
	}
	for _, c := range []struct {
		name    string
		machine Machine
		channel *Channel
		offer   string
		cause   Cause
		reason  string
	}{
		{"newer", Machine{ID: "m", Arch: "amd64", Version: "1.0.0"}, channel("1.1.0"), "1.1.0", Newer, "1.1.0, the release of channel stable, is newer than 1.0.0"},
		{"order by number", Machine{ID: "m", Arch: "amd64", Version: "1.9.0"}, channel("1.10.0"), "1.10.0", Newer, "1.10.0, the release of channel stable, is newer than 1.9.0"},
		{"the same", Machine{ID: "m", Arch: "amd64", Version: "1.1.0"}, channel("1.1.0"), "", UpToDate, "the machine runs 1.1.0, the release of channel stable"},
		{"older", Machine{ID: "m", Arch: "amd64", Version: "1.3.0"}, channel("1.1.0"), "", UpToDate, "the machine runs 1.3.0, which is newer than 1.1.0, the release of channel stable"},
		{
			"failed before",
			Machine{ID: "m", Arch: "amd64", Version: "1.1.0"},
			channel("1.2.0"), "", FailedBefore,
			"1.2.0 failed on this machine on 2026-01-02 03:04:05 UTC and is not offered to it again: health check web failed (code 44 rollback)",
		},
		{
			"refused by the rules of the version that runs",
			Machine{ID: "m", Arch: "amd64", Version: "1.1.0"},
			channel("1.3.0"), "", FailedBefore,
			"1.3.0 failed on this machine on 2026-01-02 03:04:05 UTC and is not offered to it again: 1.0.0 is not newer than 1.1.0 (code 35 ignored-by-policy)",
		},
		{"refused by the rules of another version", Machine{ID: "m", Arch: "amd64", Version: "1.2.1"}, channel("1.3.0"), "1.3.0", Newer, "1.3.0, the release of channel stable, is newer than 1.2.1"},
		{"another version failed", Machine{ID: "m", Arch: "amd64", Version: "1.1.0"}, channel("1.2.1"), "1.2.1", Newer, "1.2.1, the release of channel stable, is newer than 1.1.0"},
		{"at the oldest version that can follow", Machine{ID: "m", Arch: "amd64", Version: "1.1.0"}, least(channel("2.0.0"), "1.1.0"), "2.0.0", Newer, "2.0.0, the release of channel stable, is newer than 1.1.0"},
		{
			"below it",
			Machine{ID: "m", Arch: "amd64", Version: "1.0.9"},
			least(channel("2.0.0"), "1.1.0"), "", TooOld,
			"2.0.0, the release of channel stable, can only be reached from 1.1.0 or newer, and the machine runs 1.0.9",
		},
		{"pre-release", Machine{ID: "m", Arch: "amd64", Version: "1.1.0~rc1"}, channel("1.1.0"), "1.1.0", Newer, "1.1.0, the release of channel stable, is newer than 1.1.0~rc1"},
		{"no id", Machine{Arch: "amd64", Version: "1.0.0"}, channel("1.1.0"), "", NoIdentity, "the request names no machine"},
		{"no architecture", Machine{ID: "m", Version: "1.0.0"}, channel("1.1.0"), "", NoArch, "the machine does not say which architecture it has"},
		{"no channel", Machine{ID: "m", Arch: "amd64", Version: "1.0.0", Channel: "edge"}, nil, "", NoChannel, `there is no channel "edge" for amd64`},
		{"no release", Machine{ID: "m", Arch: "amd64", Version: "1.0.0"}, &Channel{Name: "beta", Arch: "amd64"}, "", NoRelease, "channel beta has no release for amd64 yet"},
		{"unreadable version", Machine{ID: "m", Arch: "amd64", Version: "ForcedUpdate"}, channel("1.1.0"), "", NoOrder, `the machine runs "ForcedUpdate", which cannot be compared with a release's version`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := Decide(&Question{Machine: &c.machine, Channel: c.channel, Failures: failed, Now: start})
			offer := ""
			if d.Offer != nil {
				offer = d.Offer.Version
			}
			if offer != c.offer || d.Cause != c.cause || d.Reason != c.reason {
				t.Errorf("offer %q, %s: %s\nwant  %q, %s: %s", offer, d.Cause, d.Reason, c.offer, c.cause, c.reason)
			}
			if strings.HasSuffix(d.Reason, ".") {
				t.Errorf("reason ends with a full stop: %s", d.Reason)
			}
		})
	}
}

func TestRoles(t *testing.T) {
	for _, c := range []struct {
		role, need Role
		want       bool
	}{
		{Viewer, Viewer, true},
		{Viewer, Publisher, false},
		{Publisher, Viewer, true},
		{Publisher, Admin, false},
		{Admin, Publisher, true},
		{"", Viewer, false},
		{"root", Viewer, false},
		{Admin, "", false},
	} {
		if got := c.role.Covers(c.need); got != c.want {
			t.Errorf("%q covers %q: %v", c.role, c.need, got)
		}
	}
}
