// Package daemon is everything around the agent in the program semperd: it makes what follows from the settings, and shows the agent's state to others.
//
//	settings ─▶ Setup ─▶ agent ─▶ Report ─┬─▶ org.semper.Update1, com.coreos.update1       package bus
//	                       ▲              ├─▶ /run/semper/agent/metrics.prom               for node_exporter's textfile collector
//	                       │              ├─▶ /run/semper/agent/motd                       linked from /run/motd.d
//	 semperctl, D-Bus ─────┘              └─▶ the journal, with fields                     package journal
//
// SIGHUP and 'semperctl reload' read the settings again; if they are wrong, those in force stay.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"

	sd "github.com/coreos/go-systemd/v22/daemon"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/payload"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/bus"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/etcdlock"
	"github.com/semper-os/semper/updater/health"
	"github.com/semper-os/semper/updater/install"
	"github.com/semper-os/semper/updater/logind"
	"github.com/semper-os/semper/updater/wire"
)

// Paths are where a daemon finds its machine, and its time. The zero value of a field switches off what it is for, where that is possible.
type Paths struct {
	Root          string // of settings and of what the machine is: "/"
	Credentials   string // $CREDENTIALS_DIRECTORY
	State         string // the agent's folder
	InstallSocket string
	LaterHealth   string // what the health checks said that run after the blessing
	Runtime       string // where metrics and MOTD go; empty: nowhere
	EtcdLock      string // the program semper-etcdlock
	SystemBus     string // the system bus's socket; empty: the agent is not on a bus, and asks nobody who is logged in

	Clock agent.Clock // nil: the system's
}

// MachinePaths are those of a machine.
func MachinePaths() Paths {
	return Paths{
		Root: "/", Credentials: os.Getenv("CREDENTIALS_DIRECTORY"), State: "/var/lib/semper/agent", InstallSocket: "/run/semper/install.sock",
		LaterHealth: "/run/semper/health-later.json", Runtime: "/run/semper/agent", EtcdLock: etcdlock.Program, SystemBus: bus.SystemBus,
	}
}

// Daemon is semperd, ready to run.
type Daemon struct {
	agent  *agent.Agent
	bus    *bus.Service // nil: none
	shown  *show
	logind *logind.Client
	log    *slog.Logger
}

// New reads settings, state and what the machine is. Ready is called when the agent runs.
func New(p Paths, log *slog.Logger) (*Daemon, error) {
	d := &Daemon{log: log, shown: newShow(p.Runtime, log)}
	o, err := d.options(p)
	if err != nil {
		return nil, err
	}
	if p.SystemBus != "" {
		d.bus = bus.New(bus.Options{Agent: steering{d}, Log: log, Socket: p.SystemBus})
		d.logind = &logind.Client{Address: "unix:path=" + p.SystemBus}
		o.Login = d.logind
	}
	if d.agent, err = agent.New(o); err != nil {
		return nil, err
	}
	d.agent.Start()
	return d, nil
}

// Run works until ctx ends, and answers semperctl on control.
func (d *Daemon) Run(ctx context.Context, control net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel(nil)
	wg.Go(func() {
		if err := d.agent.ServeControl(ctx, control); err != nil {
			cancel(err)
		}
	})
	wg.Go(func() { d.shown.run(ctx) })
	if d.bus != nil {
		wg.Go(func() { d.bus.Run(ctx) })
		defer func() { _ = d.logind.Close() }()
	}
	wg.Go(func() { d.reload(ctx) })
	d.publish(d.agent.Report())
	err := d.agent.Run(ctx)
	if cause := context.Cause(ctx); err == nil && fault.KindOf(cause) != fault.Internal {
		err = cause // semperctl's socket failed
	}
	return err
}

// reload reads the settings again at SIGHUP.
func (d *Daemon) reload(ctx context.Context) {
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)
	defer signal.Stop(hup)
	for {
		select {
		case <-ctx.Done():
			return
		case <-hup:
			d.notify(sd.SdNotifyReloading + "\n" + sd.SdNotifyMonotonicUsec())
			if r := d.agent.Do(ctx, agent.Request{Verb: agent.VerbReload}); r.Error != "" {
				d.log.Error("the settings in force stay", "error", r.Error)
			}
			d.notify(sd.SdNotifyReady)
		}
	}
}

// notify tells the service manager, if there is one.
func (d *Daemon) notify(state string) {
	if _, err := sd.SdNotify(false, state); err != nil {
		d.log.Warn("notify systemd", "error", err)
	}
}

// publish hands a report to all who show it. It does not block.
func (d *Daemon) publish(r agent.Report) {
	d.shown.put(r)
	if d.bus != nil {
		d.bus.Publish(busStatus(&r))
	}
}

// laterHealth reads the later checks' result, if they ran already.
func laterHealth(path string) (*health.Later, error) {
	dir, err := durable.OpenDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = dir.Close() }()
	var l health.Later
	if ok, err := durable.ReadJSON(dir, filepath.Base(path), &l); err != nil || !ok {
		return nil, err
	}
	return &l, nil
}

// image is what the running image says of itself.
func image(root string) (agent.Image, error) {
	m, err := install.ReadMachine(root)
	if err != nil {
		return agent.Image{}, fmt.Errorf("what runs here: %w", err)
	}
	info, err := os.Stat(filepath.Join(root, "usr/lib/os-release"))
	if err != nil {
		return agent.Image{}, fault.Wrap(fault.IO, err)
	}
	return agent.Image{
		Product: m.Image.ID, Architecture: m.Image.Architecture, Built: info.ModTime().UTC(), // a build sets all times to its own
		Trust: func() (payload.Trust, error) {
			t, err := install.LoadTrust(root)
			return t.Payload, err
		},
	}, nil
}

func (d *Daemon) options(p Paths) (agent.Options, error) {
	in := func(path string) string { return strings.TrimSuffix(p.Root, "/") + path }
	etc, err := os.ReadFile(in("/etc/machine-id"))
	if err != nil {
		return agent.Options{}, fault.New(fault.IO, "machine id: %w", err)
	}
	id, err := agent.MachineID(string(etc))
	if err != nil {
		return agent.Options{}, err
	}
	bootID, err := os.ReadFile(in("/proc/sys/kernel/random/boot_id"))
	if err != nil {
		return agent.Options{}, fault.New(fault.IO, "boot id: %w", err)
	}
	boot := strings.TrimSpace(string(bootID))
	state, err := durable.OpenDir(p.State)
	if err != nil {
		return agent.Options{}, fault.New(fault.IO, "%w (semperd.service makes it)", err)
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = ""
	}
	firmware := func(path string) string { // some machines have none, and nothing depends on it
		text, err := os.ReadFile(in(path))
		if err != nil {
			return ""
		}
		return string(text)
	}
	image, err := image(p.Root)
	if err != nil {
		return agent.Options{}, err
	}
	if p.Clock == nil {
		p.Clock = agent.SystemClock{}
	}
	return agent.Options{
		Image: image,
		Setup: func() (agent.Setup, error) { return setup(p, id) },
		Machine: client.Machine{
			App: omaha.SemperApp, ID: id, Alias: hostname, BootID: "{" + boot + "}", Board: runtime.GOARCH + "-usr", UserAgent: "semperd",
			Platform: agent.Platform(firmware("/sys/class/dmi/id/sys_vendor"), firmware("/sys/class/dmi/id/product_name")),
		},
		BootID:  boot,
		Health:  func() (*health.Later, error) { return laterHealth(p.LaterHealth) },
		Dial:    func(ctx context.Context) (agent.Installer, error) { return wire.Dial(ctx, p.InstallSocket) },
		State:   state,
		Clock:   p.Clock,
		Rand:    rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), // jitter only
		Log:     d.log,
		Publish: d.publish,
	}, nil
}
