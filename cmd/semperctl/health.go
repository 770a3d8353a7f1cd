package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/initramfs"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/health"
)

// healthFlags are the flags of "semperctl health".
type healthFlags struct {
	record, monitor, root, boot, server string
	limit                               time.Duration
}

func (p *program) healthCommand() *cobra.Command {
	var f healthFlags
	c := &cobra.Command{
		Use:   "health",
		Short: "Run the health checks now",
		Long: "Run the checks in /usr/lib/semper/health.d and /etc/semper/health.d, as the boot does. Exits with 0 when all required ones passed and with 1 when one failed.\n" +
			"By hand this decides nothing: only the result of the boot's own run blesses a version or goes back from it.\n\n" +
			"With --monitor it is one of the runs after the blessing: no check gets a grace, all run, and FILE counts how often in a row which one failed.",
		Args: noArgs,
		RunE: func(c *cobra.Command, _ []string) error { return p.health(c.Context(), f) },
	}
	c.Flags().StringVar(&f.record, "record", "", "write the result to this file as JSON, for everybody to read")
	c.Flags().StringVar(&f.monitor, "monitor", "", "count this run in this file")
	c.Flags().StringVar(&f.root, "root", "/", "where the folders are")
	c.Flags().StringVar(&f.boot, "boot", initramfs.BootPath, "what says which version runs, with --monitor")
	c.Flags().StringVar(&f.server, "server", "", "what the check \"server\" means: required, advisory or off (default: as semperd's settings say)")
	c.Flags().DurationVar(&f.limit, "limit", health.DefaultTimeout, "time for an attempt where the check does not say")
	return c
}

func (p *program) health(ctx context.Context, f healthFlags) error {
	switch health.Mode(f.server) {
	case "", health.ModeRequired, health.ModeAdvisory, health.ModeOff:
	default:
		return fault.New(fault.Usage, "--server is required, advisory or off, not %q", f.server)
	}
	if f.record != "" {
		// An old result must not speak for a run that is cut short.
		if err := os.Remove(f.record); err != nil && !os.IsNotExist(err) {
			return fault.New(fault.IO, "health checks: %w", err)
		}
	}
	checks, err := health.Find(f.root)
	if err != nil {
		return err
	}
	isServer := func(c health.Check) bool { return c.Builtin == health.Server }
	mode, grace := health.Mode(f.server), time.Duration(-1)
	if slices.ContainsFunc(checks, isServer) {
		mode, grace = p.serverCheck(ctx, f)
	}
	for i := range checks {
		if isServer(checks[i]) && grace >= 0 {
			checks[i].Grace = grace
		}
	}
	result := health.Run(ctx, checks, health.Options{
		Clock:   health.SystemClock,
		Host:    health.Host{Agent: p.agentAnswers, Server: func(ctx context.Context) error { return p.serverReached(ctx, f) }, ServerMode: mode},
		Timeout: f.limit,
		Later:   f.monitor != "",
	})
	if f.monitor != "" {
		return p.later(ctx, f, &result)
	}
	if err := p.report(&result, nil); err != nil {
		return err
	}
	if f.record != "" {
		if err := save(f.record, &result); err != nil {
			return err
		}
	}
	return result.Err()
}

// later counts a run after the blessing.
func (p *program) later(ctx context.Context, f healthFlags, r *health.Result) error {
	if ctx.Err() != nil { // the machine goes down: what was cut short says nothing about the version
		return fault.New(fault.IO, "health checks: interrupted, this run does not count")
	}
	boot, err := initramfs.ReadBoot(f.boot)
	if err != nil {
		return err
	}
	dir, err := durable.MakeDir(filepath.Dir(f.monitor), 0o700)
	if err != nil {
		return err
	}
	defer func() { _ = dir.Close() }()
	m := health.Monitor{Folder: dir, File: filepath.Base(f.monitor), Log: slog.Default()}
	verdict, err := m.Observe(boot.Version, r)
	if err != nil {
		return err
	}
	if err := p.report(r, &verdict); err != nil {
		return err
	}
	if f.record != "" {
		if err := save(f.record, &health.Later{Result: *r, Verdict: verdict}); err != nil {
			return err
		}
	}
	if verdict.Sick && f.record != "" {
		p.leave(ctx, f)
	}
	if verdict.Changed != "" {
		_, _ = p.ask(ctx, agent.Request{Verb: agent.VerbLook}) // it looks by itself too, within the hour
	}
	return r.Err()
}

// installer is semper-installd.
const installer = "/usr/lib/semper/semper-installd"

// leave has the other slot's version boot next, where the settings want that of a version that became sick. semper-installd knows when it makes sense, and
// does it once for a version; the agent then reboots as into an update.
func (p *program) leave(ctx context.Context, f healthFlags) {
	s, err := p.agentStatus(ctx)
	if err != nil || s.HealthLater != "rollback" {
		return
	}
	out, err := exec.CommandContext(ctx, installer, "rollback", "--later", "--health", f.record).CombinedOutput()
	if err != nil {
		slog.Error("leave the sick version", "version", s.Version, "error", err, "output", strings.TrimSpace(string(out)))
	}
}

func (p *program) report(r *health.Result, v *health.Verdict) error {
	if p.json {
		p.printed = true
		if v != nil {
			return p.print(&health.Later{Result: *r, Verdict: *v})
		}
		return p.print(r)
	}
	for _, c := range r.Checks {
		took := c.Took.Round(time.Millisecond).String()
		if c.Attempts > 1 {
			took = fmt.Sprintf("%d attempts, the last %s", c.Attempts, took)
		}
		switch {
		case c.OK:
			fmt.Fprintf(p.out, "ok      %s (%s)\n", c.Name, took)
			continue
		case c.Required:
			fmt.Fprintf(p.out, "FAILED  %s (%s): %s\n", c.Name, took, c.Problem)
		default:
			fmt.Fprintf(p.out, "warn    %s (%s): %s\n", c.Name, took, c.Problem)
		}
		if c.Output != "" {
			fmt.Fprintln(p.out, strings.TrimSuffix(c.Output, "\n"))
		}
	}
	if len(r.Checks) == 0 {
		fmt.Fprintln(p.out, "there are no health checks")
	}
	if v == nil {
		return nil
	}
	switch {
	case v.Changed == health.BecameSick:
		fmt.Fprintf(p.out, "version %s is sick from now on: %s failed in %d runs in a row\n", v.Version, strings.Join(v.Checks, ", "), health.InARow)
	case v.Changed == health.BecameHealthy:
		fmt.Fprintf(p.out, "version %s is healthy again\n", v.Version)
	case v.Sick:
		fmt.Fprintf(p.out, "version %s is sick since %s: %s\n", v.Version, v.Since.UTC().Format("2006-01-02 15:04:05 UTC"), strings.Join(v.Checks, ", "))
	}
	return nil
}

// save replaces path by v as JSON. Everybody may read it: semperd does, and what it says is in "semperctl status" too. The folder is /run, which no power
// cut survives, so nothing is flushed.
func save(path string, v any) (err error) {
	data, err := json.Marshal(v)
	if err != nil {
		return fault.Wrap(fault.Internal, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fault.New(fault.IO, "write result: %w", err)
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.Write(append(data, '\n'))
	if err == nil {
		err = f.Chmod(0o644)
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fault.New(fault.IO, "write result: %w", err)
	}
	return nil
}

// agentAnswers is the check "agent": what "semperctl status" needs to exit with 0.
func (p *program) agentAnswers(ctx context.Context) error {
	_, err := p.agentStatus(ctx)
	return err
}

func (p *program) agentStatus(ctx context.Context) (*agent.Report, error) {
	reply, err := p.ask(ctx, agent.Request{Verb: agent.VerbStatus})
	if err != nil {
		return nil, err
	}
	if reply.Status == nil {
		return nil, fault.New(fault.Input, "semperd's answer has no status")
	}
	if e := reply.Status.InstallerError; e != "" {
		return nil, fault.New(fault.IO, "the installer does not answer: %s", e)
	}
	return reply.Status, nil
}

// serverReached is the check "server". A machine that has no server has none to reach, and at the boot of a version that was healthy before nothing depends on it:
// semperd asks when it is due.
func (p *program) serverReached(ctx context.Context, f healthFlags) error {
	s, err := p.agentStatus(ctx)
	if err != nil {
		return err
	}
	if f.monitor == "" && f.server == "" && s.Version != "" && !s.Trial {
		return nil
	}
	return reached(s)
}

func reached(s *agent.Report) error {
	switch {
	case len(s.Servers) == 0 || s.Reached:
		return nil
	case s.LastError != nil && s.LastError.Kind == fault.Network.String():
		return fault.New(fault.Network, "no update server has answered since this boot: %s", s.LastError.Text)
	}
	return fault.New(fault.Network, "no update server has answered since this boot")
}

// serverCheck is what the settings say of the check "server", and how long it may take to pass. Where semperd does not tell, the check must pass, as by
// default; it will not, and neither will the one that asks whether semperd answers.
func (p *program) serverCheck(ctx context.Context, f healthFlags) (health.Mode, time.Duration) {
	mode, grace := health.Mode(f.server), time.Duration(-1)
	if f.server == "" {
		mode = health.ModeRequired
		for try := 0; ; try++ { // the boot has just begun to run everything
			reply, err := p.ask(ctx, agent.Request{Verb: agent.VerbStatus})
			if err == nil && reply.Status != nil && reply.Status.HealthServer != "" {
				mode, grace = health.Mode(reply.Status.HealthServer), reply.Status.HealthGrace
				break
			}
			if try == 10 || f.monitor != "" || ctx.Err() != nil {
				break
			}
			time.Sleep(time.Second)
		}
	}
	if f.monitor != "" && mode == health.ModeRequired {
		mode = health.ModeAdvisory // a server that is down for an hour says nothing against a version that was healthy
	}
	return mode, grace
}
