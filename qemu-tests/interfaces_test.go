package qemutests

import (
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const (
	busctl    = "busctl --system "
	ourObject = "org.semper.Update1 /org/semper/Update1 org.semper.Update1 "
	theirs    = "com.coreos.update1 /com/coreos/update1 com.coreos.update1.Manager "
	motd      = "cat /run/motd.d/60-semper"
	metrics   = "cat /run/semper/agent/metrics.prom"
	hookPath  = "/etc/semper/drain.d/10-test"
	slotsKey  = "semper/reboot/qemu/"
)

// TestAgentInterfaces goes the way of a person who takes a machine back to the version before, and looks at each step at what other programs see: the two D-Bus
// interfaces, polkit, metrics, the line for whoever logs in, /run/reboot-required, drain hooks and the fleet's lock in a real etcd.
func TestAgentInterfaces(t *testing.T) {
	t.Parallel()
	etcd := startEtcd(t)
	m := branch(t, updated)
	contains := func(command string, want ...string) {
		t.Helper()
		out := m.run(command)
		for _, w := range want {
			if !strings.Contains(out, w) {
				t.Errorf("%s: no %q in\n%s", command, w, out)
			}
		}
	}
	is := func(command, want string) {
		t.Helper()
		if out := m.run(command); out != want {
			t.Errorf("%s: %q, want %q", command, out, want)
		}
	}
	settings := func(content string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), commandTime)
		defer cancel()
		if err := m.Put(ctx, "/etc/semper/update.d/60-reboot.toml", []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s := startServer(t)
	m.use(s.URL) // a version is healthy when it reaches its server again
	m.waitStatus(blessed(second))

	// A machine that has nothing to do, once its agent has looked at it.
	m.waitRun(busctl+"get-property "+ourObject+"Slot", func(out string) bool { return out == `s "B"`+"\n" })
	m.waitRun(metrics, func(out string) bool { return strings.Contains(out, `version="1.1.0"`) })
	is(busctl+"get-property "+ourObject+"Version", `s "1.1.0"`)
	is(busctl+"get-property "+ourObject+"State", `s "idle"`)
	contains(busctl+"call "+theirs+"GetStatus", `"UPDATE_STATUS_IDLE" "0.0.0" 0`)
	contains(motd, "Semper 1.1.0, channel stable")
	is("test -e /run/reboot-required && echo yes || echo no", "no")
	contains("semperctl etc diff", "sysctl.d/90-mine.conf")
	contains("semperctl history", "1.1.0")
	// Nobody but root, and administrators who prove it, may change something; everybody may look.
	nobody := "setpriv --reuid=nobody --regid=nogroup --clear-groups "
	is(nobody+busctl+"get-property "+ourObject+"Slot", `s "B"`)
	contains(nobody+busctl+"call "+ourObject+`Pause bs true no 2>&1 || true`, "ccess denied")
	contains(nobody+"semperctl pause 2>&1 || true", "only root may do that")
	m.run(busctl + "call " + ourObject + "Pause bs true because")
	is(busctl+"get-property "+ourObject+"PauseReason", `s "because"`)
	m.waitRun(motd, func(out string) bool { return strings.Contains(out, "PAUSED: because") })
	m.run(busctl + `call ` + ourObject + `Pause bs false ""`)

	// Wrong settings are refused and change nothing; right ones are in force without a restart.
	pid := m.run("pidof semperd")
	settings("[reboot]\nstrategi = \"off\"\n")
	contains("semperctl reload 2>&1 || true", "60-reboot.toml:2", "strategy")
	contains("systemctl reload semperd.service; journalctl --unit=semperd.service --lines=20 --output=cat", "the settings in force stay")
	settings("[reboot]\nstrategy = \"off\"\n")
	m.run("systemctl reload semperd.service")
	contains("semperctl config show", "strategy", "60-reboot.toml")
	is("pidof semperd", pid)

	// The way back is prepared, and nothing else happens: the strategy is off.
	contains("semperctl rollback --reason='a test'", "version 1.0.0 boots next")
	m.waitRun(busctl+"get-property "+ourObject+"State", func(out string) bool { return out == `s "pending"`+"\n" })
	is(busctl+"get-property "+ourObject+"PendingVersion", `s "1.0.0"`)
	contains(busctl+"call "+theirs+"GetStatus", `"UPDATE_STATUS_UPDATED_NEED_REBOOT" "1.0.0"`)
	contains("cat /run/reboot-required /run/reboot-required.pkgs", "restart required", "1.0.0")
	m.waitRun(motd, func(out string) bool { return strings.Contains(out, "1.0.0 is installed") })
	contains("semperctl why", "off")

	// The lock is somebody else's, then it is free; a drain hook stands in the way, and then does not.
	etcd.ctl("put", slotsKey+"holders/maintenance", "")
	m.putHook("echo the cluster has lost its quorum; exit 1")
	settings("[reboot]\nstrategy = \"etcd\"\n[reboot.etcd]\nendpoints = [\"http://10.0.2.2:" + etcd.port + "\"]\ngroup = \"qemu\"\n")
	m.run("semperctl reload")
	m.waitRun("semperctl why", func(out string) bool { return strings.Contains(out, "1 of 1 slots are taken, by maintenance") })
	etcd.ctl("del", slotsKey+"holders/maintenance")
	m.run("systemctl restart semperd.service") // else it asks again in half a minute
	m.waitRun("semperctl why", func(out string) bool { return strings.Contains(out, "the cluster has lost its quorum") })
	if out := etcd.ctl("get", "--prefix", "--keys-only", slotsKey+"holders/"); strings.TrimSpace(out) != "" {
		t.Errorf("the lock is held while a drain hook stands in the way: %s", out)
	}
	m.putHook(`echo "$1" >> /var/lib/drained`)
	m.run("systemctl restart semperd.service") // else it tries again in ten minutes
	m.waitVersion(first)
	m.waitStatus(blessed(first))
	m.waitRun("cat /var/lib/drained", func(out string) bool { return strings.HasSuffix(out, "drain\nundrain\n") })
	m.waitRun("semperctl status", func(string) bool {
		return strings.TrimSpace(etcd.ctl("get", "--prefix", "--keys-only", slotsKey+"holders/")) == ""
	})
	is("test -e /run/reboot-required && echo yes || echo no", "no")
	contains("semperctl history", "a test", "1.0.0")
	// A person left that version: it does not come back by itself.
	s.publish(second)
	contains("semperctl check", "1.1.0", "failed")
	is(busctl+"get-property "+ourObject+"State", `s "idle"`)
}

// putHook writes the machine's drain hook.
func (m *machine) putHook(script string) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(m.t.Context(), commandTime)
	defer cancel()
	m.run("mkdir -p " + filepath.Dir(hookPath))
	if err := m.Put(ctx, hookPath, []byte("#!/bin/sh\n"+script+"\n"), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

// etcd is a real one, of one member, on loopback.
type etcd struct {
	t    *testing.T
	port string
}

func startEtcd(t *testing.T) *etcd {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	l.Close()
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(world.dir, t.Name(), "etcd")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { log.Close() })
	url := "http://127.0.0.1:" + port
	c := exec.Command("etcd", "--data-dir="+filepath.Join(dir, "data"), "--listen-client-urls="+url, "--advertise-client-urls="+url,
		"--listen-peer-urls=http://127.0.0.1:0", "--initial-advertise-peer-urls=http://127.0.0.1:1", "--initial-cluster=default=http://127.0.0.1:1")
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatalf("%v (Debian package etcd-server)", err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
	e := &etcd{t, port}
	for deadline := time.Now().Add(commandTime); ; time.Sleep(100 * time.Millisecond) {
		_, err := e.try("get", "ready")
		if err == nil {
			return e
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func (e *etcd) try(args ...string) (string, error) {
	c := exec.Command("etcdctl", append([]string{"--endpoints=http://127.0.0.1:" + e.port}, args...)...)
	c.Env = append(os.Environ(), "ETCDCTL_API=3")
	out, err := c.CombinedOutput()
	return string(out), err
}

// ctl runs etcdctl.
func (e *etcd) ctl(args ...string) string {
	e.t.Helper()
	out, err := e.try(args...)
	if err != nil {
		e.t.Fatalf("etcdctl %s: %v %s", strings.Join(args, " "), err, out)
	}
	return out
}
