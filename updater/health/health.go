// Package health decides whether a freshly booted version works, and notices when a good one stops working.
//
// A check is a file in /usr/lib/semper/health.d (the image's) or /etc/semper/health.d (the machine's), found as package hook says:
//
//	NAME        an executable: passes when it exits with 0 within its time limit
//	NAME.toml   says what to check, and how; beside an executable NAME it has only the options
//
//	unit = "podman.socket"       a systemd unit that must be active; with state = "exited-ok": that must have run and succeeded
//	exec = ["/usr/bin/x", "-y"]  a program with arguments, without a shell          (exactly one of unit, exec, builtin)
//	builtin = "failed-units"     failed-units, network, agent, server: see Builtins
//	required = true              false: advisory, it is reported and never decides
//	timeout = "2m"               of one attempt, 1s to 10m
//	grace = "5m"                 tried again until it passes or this is over, up to 15m; 0 is one attempt
//	retry = "10s"                from the end of an attempt to the next, 1s to 5m
//
// Where both folders know a NAME, the machine's file wins: an executable or a definition takes the place of whatever the image runs under that name, and a
// NAME.toml with options alone changes the options, key by key. A link to /dev/null as NAME switches the check off, as NAME.toml takes the image's NAME.toml away.
//
// Checks run one after the other in byte order of their names. One that fails and has a grace is tried again after all others had their turn, so that the
// whole takes as long as the longest grace and not as their sum. The run ends with the first required check whose failure is final. What a check prints is
// for the person who will ask why: the end of it is kept across the rollback and sent to the update server.
//
// The result decides over a reboot into the old version, so everything doubtful is a failure: a check that cannot be started, that is killed, that leaves no
// executable bit, a folder that cannot be read; and a TOML file that is not understood is a required check that failed.
//
// Limits: 100 checks; 20 minutes for all; 64 KiB a TOML file; the last 4 KiB of a check's output.
package health

import (
	"strings"
	"time"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/updater/hook"
)

// The limits of a run.
const (
	maxChecks = 100
	// Overall is the time that all checks together get.
	Overall = 20 * time.Minute
	// DefaultTimeout is what one attempt gets where its file does not say.
	DefaultTimeout = 2 * time.Minute
	defaultRetry   = 10 * time.Second
)

// Folders hold the checks, lowest precedence first, relative to the root folder.
var Folders = []string{"usr/lib/semper/health.d", "etc/semper/health.d"}

// Kind is what a check does.
type Kind string

// The kinds of check.
const (
	Exec    Kind = "exec"    // runs a program
	Unit    Kind = "unit"    // looks at a systemd unit
	Builtin Kind = "builtin" // is part of Semper
	Broken  Kind = "broken"  // its TOML file says nothing that could be done: it fails
)

// Check is one check.
type Check struct {
	Name     string
	Path     string // the file that says what it does
	Kind     Kind
	Argv     []string // of Exec
	Unit     string   // of Unit
	State    State    // of Unit
	Builtin  string   // of Builtin, one of Builtins
	Required bool
	Timeout  time.Duration // of one attempt; 0: whoever runs it decides
	Grace    time.Duration
	Retry    time.Duration
	Err      error // of Broken
}

// Result is the outcome of all checks; it is the JSON of /run/semper/health.json.
type Result struct {
	Healthy bool          `json:"healthy"`
	At      time.Time     `json:"at"` // when the last check ended
	Checks  []CheckResult `json:"checks"`
}

// CheckResult is the outcome of one check.
type CheckResult struct {
	Name     string        `json:"name"`
	OK       bool          `json:"ok"`
	Required bool          `json:"required"`
	Kind     Kind          `json:"kind"`
	Attempts int           `json:"attempts"`          // 0: it never got its turn
	Waiting  bool          `json:"waiting,omitempty"` // it failed, but the run ended before its grace did
	Problem  string        `json:"problem,omitempty"` // of the last attempt: "exit status 1", "took longer than 1m0s"
	Output   string        `json:"output,omitempty"`  // the end of what the last attempt printed, valid UTF-8
	Took     time.Duration `json:"took_ns"`           // the last attempt
}

// Failed returns the check that decided against the version, or nil: the first required one whose failure is final, else the first required one that failed,
// else, in a result that says no for no such reason, the first that failed.
func (r *Result) Failed() *CheckResult {
	if r.Healthy {
		return nil
	}
	rank := func(c *CheckResult) int {
		switch {
		case c.OK:
			return 0
		case !c.Required:
			return 1
		case c.Waiting:
			return 2
		default:
			return 3
		}
	}
	var found *CheckResult
	best := 0
	for i := range r.Checks {
		if n := rank(&r.Checks[i]); n > best {
			found, best = &r.Checks[i], n
		}
	}
	return found
}

// Advisories returns the advisory checks that failed.
func (r *Result) Advisories() []CheckResult {
	var failed []CheckResult
	for _, c := range r.Checks {
		if !c.OK && !c.Required {
			failed = append(failed, c)
		}
	}
	return failed
}

// Err says why the machine is not healthy, in one line and with kind Verification; nil when it is.
func (r *Result) Err() error {
	if r.Healthy {
		return nil
	}
	c := r.Failed()
	if c == nil {
		return fault.New(fault.Verification, "health checks were not run to their end")
	}
	if line := hook.LastLine(c.Output); line != "" && !strings.HasSuffix(c.Problem, line) {
		return fault.New(fault.Verification, "health check %s failed: %s: %s", c.Name, c.Problem, line)
	}
	return fault.New(fault.Verification, "health check %s failed: %s", c.Name, c.Problem)
}
