package agent

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"
)

// allStates in the order of the package's documentation.
var allStates = []StateName{StateIdle, StateTrial, StateChecking, StateDownloading, StateInstalling, StatePending, StateDraining, StateRebooting}

// Metrics is r in Prometheus' text format, for node_exporter's textfile collector or 'semperctl metrics'. Times are Unix seconds, 0 where there is none.
func (r *Report) Metrics() string {
	var b strings.Builder
	metric := func(name, help string) { fmt.Fprintf(&b, "# HELP %s %s\n# TYPE %s gauge\n", name, help, name) }
	value := func(name, labels string, v float64) {
		fmt.Fprintf(&b, "%s%s %s\n", name, labels, strconv.FormatFloat(v, 'f', -1, 64))
	}
	one := func(name, help string, v float64) {
		metric(name, help)
		value(name, "", v)
	}
	metric("semper_info", "What runs; always 1.")
	value("semper_info", labels("version", r.Version, "slot", r.Slot, "channel", r.Channel, "strategy", r.Reboot), 1)
	metric("semper_state", "1 for the state that the agent is in, 0 for all others.")
	for _, s := range allStates {
		value("semper_state", labels("state", string(s)), truth(s == r.State))
	}
	one("semper_state_since_seconds", "When the agent entered its state.", seconds(r.Since))
	one("semper_trial", "1 while the running version is not blessed.", truth(r.Trial))
	one("semper_reboot_required", "1 while an installed version waits for a reboot.", truth(r.Pending != nil))
	one("semper_paused", "1 while the agent is paused.", truth(r.Paused != nil))
	one("semper_lock_held", "1 while the fleet's reboot lock is, or may be, held.", truth(r.Locked))
	one("semper_sick", "1 while the running version is unhealthy although it was blessed.", truth(r.Sick != nil))
	one("semper_last_check_seconds", "When a server was asked last, with or without success.", seconds(r.LastCheck))
	one("semper_next_check_seconds", "When the next check is planned.", seconds(r.NextCheck))
	one("semper_last_check_ok", "1 if the last check was answered.", truth(!r.LastCheck.IsZero() && !strings.HasPrefix(r.CheckResult, checkFailedPrefix)))
	one("semper_events_unreported", "Events that no server has got yet.", float64(r.Unreported))
	one("semper_installer_up", "1 if semper-installd answered the last question.", truth(r.InstallerError == ""))
	one("semper_rollback_seconds", "When this machine came back from a version last.", seconds(rolledBackAt(r)))
	one("semper_freshness_expires_seconds", "When the newest signed statement of the servers expires.", seconds(r.Freshness.Expires))
	one("semper_freshness_ok", "1 unless what the servers say may be old.", truth(r.Freshness.Problem == ""))
	var done, total float64
	if p := r.Progress; p != nil {
		done, total = float64(p.Done), float64(p.Total)
	}
	one("semper_download_bytes", "Bytes of the payload that are on disk.", done)
	one("semper_download_size_bytes", "Size of the payload that is being downloaded.", total)
	metric("semper_failed_versions", "How often each version failed here.")
	failed := append([]Failed(nil), r.Failed...)
	sort.Slice(failed, func(i, j int) bool { return failed[i].Version < failed[j].Version })
	for _, f := range failed {
		value("semper_failed_versions", labels("version", f.Version), float64(max(f.Times, 1)))
	}
	return b.String()
}

func rolledBackAt(r *Report) time.Time {
	if r.RolledBack == nil {
		return time.Time{}
	}
	return r.RolledBack.At
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func seconds(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.Unix())
}

var escape = strings.NewReplacer(`\`, `\\`, "\n", `\n`, `"`, `\"`)

func labels(pairs ...string) string {
	var b strings.Builder
	for i := 0; i < len(pairs); i += 2 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `%s="%s"`, pairs[i], escape.Replace(pairs[i+1]))
	}
	return "{" + b.String() + "}"
}

// MOTD is what whoever logs in should know, in one or two lines.
func (r *Report) MOTD() string {
	name := "Semper"
	line := fmt.Sprintf("%s %s, channel %s", name, r.Version, r.Channel)
	if r.Version == "" {
		line = name + ": what runs is not known yet"
	}
	switch {
	case r.InstallerError != "":
		line += ": the installer does not answer (semperctl why)"
	case r.Trial:
		line += ": on trial, its health checks are not through"
	case r.Sick != nil:
		line += ": UNHEALTHY since " + stamp(r.Sick.Since) + " (semperctl why)"
	case r.State == StateRebooting || r.State == StateDraining:
		line += fmt.Sprintf(": REBOOTING into %s", r.Pending.Version)
	case r.Pending != nil && r.Waiting != "":
		line += fmt.Sprintf(": %s is installed and %s", r.Pending.Version, waits(r.Waiting))
	case r.Pending != nil:
		line += fmt.Sprintf(": %s is installed and waits for its reboot", r.Pending.Version)
	case r.Progress != nil:
		line += fmt.Sprintf(": %s is being downloaded", r.Progress.Version)
	case r.Paused != nil:
		line += ": updates are PAUSED: " + r.Paused.Reason
	case len(r.Servers) == 0:
		line += ": no update server is set"
	case !r.LastCheck.IsZero():
		line += fmt.Sprintf("; %s: %s", stamp(r.LastCheck), r.CheckResult)
	}
	line += ".\n"
	if r.RolledBack != nil {
		line += fmt.Sprintf("It came back from %s on %s: %s\n", r.RolledBack.Version, stamp(r.RolledBack.At), clip(r.RolledBack.Reason, 200))
	}
	if r.Freshness.Problem != "" {
		line += "What its servers say may be old: " + r.Freshness.Problem + ".\n"
	}
	return line
}

// waits makes a clause of what a reboot waits for.
func waits(why string) string {
	if strings.HasPrefix(why, "waits ") {
		return why
	}
	return "waits: " + why
}
