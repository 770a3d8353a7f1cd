package fleet

import (
	"time"

	"github.com/semper-os/semper/omaha"
)

// Advance changes m by one event that it reported. It returns the version that failed, if the event says that one did and that it must
// not be offered again. The version in m is the one that the machine runs as it reports.
func (m *Machine) Advance(e omaha.Event, now time.Time) *Failure {
	switch {
	case e.Type == omaha.EventDownloadStarted && e.Result == omaha.ResultSuccess:
		m.attempt(e.NextVersion, Downloading, now)
	case e.Type == omaha.EventDownloadFinished && e.Result == omaha.ResultSuccess:
		m.attempt(e.NextVersion, Downloaded, now)
	case e.Type == omaha.EventUpdateComplete && e.Result == omaha.ResultSuccess:
		m.attempt(e.NextVersion, Installed, now)
	case e.Completion():
		m.attempt(m.Version, Complete, now)
	case e.Type == omaha.EventUpdateComplete && e.Result == omaha.ResultError:
		return m.fail(e, now)
	}
	return nil
}

// Grant notes that version was offered to m, and reports whether that is news: an update to the same version that is under way already
// stays as far as it is.
func (m *Machine) Grant(version string, now time.Time) bool {
	if m.State.updating() && m.Target == version {
		return false
	}
	m.attempt(version, Granted, now)
	return true
}

// attempt enters a state with a version; without one the target stays.
func (m *Machine) attempt(version string, s State, now time.Time) {
	if version == "" {
		version = m.Target
	}
	if m.State == s && m.Target == version {
		return
	}
	m.State, m.StateSince, m.Target, m.Detail = s, now, version, ""
}

func (m *Machine) fail(e omaha.Event, now time.Time) *Failure {
	version := e.NextVersion
	if version == "" {
		version = m.Target
	}
	if e.ErrorCode.Passing() && !m.State.updating() {
		return nil // a check that failed says nothing about an update
	}
	reason := e.Reason
	if reason == "" {
		reason = e.ErrorCode.Sentence()
	}
	reason += " (code " + e.ErrorCode.String() + ")"
	m.State, m.StateSince, m.Target, m.Detail = Failed, now, version, reason
	if e.ErrorCode.Passing() || version == "" || version == m.Version {
		return nil
	}
	return &Failure{Version: version, At: now, Code: e.ErrorCode, Reason: reason, Running: m.Version}
}
