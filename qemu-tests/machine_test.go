package qemutests

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/semper-os/semper/omaha/server/api"
	"github.com/semper-os/semper/qemu-tests/guest"
	"github.com/semper-os/semper/qemu-tests/programs"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/vm"
)

// machine is a guest in a test: what goes wrong ends the test.
type machine struct {
	*guest.Guest
	t *testing.T
}

// takeSlot waits until one more machine may run.
func takeSlot(t *testing.T) {
	t.Helper()
	select {
	case world.slots <- struct{}{}:
	case <-t.Context().Done():
		t.Fatal(context.Cause(t.Context()))
	}
	t.Cleanup(func() { <-world.slots })
}

// start switches a machine on; it is killed when the test ends.
func start(t *testing.T, c guest.Config) *machine {
	t.Helper()
	g, err := guest.Boot(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.Kill)
	return &machine{g, t}
}

// config describes a machine of a test, with its files in a folder named after the test.
func config(t *testing.T, name string) guest.Config {
	return guest.Config{Name: name, Dir: filepath.Join(world.dir, t.Name(), name), Key: world.key, CPUs: 1, CPU: cpu, KernelArgs: kernelArgs}
}

// branch starts a machine that goes on from a shared one.
func branch(t *testing.T, from func() (guest.Config, error)) *machine {
	t.Helper()
	takeSlot(t)
	origin, err := from()
	if err != nil {
		t.Fatal(err)
	}
	c, err := origin.Branch(t.Name(), filepath.Join(world.dir, t.Name()))
	if err != nil {
		t.Fatal(err)
	}
	return start(t, c)
}

// ready is 1.0.0 after its first boot. The first test that needs it boots it.
var ready = sync.OnceValues(func() (guest.Config, error) {
	c := guest.Config{
		Name: "ready", Dir: filepath.Join(world.dir, "ready"), Disk: filepath.Join(releasePath(first), "disk.raw"),
		DiskSize: diskSize, Key: world.key, CPUs: 1, CPU: cpu, KernelArgs: kernelArgs,
	}
	ctx, cancel := context.WithTimeout(world.ctx, bootTime)
	defer cancel()
	g, err := guest.Boot(world.ctx, c)
	if err != nil {
		return c, err
	}
	defer g.Kill()
	if err := g.WaitVersion(ctx, first); err != nil {
		return c, err
	}
	// Nothing is left to start or to bless: the moment is a quiet one.
	if _, err := g.Run(ctx, "systemctl is-system-running --wait && systemctl is-active semper-bless.service"); err != nil {
		return c, err
	}
	return c, g.Save(ctx)
})

// run runs a command that must succeed, and returns its output without the newline at the end.
func (m *machine) run(command string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), commandTime)
	defer cancel()
	out, err := m.Run(ctx, command)
	if err != nil {
		m.t.Fatal(err)
	}
	return strings.TrimRight(out, "\n")
}

// waitVersion waits until the version runs and is healthy.
func (m *machine) waitVersion(version string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), updateTime)
	defer cancel()
	if err := m.WaitVersion(ctx, version); err != nil {
		m.t.Fatal(err)
	}
}

// waitRun repeats a command until its output satisfies ok.
func (m *machine) waitRun(command string, ok func(string) bool) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), updateTime)
	defer cancel()
	out, err := m.WaitFor(ctx, command, ok)
	if err != nil {
		m.t.Fatal(err)
	}
	return out
}

func parseStatus(out string) (agent.Report, error) {
	var r agent.Report
	err := json.Unmarshal([]byte(out), &r)
	return r, err
}

// status is "semperctl status --json".
func (m *machine) status() agent.Report {
	m.t.Helper()
	r, err := parseStatus(m.run("semperctl status --json"))
	if err != nil {
		m.t.Fatal(err)
	}
	return r
}

// waitStatus asks for the status until it satisfies ok.
func (m *machine) waitStatus(ok func(agent.Report) bool) agent.Report {
	m.t.Helper()
	var last agent.Report
	m.waitRun("semperctl status --json", func(out string) bool {
		r, err := parseStatus(out)
		if err == nil {
			last = r
		}
		return err == nil && ok(r)
	})
	return last
}

// noGrace: a test is logged in all the time, and a reboot must not wait for it.
var noGrace = []byte("[reboot]\nuser_grace = \"0s\"\n")

// serverSettings are the settings of a machine that asks a server, but only when it is told to.
func serverSettings(server string, more ...string) ([]byte, error) {
	url, _, err := vm.GuestURL(server)
	if err != nil {
		return nil, err
	}
	lines := append([]string{
		fmt.Sprintf("server = %q", url), `channel = "stable"`, `poll_interval = "6h"`, `initial_delay = "3h"`, `jitter = "0s"`,
	}, more...)
	return []byte(strings.Join(lines, "\n") + "\n"), nil
}

// use makes a server the machine's update server, in a way that survives an update. The machine asks only when it is told to.
func (m *machine) use(server string, more ...string) {
	m.t.Helper()
	toml, err := serverSettings(server, more...)
	if err != nil {
		m.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(m.t.Context(), commandTime)
	defer cancel()
	for name, content := range map[string][]byte{"40-test.toml": noGrace, "50-test.toml": toml} {
		if err := m.Put(ctx, "/etc/semper/update.d/"+name, content, 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
	m.run("systemctl restart semperd.service")
}

// check has the machine ask for an update, and install it if there is one. It returns when the server has answered.
func (m *machine) check() string {
	m.t.Helper()
	return m.run("semperctl check")
}

// idleSlot describes slot B as the machine sees it: the label of its three partitions, and whether anything was written to its start.
func (m *machine) idleSlot() (label string, blank bool) {
	m.t.Helper()
	labels := strings.Fields(m.run("lsblk -no PARTLABEL /dev/vda6 /dev/vda7 /dev/vda8"))
	if len(labels) != 3 || labels[0] != labels[1] || labels[1] != labels[2] {
		m.t.Fatalf("slot B's labels are %q", labels)
	}
	out := m.run("cmp --bytes=4194304 /dev/vda6 /dev/zero >/dev/null && echo blank || echo written")
	return labels[0], out == "blank"
}

// entries lists the boot entries.
func (m *machine) entries() string {
	m.t.Helper()
	return strings.Join(strings.Fields(m.run("ls /efi/EFI/Linux")), " ")
}

// server is an update server of a test.
type server struct {
	*programs.Server
	t *testing.T
}

func startServer(t *testing.T) *server {
	t.Helper()
	// Not the test's context: that ends before the cleanup that stops the server in order.
	if err := os.MkdirAll(filepath.Join(world.dir, t.Name()), 0o755); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(filepath.Join(world.dir, t.Name()), "server-") // a test may have more than one
	if err != nil {
		t.Fatal(err)
	}
	s, err := world.bin.StartServer(world.ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil {
			t.Error(err)
		}
	})
	return &server{s, t}
}

func (s *server) publish(version string) {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), commandTime)
	defer cancel()
	if err := s.Publish(ctx, nil, releasePath(version), "stable"); err != nil {
		s.t.Fatal(err)
	}
}

// wait waits until the server shows something of its only machine.
func (s *server) wait(what string, ok func(api.MachineDetail) bool) api.MachineDetail {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), updateTime)
	defer cancel()
	m, err := s.WaitMachine(ctx, what, ok)
	if err != nil {
		s.t.Fatal(err)
	}
	return m
}

// waitComplete waits until the server knows that the machine runs a version and is healthy.
func (s *server) waitComplete(version string) api.MachineDetail {
	s.t.Helper()
	return s.wait("the completed update to "+version, func(m api.MachineDetail) bool { return m.State == "complete" && m.Version == version })
}

// failure returns the server's record of a version that failed on the machine.
func failure(m api.MachineDetail, version string) *api.Failure {
	for i := range m.FailedVersions {
		if m.FailedVersions[i].Version == version {
			return &m.FailedVersions[i]
		}
	}
	return nil
}

func eventCode(e api.Event) string { return fmt.Sprintf("%d/%d", e.Type, e.Result) }

var panicLine = regexp.MustCompile(`Kernel panic - not syncing`)
