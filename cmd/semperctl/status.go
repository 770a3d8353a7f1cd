package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/progress"
	"github.com/semper-os/semper/updater/agent"
)

func (p *program) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "What runs, what waits, what went wrong, what comes next",
		Long: "What runs, what waits, what went wrong, what comes next.\n\n" +
			"Exits with 0 when the agent and the installer answer, whatever they say, and with 1 when one of them does not.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			reply, err := p.ask(c.Context(), agent.Request{Verb: agent.VerbStatus})
			if err != nil {
				return err
			}
			if reply.Status == nil {
				return fault.New(fault.Input, "semperd's answer has no status")
			}
			if p.json {
				p.printed = true
				if err := p.print(reply.Status); err != nil {
					return err
				}
			} else {
				printStatus(p.out, reply.Status, time.Now())
			}
			if e := reply.Status.InstallerError; e != "" {
				return fault.New(fault.IO, "the installer does not answer: %s", e)
			}
			return nil
		},
	}
}

func printStatus(w io.Writer, r *agent.Report, now time.Time) {
	line := func(name, format string, args ...any) {
		fmt.Fprintf(w, "%-14s%s\n", name+":", fmt.Sprintf(format, args...))
	}
	switch {
	case r.Version == "":
		line("Running", "unknown")
	case r.Trial:
		line("Running", "%s (slot %s), on trial: its health checks are not through yet", r.Version, r.Slot)
	default:
		line("Running", "%s (slot %s)", r.Version, r.Slot)
	}
	if s := r.Soft; s != nil {
		line("Kernel", "of %s (slot %s), which the machine booted; soft-rebooted %s since", s.Version, s.Slot, times(s.Count))
	}
	line("State", "%s", describe(r, now))
	if r.Sick != nil {
		line("UNHEALTHY", "%s: %s", ago(r.Sick.Since, now), r.Sick.Why)
	}
	if r.Pending != nil {
		line("Installed", "%s, %s; %s", r.Pending.Version, ago(r.Pending.At, now), nextReboot(r))
	}
	if p := r.Paused; p != nil {
		line("PAUSED", "by %s: %s (semperctl resume)", p.By, p.Reason)
	}
	if r.Metered {
		line("Metered", "nothing is downloaded (semperctl metered off)")
	}
	if r.Pin != "" {
		line("Pinned", "to %s", r.Pin)
	}
	if b := r.RolledBack; b != nil {
		line("Rolled back", "from %s, %s", b.Version, ago(b.At, now))
		line("  reason", "%s", b.Reason)
	}
	if len(r.Servers) == 0 {
		line("Server", "none is set (server = \"http://HOST/v1/update\" in /etc/semper/update.d/*.toml)")
	} else {
		line("Server", "%s, channel %s", strings.Join(r.Servers, ", "), r.Channel)
		if r.LastCheck.IsZero() {
			line("Last check", "never")
		} else {
			line("Last check", "%s: %s", ago(r.LastCheck, now), r.CheckResult)
		}
		if !r.NextCheck.IsZero() {
			line("Next check", "%s", in(r.NextCheck, now))
		}
		if r.Unreported > 0 {
			line("Unreported", "%d event(s) that the server has not got yet", r.Unreported)
		}
	}
	if r.LastError != nil {
		line("Last error", "%s: %s", ago(r.LastError.At, now), r.LastError.Text)
	} else {
		line("Last error", "none")
	}
	for _, f := range r.Failed {
		if n := max(f.Times, 1); n >= r.MaxFailures {
			line("Not retried", "%s, failed %s (semperctl retry %s tries it again)", f.Version, ago(f.At, now), f.Version)
		} else {
			line("Failed", "%s, %d of %d times, %s", f.Version, n, r.MaxFailures, ago(f.At, now))
		}
	}
	if r.Freshness.Problem != "" {
		line("Freshness", "%s", r.Freshness.Problem)
	}
	if r.InstallerError != "" {
		line("Installer", "does not answer")
	}
}

// nextReboot says what must happen before the machine starts what is installed.
func nextReboot(r *agent.Report) string {
	switch {
	case r.State == agent.StateRebooting:
		return "the machine reboots into it"
	case r.State == agent.StateDraining:
		return "drain hooks run, then the machine reboots into it"
	case r.Reboot == "off":
		return "reboot into it when it suits you: systemctl reboot"
	case r.Waiting != "":
		return r.Waiting
	default:
		return "the machine reboots into it by itself" + by(r)
	}
}

func by(r *agent.Report) string {
	if r.RebootBy == "" {
		return ""
	}
	return ", by " + r.RebootBy
}

func describe(r *agent.Report, now time.Time) string {
	since := ""
	if !r.Since.IsZero() {
		since = ", since " + ago(r.Since, now)
	}
	switch r.State {
	case agent.StateDownloading:
		if p := r.Progress; p != nil {
			return fmt.Sprintf("downloading %s: %s of %s (%d %%)", p.Version, progress.Size(p.Done), progress.Size(p.Total), p.Done*100/max(p.Total, 1))
		}
	case agent.StateIdle:
		return "idle: waiting for the next check"
	}
	if r.Why == "" {
		return string(r.State) + since
	}
	return fmt.Sprintf("%s: %s%s", r.State, r.Why, since)
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return fmt.Sprintf("%d times", n)
}

// ago says when something was, exactly and for people.
func ago(t, now time.Time) string {
	return fmt.Sprintf("%s (%s ago)", t.UTC().Format("2006-01-02 15:04:05 UTC"), span(now.Sub(t)))
}

func in(t, now time.Time) string {
	if !t.After(now) {
		return "now"
	}
	return fmt.Sprintf("%s (in %s)", t.UTC().Format("2006-01-02 15:04:05 UTC"), span(t.Sub(now)))
}

func span(d time.Duration) string {
	switch {
	case d < 0:
		return "0 s"
	case d < 2*time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < 2*time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	default:
		return fmt.Sprintf("%d days", d/(24*time.Hour))
	}
}
