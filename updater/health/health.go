// Package health decides whether a freshly booted version works.
//
// A check is an executable file in /usr/lib/semper/health.d (the image's) or /etc/semper/health.d (the machine's). They run one after the other in byte
// order of their names; a file in /etc replaces one of the same name in /usr/lib, and a link to /dev/null there switches it off. A check passes when it
// exits with 0 within its time limit; all must pass. What it prints is for the person who will ask why: the end of it is kept across the rollback and
// sent to the update server.
//
// The result decides over a reboot into the old version, so everything doubtful is a failure: a check that cannot be started, that is killed, that
// leaves no executable bit, a folder that cannot be read.
//
// Limits: 100 checks; the last 4 KiB of a check's output.
package health

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"syscall"
	"time"

	"github.com/semper-os/semper/fault"
)

const (
	maxChecks = 100
	maxOutput = 4 << 10

	// killGrace is how long a killed check's output is waited for, since a grandchild may hold the pipe.
	killGrace = 2 * time.Second
)

// Folders hold the checks, lowest precedence first, relative to the root folder.
var Folders = []string{"usr/lib/semper/health.d", "etc/semper/health.d"}

// Check is one executable.
type Check struct {
	Name string // the file's name
	Path string
}

// Result is the outcome of all checks; it is the JSON of /run/semper/health.json.
type Result struct {
	Healthy bool          `json:"healthy"`
	At      time.Time     `json:"at"` // when the last check ended
	Checks  []CheckResult `json:"checks"`
}

// CheckResult is the outcome of one check.
type CheckResult struct {
	Name    string        `json:"name"`
	OK      bool          `json:"ok"`
	Problem string        `json:"problem,omitempty"` // "exit status 1", "took longer than 1m0s"
	Output  string        `json:"output,omitempty"`  // the end of what it printed, valid UTF-8
	Took    time.Duration `json:"took_ns"`
}

// Failed returns the first check that failed, or nil.
func (r *Result) Failed() *CheckResult {
	for i := range r.Checks {
		if !r.Checks[i].OK {
			return &r.Checks[i]
		}
	}
	return nil
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
	if line := lastLine(c.Output); line != "" {
		return fault.New(fault.Verification, "health check %s failed: %s: %s", c.Name, c.Problem, line)
	}
	return fault.New(fault.Verification, "health check %s failed: %s", c.Name, c.Problem)
}

func lastLine(s string) string {
	s = strings.TrimSpace(s)
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	if len(s) > 200 {
		s = strings.ToValidUTF8(s[:200], "") + "…"
	}
	return strings.TrimSpace(s)
}

// Find lists the checks below root ("/" on a machine) in the order in which they run.
func Find(root string) ([]Check, error) {
	found := map[string]string{}
	for _, dir := range Folders {
		dir = filepath.Join(root, dir)
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fault.New(fault.IO, "read health checks: %w", err)
		}
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), ".") || strings.HasSuffix(e.Name(), "~") {
				continue
			}
			path := filepath.Join(dir, e.Name())
			if target, err := os.Readlink(path); err == nil && target == "/dev/null" {
				delete(found, e.Name())
				continue
			}
			found[e.Name()] = path
		}
	}
	if len(found) > maxChecks {
		return nil, fault.New(fault.Input, "%d health checks, at most %d are run", len(found), maxChecks)
	}
	checks := make([]Check, 0, len(found))
	for name, path := range found {
		checks = append(checks, Check{Name: name, Path: path})
	}
	sort.Slice(checks, func(i, j int) bool { return checks[i].Name < checks[j].Name })
	return checks, nil
}

// Run runs the checks, each for at most limit, and stops after the first that fails: the machine goes back then, and the later checks often only
// repeat the first one's failure, at the price of the time until the machine serves again. Now is the clock.
func Run(ctx context.Context, checks []Check, limit time.Duration, now func() time.Time) Result {
	r := Result{Healthy: true, Checks: []CheckResult{}}
	for _, c := range checks {
		one := run(ctx, c, limit, now)
		r.Checks = append(r.Checks, one)
		if !one.OK {
			r.Healthy = false
			break
		}
	}
	r.At = now().UTC()
	return r
}

func run(ctx context.Context, c Check, limit time.Duration, now func() time.Time) CheckResult {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out tail
	cmd := exec.CommandContext(limited, c.Path)
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), "SEMPER_HEALTH_CHECK="+c.Name)
	cmd.Stdout, cmd.Stderr = &out, &out
	// Its own process group, so that the time limit ends its children too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = killGrace

	start := now()
	err := cmd.Run()
	r := CheckResult{Name: c.Name, OK: err == nil, Output: out.String(), Took: now().Sub(start)}
	switch {
	case err == nil:
	case ctx.Err() != nil:
		r.Problem = "interrupted"
	case limited.Err() != nil:
		r.Problem = fmt.Sprintf("took longer than %s", limit)
	default:
		r.Problem = err.Error()
	}
	return r
}

// tail keeps the last maxOutput bytes written to it.
type tail struct {
	b   []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	n := len(p)
	if len(p) > maxOutput {
		p, t.cut = p[len(p)-maxOutput:], true
	}
	t.b = append(t.b, p...)
	if over := len(t.b) - maxOutput; over > 0 {
		t.b, t.cut = append(t.b[:0], t.b[over:]...), true
	}
	return n, nil
}

func (t *tail) String() string {
	s := strings.ToValidUTF8(string(t.b), "\uFFFD")
	if t.cut {
		s = "…" + s
	}
	return s
}
