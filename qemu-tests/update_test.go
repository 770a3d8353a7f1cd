package qemutests

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/qemu-tests/guest"
	"github.com/semper-os/semper/updater/agent"
)

const (
	etcChange   = "/etc/sysctl.d/90-mine.conf"
	etcContent  = "vm.swappiness = 7"
	imageName   = "localhost/hello:1"
	runImage    = "podman run --rm " + imageName
	hello       = "hello from a container"
	containerIn = "/var/tmp/hello.tar"
)

// updated is ready after the update to 1.1.0, the whole one, with a change in /etc and a container image from before, and what the programs held in memory that applied it.
var updated = sync.OnceValues(func() (guest.Config, error) {
	origin, err := ready()
	if err != nil {
		return guest.Config{}, err
	}
	ctx, cancel := context.WithTimeout(world.ctx, bootTime+updateTime)
	defer cancel()
	dir := filepath.Join(world.dir, "updated")
	c, err := origin.Branch("updated", dir)
	if err != nil {
		return c, err
	}
	s, err := world.bin.StartServer(world.ctx, filepath.Join(dir, "server"))
	if err != nil {
		return c, err
	}
	defer func() { _ = s.Stop() }() // it has done its work by then
	if err := s.Publish(ctx, nil, wholePath(second), "stable"); err != nil {
		return c, err
	}
	g, err := guest.Boot(world.ctx, c)
	if err != nil {
		return c, err
	}
	defer g.Kill()
	archive, err := containerArchive()
	if err != nil {
		return c, err
	}
	settings, err := serverSettings(s.URL)
	if err != nil {
		return c, err
	}
	for path, content := range map[string][]byte{
		"/etc/semper/update.d/40-test.toml": noGrace,
		"/etc/semper/update.d/50-test.toml": settings,
		etcChange:                           []byte(etcContent + "\n"),
		containerIn:                         archive,
		samplerIn:                           []byte(sampler),
	} {
		if err := g.Put(ctx, path, content, 0o644); err != nil {
			return c, err
		}
	}
	for _, command := range []string{
		"podman load --input " + containerIn,
		"systemd-run --quiet --property=CPUWeight=1 --property=Nice=19 /bin/sh " + samplerIn,
		"systemctl restart semperd.service",
		"semperctl check",
	} {
		if _, err := g.Run(ctx, command); err != nil {
			return c, err
		}
	}
	if err := g.WaitVersion(ctx, second); err != nil {
		return c, err
	}
	if _, err := s.WaitMachine(ctx, "the completed update", func(m api.MachineDetail) bool { return m.State == "complete" && m.Version == second }); err != nil {
		return c, err
	}
	// The disk is looked at from outside too, and then the ESP must be as the machine leaves it when nobody uses it.
	if _, err := g.Run(ctx, "systemctl stop efi.mount && sync"); err != nil {
		return c, err
	}
	return c, g.Save(ctx) // beside the snapshot that it went on from
})

// TestUpdateABA updates from slot A to slot B and back to slot A, each time to a newer version.
func TestUpdateABA(t *testing.T) {
	t.Parallel()
	m := branch(t, updated)
	if s := m.waitStatus(blessed(second)); s.Slot != "B" {
		t.Errorf("after the first update: %+v", s)
	}
	if got, want := m.entries(), "semper_1.0.0.efi semper_1.1.0.efi"; got != want {
		t.Errorf("boot entries %q, want %q", got, want)
	}
	s := startServer(t)
	s.publish(third)
	m.use(s.URL)
	resets := m.Monitor().Count("RESET")
	m.check()
	m.waitVersion(third)
	if n := m.Monitor().Count("RESET") - resets; n != 1 {
		t.Errorf("the update took %d resets, not one", n)
	}
	if s := m.waitStatus(blessed(third)); s.Slot != "A" || s.Pending != nil || s.RolledBack != nil {
		t.Errorf("after the second update: %+v", s)
	}
	if got, want := m.entries(), "semper_1.1.0.efi semper_1.3.0.efi"; got != want {
		t.Errorf("boot entries %q, want %q: the new one without a counter, the one of the overwritten slot gone", got, want)
	}
	d := s.waitComplete(third)
	if len(d.FailedVersions) != 0 {
		t.Errorf("the server has failures: %+v", d.FailedVersions)
	}
	// Flatcar's events: download started and finished, installed, and the new version's success.
	var got []string
	for _, e := range d.Events {
		got = append(got, eventCode(e))
	}
	if want := "13/1 14/1 3/1 3/2"; strings.Join(got, " ") != want {
		t.Errorf("events %q, want %q", got, want)
	}
	// A machine with the channel's release is told why there is nothing for it.
	if out := m.check(); !strings.Contains(out, third) || !strings.Contains(out, "no update") {
		t.Errorf("semperctl check says %q", out)
	}
}

// TestEtcChangeSurvivesUpdate looks for a file in /etc that was made before the update.
func TestEtcChangeSurvivesUpdate(t *testing.T) {
	t.Parallel()
	m := branch(t, updated)
	if got := m.run("cat " + etcChange); got != etcContent {
		t.Errorf("%s reads %q", etcChange, got)
	}
	// It is not only there, it is in effect: it was there when the system started.
	if got := m.run("cat /proc/sys/vm/swappiness"); got != "7" {
		t.Errorf("vm.swappiness is %s", got)
	}
	if out := m.run("findmnt -no FSTYPE /etc"); out != "overlay" {
		t.Errorf("/etc is %s", out)
	}
	if v := m.status().Version; v != second {
		t.Errorf("version %s runs", v)
	}
}

// TestContainerRuns loads an image from an archive and runs it, and runs it again after an update.
func TestContainerRuns(t *testing.T) {
	t.Parallel()
	archive, err := containerArchive()
	if err != nil {
		t.Fatal(err)
	}
	t.Run("before", func(t *testing.T) {
		m := branch(t, ready)
		ctx, cancel := context.WithTimeout(t.Context(), commandTime)
		defer cancel()
		if err := m.Put(ctx, containerIn, archive, 0o644); err != nil {
			t.Fatal(err)
		}
		m.run("podman load --input " + containerIn)
		if out := m.run(runImage); out != hello {
			t.Errorf("the container printed %q", out)
		}
	})
	t.Run("after the update", func(t *testing.T) {
		m := branch(t, updated)
		if out := m.run(runImage); out != hello {
			t.Errorf("the container printed %q", out)
		}
		if v := m.status().Version; v != second {
			t.Errorf("version %s runs", v)
		}
	})
}

// TestFailedHealthCheckGoesBack updates to a version whose health check fails.
func TestFailedHealthCheckGoesBack(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.publish(sick)
	m := branch(t, ready)
	m.use(s.URL)
	m.check()
	r := m.waitStatus(func(r agent.Report) bool { return r.Version == first && r.RolledBack != nil })
	if r.RolledBack.Version != sick || r.RolledBack.Check != "50-demo-fails" || !strings.Contains(r.RolledBack.Output, "does not answer") || r.Slot != "A" {
		t.Errorf("status: %+v", r)
	}
	if n := m.Monitor().Count("RESET"); n != 2 {
		t.Errorf("%d resets, want one into the sick version and one back", n)
	}
	if got := m.entries(); !strings.Contains(got, "semper_1.0.0.efi") || !strings.Contains(got, "semper_1.2.0+0-") {
		t.Errorf("boot entries %q", got)
	}
	refusedFromNowOn(t, m, s, sick, "50-demo-fails")
}

// TestKernelPanicGoesBack updates to a version whose kernel panics before anything could notice: the boot loader's counter is all there is.
func TestKernelPanicGoesBack(t *testing.T) {
	t.Parallel()
	s := startServer(t)
	s.publish(panicked)
	m := branch(t, ready)
	m.use(s.URL)
	m.check()
	r := m.waitStatus(func(r agent.Report) bool { return r.Version == first && r.RolledBack != nil })
	if r.RolledBack.Version != panicked || r.Slot != "A" {
		t.Errorf("status: %+v", r)
	}
	if n := m.Monitor().Count("RESET"); n != 4 {
		t.Errorf("%d resets, want three tries and one back", n)
	}
	if n := len(m.Console.Matches(0, panicLine)); n != 3 {
		t.Errorf("%d panics on the console, want 3", n)
	}
	if got := m.entries(); got != "semper_1.0.0.efi semper_1.4.0+0-3.efi" {
		t.Errorf("boot entries %q", got)
	}
	refusedFromNowOn(t, m, s, panicked, "")
}

// refusedFromNowOn checks that machine and server agree that a version failed, and that the machine does not get it again.
func refusedFromNowOn(t *testing.T, m *machine, s *server, version, reason string) {
	t.Helper()
	f := failure(s.wait("the failed version", hasFailed(version)), version)
	if !strings.Contains(f.Reason, reason) {
		t.Errorf("the server's reason is %q", f.Reason)
	}
	resets := m.Monitor().Count("RESET")
	if out := m.check(); !strings.Contains(out, "no update") || !strings.Contains(out, version) {
		t.Errorf("semperctl check says %q", out)
	}
	d := s.wait("the answer to the machine's check", func(m api.MachineDetail) bool { return m.Why.Cause == "failed-before" })
	if d.Why.Offer != "" || !strings.Contains(d.Why.Sentence, version) {
		t.Errorf("the server would answer: %+v", d.Why)
	}
	if st := m.status(); st.State != agent.StateIdle || m.Monitor().Count("RESET") != resets {
		t.Errorf("the machine is not at rest: %+v", st)
	}
}

// blessed is a machine that runs a version without a counter; the agent looks for that every few seconds only.
func blessed(version string) func(agent.Report) bool {
	return func(r agent.Report) bool { return r.Version == version && !r.Trial }
}

func hasFailed(version string) func(api.MachineDetail) bool {
	return func(m api.MachineDetail) bool { return failure(m, version) != nil }
}
