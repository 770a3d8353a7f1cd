package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"
)

// State is what a unit must be in.
type State string

// The states.
const (
	Active   State = "active"    // running, listening, mounted, reached
	ExitedOK State = "exited-ok" // has run since this boot, and succeeded
)

const (
	maxUnitName = 255
	maxFailed   = 100     // units that are looked at
	maxAnswer   = 1 << 20 // bytes of systemctl's
)

var unitTypes = []string{"service", "socket", "target", "mount", "automount", "timer", "path", "device", "swap", "slice", "scope"}

func checkUnitName(name string) error {
	i := strings.LastIndexByte(name, '.')
	if i <= 0 || len(name) > maxUnitName || !slices.Contains(unitTypes, name[i+1:]) {
		return fmt.Errorf("unit: %.80q is not a unit's name (example: \"podman.socket\")", name)
	}
	for _, b := range []byte(name) {
		if (b < 'a' || b > 'z') && (b < 'A' || b > 'Z') && (b < '0' || b > '9') && !strings.ContainsRune(`:_.\@-`, rune(b)) {
			return fmt.Errorf("unit: %.80q has a character that no unit's name has", name)
		}
	}
	return nil
}

// answer takes at most maxAnswer bytes, and forgets the rest.
type answer struct{ bytes.Buffer }

func (a *answer) Write(p []byte) (int, error) {
	_, _ = a.Buffer.Write(p[:min(len(p), max(0, maxAnswer-a.Len()))])
	return len(p), nil
}

func (h Host) systemctl(ctx context.Context, args ...string) (string, error) {
	program := h.Systemctl
	if program == "" {
		program = "systemctl"
	}
	cmd := exec.CommandContext(ctx, program, append([]string{"--no-pager", "--full"}, args...)...)
	cmd.WaitDelay = 2 * time.Second
	var out, problem answer
	cmd.Stdout, cmd.Stderr = &out, &problem
	err := cmd.Run()
	if err != nil {
		if text := strings.TrimSpace(problem.String()); text != "" {
			err = fmt.Errorf("%w: %.200s", err, strings.ReplaceAll(text, "\n", "; "))
		}
	}
	return out.String(), err
}

// show returns properties of units, in the order in which they were named. Id is among them, since it is never empty: each unit has its block of lines.
func (h Host) show(ctx context.Context, properties string, units ...string) ([]map[string]string, error) {
	out, err := h.systemctl(ctx, append([]string{"show", "--property=Id," + properties, "--"}, units...)...)
	if err != nil {
		return nil, fmt.Errorf("systemd does not tell the state of %s: %w", strings.Join(units, " "), err)
	}
	var all []map[string]string
	for block := range strings.SplitSeq(strings.TrimSpace(out), "\n\n") {
		one := map[string]string{}
		for line := range strings.Lines(block) {
			if key, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "="); ok {
				one[key] = value
			}
		}
		all = append(all, one)
	}
	if len(all) != len(units) {
		return nil, fmt.Errorf("systemd told of %d units, asked for %d", len(all), len(units))
	}
	return all, nil
}

// status is what a person would look at: the unit's state and its last lines.
func (h Host) status(ctx context.Context, units ...string) string {
	out, _ := h.systemctl(ctx, append([]string{"status", "--lines=10", "--"}, units...)...) // exits with 3 for a failed unit
	return out
}

func (h Host) unit(ctx context.Context, name string, want State) (output string, err error) {
	all, err := h.show(ctx, "LoadState,ActiveState,SubState,Result,ConditionResult,ExecMainExitTimestampMonotonic", name)
	if err != nil {
		return "", err
	}
	p := all[0]
	err = judge(name, want, p)
	if err != nil && p["LoadState"] == "loaded" {
		output = h.status(ctx, name)
	}
	return output, err
}

func judge(name string, want State, p map[string]string) error {
	active, result := p["ActiveState"], p["Result"]
	is := func() error { return fmt.Errorf("%s is %s (%s), want %s", name, active, p["SubState"], want) }
	if load := p["LoadState"]; load != "loaded" {
		return fmt.Errorf("%s: systemd says %q instead of loaded", name, load)
	}
	if want == Active {
		// As for "systemctl is-active": what reloads goes on working.
		if active == "active" || active == "reloading" || active == "refreshing" {
			return nil
		}
		return is()
	}
	ran := p["ExecMainExitTimestampMonotonic"] != "" && p["ExecMainExitTimestampMonotonic"] != "0"
	switch {
	case active == "active" && p["SubState"] == "exited" && result == "success":
		return nil
	case active == "inactive" && ran && result == "success":
		return nil
	case active == "inactive" && p["ConditionResult"] == "no":
		return fmt.Errorf("%s did not run: one of its conditions is not met", name)
	case active == "inactive" && !ran:
		return fmt.Errorf("%s did not run yet", name)
	}
	return is()
}

// imageUnits are where the image's units lie. /etc and /run belong to the machine's owner, and to generators that read the owner's files.
var imageUnits = []string{"/usr/lib/systemd/", "/lib/systemd/"}

// messengers fail because of what the checks said. Counted, one bad boot would keep a machine sick that has recovered since.
var messengers = []string{"semper-health.service", "semper-health-monitor.service", "semper-rollback.service"}

// failedUnits fails when a unit of the image has failed. Units that the machine's owner added, and waiting for a network that may not be there, say nothing
// about this version.
func (h Host) failedUnits(ctx context.Context) (output string, err error) {
	out, err := h.systemctl(ctx, "list-units", "--state=failed", "--plain", "--no-legend")
	if err != nil {
		return "", fmt.Errorf("systemd does not say which units have failed: %w", err)
	}
	var failed []string
	for line := range strings.Lines(out) {
		f := strings.Fields(line)
		if len(f) > 0 && !waitsForNetwork(f[0]) && !slices.Contains(messengers, f[0]) {
			failed = append(failed, f[0])
		}
	}
	if len(failed) == 0 {
		return "", nil
	}
	if len(failed) > maxFailed {
		return "", fmt.Errorf("%d units have failed", len(failed))
	}
	all, err := h.show(ctx, "FragmentPath", failed...)
	if err != nil {
		return "", err
	}
	var bad []string
	for i, name := range failed {
		if slices.ContainsFunc(imageUnits, func(dir string) bool { return strings.HasPrefix(all[i]["FragmentPath"], dir) }) {
			bad = append(bad, name)
		}
	}
	if len(bad) == 0 {
		return "", nil
	}
	return h.status(ctx, bad...), errors.New("failed units: " + strings.Join(bad, " "))
}

// waitsForNetwork is true of NAME-wait-online.service and its instances.
func waitsForNetwork(unit string) bool {
	name, ok := strings.CutSuffix(unit, ".service")
	name, _, _ = strings.Cut(name, "@")
	return ok && strings.HasSuffix(name, "-wait-online")
}
