// Command semperd is the update agent: it polls, downloads, hands over to semper-installd, reports and has the machine rebooted. It runs without any right;
// package agent says how it works. systemd starts it with semperctl's socket.
package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/semper-os/semper/fault"
	"github.com/semper-os/semper/omaha"
	"github.com/semper-os/semper/omaha/client"
	"github.com/semper-os/semper/updater/agent"
	"github.com/semper-os/semper/updater/config"
	"github.com/semper-os/semper/updater/durable"
	"github.com/semper-os/semper/updater/wire"
)

const (
	installSocket = "/run/semper/install.sock"
	statePath     = "/var/lib/semper/agent"
	machineIDPath = "/etc/machine-id"
	bootIDPath    = "/proc/sys/kernel/random/boot_id"
	vendorPath    = "/sys/class/dmi/id/sys_vendor"
	productPath   = "/sys/class/dmi/id/product_name"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		slog.Error(err.Error())
	}
	os.Exit(fault.ExitCode(err))
}

func run(ctx context.Context, args []string) error {
	if len(args) != 0 {
		return fault.New(fault.Usage, "semperd takes no arguments; its settings are in /etc/semper/update.d")
	}
	settings, err := config.Load("/", os.Getenv("CREDENTIALS_DIRECTORY"))
	if err != nil {
		return err
	}
	o, err := options(settings)
	if err != nil {
		return err
	}
	listeners, err := activation.Listeners()
	if err != nil || len(listeners) != 1 || listeners[0] == nil {
		return fault.New(fault.Usage, "want exactly one socket from systemd, got %d (%v)", len(listeners), err)
	}
	a, err := agent.New(o)
	if err != nil {
		return err
	}
	a.Start()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	control := make(chan error, 1)
	go func() {
		control <- a.ServeControl(ctx, listeners[0])
		cancel()
	}()
	if _, err := daemon.SdNotify(false, daemon.SdNotifyReady); err != nil {
		slog.Warn("notify systemd", "error", err)
	}
	slog.Info("started", "server", settings.Server, "channel", settings.Channel)
	err = a.Run(ctx)
	cancel()
	return errors.Join(err, <-control)
}

func options(settings config.Settings) (agent.Options, error) {
	etc, err := os.ReadFile(machineIDPath)
	if err != nil {
		return agent.Options{}, fault.New(fault.IO, "machine id: %w", err)
	}
	id, err := agent.MachineID(string(etc))
	if err != nil {
		return agent.Options{}, err
	}
	bootID, err := os.ReadFile(bootIDPath)
	if err != nil {
		return agent.Options{}, fault.New(fault.IO, "boot id: %w", err)
	}
	boot := strings.TrimSpace(string(bootID))
	state, err := durable.OpenDir(statePath)
	if errors.Is(err, fs.ErrNotExist) {
		return agent.Options{}, fmt.Errorf("%w (semperd.service makes it)", err)
	}
	if err != nil {
		return agent.Options{}, err
	}
	hostname, err := os.Hostname()
	if err != nil {
		hostname = ""
	}
	o := agent.Options{
		Settings: settings,
		Machine: client.Machine{
			App: omaha.SemperApp, ID: id, Alias: hostname, BootID: "{" + boot + "}", Board: runtime.GOARCH + "-usr", UserAgent: "semperd",
			Platform: agent.Platform(firmware(vendorPath), firmware(productPath)),
		},
		BootID: boot,
		Dial:   func(ctx context.Context) (agent.Installer, error) { return wire.Dial(ctx, installSocket) },
		HTTP:   payloadClient(),
		State:  state,
		Clock:  agent.SystemClock{},
		Rand:   rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), // jitter only
		Log:    slog.Default(),
	}
	if settings.Server != "" {
		server, err := client.New(settings.Server, client.Options{})
		if err != nil {
			return agent.Options{}, err
		}
		o.Server = server
	}
	return o, nil
}

// firmware reads one word of the firmware's about the machine. Some machines have none, and nothing depends on it.
func firmware(path string) string {
	text, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(text)
}

// payloadClient downloads payloads: no limit for the whole, since nobody knows how slow a line is, but one for each step up to the first byte. What
// stands still afterwards is ended by the agent.
func payloadClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
		TLSHandshakeTimeout:    15 * time.Second,
		ResponseHeaderTimeout:  60 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		IdleConnTimeout:        10 * time.Second,
		DisableCompression:     true,
		ForceAttemptHTTP2:      true,
	}}
}
