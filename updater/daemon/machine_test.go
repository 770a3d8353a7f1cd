package daemon_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/daemon"
	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/install/installtest"
)

// patience bounds what a test waits for; it is never waited for in a test that passes.
const patience = 60 * time.Second

// host is a machine whose disk is in memory, and whose semperd and semper-installd are the real ones, on their real sockets.
type host struct {
	t       testing.TB
	dir     string
	machine *installtest.Machine
	paths   daemon.Paths
	log     *slog.Logger

	mu      sync.Mutex
	reboots int
	asked   chan struct{} // gets a word for each reboot that semperd asked for
	stop    func()
}

// newHost makes a machine that runs a release and has an id of its own. It is off.
func newHost(t testing.TB, keys installtest.Keys, r installtest.Release, id byte) *host {
	t.Helper()
	dir, err := os.MkdirTemp("", "host") // short, since a socket's path is
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &host{t: t, dir: dir, machine: installtest.NewMachine(t, keys, r), asked: make(chan struct{}, 16), log: slog.New(slog.DiscardHandler), stop: func() {}}
	if testing.Verbose() {
		h.log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("host", id)
	}
	h.machine.Tune = func(o *install.Options) {
		o.Now = time.Now
		o.Reboot = func() error {
			h.mu.Lock()
			h.reboots++
			h.mu.Unlock()
			h.asked <- struct{}{}
			return nil
		}
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	h.paths = daemon.Paths{
		Root: dir, State: in("state"), InstallSocket: in("i.sock"), LaterHealth: in("later.json"), Runtime: in("run"), EtcdLock: "/nonexistent/semper-etcdlock",
	}
	for _, folder := range []string{"state", "run", "usr/lib/semper/keys/payload", "etc/semper/update.d", "proc/sys/kernel/random", "proc/self"} {
		if err := os.MkdirAll(in(folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	public, err := x509.MarshalPKIXPublicKey(keys.Payload.Public())
	if err != nil {
		t.Fatal(err)
	}
	h.file("usr/lib/semper/keys/payload/test.pem", string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public})))
	h.file("usr/lib/semper/trust.toml", "threshold = 1\n")
	h.file("etc/machine-id", fmt.Sprintf("%032x\n", 0xabc000+int(id)))
	return h
}

func (h *host) file(name, content string) {
	h.t.Helper()
	if err := os.WriteFile(filepath.Join(h.dir, name), []byte(content), 0o644); err != nil {
		h.t.Fatal(err)
	}
}

// settings replaces the machine's settings.
func (h *host) settings(content string) {
	h.t.Helper()
	h.file("etc/semper/update.d/50-test.toml", content)
}

// on starts semper-installd and semperd with what the boot loader chose last.
func (h *host) on() {
	h.t.Helper()
	h.file("usr/lib/os-release", fmt.Sprintf("IMAGE_ID=semper\nIMAGE_VERSION=%s\nSEMPER_EPOCH=0\n", h.machine.Running.Version))
	h.file("proc/cmdline", fmt.Sprintf("roothash=%x\n", h.machine.Hash))
	h.file("proc/self/mountinfo", "1 0 253:0 / / ro - erofs /dev/dm-0 ro\n")
	h.file("proc/sys/kernel/random/boot_id", h.machine.BootID()+"\n")
	ctx, cancel := context.WithCancel(context.Background())
	var all sync.WaitGroup
	installer := h.listen(h.paths.InstallSocket)
	server := &install.Server{Core: h.machine.Core(), Allowed: []uint32{uint32(os.Getuid())}, Idle: time.Hour, Log: h.log}
	all.Go(func() { _ = server.Serve(ctx, installer) })
	d, err := daemon.New(h.paths, h.log)
	if err != nil {
		cancel()
		h.t.Fatal(err)
	}
	control := h.listen(h.control())
	all.Go(func() {
		if err := d.Run(ctx, control); err != nil {
			h.t.Error(err)
		}
	})
	h.stop = sync.OnceFunc(func() {
		cancel()
		all.Wait()
	})
	h.t.Cleanup(func() { h.stop() })
}

// off ends both programs, as a reboot does.
func (h *host) off() { h.stop() }

func (h *host) control() string { return filepath.Join(h.dir, "c.sock") }

func (h *host) listen(path string) net.Listener {
	h.t.Helper()
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		h.t.Fatal(err)
	}
	return l
}

// ask is semperctl.
func (h *host) ask(r agent.Request) (agent.Reply, error) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return agent.Ask(ctx, h.control(), r)
}

func (h *host) must(r agent.Request) agent.Reply {
	h.t.Helper()
	reply, err := h.ask(r)
	if err != nil {
		h.t.Fatalf("%s: %v", r.Verb, err)
	}
	return reply
}

// status is what "semperctl status" shows.
func (h *host) status() *agent.Report {
	h.t.Helper()
	r := h.must(agent.Request{Verb: agent.VerbStatus}).Status
	if r == nil {
		h.t.Fatal("no report")
	}
	return r
}

// reboot waits until semperd asked for one, and does it.
func (h *host) reboot() {
	h.t.Helper()
	select {
	case <-h.asked:
	case <-time.After(patience):
		h.t.Fatalf("no reboot: %+v", h.status())
	}
	h.off()
	h.machine.Boot(h.t)
	h.on()
}

// healthy is semper-bless.service.
func (h *host) healthy() {
	h.t.Helper()
	if err := h.machine.Core().Bless(); err != nil {
		h.t.Fatal(err)
	}
	h.must(agent.Request{Verb: agent.VerbLook})
}

// eventually polls until ok, and says what it saw last.
func eventually[T any](t testing.TB, what string, look func() (T, bool)) T {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		v, ok := look()
		if ok {
			return v
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s; last: %+v", what, patience, v)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func TestMain(m *testing.M) {
	if os.Getenv(asEtcdLock) != "" {
		if err := etcdLock(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if runtime.GOARCH != "amd64" {
		fmt.Fprintln(os.Stderr, "the machines of installtest are amd64")
		os.Exit(1)
	}
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP) // else one that comes before semperd listens ends the test
	os.Exit(m.Run())
}
