package agent

import (
	"cmp"
	"fmt"
	"time"
)

// Explain answers the question that a person has at 3 a.m.: why does this machine run what it runs, and what happens next? Each line is a sentence; the
// first says the most.
func (r *Report) Explain(now time.Time) []string {
	var out []string
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	if r.InstallerError != "" {
		say("semper-installd does not answer, so nothing can be installed: %s. See 'systemctl status semper-installd'.", r.InstallerError)
	}
	if r.Trial {
		say("Version %s is on trial: its health checks are not through yet. 'semperctl health' shows them.", r.Version)
	}
	if s := r.Soft; s != nil && s.Version != r.Version {
		say("Version %s was started by a soft-reboot: the kernel is the one of version %s, which the machine booted in slot %s.", r.Version, s.Version, s.Slot)
	}
	if s := r.Sick; s != nil {
		say("Version %s was healthy and is not any more, since %s: %s", r.Version, stamp(s.Since), s.Why)
	}
	if p := r.Pending; p != nil {
		switch {
		case r.State == StateRebooting:
			say("The machine is rebooting into %s.", p.Version)
		case r.State == StateDraining:
			say("Drain hooks are running; then the machine reboots into %s.", p.Version)
		case r.Waiting != "":
			say("Version %s is installed and waits for its reboot, because: %s.", p.Version, r.Waiting)
		default:
			say("Version %s is installed and waits for its reboot.", p.Version)
		}
		if r.RebootBy != "" {
			say("The way there is %s.", r.RebootBy)
		}
	}
	if p := r.Progress; p != nil {
		say("Version %s is being downloaded from %s.", p.Version, cmp.Or(p.URL, "its server"))
	}
	if p := r.Paused; p != nil {
		say("The agent is paused%s by %s: %s. 'semperctl resume' ends that.", since(p.At), p.By, p.Reason)
	}
	if b := r.RolledBack; b != nil {
		say("The machine came back from version %s on %s: %s", b.Version, stamp(b.At), b.Reason)
	}
	r.explainServer(now, say)
	for _, f := range r.Failed {
		if limit := max(r.MaxFailures, 1); max(f.Times, 1) >= limit {
			say("Version %s failed here %s and is not tried again; a newer version is. 'semperctl retry %s' tries it once more.", f.Version, times(f.Times), f.Version)
		} else {
			say("Version %s failed here %s; after %d failures it is not tried again.", f.Version, times(f.Times), limit)
		}
	}
	if r.Freshness.Problem != "" {
		say("What the servers say may be old: %s.", r.Freshness.Problem)
	}
	return out
}

func (r *Report) explainServer(now time.Time, say func(string, ...any)) {
	switch {
	case len(r.Servers) == 0:
		say("No update server is set, so the machine never asks: write server = \"https://HOST/v1/update\" into a file in /etc/semper/update.d.")
		return
	case r.LastCheck.IsZero():
		say("No server was asked yet; the first check is %s.", in(r.NextCheck, now))
	default:
		say("The last check, on %s, said: %s. The next one is %s.", stamp(r.LastCheck), r.CheckResult, in(r.NextCheck, now))
	}
	if r.Pin != "" {
		say("This machine is pinned to version %s: nothing else is installed.", r.Pin)
	}
	if r.Metered {
		say("The line is metered: nothing is downloaded.")
	}
	for _, url := range r.Servers {
		if b, ok := r.Bad[url]; ok && b.Until.After(now) {
			say("The server %s failed %s and is asked after the others until %s: %s", url, times(b.Times), stamp(b.Until), b.Why)
		}
	}
}

func times(n int) string {
	if n <= 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + stamp(t)
}

func in(t, now time.Time) string {
	d := t.Sub(now)
	switch {
	case t.IsZero():
		return "not planned"
	case d <= 0:
		return "due now"
	case d < 2*time.Hour:
		return fmt.Sprintf("in %d minutes", int(d.Minutes()+0.5))
	default:
		return "on " + stamp(t)
	}
}
